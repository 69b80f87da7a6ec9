//! Small helpers on files and directories, all by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::io;
use crate::{Error, Result};

/// Opens a directory named by one component, not through a link.
pub(crate) fn open_dir(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a directory of the store by its path.
pub(crate) fn open_path(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(io(|| format!("opening the directory {}", path.display())))
}

/// Opens `path` within `root`: links are followed, but only as if `root` were `/`.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount somewhere made the kernel unsure about a `..`.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// A C string of raw bytes that were checked to have no NUL.
pub(crate) fn c_string(bytes: &[u8]) -> rustix::io::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// The path by which a system call that takes only paths reaches a descriptor.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a tree has at most so many entries, and files of so many bytes on disk. Looks at no more than that.
pub(crate) fn is_light(dir: OwnedFd, entries: usize, bytes: u64) -> rustix::io::Result<bool> {
    let (mut entries, mut bytes) = (entries, bytes);
    let mut stack = vec![Dir::new(dir)?];
    while let Some(mut dir) = stack.pop() {
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Some(fewer) = entries.checked_sub(1) else { return Ok(false) };
            entries = fewer;
            if entry.file_type() == FileType::Directory {
                stack.push(Dir::new(open_dir(dir.fd()?, name)?)?);
                continue;
            }
            let stat = rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let Some(fewer) = bytes.checked_sub(blocks(&stat)) else { return Ok(false) };
            bytes = fewer;
        }
    }
    Ok(true)
}

/// Removes `name` in `parent` with everything below it. Not existing is fine.
///
/// Trees may be deeper than the number of descriptors a process may have: below some depth a
/// directory is moved up next to the top and handled from there.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    loop {
        match remove_tree_alone(parent, name) {
            // Somebody else removes it, too, and took something from under our feet; what is left of
            // it gets less each time.
            Err(Errno::NOENT) => {}
            done => return done,
        }
    }
}

fn remove_tree_alone(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = open_dir(parent, name)?;
    let mut moved = 0_u32;
    loop {
        empty_dir(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // What was moved up is still there: another round.
            Err(Errno::NOTEMPTY) if moved > 0 => moved = 0,
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

const MAX_OPEN_DEPTH: usize = 64;

fn empty_dir(
    top: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u32,
) -> rustix::io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error),
            }
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth >= MAX_OPEN_DEPTH {
            loop {
                *moved += 1;
                let aside = c_string(format!(".removed-{moved}").as_bytes())?;
                let no_replace = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(dir, name, top, &aside, no_replace) {
                    Err(Errno::EXIST) => {}
                    other => break other?,
                }
            }
            continue;
        }
        let child = open_dir(dir, name)?;
        empty_dir(top, child.as_fd(), depth + 1, moved)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes on disk below a directory, files with several names counted once. Not crossing mounts.
pub(crate) fn disk_bytes(dir: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let mut seen = std::collections::HashSet::new();
    let device = rustix::fs::fstat(dir)?.st_dev;
    let mut total = 0;
    // Descriptors are opened when their turn comes, by a path from the top: the number of open ones
    // does not grow with the depth.
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match open_in_root(dir, &path, flags) {
            Ok(fd) => fd,
            // Gone meanwhile, or nested deeper than a path can say.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => continue,
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_dev != device {
            continue;
        }
        total += blocks(&stat);
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(name.to_bytes());
                stack.push(child);
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if stat.st_nlink > 1 && !seen.insert(stat.st_ino) {
                continue;
            }
            total += blocks(&stat);
        }
    }
    Ok(total)
}

pub(crate) fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Reads a small file of the store, with a bound on its size.
pub(crate) fn read_small(path: &std::path::Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("reading {}", path.display());
    let file = std::fs::File::open(path).map_err(io(what))?;
    let mut out = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut out).map_err(io(what))?;
    if out.len() as u64 > limit {
        return Err(Error::TooLarge { what: path.display().to_string(), limit });
    }
    Ok(out)
}

/// Lower-case hexadecimal digits of some random bytes.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    rustix::rand::getrandom(buffer.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
        .map_err(io(|| "reading random bytes".to_owned()))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Now, in nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// Now, as RFC 3339 with nanoseconds in UTC.
pub(crate) fn now_rfc3339() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}
