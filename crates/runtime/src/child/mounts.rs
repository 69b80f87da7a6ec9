//! The container's mounts: the root, the list of the specification, what is hidden, and the change
//! of root.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use sys::mount::Change;

use super::root::{Root, Target, is_directory};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::launch::clone_tree;
use crate::plan::{Filesystem, Mount, MountKind, Plan, Propagation};

/// Takes the mount namespace out of the host's propagation.
pub(super) fn prepare_namespace(plan: &Plan) -> Result<Propagation> {
    let slave = Propagation { mode: crate::plan::mount::PropagationMode::Slave, recursive: true };
    let propagation = plan.propagation.unwrap_or(slave);
    // "shared" needs the mounts to stay in the host's groups; everything else is at most a slave.
    if propagation.flag() != sys::mount::SHARED {
        let flag = if propagation.flag() == sys::mount::PRIVATE {
            sys::mount::PRIVATE
        } else {
            sys::mount::SLAVE
        };
        sys::mount::set_propagation_of_all(flag)
            .doing(|| "separate the container's mounts from the host's".to_owned())?;
    }
    Ok(propagation)
}

/// Attaches the root filesystem; afterwards the descriptor is a mount of this namespace.
pub(super) fn attach_root(plan: &Plan, given: Option<OwnedFd>) -> Result<Root> {
    let fd = match given {
        Some(fd) => fd,
        None => clone_tree(&plan.rootfs, true)?,
    };
    // Never let what the container mounts appear on the host.
    let flag = match plan.propagation.map(Propagation::flag) {
        Some(flag) if flag == sys::mount::SHARED => 0,
        Some(flag) if flag == sys::mount::PRIVATE => flag,
        _ => sys::mount::SLAVE,
    };
    if flag != 0 {
        set(fd.as_fd(), Change { propagation: flag, ..Change::default() }, true)
            .doing(|| "separate the root filesystem from the host's".to_owned())?;
    }
    // On top of the old root: every host has that directory, and absolute paths still lead to the
    // old root until it is left.
    rustix::mount::move_mount(&fd, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(|| format!("attach the root filesystem {}", plan.rootfs.display()))?;
    Ok(Root::new(fd))
}

pub(super) fn set(fd: BorrowedFd<'_>, change: Change<'_>, recursive: bool) -> sys::Result<()> {
    sys::mount::setattr(fd, change, recursive)
}

/// Attaches a detached mount to an opened mount point.
pub(super) fn attach(mount: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", to, c"", flags)
}

/// A detached copy of the mount a descriptor refers to.
pub(super) fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, c"", flags)
}

pub(super) struct Mounter<'a> {
    pub(super) plan: &'a Plan,
    pub(super) root: &'a Root,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// The container could change its mounts, or is root of another user namespace.
    pub(super) may_remount: bool,
    pub(super) id_maps: BTreeMap<usize, OwnedFd>,
    pub(super) given: BTreeMap<usize, OwnedFd>,
    /// A mount, not attached yet, that shows an empty directory; see [`empty_of_sysfs`].
    pub(super) empty: Option<OwnedFd>,
}

impl Mounter<'_> {
    pub(super) fn mount_all(&mut self) -> Result<()> {
        for (index, mount) in self.plan.mounts.iter().enumerate() {
            let given = self.given.remove(&index);
            match &mount.kind {
                MountKind::Cgroup if given.is_none() => {
                    let (root, cgroup) = (self.root, self.cgroup);
                    super::cgroup_mount::mount(mount, root, cgroup, self.may_remount)?;
                }
                MountKind::Filesystem(filesystem) if given.is_none() => {
                    self.filesystem(index, mount, filesystem)?;
                }
                MountKind::Bind { source, recursive } if given.is_none() => {
                    let tree = clone_tree(source, *recursive)?;
                    self.bind(index, mount, &tree)?;
                }
                _ => {
                    if let Some(tree) = given {
                        self.bind(index, mount, &tree)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Attaches a tree that exists already, with the attributes that the plan adds.
    fn bind(&self, index: usize, mount: &Mount, tree: &OwnedFd) -> Result<()> {
        let doing = || format!("mount {} in the container", mount.destination.display());
        let target =
            if is_directory(tree.as_fd()).doing(doing)? { Target::Directory } else { Target::File };
        self.decorate(index, mount, tree, true)?;
        let to = self.root.ensure(&mount.destination, target)?;
        attach(tree.as_fd(), to.as_fd()).doing(|| {
            let is = if target == Target::Directory { "a directory" } else { "not a directory" };
            format!("{} (its source is {is})", doing())
        })
    }

    fn filesystem(&mut self, index: usize, mount: &Mount, filesystem: &Filesystem) -> Result<()> {
        let doing = || format!("mount {} in the container", mount.destination.display());
        let kernel = matches!(filesystem.kind.as_str(), "proc" | "sysfs");
        let mut to = self.root.ensure(&mount.destination, Target::Directory)?;
        if kernel {
            // A link here would let an image choose which files the masks below apply to.
            to = self.root.at_without_links(&mount.destination, OFlags::PATH).map_err(|errno| {
                if errno == Errno::LOOP {
                    Error::spec(
                        format!("mount {}", mount.destination.display()),
                        "the image has a symbolic link there; it must be a directory",
                    )
                } else {
                    Error::System { doing: doing(), errno: errno.into() }
                }
            })?;
        }
        let fd = make_filesystem(filesystem, mount.set, &doing)?;
        if filesystem.copy_up {
            let from = self.root.at(&mount.destination, OFlags::RDONLY | OFlags::DIRECTORY);
            if let Ok(from) = from {
                super::root::copy_tree(from.as_fd(), fd.as_fd())
                    .doing(|| format!("copy {} into the new tmpfs", mount.destination.display()))?;
            }
            if mount.set & sys::mount::RDONLY != 0 {
                let change = Change { set: sys::mount::RDONLY, ..Change::default() };
                set(fd.as_fd(), change, false).doing(doing)?;
            }
        }
        self.decorate(index, mount, &fd, false)?;
        attach(fd.as_fd(), to.as_fd()).doing(doing)?;
        if filesystem.kind == "sysfs" && !self.plan.masked_paths.is_empty() {
            self.empty = empty_of_sysfs(fd.as_fd());
        }
        Ok(())
    }

    /// Applies propagation, attributes and the identifier map to a detached mount.
    fn decorate(&self, index: usize, mount: &Mount, tree: &OwnedFd, bound: bool) -> Result<()> {
        let doing = || format!("set the options of the mount {}", mount.destination.display());
        let tree = tree.as_fd();
        if let Some(map) = self.id_maps.get(&index) {
            let change = Change {
                set: sys::mount::IDMAP,
                user_namespace: Some(map.as_fd()),
                ..Change::default()
            };
            set(tree, change, mount.idmap_recursive).doing(|| {
                format!(
                    "map identifiers of the mount {} (its filesystem may not support it)",
                    mount.destination.display()
                )
            })?;
        }
        // A tree from the host may be in a group that carries mounts back to the host.
        let wanted = mount.propagation;
        if bound && wanted.is_none_or(|wanted| wanted.flag() != sys::mount::SHARED) {
            let private = wanted.is_none_or(|wanted| wanted.flag() == sys::mount::PRIVATE);
            let flag = if private { sys::mount::PRIVATE } else { sys::mount::SLAVE };
            // Without a wish the tree keeps following the host, as the namespace does.
            let flag = if wanted.is_none() { sys::mount::SLAVE } else { flag };
            set(tree, Change { propagation: flag, ..Change::default() }, true).doing(doing)?;
        }
        if let Some(wanted) = wanted {
            let change = Change { propagation: wanted.flag(), ..Change::default() };
            if !bound
                || wanted.flag() == sys::mount::SHARED
                || wanted.flag() == sys::mount::UNBINDABLE
            {
                set(tree, change, wanted.recursive).doing(doing)?;
            }
        }
        if bound {
            change_attributes(tree, mount.set, mount.clear, false).doing(doing)?;
        }
        change_attributes(tree, mount.set_recursive, mount.clear_recursive, true).doing(doing)
    }
}

/// Sets and clears attributes; in a user namespace the host's restrictions of a mount are locked,
/// and then only setting is possible.
fn change_attributes(
    fd: BorrowedFd<'_>,
    attributes: u64,
    clear: u64,
    recursive: bool,
) -> sys::Result<()> {
    if attributes == 0 && clear == 0 {
        return Ok(());
    }
    let change = Change { set: attributes, clear, ..Change::default() };
    match set(fd, change, recursive) {
        Err(Errno::PERM) if clear != 0 => {
            let clear =
                clear & if attributes & sys::mount::ATIME != 0 { sys::mount::ATIME } else { 0 };
            set(fd, Change { set: attributes, clear, ..Change::default() }, recursive)
        }
        result => result,
    }
}

/// A new, detached instance of a filesystem.
fn make_filesystem(
    filesystem: &Filesystem,
    attributes: u64,
    doing: &dyn Fn() -> String,
) -> Result<OwnedFd> {
    let kind = filesystem.kind.as_str();
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        if errno == Errno::NODEV {
            Error::spec(doing(), format!("this kernel has no filesystem \"{kind}\""))
        } else {
            Error::System { doing: doing(), errno: errno.into() }
        }
    })?;
    let explain = |errno: Errno, option: &str| {
        let said = kernel_log(&context);
        let said = if said.is_empty() { String::new() } else { format!(" [{said}]") };
        Error::System { doing: format!("{}{option}{said}", doing()), errno: errno.into() }
    };
    if !filesystem.source.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "source", filesystem.source.as_str())
            .map_err(|errno| explain(errno, ""))?;
    }
    for (key, value) in &filesystem.options {
        match value {
            Some(value) => {
                rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str())
            }
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str()),
        }
        .map_err(|errno| explain(errno, &format!(" (option \"{key}\")")))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(|errno| explain(errno, ""))?;
    let mut attributes = attributes;
    if filesystem.copy_up {
        // Read-only comes after the copy.
        attributes &= !sys::mount::RDONLY;
    }
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| explain(errno, ""))
}

/// What the kernel says about a filesystem context.
fn kernel_log(context: &OwnedFd) -> String {
    let mut buffer = [0; 512];
    let mut said = Vec::new();
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        let line = buffer.get(..count).unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        // "e ", "w " or "i ": error, warning, information.
        said.push(line.get(2..).unwrap_or_default().trim().to_owned());
        if count == 0 || said.len() > 8 {
            break;
        }
    }
    said.join("; ")
}

/// Masks and read-only paths.
///
/// Directories are covered by mounts of `given`, or else of a filesystem made for it.
pub(super) fn hide(plan: &Plan, root: &Root, mut given: Option<OwnedFd>) -> Result<()> {
    for path in &plan.readonly_paths {
        let doing = || format!("make {} read-only", path.display());
        let Some(fd) = existing(root, path).doing(doing)? else { continue };
        let tree = clone_of(fd.as_fd(), true).doing(doing)?;
        let change = Change { set: sys::mount::RDONLY, ..Change::default() };
        set(tree.as_fd(), change, true).doing(doing)?;
        attach(tree.as_fd(), fd.as_fd()).doing(doing)?;
    }
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked_paths {
        let doing = || format!("mask {}", path.display());
        let Some(fd) = existing(root, path).doing(doing)? else { continue };
        let cover = if is_directory(fd.as_fd()).doing(doing)? {
            // One filesystem serves all; each place gets a mount of it.
            match &empty {
                Some(first) => clone_of(first.as_fd(), false).doing(doing)?,
                None => {
                    let made = match given.take() {
                        Some(given) => given,
                        None => make_empty().doing(doing)?,
                    };
                    attach(made.as_fd(), fd.as_fd()).doing(doing)?;
                    empty = Some(made);
                    continue;
                }
            }
        } else {
            let source = match &null {
                Some(source) => source,
                None => {
                    // The host's, because the image's /dev/null could be anything.
                    let open = rustix::fs::open(
                        "/dev/null",
                        OFlags::PATH | OFlags::CLOEXEC,
                        Mode::empty(),
                    );
                    null.insert(open.doing(doing)?)
                }
            };
            clone_of(source.as_fd(), false).doing(doing)?
        };
        attach(cover.as_fd(), fd.as_fd()).doing(doing)?;
    }
    Ok(())
}

fn existing(root: &Root, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match root.at(path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The directory of a new sysfs, attached a moment ago, that the kernel keeps empty for cgroups to be mounted upon.
///
/// Each filesystem costs more than the time to make it: the kernel keeps a place for each one in every memory cgroup of
/// the host, so that what a container costs would grow with the number of the others.
fn empty_of_sysfs(sysfs: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let empty = rustix::mount::open_tree(sysfs, c"fs/cgroup", flags).ok()?;
    let restrictions =
        sys::mount::RDONLY | sys::mount::NOSUID | sys::mount::NODEV | sys::mount::NOEXEC;
    let change = Change { set: restrictions, ..Change::default() };
    set(empty.as_fd(), change, false).ok()?;
    Some(empty)
}

/// A read-only filesystem without content.
fn make_empty() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "size", "0")?;
    rustix::mount::fsconfig_set_string(&context, "mode", "555")?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the container's root the root of this process and lets go of the host's.
pub(super) fn change_root(plan: &Plan, root: &Root, propagation: Propagation) -> Result<()> {
    if plan.rootfs_readonly {
        let change = Change { set: sys::mount::RDONLY, ..Change::default() };
        set(root.fd(), change, false).doing(|| "make the root filesystem read-only".to_owned())?;
    }
    let doing = || "change to the container's root".to_owned();
    rustix::process::fchdir(root.fd()).doing(doing)?;
    if plan.no_pivot {
        rustix::process::chroot(c".").doing(doing)?;
    } else {
        // The old root comes to lie on top of the new one at the same place, where it is
        // unmounted; no directory is needed for it.
        rustix::process::pivot_root(c".", c".").doing(doing)?;
        if propagation.flag() == sys::mount::SHARED {
            // Unmounting must not reach the host.
            rustix::mount::mount_change(
                c".",
                rustix::mount::MountPropagationFlags::DOWNSTREAM
                    | rustix::mount::MountPropagationFlags::REC,
            )
            .doing(doing)?;
        }
        rustix::mount::unmount(c".", UnmountFlags::DETACH)
            .doing(|| "unmount the host's root in the container".to_owned())?;
    }
    rustix::process::chdir(c"/").doing(doing)?;
    if plan.propagation.is_some() {
        let change = Change { propagation: propagation.flag(), ..Change::default() };
        set(root.fd(), change, propagation.recursive)
            .doing(|| "set the propagation of the root".to_owned())?;
    }
    Ok(())
}
