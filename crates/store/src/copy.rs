//! Archives for `cp`: reading from and writing into a container's file system, or a volume, by a
//! descriptor of its root.
//!
//! Every path is resolved with the root as `/` (`openat2`, `RESOLVE_IN_ROOT`), whatever a running
//! container does to its links meanwhile. Docker's rules about trailing slashes and `/.` are the
//! caller's: it asks [`stat_in_root`] and gives names.

use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::compression::Decompressor;
use oci::tar::{TarReader, TarWriter};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::io;
use crate::tree::{TreeOptions, write_one, write_tree};
use crate::unpack::{UnpackOptions, unpack};
use crate::{Error, Result, files};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last component of the path as it was asked for; `/` for the root.
    pub name: Vec<u8>,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// For a symbolic link that was not followed, where it points, as it is written there.
    pub link_target: Vec<u8>,
}

impl PathStat {
    /// It is a directory.
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    /// It is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Symlink
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Splits a path into the directory and the last name; no name for the root. `.` and slashes at the
/// end count as part of the directory they follow.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut path = path;
    loop {
        path = match path {
            [rest @ .., b'/'] => rest,
            [rest @ .., b'/', b'.'] => rest,
            b"." => b"",
            _ => break,
        };
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => {
            (path.get(..=slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default())
        }
        None => (b"", path),
    }
}

/// Opens what is at `path` without reading it. `None` if there is nothing.
fn open_path(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Option<OwnedFd>> {
    if path.contains(&0) {
        return Err(Error::Invalid(format!("the path {:?} contains a NUL", shown(path))));
    }
    let mut flags = OFlags::PATH;
    if !follow && !path.ends_with(b"/") && !path.ends_with(b"/.") {
        flags |= OFlags::NOFOLLOW;
    }
    match files::open_in_root(root, path, flags) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(io(|| format!("opening {:?} in the container", shown(path)))(error)),
    }
}

/// Says what is at a path, `None` if there is nothing. With `follow` a link at its end is followed.
///
/// # Errors
/// [`Error::Io`] for a path that cannot be resolved for other reasons than not existing.
pub fn stat_in_root(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Option<PathStat>> {
    let Some(fd) = open_path(root, path, follow)? else { return Ok(None) };
    let what = || format!("looking at {:?} in the container", shown(path));
    let stat = rustix::fs::fstat(&fd).map_err(io(what))?;
    let link_target = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(io(what))?.into_bytes()
    } else {
        Vec::new()
    };
    let (_, name) = split(path);
    Ok(Some(PathStat {
        name: if name.is_empty() { b"/".to_vec() } else { name.to_vec() },
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        link_target,
    }))
}

/// Writes what is at `path` as a tar archive in which it is called `name` (`.` for the content of a
/// directory without itself being named). With `follow` a link at the end of the path is followed.
///
/// # Errors
/// [`Error::Invalid`] if nothing is there; those of reading and writing.
pub fn tar_from(
    root: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    follow: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let missing =
        || Error::Invalid(format!("Could not find the file {} in container", shown(path)));
    let what = || format!("opening {:?} in the container", shown(path));
    let fd = open_path(root, path, follow)?.ok_or_else(missing)?;
    let stat = rustix::fs::fstat(&fd).map_err(io(what))?;
    let out = std::io::BufWriter::with_capacity(256 << 10, out);
    let mut tar = TarWriter::new(out);
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let directory = files::open_dir(&fd, c".").map_err(io(what))?;
        let options = TreeOptions { root: true, ..TreeOptions::default() };
        write_tree(directory.as_fd(), name, &mut tar, options)?;
    } else {
        // Found again by its name, because a link, a device or a pipe cannot be opened itself.
        let (parent, last) = resolved_parent(root, path, follow)?;
        let last = files::c_string(&last).map_err(io(what))?;
        write_one(parent.as_fd(), &last, name, &mut tar)?;
    }
    tar.finish().map_err(io(|| "writing the archive".to_owned()))?;
    Ok(())
}

/// The directory in which the file at `path` is, with links at its end followed by hand.
fn resolved_parent(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<(OwnedFd, Vec<u8>)> {
    let what = || format!("opening {:?} in the container", shown(path));
    let mut path = path.to_vec();
    for _ in 0..40 {
        let (parent_path, name) = split(&path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = files::open_in_root(root, parent_path, flags).map_err(io(what))?;
        if !follow {
            return Ok((parent, name.to_vec()));
        }
        match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(target) if target.as_bytes().starts_with(b"/") => path = target.into_bytes(),
            Ok(target) => path = [parent_path, b"/", target.as_bytes()].concat(),
            Err(_) => return Ok((parent, name.to_vec())),
        }
    }
    Err(io(what)(Errno::LOOP))
}

/// How [`untar_into`] writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct UntarOptions {
    /// Everything gets this owner and group instead of the archive's (`cp` without `-a`).
    pub owner: Option<(u32, u32)>,
    /// Refuse to replace a directory by a file or the other way round.
    pub no_overwrite_dir_nondir: bool,
    /// Most bytes of content to write.
    pub limit: Option<u64>,
}

/// Unpacks an archive, compressed or not, into the directory at `path`, which must exist.
///
/// # Errors
/// [`Error::Invalid`] if `path` is not a directory; an archive that is damaged or refused.
pub fn untar_into(
    root: BorrowedFd<'_>,
    path: &[u8],
    archive: &mut dyn Read,
    options: UntarOptions,
) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match files::open_in_root(root, path, flags) {
        Ok(_) => {}
        Err(Errno::NOENT) => {
            let path = shown(path);
            return Err(Error::Invalid(format!("Could not find the file {path} in container")));
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Err(Error::Invalid(format!("{} is not a directory", shown(path))));
        }
        Err(error) => return Err(io(|| format!("opening {:?}", shown(path)))(error)),
    }
    let read =
        |source| Error::Oci(oci::Error::Io { what: "reading the archive".to_owned(), source });
    let mut source = Decompressor::new(archive).map_err(read)?;
    let mut tar = TarReader::new(BufReader::with_capacity(256 << 10, &mut source));
    let mut base = path;
    while let [b'/', rest @ ..] = base {
        base = rest;
    }
    let unpack_options = UnpackOptions {
        whiteouts: false,
        no_replace_kind: options.no_overwrite_dir_nondir,
        owner: options.owner,
        limit: options.limit,
        base: base.to_vec(),
        ..UnpackOptions::default()
    };
    unpack(&mut tar, root, &unpack_options, &mut |_| Ok(()))?;
    drop(tar);
    // A client that is still writing must not see its pipe break.
    std::io::copy(&mut source, &mut std::io::sink()).map_err(read)?;
    Ok(())
}

/// Free bytes of the file system at `root`, so that callers can refuse early.
///
/// # Errors
/// Those of `fstatvfs`.
pub fn free_bytes(root: BorrowedFd<'_>) -> Result<u64> {
    let stat = rustix::fs::fstatvfs(root).map_err(io(|| "looking at the free space".to_owned()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
