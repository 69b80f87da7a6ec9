//! The container's view of its cgroup.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, Mode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use sys::mount::Change;

use super::mounts::{attach, set};
use super::root::{Root, Target};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::launch::clone_tree;
use crate::plan::Mount;

/// f_type of a tmpfs.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Shows the container its own part of each hierarchy. A bind of the group's directory is the same
/// thing as a mount in a cgroup namespace that begins there, and works with or without one.
///
/// `may_write`: the container could make a read-only mount writable, or is root of another user namespace.
pub(super) fn mount(
    mount: &Mount,
    root: &Root,
    cgroup: Option<&Cgroup>,
    may_write: bool,
) -> Result<()> {
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
    let read_only = mount.set & sys::mount::RDONLY != 0;
    let hosts = if read_only && !may_write { hosts_directory(cgroup) } else { None };
    let made = hosts.is_none();
    let top = match hosts {
        Some(directory) => directory,
        None => make_directory().doing(doing)?,
    };
    attach(top.as_fd(), to.as_fd()).doing(doing)?;
    for group in cgroup.v1_groups().iter().chain(cgroup.v2_group()) {
        let Some(name) = group.mount_point.file_name() else { continue };
        if made {
            rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755)).doing(doing)?;
        }
        let tree = clone_tree(&group.mount_point.join(cgroup.path()), false)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&tree, c"", &top, name, flags).doing(doing)?;
        // Hosts that mount several controllers together link each name.
        if made && group.controllers.len() > 1 {
            for controller in &group.controllers {
                if Path::new(controller) != Path::new(name) {
                    let _ = rustix::fs::symlinkat(name, &top, controller.as_str());
                }
            }
        }
    }
    // What the host mounts in its directory later is not for the container to see.
    let change = Change { propagation: sys::mount::PRIVATE, ..attributes };
    set(top.as_fd(), change, true).doing(doing)
}

/// A new place for the hierarchies.
fn make_directory() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A mount of the directory in which the host has its hierarchies, without them, if it has just what we would make: it
/// saves each container a filesystem (see `empty_of_sysfs`), its directories and its links.
///
/// The files are the host's, so it is only for those who cannot make a mount of them writable.
fn hosts_directory(cgroup: &Cgroup) -> Option<OwnedFd> {
    let mut groups = cgroup.v1_groups().iter().chain(cgroup.v2_group());
    let directory = groups.next()?.mount_point.parent()?;
    groups.all(|group| group.mount_point.parent() == Some(directory)).then_some(())?;
    let tree = clone_tree(directory, false).ok()?;
    let is_tmpfs = rustix::fs::fstatfs(&tree).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC);
    let linked =
        cgroup.v1_groups().iter().filter(|group| group.controllers.len() > 1).all(|group| {
            let there = |name: &String| {
                rustix::fs::accessat(&tree, name.as_str(), Access::EXISTS, AtFlags::empty()).is_ok()
            };
            group.controllers.iter().all(there)
        });
    (is_tmpfs && linked).then_some(tree)
}
