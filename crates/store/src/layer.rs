//! Layers: from a stream to `layers/<diff ID>/`: `layer.tar`, `layer.json`, and `diff/` where layers are
//! unpacked.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use erofs::{Indexed, Visitor};
use oci::compression::{Compression, Decompressor};
use oci::tar::TarReader;
use oci::{DiffId, Error as OciError};
use rusqlite::{Transaction, params};
use rustix::fs::{CWD, Mode, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::chain::sync_directory;
use crate::error::io;
use crate::incoming::{Incoming, Part};
use crate::tee::{self, Copy, Tee};
use crate::temporary::Temporary;
use crate::unpack::{UnpackOptions, unpack};
use crate::{Error, Form, Progress, Result, Store, files};

/// The unpacked directory of a layer.
pub(crate) const DIFF: &str = "diff";
/// The layer's archive, exactly as its diff ID names it.
pub(crate) const TAR: &str = "layer.tar";
/// The data of its sparse files, laid out as image filesystems need it. Most layers have none.
pub(crate) const SPARSE: &str = "sparse";
/// Sizes, so that the database's row can be made again.
const INFO: &str = "layer.json";

/// Free bytes an import leaves on the disk.
const RESERVE: u64 = 64 << 20;
/// How often the disk's free space is looked at, in bytes of content.
const CHECK_EVERY: u64 = 64 << 20;

/// What is known of a layer besides its content.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    /// Bytes of file content.
    pub(crate) size: u64,
    /// Bytes of the uncompressed archive.
    pub(crate) tar_size: u64,
}

/// A layer that is complete but not visible yet.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    pub(crate) diff_id: DiffId,
    pub(crate) info: LayerInfo,
    /// None if the layer was in the store already.
    pub(crate) directory: Option<Temporary>,
    /// Its files, unless it was unpacked.
    pub(crate) indexed: Option<Indexed>,
}

impl Store {
    pub(crate) fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// The layer's record if it is in the store.
    pub(crate) fn layer_info(&self, diff_id: &DiffId) -> Option<LayerInfo> {
        let raw = files::read_small(&self.layer_path(diff_id).join(INFO), 4096).ok()?;
        serde_json::from_slice(&raw).ok()
    }

    /// Fails early and clearly instead of filling the last bytes of a disk that others use too.
    pub(crate) fn check_space(&self) -> Result<()> {
        let what = || self.root.display().to_string();
        let stat = rustix::fs::statvfs(&self.root).map_err(io(what))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < RESERVE {
            return Err(Error::NoSpace { what: self.root.display().to_string() });
        }
        Ok(())
    }

    /// Reads a layer, compressed or not, to its end: hashes, keeps and unpacks it in one pass.
    pub(crate) fn stage_layer(
        &self,
        mut source: Incoming<'_>,
        what: &str,
        limit: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<StagedLayer> {
        self.check_space()?;
        let unpacked = self.form()? == Form::Directories;
        let temporary = self.temporary()?;
        let tar_path = temporary.path().join(TAR);
        let creating = || format!("creating {}", tar_path.display());
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&tar_path);
        let file = file.map_err(io(creating))?;
        let shared = file.try_clone().map_err(io(creating))?;
        let have = source.share(&file);
        let source = Part { file: &shared, offset: 0, left: have }.chain(source);

        let decompressed = Decompressor::new(source)
            .map_err(|source| Error::Oci(OciError::Io { what: what.to_owned(), source }))?;
        if have > 0 && decompressed.compression() != Compression::None {
            return Err(Error::Invalid(format!("{what} was changed while it was read")));
        }
        let too_large = |error: Error| match error {
            Error::Oci(OciError::Io { source, .. }) if tee::is_too_large(&source) => {
                Error::TooLarge { what: what.to_owned(), limit: limit.unwrap_or(u64::MAX) }
            }
            Error::Oci(OciError::Io { source, .. }) if source.raw_os_error() == Some(28) => {
                Error::NoSpace { what: self.root.display().to_string() }
            }
            Error::NoSpace { .. } => Error::NoSpace { what: self.root.display().to_string() },
            other => other,
        };
        let read = |source| Error::Oci(OciError::Io { what: what.to_owned(), source });
        let copy = Copy { file, have, writeback: self.durable() };
        let tee = Tee::new(decompressed, Some(copy), limit.unwrap_or(u64::MAX));
        let mut tar = TarReader::new(tee);
        let mut watch = Watch { store: self, what, limit, next_check: CHECK_EVERY, progress };
        let (bytes, mut indexed) = if unpacked {
            let root = make_root(&temporary)?;
            let options = UnpackOptions { whiteouts: true, limit, ..UnpackOptions::default() };
            let unpacked = unpack(&mut tar, root.as_fd(), &options, &mut |done| watch.at(done));
            (unpacked.map_err(too_large)?.bytes, None)
        } else {
            let mut visitor = Staging { watch: &mut watch, temporary: &temporary, sparse: None };
            let indexed = Indexed::read(&mut tar, &mut visitor).map_err(too_large)?;
            if let Some(sparse) = visitor.sparse {
                let what = || format!("writing {}", temporary.path().display());
                sparse.set_len(indexed.side.size()).map_err(io(what))?;
            }
            (indexed.bytes, Some(indexed))
        };
        let (digest, tar_size) =
            tar.into_inner().finish_archive().map_err(|error| too_large(read(error)))?;
        let diff_id = DiffId(digest);
        if tar_size == 0 {
            return Err(Error::Oci(OciError::Archive(format!("{what} is empty"))));
        }
        if let Some(indexed) = &mut indexed {
            indexed.archive = tar_size;
        }
        let info = LayerInfo { size: bytes, tar_size };
        write_info(&temporary, info)?;
        watch.progress.update(what, tar_size, Some(tar_size));
        Ok(StagedLayer { diff_id, info, directory: Some(temporary), indexed })
    }

    /// Makes a staged layer survive a loss of power.
    pub(crate) fn sync_layer(&self, layer: &StagedLayer) -> Result<()> {
        match (&layer.directory, &layer.indexed) {
            (Some(directory), Some(_)) if self.durable() => sync_directory(directory.path()),
            (Some(_), None) => self.sync_files(),
            _ => Ok(()),
        }
    }

    /// Unpacks a layer that is kept as an archive alone, and checks that the archive is what its name
    /// says. Returns whether there was something to do.
    pub(crate) fn unpack_layer(&self, diff_id: &DiffId) -> Result<bool> {
        let directory = self.layer_path(diff_id);
        let to = directory.join(DIFF);
        if to.is_dir() {
            return Ok(false);
        }
        self.writable_store()?;
        let path = directory.join(TAR);
        let missing = |error| Error::Damaged(format!("the layer {diff_id} is missing: {error}"));
        let file = File::open(&path).map_err(missing)?;
        self.check_space()?;
        let temporary = self.temporary()?;
        let root = make_root(&temporary)?;
        let mut tar = TarReader::new(Tee::new(file, None, u64::MAX));
        let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
        unpack(&mut tar, root.as_fd(), &options, &mut |_| Ok(()))?;
        let reading = || format!("reading {}", path.display());
        let (found, _) = tar.into_inner().finish().map_err(io(reading))?;
        if found != diff_id.digest() {
            let path = path.display();
            return Err(Error::Damaged(format!("{path} does not have the digest {diff_id}")));
        }
        drop(root);
        self.sync_files()?;
        let from = temporary.path().join(DIFF);
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => self.sync_parent(&to).map(|()| true),
            Err(error) => Err(io(|| format!("publishing {}", to.display()))(error)),
        }
    }

    /// Makes everything written so far survive a loss of power. One call for all layers of an image.
    pub(crate) fn sync_files(&self) -> Result<()> {
        if !self.durable() {
            return Ok(());
        }
        let fd = files::open_path(&self.root)?;
        rustix::fs::syncfs(&fd).map_err(io(|| format!("syncing {}", self.root.display())))
    }

    /// Puts a synced layer in its place. Somebody else having done so is fine.
    pub(crate) fn publish_layer(&self, layer: &StagedLayer) -> Result<()> {
        let Some(directory) = &layer.directory else { return Ok(()) };
        let to = self.layer_path(&layer.diff_id);
        match rustix::fs::renameat_with(CWD, directory.path(), CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => {
                return Err(io(|| format!("publishing the layer {}", to.display()))(error));
            }
        }
        // The name must not be lost when the database's row, written next, is not.
        if self.durable() {
            let layers = files::open_path(&self.root.join("layers"))?;
            rustix::fs::fsync(&layers)
                .map_err(io(|| format!("publishing the layer {}", to.display())))?;
        }
        Ok(())
    }

    /// Keeps a configuration or manifest document as a blob. Synced by the caller.
    pub(crate) fn write_blob(&self, raw: &[u8]) -> Result<oci::Digest> {
        let digest = oci::Digest::sha256(raw);
        let path = self.blob_path(&digest);
        if path.exists() {
            return Ok(digest);
        }
        let temporary = self.temporary()?;
        let from = temporary.path().join("blob");
        let write = || {
            std::fs::write(&from, raw)?;
            if self.durable() {
                File::open(&from)?.sync_all()?;
            }
            std::fs::rename(&from, &path)?;
            if self.durable()
                && let Some(parent) = path.parent()
            {
                File::open(parent)?.sync_all()?;
            }
            Ok::<_, std::io::Error>(())
        };
        write().map_err(io(|| format!("writing the blob {}", path.display())))?;
        Ok(digest)
    }

    pub(crate) fn blob_path(&self, digest: &oci::Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }
}

/// Makes the directory a layer is unpacked into.
fn make_root(temporary: &Temporary) -> Result<OwnedFd> {
    let path = temporary.path().join(DIFF);
    let what = || format!("creating {}", path.display());
    rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755)).map_err(io(what))?;
    let root = files::open_path(&path)?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(io(what))?;
    Ok(root)
}

/// Reports and looks at the disk while a layer is read.
struct Watch<'a> {
    store: &'a Store,
    what: &'a str,
    limit: Option<u64>,
    next_check: u64,
    progress: &'a mut dyn Progress,
}

impl Watch<'_> {
    fn at(&mut self, done: u64) -> Result<()> {
        if let Some(limit) = self.limit.filter(|limit| done > *limit) {
            return Err(Error::TooLarge { what: "the unpacked content".to_owned(), limit });
        }
        if done >= self.next_check {
            self.next_check = done.saturating_add(CHECK_EVERY);
            self.store.check_space()?;
            self.progress.update(self.what, done, None);
        }
        Ok(())
    }
}

/// A layer that is indexed while it is read.
struct Staging<'a, 'b> {
    watch: &'a mut Watch<'b>,
    temporary: &'a Temporary,
    sparse: Option<File>,
}

impl<R> Visitor<R> for Staging<'_, '_> {
    type Error = Error;

    fn side(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let path = || self.temporary.path().join(SPARSE);
        let what = || format!("writing {}", path().display());
        let file = match &self.sparse {
            Some(file) => file,
            None => self.sparse.insert(File::create_new(path()).map_err(io(what))?),
        };
        file.write_all_at(data, offset).map_err(io(what))
    }

    fn entry(&mut self, _: &mut TarReader<R>, bytes: u64) -> Result<()> {
        self.watch.at(bytes)
    }
}

fn write_info(temporary: &Temporary, info: LayerInfo) -> Result<()> {
    let path = temporary.path().join(INFO);
    let bytes = serde_json::to_vec(&info).unwrap_or_default();
    std::fs::write(&path, bytes).map_err(io(|| format!("writing {}", path.display())))
}

/// Tells the database of a layer.
pub(crate) fn insert_layer(
    tx: &Transaction<'_>,
    diff_id: &DiffId,
    info: LayerInfo,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO layers(diff_id, size, tar_size, created_ns) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT(diff_id) DO NOTHING",
    )?
    .execute(params![
        diff_id.to_string(),
        i64::try_from(info.size).unwrap_or(i64::MAX),
        i64::try_from(info.tar_size).unwrap_or(i64::MAX),
        files::now_ns()
    ])?;
    Ok(())
}
