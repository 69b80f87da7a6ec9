//! The container's root filesystem, by descriptor.
//!
//! Every path of the container is resolved here, with the kernel keeping the walk inside the root
//! whatever symbolic links the image or a volume contains.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Doing, Error, Result};

/// As many links in one path as the kernel would follow.
const MAX_LINKS: usize = 40;

pub(super) struct Root {
    fd: OwnedFd,
}

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Directory,
    File,
}

impl Root {
    pub(super) fn new(fd: OwnedFd) -> Root {
        Root { fd }
    }

    pub(super) fn open(at: BorrowedFd<'_>, path: &str) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(at, path, flags, Mode::empty())
            .map(Root::new)
            .doing(|| format!("open {path}"))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a path inside the root.
    pub(super) fn at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    /// As [`Root::at`], and no symbolic link may be on the way.
    pub(super) fn at_without_links(
        &self,
        path: &Path,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(
        &self,
        path: &Path,
        flags: OFlags,
        more: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        loop {
            // AGAIN: something was renamed during the walk and the kernel could not be sure.
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Opens a mount point (`O_PATH`), making it and the directories above it if missing.
    pub(super) fn ensure(&self, path: &Path, target: Target) -> Result<OwnedFd> {
        match self.at(path, OFlags::PATH) {
            Ok(fd) => return Ok(fd),
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => {
                return Err(errno).doing(|| format!("open {} in the container", path.display()));
            }
        }
        self.make(path, target, 0)
    }

    fn make(&self, path: &Path, target: Target, links: usize) -> Result<OwnedFd> {
        let doing = || format!("create {} in the container", path.display());
        if links > MAX_LINKS {
            return Err(rustix::io::Errno::LOOP).doing(doing);
        }
        let mut parent = self.at(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY).doing(doing)?;
        let mut walked = PathBuf::from("/");
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                Component::ParentDir => Some(OsStr::new("..")),
                _ => None,
            })
            .collect();
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            walked.push(name);
            match self.at(&walked, OFlags::PATH) {
                Ok(fd) => {
                    parent = fd;
                    continue;
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno).doing(doing),
            }
            let made = if last && target == Target::File {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, *name, flags, Mode::from_raw_mode(0o644)).map(drop)
            } else {
                rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o755))
            };
            match made {
                Ok(()) => {}
                Err(rustix::io::Errno::EXIST) => {
                    // A link to nowhere (or a racing maker): make what it points to.
                    if let Some(onward) = link_target(&parent, name, &walked) {
                        let mut rest = onward;
                        rest.extend(names.iter().skip(index + 1));
                        return self.make(&rest, target, links + 1);
                    }
                }
                Err(errno) => return Err(errno).doing(doing),
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            parent = rustix::fs::openat(&parent, *name, flags, Mode::empty()).doing(doing)?;
        }
        Ok(parent)
    }

    /// Opens the directory a path is in, made if missing, and the path's last name.
    pub(super) fn parent_of(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::spec(path.display().to_string(), "is not a path of a file"))?;
        let parent = self.ensure(path.parent().unwrap_or(Path::new("/")), Target::Directory)?;
        Ok((parent, PathBuf::from(name)))
    }
}

/// Where a symbolic link leads, as a path in the root; `None` when it is not a link.
fn link_target(parent: &OwnedFd, name: &OsStr, walked: &Path) -> Option<PathBuf> {
    let link = rustix::fs::readlinkat(parent, name, Vec::new()).ok()?;
    let link = Path::new(OsStr::from_bytes(link.as_bytes())).to_owned();
    if link.is_absolute() { Some(link) } else { Some(walked.parent()?.join(link)) }
}

/// Whether a descriptor refers to a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Copies the content of a directory, its mode and owner included, into another. Links are copied
/// as links; what is neither file, directory nor link is left out.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let to = reopen(to)?;
    copy_directory(from, to.as_fd(), 0)
}

fn reopen(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(fd, ".", flags, Mode::empty())
}

fn copy_directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    depth: usize,
) -> rustix::io::Result<()> {
    if depth > 256 {
        return Err(rustix::io::Errno::NAMETOOLONG);
    }
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | nofollow;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
                copy_directory(source.as_fd(), copy.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => {
                let source =
                    rustix::fs::openat(from, name, OFlags::RDONLY | nofollow, Mode::empty())?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | nofollow;
                let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                let mut buffer = vec![0; 128 * 1024];
                loop {
                    let count = rustix::io::read(&source, &mut buffer)?;
                    let mut rest = buffer.get(..count).unwrap_or_default();
                    if rest.is_empty() {
                        break;
                    }
                    while !rest.is_empty() {
                        let written = rustix::io::write(&copy, rest)?;
                        rest = rest.get(written..).unwrap_or_default();
                    }
                }
                copy_owner(&stat, copy.as_fd())?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                rustix::fs::chownat(
                    to,
                    name,
                    Some(rustix::fs::Uid::from_raw(stat.st_uid)),
                    Some(rustix::fs::Gid::from_raw(stat.st_gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            _ => {}
        }
    }
    copy_owner(&rustix::fs::fstat(from)?, to)
}

fn copy_owner(stat: &rustix::fs::Stat, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fchown(
        to,
        Some(rustix::fs::Uid::from_raw(stat.st_uid)),
        Some(rustix::fs::Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
}
