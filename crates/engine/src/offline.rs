//! The files of a container that does not run, with its volumes and bind mounts where it would see them.
//!
//! No mount of a container is ever made in the host's mount namespace. A thread takes a namespace of its own,
//! puts the root filesystem and the mounts together there, and ends; descriptors of the namespace and of the
//! root keep it all until they are closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;

/// The root of a container's files, and what keeps its mounts.
#[derive(Debug)]
pub(crate) struct Root {
    root: OwnedFd,
    /// Mounts go with the last descriptor of their namespace.
    _namespace: Option<OwnedFd>,
}

impl From<OwnedFd> for Root {
    fn from(root: OwnedFd) -> Self {
        Self { root, _namespace: None }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Where a mount comes from.
enum Origin {
    Path(PathBuf),
    /// Detached already.
    Mount(OwnedFd),
}

/// One mount to make.
struct Wanted {
    from: Origin,
    target: PathBuf,
    read_only: bool,
    recursive: bool,
}

impl Engine {
    /// As [`Root`]; mounts whose source is not there are left out, since nothing is in them.
    pub(crate) fn offline_root(&self, record: &Record) -> Result<Root> {
        let rootfs = self.mount_rootfs(record)?;
        let mut wanted = Vec::new();
        for planned in &record.definition.mounts {
            let mount = &planned.mount;
            let bind = mount.bind_options.as_ref();
            let from = match mount.r#type.as_str() {
                "volume" => match self.special_volume(planned)? {
                    Some(fd) => Origin::Mount(fd),
                    None => Origin::Path(self.store().volume(&mount.source)?.mountpoint),
                },
                "bind" => Origin::Path(mount.source.clone().into()),
                _ => continue,
            };
            wanted.push(Wanted {
                from,
                target: crate::mounts::clean(&mount.target),
                read_only: mount.read_only,
                recursive: !bind.is_some_and(|b| b.non_recursive),
            });
        }
        if wanted.is_empty() {
            return Ok(rootfs.into());
        }
        let place = self.store().container_directory(&record.id);
        let what = format!("cannot put the mounts of container {} together", record.name);
        std::thread::Builder::new()
            .name("mounts".into())
            .spawn(move || put_together(&rootfs, &place, wanted))
            .map_err(|e| Error::system(&what, e))?
            .join()
            .unwrap_or(Err(Errno::IO))
            .map_err(|e| Error::system(&what, io::Error::from(e)))
    }
}

/// Done by a thread that ends afterwards: its namespace is not the process's any more.
fn put_together(
    rootfs: &OwnedFd,
    place: &Path,
    wanted: Vec<Wanted>,
) -> std::result::Result<Root, Errno> {
    /// CLONE_FS: the root and working directories.
    const FS: u64 = 0x200;
    /// MS_PRIVATE.
    const PRIVATE: u64 = 1 << 18;
    sys::namespace::unshare(FS | sys::clone::NEWNS)?;
    sys::mount::set_propagation_of_all(PRIVATE)?;
    let mut sources = Vec::new();
    for wanted in wanted {
        let fd = match wanted.from {
            Origin::Mount(fd) => fd,
            Origin::Path(path) => {
                let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                if wanted.recursive {
                    flags |= OpenTreeFlags::AT_RECURSIVE;
                }
                match open_tree(rustix::fs::CWD, &path, flags) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e),
                }
            }
        };
        if wanted.read_only {
            let change = sys::mount::Change { set: sys::mount::RDONLY, ..Default::default() };
            sys::mount::setattr(fd.as_fd(), change, wanted.recursive)?;
        }
        sources.push((fd, wanted.target));
    }
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(rootfs, "", rustix::fs::CWD, place, from_fd)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(place, directory, Mode::empty())?;
    for (source, target) in sources {
        let is_directory =
            rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode).is_dir();
        let target = mount_point(&root, &target, is_directory)?;
        let both = from_fd | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&source, "", &target, "", both)?;
    }
    let namespace = rustix::fs::open(
        "/proc/thread-self/ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(Root { root, _namespace: Some(namespace) })
}

/// What is at a path within the root, made if it is missing, as a start makes it.
fn mount_point(
    root: &OwnedFd,
    path: &Path,
    is_directory: bool,
) -> std::result::Result<OwnedFd, Errno> {
    let open = |path: &Path| loop {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    };
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut walked = PathBuf::new();
    let mut parent = open(Path::new("."))?;
    let mut names = relative.components().peekable();
    while let Some(name) = names.next() {
        walked.push(name);
        let found = match open(&walked) {
            Err(Errno::NOENT) => {
                let name = Path::new(name.as_os_str());
                if names.peek().is_some() || is_directory {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
                }
                open(&walked)
            }
            other => other,
        };
        parent = found?;
    }
    Ok(parent)
}
