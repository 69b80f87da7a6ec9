//! Questions put to the kernel. None leaves anything behind: filesystems are made
//! but attached nowhere, files have no name, processes are reaped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsOpenFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsopen, open_tree,
};
use sys::clone::{NEWUSER, Side, clone3};

/// The kernel has this filesystem, or a module for it.
pub(crate) fn has_filesystem(name: &str) -> bool {
    fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
}

/// An option of overlayfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// `lowerdir+` with a path: layers one by one, of any number.
    LowerPath,
    /// `lowerdir+` with a descriptor.
    LowerDescriptor,
    /// `volatile`: nothing is synced.
    Volatile,
    /// `metacopy`: changing an owner copies no data.
    Metacopy,
    /// `userxattr`: works in a user namespace.
    UserXattr,
}

/// Overlayfs takes this option.
///
/// Older kernels look at no option before the filesystem is made; so one is made, of two directories
/// that every host has, read-only and attached nowhere.
pub(crate) fn overlay(option: Overlay) -> bool {
    let try_it = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        let lower = ["/dev", "/sys"];
        match option {
            Overlay::LowerPath => {
                for path in lower {
                    fsconfig_set_string(context, "lowerdir+", path)?;
                }
                return fsconfig_create(context);
            }
            Overlay::LowerDescriptor => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                for path in lower {
                    let fd = rustix::fs::open(path, flags, Mode::empty())?;
                    fsconfig_set_fd(context, "lowerdir+", fd.as_fd())?;
                }
                return fsconfig_create(context);
            }
            Overlay::Volatile => fsconfig_set_flag(context, "volatile")?,
            Overlay::Metacopy => fsconfig_set_string(context, "metacopy", "on")?,
            Overlay::UserXattr => fsconfig_set_flag(context, "userxattr")?,
        }
        fsconfig_set_string(context, "lowerdir", lower.join(":"))?;
        fsconfig_create(context)
    };
    try_it().is_ok()
}

/// The exit code of a process can be had after someone else has reaped it.
pub(crate) fn keeps_exit_codes() -> bool {
    let Ok(side) = sys::clone::fork() else { return false };
    let pidfd = match side {
        Side::Child => sys::exec::exit_now(7),
        Side::Parent { pidfd, .. } => pidfd,
    };
    if sys::pidfd::wait(pidfd.as_fd(), true).is_err() {
        return false;
    }
    matches!(sys::pidfd::exit_of_reaped(pidfd.as_fd()), Ok(Some(sys::pidfd::Exit::Code(7))))
}

/// Why mounts on a directory's filesystem can't map ids; `None` when they can.
pub(crate) fn id_mapped_mounts(dir: &Path) -> Option<String> {
    let says = |what: &str, e: rustix::io::Errno| Some(format!("{what}: {}", io::Error::from(e)));
    let namespace = match user_namespace() {
        Ok(namespace) => namespace,
        Err(e) => return Some(format!("a user namespace can't be made: {e}")),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    let tree = match open_tree(rustix::fs::CWD, dir, flags) {
        Ok(tree) => tree,
        Err(e) => return says("open_tree", e),
    };
    let change = sys::mount::Change {
        set: sys::mount::IDMAP,
        user_namespace: Some(namespace.as_fd()),
        ..sys::mount::Change::default()
    };
    match sys::mount::setattr(tree.as_fd(), change, false) {
        Ok(()) => None,
        Err(e) => says("mount_setattr", e),
    }
}

/// A user namespace with a map, held by its descriptor only.
fn user_namespace() -> io::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match clone3(NEWUSER, None)? {
        Side::Child => {
            // The parent's end must be closed here too, or the read would never end.
            drop(writer);
            let mut byte = [0u8; 1];
            let _ = rustix::io::read(&reader, &mut byte);
            sys::exec::exit_now(0)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    let namespace = (|| {
        std::fs::write(format!("/proc/{pid}/uid_map"), "0 100000 1000\n")?;
        std::fs::write(format!("/proc/{pid}/gid_map"), "0 100000 1000\n")?;
        let path = format!("/proc/{pid}/ns/user");
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    })();
    drop(writer);
    let _ = sys::pidfd::wait(pidfd.as_fd(), true);
    namespace
}

/// How long it takes until 4 KiB are on the disk below a directory: the median of five.
pub(crate) fn sync_latency(dir: &Path) -> io::Result<Duration> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600))?;
    let block = [0x57u8; 4096];
    let mut times = Vec::new();
    for i in 0..5u64 {
        let start = Instant::now();
        rustix::io::pwrite(&file, &block, i.saturating_mul(4096))?;
        rustix::fs::fsync(&file)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times.get(2).copied().ok_or_else(|| io::Error::other("no time was taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_kernel_has_is_there() {
        assert!(has_filesystem("tmpfs"));
        assert!(!has_filesystem("no-such-filesystem"));
    }

    /// 6.13 has all of it, and no kernel has a part without what came before.
    #[test]
    fn overlay_options_come_in_their_order() {
        if !has_filesystem("overlay") {
            return;
        }
        let (by_path, by_fd) = (overlay(Overlay::LowerPath), overlay(Overlay::LowerDescriptor));
        assert!(by_path || !by_fd);
        let new = super::super::host::kernel_number(&super::super::host::kernel()) >= (6, 13);
        assert!(!new || by_path && by_fd);
        for option in [Overlay::Volatile, Overlay::Metacopy, Overlay::UserXattr] {
            assert!(!new || overlay(option), "{option:?}");
        }
    }

    #[test]
    fn probes_leave_no_process_behind() {
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let _ = keeps_exit_codes();
        let _ = id_mapped_mounts(Path::new("/tmp"));
        assert_eq!(std::fs::read_dir("/proc/self/fd").unwrap().count(), before);
    }

    #[test]
    fn syncing_takes_time_and_leaves_no_file() {
        let dir = std::env::temp_dir().join(format!("wherry-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let time = sync_latency(&dir).unwrap();
        assert!(time > Duration::ZERO);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
