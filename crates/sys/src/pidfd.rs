//! What a pidfd can tell and do beyond rustix.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, Result, check};

/// Sends a signal by number, real-time signals included; 0 only asks whether it could be sent.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
}

impl Exit {
    /// Decodes a wait status as of waitpid(2).
    pub fn from_wait_status(status: i32) -> Exit {
        let signal = (status & 0x7f) as u8;
        if signal == 0 { Exit::Code(((status >> 8) & 0xff) as u8) } else { Exit::Signal(signal) }
    }

    /// The shell's number for it: the status, or 128 plus the signal.
    pub fn shell_code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128u8.wrapping_add(signal),
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
    coredump_mask: u32,
    spare: u32,
}

const INFO_PID: u64 = 1;
const INFO_EXIT: u64 = 8;

fn info(pidfd: BorrowedFd<'_>, mask: u64) -> Result<PidfdInfo> {
    // The number encodes the structure's size, and the kernel accepts older, shorter ones: 64
    // bytes are the first version's.
    const SIZE: usize = 64;
    let request = (3u64 << 30) | ((SIZE as u64) << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask, ..PidfdInfo::default() };
    // SAFETY: `info` is at least as long as the size encoded in the request.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &raw mut info) }.into())?;
    Ok(info)
}

/// How the process ended, also after someone else has reaped it; `None` while it has not been
/// reaped. Fails with `NOTTY` or `INVAL` on kernels before 6.15.
pub fn exit_of_reaped(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    match info(pidfd, INFO_EXIT) {
        Ok(info) if info.mask & INFO_EXIT != 0 => Ok(Some(Exit::from_wait_status(info.exit_code))),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The process's number in the caller's PID namespace.
pub fn pid(pidfd: BorrowedFd<'_>) -> Result<i32> {
    if let Ok(info) = info(pidfd, INFO_PID)
        && info.mask & INFO_PID != 0
        && info.pid != 0
    {
        return i32::try_from(info.pid).map_err(|_| Errno::OVERFLOW);
    }
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or(Errno::SRCH)
}

/// Waits for a child to end and reaps it; with `block` false returns `None` when it still runs.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    // SAFETY: an all-zero siginfo is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `info` is a valid siginfo to write to.
        let result = unsafe {
            libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, flags)
        };
        match check(result.into()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid filled the SIGCHLD fields, or left zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = (status & 0xff) as u8;
    Ok(Some(if info.si_code == libc::CLD_EXITED {
        Exit::Code(status)
    } else {
        Exit::Signal(status & 0x7f)
    }))
}
