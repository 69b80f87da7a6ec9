//! The state database: SQLite in WAL mode, used by several processes at once.
//!
//! `docs/format-database.md` specifies the tables and explains why nothing here waits for the disk
//! on the path of a container's start, and why that is safe.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{AtFlags, FallocateFlags, Timespec, Timestamps, UTIME_NOW};

use crate::error::io;
use crate::{Durability, Error, Result};

/// How long a transaction waits for another process to finish its own.
const BUSY: Duration = Duration::from_secs(20);
/// How long a checkpoint waits for readers, with the write lock in its hand: who started a container would wait, too.
const BUSY_CHECKPOINT: Duration = Duration::from_millis(100);
/// The log is moved into the database when it is larger than this, by a verb that has time.
const LARGE_LOG: u64 = 4 << 20;

/// How much of the log's room ahead is the disk's own already, at the least and when it is renewed: so
/// that on a full disk containers can still be stopped and removed. A transaction takes some 20 KiB.
const AHEAD: std::ops::Range<u64> = 512 << 10..1 << 20;

/// Each step brings the schema from version `n` to `n + 1`; never change one that was released.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// A connection to the state database. Not shared between threads: open one each, it is cheap.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    durability: Durability,
}

impl Database {
    pub(crate) fn open(path: &Path, read_only: bool, durability: Durability) -> Result<Database> {
        let threading = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if read_only {
            open_read_only(path, threading)?
        } else {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            Connection::open_with_flags(path, flags | threading)?
        };
        connection.busy_timeout(BUSY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Where a table has an index with a condition, a statement would be prepared anew for each value of a parameter.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // What was read once is not read again by the same command, with thousands of containers neither.
        // NORMAL syncs only at a checkpoint and when the log is begun anew, and neither happens on
        // this connection unless `checkpoint` is called. See docs/format-database.md.
        connection.execute_batch(
            "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA foreign_keys=ON; \
             PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384;",
        )?;
        let database = Database { connection, path: path.to_owned(), durability };
        let version = database.version()?;
        let known = MIGRATIONS.len();
        match usize::try_from(version) {
            Ok(version) if version == known => {}
            Ok(version) if version < known && !read_only => database.migrate()?,
            _ => {
                return Err(Error::Layout {
                    path: path.to_owned(),
                    found: format!("database {version}"),
                    known: u32::try_from(known).unwrap_or(u32::MAX),
                });
            }
        }
        if !read_only {
            database.reserve();
        }
        Ok(database)
    }

    /// Has the file system reserve what the log will need next. Where that cannot be, or the disk is
    /// full, there is what was reserved before, or nothing.
    fn reserve(&self) {
        use std::os::unix::fs::MetadataExt;
        let Ok(found) = std::fs::metadata(self.log()) else { return };
        let reserved = found.blocks().saturating_mul(512);
        if reserved < found.len().saturating_add(AHEAD.start)
            && let Ok(log) = std::fs::OpenOptions::new().write(true).open(self.log())
        {
            let length = found.len().saturating_add(AHEAD.end);
            let _ = rustix::fs::fallocate(&log, FallocateFlags::KEEP_SIZE, 0, length);
        }
    }

    /// The write-ahead log's path.
    fn log(&self) -> PathBuf {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        log.into()
    }

    fn version(&self) -> Result<i64> {
        Ok(self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
    }

    fn migrate(&self) -> Result<()> {
        // The mode is kept in the file; setting it needs a moment without other users, and SQLite
        // does not wait for one. So those who come at once to a new data root queue here.
        let root = self.path.parent().unwrap_or(&self.path);
        let lock = File::open(root).map_err(io(|| format!("opening {}", root.display())))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(io(|| format!("locking {}", root.display())))?;
        if usize::try_from(self.version()?).is_ok_and(|version| version == MIGRATIONS.len()) {
            return Ok(());
        }
        self.connection.pragma_update(None, "journal_mode", "wal")?;
        self.transaction(|tx| {
            // Another process may have done it while we waited.
            let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let version = usize::try_from(version).unwrap_or(0);
            for step in MIGRATIONS.get(version..).unwrap_or_default() {
                tx.execute_batch(step)?;
            }
            tx.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(0))?;
            Ok::<_, Error>(())
        })?;
        self.checkpoint()
    }

    /// The connection, for reading. Write through [`Database::transaction`].
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs `f` in a transaction that holds the write lock from its start, so that what it reads is
    /// still true when it writes. Rolled back if `f` fails.
    ///
    /// # Errors
    /// Those of `f`; [`Error::Database`] if another process holds the lock for longer than 20 s.
    pub fn transaction<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let begin = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let transaction = begin.map_err(Error::from)?;
        let value = f(&transaction)?;
        transaction.commit().map_err(Error::from)?;
        self.tell();
        self.reserve();
        Ok(value)
    }

    /// Tells those who watch the database's file that there is something new to read. The log's own
    /// change comes too early for them: it is written before what it holds can be seen.
    fn tell(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let now = Timestamps { last_access: now, last_modification: now };
        // Who misses it looks from time to time.
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &self.path, &now, AtFlags::empty());
    }

    /// Makes everything committed so far survive a loss of power. The verbs that delete files call
    /// it between forgetting them and deleting them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> Result<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        match File::open(self.log()) {
            Ok(file) => file.sync_data().map_err(io(|| format!("syncing {}", self.path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io(|| format!("opening the log of {}", self.path.display()))(error)),
        }
    }

    /// Moves the log into the database if it has grown large. For verbs that take long anyway, and for the steward; a
    /// start of a container never calls it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn checkpoint_if_large(&self) -> Result<()> {
        match std::fs::metadata(self.log()) {
            Ok(metadata) if metadata.len() > LARGE_LOG => self.checkpoint(),
            _ => Ok(()),
        }
    }

    /// Moves the log into the database and empties it.
    ///
    /// # Errors
    /// Those of the database. That readers keep the log from being emptied is no error.
    pub fn checkpoint(&self) -> Result<()> {
        let full = if self.durability == Durability::None { "OFF" } else { "FULL" };
        self.connection.pragma_update(None, "synchronous", full)?;
        // Nearly all of it while others write; the write lock is needed only for what they have added meanwhile.
        let copied = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        self.connection.busy_timeout(BUSY_CHECKPOINT)?;
        let done = copied.and_then(|()| {
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        self.connection.busy_timeout(BUSY)?;
        // The first write to an emptied log syncs its header. Do that now, so that no container's
        // start has to.
        let begun = done.and_then(|()| {
            self.connection.execute(
                "INSERT INTO meta(key, value) VALUES ('checkpoints', '1') \
                 ON CONFLICT(key) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
                [],
            )
        });
        let normal = if self.durability == Durability::None { "OFF" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", normal)?;
        self.reserve();
        match begun {
            // The log stays as it is, and whole.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
            begun => Ok(begun.map(drop)?),
        }
    }

    /// The files of the database, for accounting.
    pub(crate) fn file_names() -> [&'static str; 3] {
        ["state.db", "state.db-wal", "state.db-shm"]
    }
}

/// Reading a WAL database needs its shared-memory file, which cannot be made on a read-only file
/// system. Where it is missing nobody else has the database open, so the index of the log can be kept
/// in our own memory, without locks. (`immutable=1` would be simpler, but it ignores the log.)
fn open_read_only(path: &Path, threading: OpenFlags) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | threading;
    let connection = Connection::open_with_flags(path, flags)?;
    if connection.query_row("PRAGMA user_version", [], |_| Ok(())).is_ok() {
        return Ok(connection);
    }
    let connection = Connection::open_with_flags_and_vfs(path, flags, c"unix-none")?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(connection)
}
