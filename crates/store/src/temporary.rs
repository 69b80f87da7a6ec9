//! Temporary directories, locks and the trash.
//!
//! A temporary directory carries the pid and start time of its process in its name, so that what a
//! killed process left can be told from what a living one needs.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::io;
use crate::{Result, Store, files};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A directory below `tmp/`, removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    parent: OwnedFd,
    name: CString,
    path: PathBuf,
}

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is removed by `gc` once this process has ended.
        let _ = files::remove_tree(self.parent.as_fd(), &self.name);
    }
}

/// The start time of a process in clock ticks since boot; None if it does not exist.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may contain anything.
    let after = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether the process that made a temporary name is still there.
pub(crate) fn owner_lives(name: &str) -> bool {
    let mut parts = name.split('-');
    let owner = (
        parts.next().and_then(|pid| pid.parse().ok()),
        parts.next().and_then(|time| time.parse().ok()),
    );
    let (Some(pid), Some(time)) = owner else { return false };
    start_time(pid) == Some(time)
}

/// Held while layers are found, added and referred to (shared), or removed (exclusive), so that a
/// layer never vanishes between being found and being referred to.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: File,
}

/// A name that nobody else uses.
pub(crate) fn unique(start: &str) -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{start}-{}-{count}", std::process::id())
}

impl Store {
    pub(crate) fn temporary(&self) -> Result<Temporary> {
        self.writable_store()?;
        let pid = std::process::id();
        let time = start_time(pid).unwrap_or(0);
        let parent_path = self.root.join("tmp");
        let parent = files::open_path(&parent_path)?;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{pid}-{time}-{count}");
            match rustix::fs::mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    let path = parent_path.join(&name);
                    let name = files::c_string(name.as_bytes())
                        .map_err(io(|| "naming a temporary directory".to_owned()))?;
                    return Ok(Temporary { parent, name, path });
                }
                Err(Errno::EXIST) => {}
                Err(error) => {
                    return Err(io(|| format!("creating {}", parent_path.display()))(error));
                }
            }
        }
    }

    fn lock_file(&self, operation: FlockOperation) -> Result<Option<Lease>> {
        let path = self.root.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let what = || format!("locking {}", path.display());
        let fd =
            rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600)).map_err(io(what))?;
        loop {
            match rustix::fs::flock(&fd, operation) {
                Ok(()) => return Ok(Some(Lease { _file: File::from(fd) })),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io(what)(error)),
            }
        }
    }

    /// Waits until no layers are being removed, and keeps it so.
    pub(crate) fn lease(&self) -> Result<Lease> {
        loop {
            if let Some(lease) = self.lock_file(FlockOperation::LockShared)? {
                return Ok(lease);
            }
        }
    }

    /// The right to remove layers, unless someone is adding some.
    pub(crate) fn try_exclusive(&self) -> Result<Option<Lease>> {
        self.lock_file(FlockOperation::NonBlockingLockExclusive)
    }

    /// A lock that two loads of the same blob share the work by. The file is removed by whoever holds it
    /// last.
    pub(crate) fn named_lock(&self, name: &str) -> Result<NamedLock> {
        loop {
            if let Some(lock) = self.lock_by_name(name, FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// The same without waiting.
    pub(crate) fn named_lock_if_free(&self, name: &str) -> Result<Option<NamedLock>> {
        self.lock_by_name(name, FlockOperation::NonBlockingLockExclusive)
    }

    fn lock_by_name(&self, name: &str, operation: FlockOperation) -> Result<Option<NamedLock>> {
        let path = self.root.join("tmp").join(format!("lock-{name}"));
        let what = || format!("locking {}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let fd = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600))
                .map_err(io(what))?;
            match rustix::fs::flock(&fd, operation) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(io(what)(error)),
            }
            // The holder before us may have removed the file while we waited.
            if rustix::fs::fstat(&fd).map_err(io(what))?.st_nlink > 0 {
                return Ok(Some(NamedLock { path, _file: File::from(fd) }));
            }
        }
    }

    /// Moves a file or directory out of sight, atomically. Its content goes with
    /// [`Store::empty_trash`]. Not existing is fine.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        self.move_to_trash(path)?;
        Ok(())
    }

    /// The same, and deletes it.
    pub(crate) fn delete(&self, path: &Path) -> Result<()> {
        let Some(name) = self.move_to_trash(path)? else { return Ok(()) };
        let trash = files::open_path(&self.root.join("trash"))?;
        files::remove_tree(trash.as_fd(), &name)
            .map_err(io(|| format!("deleting {}", path.display())))
    }

    /// Its name in the trash.
    fn move_to_trash(&self, path: &Path) -> Result<Option<CString>> {
        let what = || format!("removing {}", path.display());
        let pid = std::process::id();
        let time = start_time(pid).unwrap_or(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{pid}-{time}-{count}");
            let to = self.root.join("trash").join(&name);
            match rustix::fs::renameat_with(CWD, path, CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) => return files::c_string(name.as_bytes()).map(Some).map_err(io(what)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(io(what)(error)),
            }
        }
    }

    /// Deletes what is in the trash. Several processes may do so at once. Returns the first error
    /// after having gone on.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        let path = self.root.join("trash");
        let fd = files::open_path(&path)?;
        let what = || format!("emptying {}", path.display());
        let mut first = Ok(());
        for name in files::names(&fd).map_err(io(what))? {
            let removed = files::remove_tree(fd.as_fd(), &name).map_err(io(what));
            if first.is_ok() {
                first = removed;
            }
        }
        first
    }
}

/// See [`Store::named_lock`].
#[derive(Debug)]
pub(crate) struct NamedLock {
    path: PathBuf,
    _file: File,
}

impl Drop for NamedLock {
    fn drop(&mut self) {
        // While we hold the lock the path leads to our file or to nothing.
        let _ = std::fs::remove_file(&self.path);
    }
}
