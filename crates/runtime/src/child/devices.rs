//! Device nodes and links in the container's /dev.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use super::mounts;
use super::root::{Root, Target};
use crate::error::{Doing, Error, Result};
use crate::launch::clone_tree;
use crate::plan::{Device, MountKind, Plan};

/// The devices every container has (runtime specification, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes them, unless /dev is one of the host's directories, which is not ours to fill.
pub(super) fn make(plan: &Plan, root: &Root, in_user_namespace: bool) -> Result<()> {
    let foreign = plan.mounts.iter().any(|mount| {
        mount.destination == Path::new("/dev") && matches!(mount.kind, MountKind::Bind { .. })
    });
    if foreign {
        return Ok(());
    }
    let dev = root.ensure(Path::new("/dev"), Target::Directory)?;
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if plan.devices.iter().any(|device| device.path == path) {
            continue;
        }
        let device = Device { path, kind: 'c', major, minor, mode: 0o666, uid: 0, gid: 0 };
        node(&device, &dev, Path::new(name), in_user_namespace)?;
    }
    for device in &plan.devices {
        let (parent, name) = root.parent_of(&device.path)?;
        node(device, &parent, &name, in_user_namespace)?;
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) => {}
            Err(Errno::EXIST) if name == "ptmx" => replace_ptmx(&dev)?,
            // The image may have its own.
            Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(errno).doing(|| format!("link /dev/{name}")),
        }
    }
    if rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        let _ = rustix::fs::symlinkat("/proc/kcore", &dev, "core");
    }
    Ok(())
}

/// A node /dev/ptmx of the image would make terminals on the wrong instance of devpts.
fn replace_ptmx(dev: &OwnedFd) -> Result<()> {
    let doing = || "link /dev/ptmx".to_owned();
    let stat = rustix::fs::statat(dev, "ptmx", AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    match rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty()) {
        Ok(()) => rustix::fs::symlinkat("pts/ptmx", dev, "ptmx").doing(doing),
        // On a read-only /dev the image's choice stays.
        Err(_) => Ok(()),
    }
}

fn node(device: &Device, parent: &OwnedFd, name: &Path, bind: bool) -> Result<()> {
    let doing = || format!("create the device {}", device.path.display());
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    if bind && kind != FileType::Fifo {
        return bind_node(device, parent, name);
    }
    let number = if kind == FileType::Fifo { 0 } else { makedev(device.major, device.minor) };
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {
            if device.uid != 0 || device.gid != 0 {
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(Uid::from_raw(device.uid)),
                    Some(Gid::from_raw(device.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .doing(doing)?;
            }
            Ok(())
        }
        Err(Errno::EXIST) => {
            // Right only if it is the same device; a regular file called /dev/null is a trap.
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
            if FileType::from_raw_mode(stat.st_mode) == kind
                && (kind == FileType::Fifo || stat.st_rdev == number)
            {
                Ok(())
            } else {
                Err(Error::spec(
                    format!("device {}", device.path.display()),
                    "the image has another file there",
                ))
            }
        }
        // Where devices cannot be made, the host's can be shown.
        Err(Errno::PERM) => bind_node(device, parent, name),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn bind_node(device: &Device, parent: &OwnedFd, name: &Path) -> Result<()> {
    let doing = || format!("bind the host's device {}", device.path.display());
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::NXIO | Errno::ACCESS | Errno::PERM) => {}
        Err(errno) => return Err(errno).doing(doing),
    }
    let to = rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(doing)?;
    let tree = clone_tree(&device.path, false)?;
    mounts::attach(tree.as_fd(), to.as_fd()).doing(doing)
}
