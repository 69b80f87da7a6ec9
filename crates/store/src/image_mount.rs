//! Mounting an image filesystem, detached: from its files, or on kernels that cannot do that,
//! through loop devices.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use sys::loop_device::LoopDevice;

use crate::error::Error;
use crate::{Result, files, overlay};

/// How an image filesystem gets its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Straight from them; Linux 6.12.
    Files,
    /// Each by a loop device; with blocks of 512 bytes Linux 6.4.
    LoopDevices,
}

/// Mounts the image in `index`, whose data is in `devices`, read-only.
pub(crate) fn mount(from: From, index: &OwnedFd, devices: &[OwnedFd]) -> Result<OwnedFd> {
    let error = |source: Errno, log| Error::Mount {
        what: "the image filesystem".to_owned(),
        source: source.into(),
        log,
    };
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| error(errno, ": the kernel has no EROFS".to_owned()))?;
    // Held until the mount has taken them over.
    let mut loops = Vec::new();
    let mut name = |file: &OwnedFd| -> rustix::io::Result<String> {
        match from {
            // Short whatever the data root is called: the kernel takes 255 bytes.
            From::Files => Ok(files::proc_path(file)),
            From::LoopDevices => {
                let device = LoopDevice::attach(file.as_fd())?;
                let name = format!("/dev/loop{}", device.number);
                loops.push(device);
                Ok(name)
            }
        }
    };
    let mut configure = || {
        // A device that cannot be written is refused otherwise.
        fsconfig_set_flag(context.as_fd(), "ro")?;
        fsconfig_set_string(context.as_fd(), "source", name(index)?)?;
        for device in devices {
            fsconfig_set_string(context.as_fd(), "device", name(device)?)?;
        }
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    configure().map_err(|errno| error(errno, overlay::kernel_log(context.as_fd())))
}
