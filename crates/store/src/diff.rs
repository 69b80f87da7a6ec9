//! What a container changed: `diff`, `ps --size`, `export`, and removing it.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use oci::limits;
use oci::tar::TarWriter;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::error::io;
use crate::tree::{TreeOptions, is_opaque, write_tree};
use crate::writable::RECORD;
use crate::{Change, ChangeKind, Error, Result, Store, WritableLayer, files, overlay};

impl WritableLayer {
    /// What differs from the image, sorted by path, with Docker's rules: a directory in which something
    /// changed is itself listed as changed; of a directory that is gone only the top is listed; a
    /// file that was copied up but is the same is not listed.
    ///
    /// # Errors
    /// Those of reading.
    pub fn diff(&self) -> Result<Vec<Change>> {
        let lower =
            self.lower()?.directories.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
        let lower: Vec<OwnedFd> = lower.map_err(io(|| "duplicating a descriptor".to_owned()))?;
        let mut changes = Vec::new();
        compare(self.upper(), &lower, b"", (0, false), &mut changes)?;
        changes.sort();
        Ok(changes)
    }

    /// Bytes of the files in the upper directory; a file with several names counts once.
    ///
    /// # Errors
    /// Those of reading.
    pub fn size(&self) -> Result<u64> {
        file_bytes(self.upper()).map_err(io(|| format!("reading {}", self.upper_path().display())))
    }

    /// Bytes that the upper and work directories take on disk.
    ///
    /// # Errors
    /// Those of reading.
    pub fn disk_size(&self) -> Result<u64> {
        files::disk_bytes(self.upper())
            .map_err(io(|| format!("reading {}", self.upper_path().display())))
    }
}

impl Store {
    /// Writes the file system that is mounted at `root`, a descriptor of its top, as a tar archive:
    /// `export`. No entry for the top itself: unpacking must not change the directory it happens in.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn export_tar(&self, root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
        let out = std::io::BufWriter::with_capacity(256 << 10, out);
        let mut tar = TarWriter::new(out);
        write_tree(root, b"", &mut tar, TreeOptions::default())?;
        tar.finish().map_err(io(|| "writing the archive".to_owned()))?;
        Ok(())
    }

    /// Removes a container's writable layer and record; its mounts must be gone or go by themselves.
    /// The engine's files in the directory stay. Not existing is fine.
    ///
    /// # Errors
    /// Those of removing.
    pub fn remove_writable(&self, id: &str) -> Result<()> {
        self.writable_store()?;
        let directory = self.container_directory(id);
        // The record goes last: until then the layers below are protected.
        for name in ["upper", "work", RECORD] {
            self.discard(&directory.join(name))?;
        }
        self.empty_trash()
    }

    /// Removes a container's whole directory, the engine's files included. Not existing is fine. The
    /// files vanish at once; deleting the few of a short-lived container, which does not wait for that, is left to
    /// [`Store::empty_trash_now`] or to [`Store::gc`]. Much is deleted here: it may be what the disk is full of.
    ///
    /// # Errors
    /// Those of renaming and deleting.
    pub fn remove_container_directory(&self, id: &str) -> Result<()> {
        const LIGHT_ENTRIES: usize = 64;
        const LIGHT_BYTES: u64 = 1 << 20;
        self.writable_store()?;
        let directory = self.container_directory(id);
        let light = files::open_path(&directory)
            .is_ok_and(|fd| files::is_light(fd, LIGHT_ENTRIES, LIGHT_BYTES) == Ok(true));
        if light { self.discard(&directory) } else { self.delete(&directory) }
    }

    /// The ids of containers that have a directory which nobody has touched for so long.
    ///
    /// # Errors
    /// Those of reading.
    pub fn container_directories(&self, untouched: Duration) -> Result<Vec<String>> {
        let directory = self.root().join("containers");
        let mut names = self.directory_names("containers")?;
        names.retain(|name| {
            std::fs::symlink_metadata(directory.join(name))
                .and_then(|found| found.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > untouched))
        });
        Ok(names)
    }

    /// Deletes what removals have put into the trash.
    ///
    /// # Errors
    /// The first error, after having gone on.
    pub fn empty_trash_now(&self) -> Result<()> {
        self.writable_store()?;
        self.empty_trash()
    }
}

/// What the lower directories together have under a name.
enum Below {
    Nothing,
    /// The file that is seen, and the directories that are merged if it is one.
    Found(Stat, Vec<OwnedFd>),
}

fn look_below(lower: &[OwnedFd], name: &std::ffi::CStr) -> rustix::io::Result<Below> {
    let mut seen = None;
    let mut merged = Vec::new();
    for dir in lower {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        if overlay::is_whiteout(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if seen.is_none() {
                seen = Some(stat);
            }
            break;
        }
        let fd = files::open_dir(dir, name)?;
        let opaque = is_opaque(&fd);
        seen.get_or_insert(stat);
        merged.push(fd);
        if opaque {
            break;
        }
    }
    Ok(seen.map_or(Below::Nothing, |stat| Below::Found(stat, merged)))
}

fn differs(upper: &Stat, lower: &Stat) -> bool {
    let directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let attributes = upper.st_mode != lower.st_mode
        || upper.st_uid != lower.st_uid
        || upper.st_gid != lower.st_gid
        || upper.st_rdev != lower.st_rdev;
    // Size and time of a directory say little about it.
    attributes
        || !(directory(upper) && directory(lower))
            && (upper.st_size != lower.st_size
                || (upper.st_mtime, upper.st_mtime_nsec) != (lower.st_mtime, lower.st_mtime_nsec))
}

/// Returns whether anything below changed. With `hidden` a directory above is opaque, so that only
/// what is in `upper` is there.
fn compare(
    upper: BorrowedFd<'_>,
    lower: &[OwnedFd],
    path: &[u8],
    (depth, hidden): (usize, bool),
    changes: &mut Vec<Change>,
) -> Result<bool> {
    let what = || format!("comparing {:?}", String::from_utf8_lossy(path));
    if depth > limits::MAX_PATH_DEPTH {
        return Err(Error::Invalid(format!("{}: nested too deeply", what())));
    }
    let mut changed = false;
    let mut change = |path: Vec<u8>, kind| changes.push(Change { path, kind });
    let mut deeper = Vec::new();
    for name in files::names(upper).map_err(io(what))? {
        let stat = match rustix::fs::statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(io(what)(error)),
        };
        let child = [path, b"/", name.to_bytes()].concat();
        let below = look_below(lower, &name).map_err(io(what))?;
        if overlay::is_whiteout(&stat) {
            if matches!(below, Below::Found(..)) {
                change(child, ChangeKind::Deleted);
                changed = true;
            }
            continue;
        }
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (kind, merged) = match below {
            Below::Nothing => (Some(ChangeKind::Added), Vec::new()),
            Below::Found(old, merged) => {
                (differs(&stat, &old).then_some(ChangeKind::Modified), merged)
            }
        };
        if directory {
            deeper.push((name, child, kind, merged));
        } else if let Some(kind) = kind {
            change(child, kind);
            changed = true;
        }
    }
    for (name, child, kind, merged) in deeper {
        let fd = match files::open_dir(upper, &name) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(io(what)(error)),
        };
        let mut inside = false;
        let hidden = hidden || is_opaque(&fd);
        if hidden {
            // Made anew in the place of one that was removed: what is not there again is gone.
            let mut names = HashSet::new();
            for dir in &merged {
                names.extend(files::names(dir).map_err(io(what))?);
            }
            for name in names {
                let gone = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_err_and(|error| error == Errno::NOENT);
                let below = look_below(&merged, &name).map_err(io(what))?;
                if gone && matches!(below, Below::Found(..)) {
                    let path = [&child, b"/".as_slice(), name.to_bytes()].concat();
                    changes.push(Change { path, kind: ChangeKind::Deleted });
                    inside = true;
                }
            }
        }
        inside |= compare(fd.as_fd(), &merged, &child, (depth + 1, hidden), changes)?;
        match kind {
            Some(kind) => changes.push(Change { path: child, kind }),
            None if inside => changes.push(Change { path: child, kind: ChangeKind::Modified }),
            None => {}
        }
        changed |= inside || kind.is_some();
    }
    Ok(changed)
}

/// Sum of the lengths of all files below a directory.
fn file_bytes(top: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let mut seen = HashSet::new();
    let mut total: u64 = 0;
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match files::open_in_root(top, &path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
            Err(error) => return Err(error),
        };
        for name in files::names(&fd)? {
            let stat = match rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(name.to_bytes());
                stack.push(child);
            } else if stat.st_nlink <= 1 || seen.insert(stat.st_ino) {
                total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
    }
    Ok(total)
}
