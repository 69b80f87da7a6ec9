//! The container's view of its cgroup.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use sys::mount::Change;

use super::mounts::{attach, set};
use super::root::{Root, Target};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::launch::clone_tree;
use crate::plan::Mount;

/// Shows the container its own part of each hierarchy. A bind of the group's directory is the same
/// thing as a mount in a cgroup namespace that begins there, and works with or without one.
pub(super) fn mount(mount: &Mount, root: &Root, cgroup: Option<&Cgroup>) -> Result<()> {
    let doing = || format!("mount {} in the container", mount.destination.display());
    let Some(cgroup) = cgroup.filter(|cgroup| cgroup.exists()) else {
        return Err(Error::spec(
            format!("mount {}", mount.destination.display()),
            "the container has no cgroup to show; remove the mount",
        ));
    };
    let to = root.ensure(&mount.destination, Target::Directory)?;
    let attributes = Change { set: mount.set, ..Change::default() };
    if cgroup.v1_groups().is_empty() {
        if let Some(group) = cgroup.v2_group() {
            let tree = clone_tree(&group.mount_point.join(cgroup.path()), false)?;
            set(tree.as_fd(), attributes, false).doing(doing)?;
            attach(tree.as_fd(), to.as_fd()).doing(doing)?;
        }
        return Ok(());
    }
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755").doing(doing)?;
    rustix::mount::fsconfig_create(&context).doing(doing)?;
    let tmpfs = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
    .doing(doing)?;
    attach(tmpfs.as_fd(), to.as_fd()).doing(doing)?;
    for group in cgroup.v1_groups().iter().chain(cgroup.v2_group()) {
        let Some(name) = group.mount_point.file_name() else { continue };
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let to = rustix::fs::openat(&tmpfs, name, flags, Mode::empty()).doing(doing)?;
        let tree = clone_tree(&group.mount_point.join(cgroup.path()), false)?;
        set(tree.as_fd(), attributes, false).doing(doing)?;
        attach(tree.as_fd(), to.as_fd()).doing(doing)?;
        // Hosts that mount several controllers together link each name.
        if group.controllers.len() > 1 {
            for controller in &group.controllers {
                if Path::new(controller) != Path::new(name) {
                    let _ = rustix::fs::symlinkat(name, &tmpfs, controller.as_str());
                }
            }
        }
    }
    set(tmpfs.as_fd(), attributes, false).doing(doing)
}
