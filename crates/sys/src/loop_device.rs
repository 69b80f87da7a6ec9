//! Loop devices: a file as a block device, for kernels that mount images only from devices.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, loop_config,
};

use crate::{Errno, Result, check, check_fd};

/// A loop device. It goes by itself when this is closed and nothing is mounted from it.
#[derive(Debug)]
pub struct LoopDevice {
    /// The open device.
    pub fd: OwnedFd,
    /// Its number: it is `/dev/loopNUMBER`.
    pub number: u32,
}

fn open(path: &std::ffi::CStr, flags: i32) -> Result<OwnedFd> {
    // SAFETY: the path is a C string, the flags take no third argument.
    check_fd(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }.into())
}

impl LoopDevice {
    /// Makes a read-only loop device of `file`, with sectors of 512 bytes.
    ///
    /// # Errors
    /// `ENOENT` where there are no loop devices; `EPERM` and `EACCES` without the right to them.
    pub fn attach(file: BorrowedFd<'_>) -> Result<LoopDevice> {
        let control = open(c"/dev/loop-control", libc::O_RDWR)?;
        // Another process may take the free one first.
        for _ in 0..64 {
            // SAFETY: this request takes no argument.
            let number = check(
                unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as libc::Ioctl) }
                    .into(),
            )?;
            let number = u32::try_from(number).map_err(|_| Errno::NODEV)?;
            let path =
                std::ffi::CString::new(format!("/dev/loop{number}")).map_err(|_| Errno::INVAL)?;
            let fd = open(&path, libc::O_RDONLY)?;
            // SAFETY: an all-zero loop_config is valid.
            let mut config: loop_config = unsafe { std::mem::zeroed() };
            config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
            config.block_size = 512;
            config.info.lo_flags = (LO_FLAGS_READ_ONLY as u32) | (LO_FLAGS_AUTOCLEAR as u32);
            // SAFETY: LOOP_CONFIGURE reads a loop_config, which `config` is.
            let done = check(
                unsafe {
                    libc::ioctl(fd.as_raw_fd(), LOOP_CONFIGURE as libc::Ioctl, &raw const config)
                }
                .into(),
            );
            match done {
                Ok(_) => return Ok(LoopDevice { fd, number }),
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::BUSY)
    }
}
