//! Layers that come one by one, as from a registry, each under the digest it travels with.
//!
//! What has come of a layer's blob is kept in `tmp/part-…` until the layer is complete, so that a
//! transfer that was interrupted goes on at the byte. Nobody trusts that file: the digest of the whole blob,
//! from its first byte, decides.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use oci::{DiffId, Digest};
use rusqlite::{Transaction, params};
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::io as io_error;
use crate::incoming::Incoming;
use crate::tee::{Copy, Tee};
use crate::temporary::{Lease, NamedLock};
use crate::{Error, Result, Store, files};

/// What the names of interrupted transfers begin with.
pub(crate) const PARTIAL: &str = "part-";
/// How long an interrupted transfer may wait to be continued.
pub(crate) const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How long a layer without an image is kept for the pull that brought it.
const LEASE_NS: i64 = 86_400 * 1_000_000_000;

/// A layer as a manifest and a configuration describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingLayer {
    /// What it is when uncompressed.
    pub diff_id: DiffId,
    /// What it travels as.
    pub blob: Digest,
    /// Bytes of that.
    pub size: u64,
    /// Media type of that.
    pub media_type: String,
}

/// Where a layer's blob comes from.
pub trait BlobSource {
    /// The blob's bytes from `offset` on.
    ///
    /// # Errors
    /// Those of the connection.
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// Told how a layer comes along.
pub trait IngestProgress {
    /// Another process fetches the layer already.
    fn waiting(&mut self);
    /// So many bytes were here from an earlier try; 0 at a new start.
    fn resumed(&mut self, bytes: u64);
    /// All bytes of the blob have come; what follows is checking and syncing.
    fn received(&mut self);
}

/// Why a layer did not come.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store, or the layer itself.
    #[error(transparent)]
    Store(#[from] Error),
    /// The source failed; what came is kept for another try.
    #[error("{0}")]
    Source(io::Error),
}

/// Keeps layers from being removed while it lives.
#[derive(Debug)]
pub struct Hold {
    _lease: Lease,
}

/// Opens a data root once more: a store belongs to one thread.
#[derive(Clone, Debug)]
pub struct Opener {
    root: PathBuf,
    options: crate::OpenOptions,
}

impl Opener {
    /// Another store on the same data root.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(&self) -> Result<Store> {
        Store::open(&self.root, self.options)
    }
}

/// What the file of an interrupted transfer has, and then the source.
struct Resumed<'a> {
    file: File,
    path: PathBuf,
    /// Bytes that are in the file.
    have: u64,
    /// Bytes that were read.
    position: u64,
    size: u64,
    source: Option<Box<dyn Read + 'a>>,
    opener: Option<&'a mut dyn BlobSource>,
    failed: &'a mut Option<io::Error>,
    received: &'a mut dyn FnMut(),
    told: bool,
}

impl Resumed<'_> {
    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            (self.received)();
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.source.is_none() {
            let Some(opener) = self.opener.take() else { return Ok(0) };
            self.source = Some(opener.open(self.have)?);
        }
        match &mut self.source {
            Some(source) => source.read(buffer),
            None => Ok(0),
        }
    }
}

impl Read for Resumed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position < self.have {
            let left = usize::try_from(self.have - self.position).unwrap_or(usize::MAX);
            let left = left.min(buffer.len());
            let n = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.position)?;
            if n == 0 {
                return Err(io::Error::other(format!("{} became shorter", self.path.display())));
            }
            self.position = self.position.saturating_add(n as u64);
            return Ok(n);
        }
        if self.position >= self.size && self.opener.is_some() {
            // Everything was here.
            self.opener = None;
            self.tell();
            return Ok(0);
        }
        let n = self.next(buffer).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            *self.failed = Some(error);
            copy
        })?;
        self.position = self.position.saturating_add(n as u64);
        self.have = self.position;
        if self.position == self.size {
            self.tell();
        }
        Ok(n)
    }
}

/// A directory for work of others than this crate, gone when it is dropped.
#[derive(Debug)]
pub struct Scratch(crate::temporary::Temporary);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Store {
    /// A directory on the data root's file system.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; those of the file system.
    pub fn scratch(&self) -> Result<Scratch> {
        self.temporary().map(Scratch)
    }

    /// What opens the same data root in another thread.
    pub fn opener(&self) -> Opener {
        Opener { root: self.root.clone(), options: self.options }
    }

    /// Begins to bring an image in. No layer goes while this is held. What killed processes left is
    /// removed first.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; those of the file system.
    pub fn hold(&self) -> Result<Hold> {
        self.writable_store()?;
        self.remove_stale_temporaries();
        Ok(Hold { _lease: self.lease()? })
    }

    /// Whether a layer is in the store.
    pub fn has_layer(&self, diff_id: &DiffId) -> bool {
        self.layer_info(diff_id).is_some()
    }

    fn lock_waiting(&self, name: &str, progress: &mut dyn IngestProgress) -> Result<NamedLock> {
        match self.named_lock_if_free(name)? {
            Some(lock) => Ok(lock),
            None => {
                progress.waiting();
                self.named_lock(name)
            }
        }
    }

    /// Brings a layer in, unless it is here. Two processes that want the same layer share one transfer:
    /// the second waits. The layer is synced and in its place when this returns, and is kept for a day even
    /// if no image comes to refer to it. Returns whether it had to be fetched.
    ///
    /// # Errors
    /// [`IngestError::Source`], which keeps what has come; [`Error::Oci`] for content that is
    /// not what was announced, which keeps nothing.
    pub fn ingest_layer(
        &self,
        layer: &IncomingLayer,
        source: &mut dyn BlobSource,
        progress: &mut dyn IngestProgress,
    ) -> Result<bool, IngestError> {
        self.writable_store()?;
        if self.has_layer(&layer.diff_id) {
            self.lease_layer(&layer.diff_id)?;
            return Ok(false);
        }
        let _lock = self.lock_waiting(&format!("layer-{}", layer.diff_id.hex()), progress)?;
        if self.has_layer(&layer.diff_id) {
            self.lease_layer(&layer.diff_id)?;
            return Ok(false);
        }
        let name = format!("{}-{}", layer.blob.algorithm(), layer.blob.hex());
        let _blob = self.lock_waiting(&format!("blob-{name}"), progress)?;
        let path = self.root.join("tmp").join(format!("{PARTIAL}{name}"));
        loop {
            let (resumed, outcome) = self.ingest_once(layer, &path, source, progress)?;
            match outcome {
                Ok(staged) => {
                    self.sync_layer(&staged)?;
                    self.publish_layer(&staged)?;
                    self.lease_layer(&layer.diff_id)?;
                    let _ = std::fs::remove_file(&path);
                    return Ok(true);
                }
                Err(IngestError::Store(error)) => {
                    let space = matches!(error, Error::NoSpace { .. });
                    let _ = std::fs::remove_file(&path);
                    // What an earlier try left may have been torn by a loss of power.
                    if space || !resumed {
                        return Err(error.into());
                    }
                }
                Err(kept) => return Err(kept),
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "an error of its own beside one of the content")]
    fn ingest_once(
        &self,
        layer: &IncomingLayer,
        path: &std::path::Path,
        source: &mut dyn BlobSource,
        progress: &mut dyn IngestProgress,
    ) -> Result<(bool, Result<crate::layer::StagedLayer, IngestError>), IngestError> {
        let what = format!("layer {}", layer.blob);
        let opening = || format!("opening {}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600))
            .map_err(io_error(opening))?;
        let file = File::from(fd);
        let mut have = file.metadata().map_err(io_error(opening))?.len();
        if have > layer.size {
            file.set_len(0).map_err(io_error(opening))?;
            have = 0;
        }
        progress.resumed(have);
        let mut failed = None;
        let mut received = || progress.received();
        let copy = file.try_clone().map_err(io_error(opening))?;
        let reader = Resumed {
            file,
            path: path.to_owned(),
            have,
            position: 0,
            size: layer.size,
            source: None,
            opener: Some(source),
            failed: &mut failed,
            received: &mut received,
            told: false,
        };
        // Hashed and kept by threads of their own while this one decompresses and indexes.
        let copy = Copy { file: copy, have, writeback: false };
        let mut hashing = Tee::eager(reader, layer.blob.hasher(), copy);
        let staged = self.stage_layer(Incoming::Stream(&mut hashing), &what, None, &mut ());
        // Content that cannot be read is mostly content that is not what was asked for: the rest of it
        // tells.
        let worth_reading = match &staged {
            Ok(_) | Err(Error::Oci(_) | Error::Refused { .. }) => true,
            Err(_) => false,
        };
        let whole = if worth_reading {
            Some(hashing.finish())
        } else {
            drop(hashing);
            None
        };
        if let Some(error) = failed {
            return Ok((have > 0, Err(IngestError::Source(error))));
        }
        let checked = match whole {
            Some(Ok((digest, size))) if size != layer.size => {
                let _ = digest;
                let (expected, actual) = (layer.size, size);
                Err(oci::Error::SizeMismatch { what, expected, actual }.into())
            }
            Some(Ok((digest, _))) if digest != layer.blob => {
                Err(oci::Error::digest_mismatch(what, layer.blob, digest).into())
            }
            Some(Err(error)) => Err(io_error(|| format!("keeping {what}"))(error)),
            _ => staged.and_then(|staged| {
                if staged.diff_id == layer.diff_id {
                    return Ok(staged);
                }
                let (expected, actual) = (layer.diff_id.digest(), staged.diff_id.digest());
                let what = format!("{what}, uncompressed");
                Err(oci::Error::digest_mismatch(what, expected, actual).into())
            }),
        };
        Ok((have > 0, checked.map_err(IngestError::Store)))
    }

    fn lease_layer(&self, diff_id: &DiffId) -> Result<()> {
        let expires = files::now_ns().saturating_add(LEASE_NS);
        self.database.transaction(|tx| {
            tx.prepare_cached(
                "INSERT INTO layer_leases(diff_id, expires_ns) VALUES (?1, ?2) \
                 ON CONFLICT(diff_id) DO UPDATE SET expires_ns = excluded.expires_ns",
            )?
            .execute(params![diff_id.to_string(), expires])?;
            Ok(())
        })
    }

    /// Diff IDs that are kept for a pull that may go on.
    pub(crate) fn leased_layers(&self) -> Result<Vec<String>> {
        let mut statement = self
            .database
            .connection()
            .prepare_cached("SELECT diff_id FROM layer_leases WHERE expires_ns > ?1")?;
        let ids = statement.query_map([files::now_ns()], |row| row.get(0))?;
        let ids: Vec<String> = ids.collect::<rusqlite::Result<_>>()?;
        Ok(ids
            .into_iter()
            .filter(|id| id.parse::<DiffId>().is_ok_and(|diff_id| self.has_layer(&diff_id)))
            .collect())
    }

    /// Gives up what interrupted pulls have left: transfers that nobody continues at the moment,
    /// and layers without an image. What a running pull needs stays.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_interrupted(&self) -> Result<()> {
        self.writable_store()?;
        for name in self.directory_names("tmp")? {
            if name.starts_with(PARTIAL) {
                self.remove_partial(&name, Duration::ZERO);
            }
        }
        self.database.transaction(|tx| {
            tx.execute("DELETE FROM layer_leases", [])?;
            Ok(())
        })
    }

    /// Removes the file of an interrupted transfer if nobody is at it and it is older than `age`.
    pub(crate) fn remove_partial(&self, name: &str, age: Duration) {
        let path = self.root.join("tmp").join(name);
        let old = std::fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed >= age));
        if !old {
            return;
        }
        let lock = format!("blob-{}", name.trim_start_matches(PARTIAL));
        if let Ok(Some(_lock)) = self.named_lock_if_free(&lock) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Leases that have run out.
pub(crate) fn forget_expired(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM layer_leases WHERE expires_ns <= ?1")?
        .execute([files::now_ns()])?;
    Ok(())
}

/// `()` hears nothing.
impl IngestProgress for () {
    fn waiting(&mut self) {}
    fn resumed(&mut self, _: u64) {}
    fn received(&mut self) {}
}
