//! Making an overlay mount, detached: nothing is attached to any mount namespace here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::Error;
use crate::{Lower, Result, files};

/// The writable part of an overlay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upper<'a> {
    pub(crate) upper: BorrowedFd<'a>,
    pub(crate) work: BorrowedFd<'a>,
    pub(crate) volatile: bool,
}

/// How directories are named to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// By descriptor; Linux 6.13.
    Descriptor,
    /// One string each; Linux 6.5. The path is that of our descriptor, so it is short and needs no
    /// escapes.
    Strings,
    /// All in one string of at most 255 bytes; before that.
    OneString,
}

/// Mounts `lower` with `upper` on top. Without `upper` the mount is read-only.
pub(crate) fn mount(
    lower: &Lower,
    upper: Option<Upper<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let mut result = mount_here(lower, upper, attributes);
    // Before Linux 6.15 overlay takes only what is mounted in the namespace of the caller.
    if let (Err(Error::Mount { source, .. }), false) = (&result, lower.mounts.is_empty())
        && source.raw_os_error() == Some(Errno::INVAL.raw_os_error())
    {
        result = mount_apart(lower, upper, attributes);
    }
    result
}

/// As [`mount`], for lower directories that are in detached mounts: these are attached for the
/// moment, in a mount namespace of a thread that ends at once. The overlay keeps what it needs.
fn mount_apart(
    lower: &Lower,
    upper: Option<Upper<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let work = || {
        let enter = || {
            sys::namespace::unshare(sys::clone::NEWNS)?;
            sys::mount::set_propagation_of_all(sys::mount::PRIVATE)?;
            for mount in &lower.mounts {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(mount, "", CWD, "/", flags)?;
                lower.spent.store(true, Ordering::Relaxed);
            }
            // The same directories, by mounts of this namespace.
            upper.map(|upper| Ok((reopen(upper.upper)?, reopen(upper.work)?))).transpose()
        };
        let opened = enter().map_err(|errno: Errno| {
            mount_error(errno, ": a mount namespace for the lower directories".to_owned())
        })?;
        let upper = upper.zip(opened.as_ref()).map(|(given, (upper, work))| Upper {
            upper: upper.as_fd(),
            work: work.as_fd(),
            volatile: given.volatile,
        });
        mount_here(lower, upper, attributes)
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(_) => Err(mount_error(Errno::CANCELED, ": its thread failed".to_owned())),
    })
}

fn reopen(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let path = rustix::fs::readlinkat(CWD, files::proc_path(directory), Vec::new())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

fn mount_here(
    lower: &Lower,
    upper: Option<Upper<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let mut result = Err(mount_error(Errno::OPNOTSUPP, String::new()));
    for naming in [Naming::Descriptor, Naming::Strings, Naming::OneString] {
        result = mount_with(naming, lower, upper, attributes);
        match &result {
            // The kernel does not know the parameter, or not in this form. Before Linux 6.5 overlay
            // takes strings alone, and the refusal of a descriptor has its own number.
            Err(Error::Mount { source, .. })
                if [Errno::INVAL, Errno::OPNOTSUPP]
                    .iter()
                    .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) => {}
            _ => return result,
        }
    }
    result
}

fn mount_error(source: Errno, log: String) -> Error {
    Error::Mount { what: "the overlay".to_owned(), source: source.into(), log }
}

fn mount_with(
    naming: Naming,
    lower: &Lower,
    upper: Option<Upper<'_>>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| mount_error(e, String::new()))?;
    configure(naming, context.as_fd(), lower, upper)
        .and_then(|()| fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes))
        .map_err(|errno| mount_error(errno, kernel_log(context.as_fd())))
}

fn configure(
    naming: Naming,
    context: BorrowedFd<'_>,
    lower: &Lower,
    upper: Option<Upper<'_>>,
) -> rustix::io::Result<()> {
    let set = |key: &str, fd: BorrowedFd<'_>| match naming {
        Naming::Descriptor => fsconfig_set_fd(context, key, fd),
        _ => fsconfig_set_string(context, key, files::proc_path(fd)),
    };
    fsconfig_set_string(context, "source", "overlay")?;
    // Both would make the upper directory something that only this kernel's overlay can read; a commit
    // reads it directly.
    fsconfig_set_string(context, "metacopy", "off")?;
    fsconfig_set_string(context, "redirect_dir", "nofollow")?;
    fsconfig_set_string(context, "index", "off")?;
    if naming == Naming::OneString {
        let paths: Vec<_> = lower.directories.iter().map(files::proc_path).collect();
        let all = paths.join(":");
        if all.len() > 255 {
            return Err(Errno::TOOBIG);
        }
        fsconfig_set_string(context, "lowerdir", all)?;
    } else {
        for fd in &lower.directories {
            set("lowerdir+", fd.as_fd())?;
        }
    }
    if let Some(upper) = upper {
        set("upperdir", upper.upper)?;
        set("workdir", upper.work)?;
        if upper.volatile {
            fsconfig_set_flag(context, "volatile")?;
        }
    }
    fsconfig_create(context)
}

/// What the kernel has to say about a failed configuration: each read of the context gives a line
/// with its level in front.
pub(crate) fn kernel_log(context: BorrowedFd<'_>) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n) = rustix::io::read(context, &mut buffer) {
        if n == 0 || lines.len() > 8 {
            break;
        }
        let line = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default());
        let line = line.trim();
        lines.push(line.get(2..).unwrap_or(line).to_owned());
    }
    if lines.is_empty() {
        // Overlay tells most of its reasons only there.
        return " (the kernel's log says why: dmesg)".to_owned();
    }
    format!(": {}", lines.join("; "))
}

/// A volatile overlay that was not unmounted in order leaves a mark which forbids further mounts,
/// since after a crash of the machine the upper directory may be torn. Within the same boot it is not: the page cache
/// has everything. The caller has decided; the mark goes.
pub(crate) fn clear_volatile_mark(work: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let inner = match files::open_dir(work, c"work") {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    match rustix::fs::unlinkat(&inner, c"incompat", AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(_) => files::remove_tree(inner.as_fd(), c"incompat"),
    }
}

/// Whether a file in an upper directory says that a name of the lower ones does not exist.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Each way of naming directories, not only the one this kernel likes best.
    #[test]
    fn every_form_of_mount_parameters() {
        let top = std::env::temp_dir().join(format!("wherry-overlay-{}", std::process::id()));
        let make = |name: &str| -> (PathBuf, OwnedFd) {
            // A comma, a colon and a space, which in a path as a string would need escapes.
            let path = top.join(format!("{name},a:b c"));
            std::fs::create_dir_all(&path).unwrap();
            let fd = files::open_path(&path).unwrap();
            (path, fd)
        };
        let read = |mount: &OwnedFd, name: &str| {
            let fd = rustix::fs::openat(mount, name, OFlags::RDONLY, Mode::empty()).unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text).unwrap();
            text
        };
        for naming in [Naming::Descriptor, Naming::Strings, Naming::OneString] {
            let mut lower = Lower::of_directories(vec![], vec![]);
            for name in ["top", "bottom"] {
                let (path, fd) = make(&format!("{naming:?}-{name}"));
                std::fs::write(path.join("file"), name).unwrap();
                std::fs::write(path.join(name), name).unwrap();
                lower.directories.push(fd);
                lower.paths.push(path);
            }
            let (path, upper) = make(&format!("{naming:?}-upper"));
            let (_, work) = make(&format!("{naming:?}-work"));
            let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), volatile: true };
            let none = MountAttrFlags::empty();
            let mount = mount_with(naming, &lower, Some(upper), none).unwrap();
            assert_eq!(read(&mount, "file"), "top");
            assert_eq!(read(&mount, "bottom"), "bottom");
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&mount, "new", flags, Mode::from_raw_mode(0o600)).unwrap();
            assert!(path.join("new").exists());
            // Without an upper directory it is read-only.
            let mount = mount_with(naming, &lower, None, none).unwrap();
            assert!(rustix::fs::openat(&mount, "new", flags, Mode::from_raw_mode(0o600)).is_err());
        }
        std::fs::remove_dir_all(&top).unwrap();
    }

    /// What kernels before 6.15 need.
    #[test]
    fn a_detached_mount_below_is_attached_for_the_moment() {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(context.as_fd()).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let tmpfs = fsmount(context.as_fd(), flags, MountAttrFlags::empty()).unwrap();
        rustix::fs::mkdirat(&tmpfs, "inside", Mode::from_raw_mode(0o755)).unwrap();
        let lower = Lower::of_mount(tmpfs, "tmpfs".into()).unwrap();
        let top = std::env::temp_dir().join(format!("wherry-apart-{}", std::process::id()));
        let make = |name: &str| {
            std::fs::create_dir_all(top.join(name)).unwrap();
            files::open_path(&top.join(name)).unwrap()
        };
        let (upper, work) = (make("upper"), make("work"));
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), volatile: true };
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mount_apart(&lower, Some(upper), MountAttrFlags::empty()).unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
        drop(lower);
        assert!(rustix::fs::statat(&mount, "inside", AtFlags::empty()).is_ok());
        rustix::fs::mkdirat(&mount, "new", Mode::from_raw_mode(0o755)).unwrap();
        assert!(top.join("upper/new").exists());
        std::fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn an_error_says_why_or_where_to_look() {
        let fd = files::open_path(std::path::Path::new("/proc")).unwrap();
        let lower = files::open_path(std::path::Path::new("/")).unwrap();
        let lower = Lower::of_directories(vec![lower], vec!["/".into()]);
        let upper = Upper { upper: fd.as_fd(), work: fd.as_fd(), volatile: false };
        let error = mount(&lower, Some(upper), MountAttrFlags::empty()).unwrap_err().to_string();
        assert!(error.starts_with("cannot mount the overlay: "), "{error}");
        assert!(error.len() > 60 && (error.contains("dmesg") || error.contains("; ")), "{error}");
    }
}
