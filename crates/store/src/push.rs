//! Layers that leave as a registry wants them: compressed, under the digests they have there.

use std::fs::File;
use std::io::{self, Seek, Write};

use oci::compression::{Compression, Compressor};
use oci::digest::{Hasher, Measured};
use oci::manifest::media_type;
use oci::{DiffId, Digest, ImageId, Reference};
use rusqlite::params;

use crate::error::io as io_error;
use crate::ingest::IncomingLayer;
use crate::layer::TAR;
use crate::pulled::{KnownManifest, note_blob, note_manifest};
use crate::temporary::Temporary;
use crate::{Error, Result, Store, files};

/// What a layer is known to travel as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBlob {
    /// Its digest.
    pub blob: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// A layer, compressed, in a file that goes when this does.
#[derive(Debug)]
pub struct PackedLayer {
    /// What it is.
    pub blob: KnownBlob,
    file: File,
    _directory: Temporary,
}

impl PackedLayer {
    /// Its bytes from `offset` on.
    ///
    /// # Errors
    /// Those of reading.
    pub fn open(&self, offset: u64) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(file)
    }
}

/// Passes what it reads on to a counter.
struct Counted<'a> {
    file: File,
    hasher: Hasher,
    done: u64,
    tell: &'a mut dyn FnMut(u64) -> io::Result<()>,
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.done = self.done.saturating_add(n as u64);
        (self.tell)(self.done)?;
        Ok(n)
    }
}

impl Store {
    /// Compresses a layer with settings that always give the same bytes. `tell` hears how many bytes
    /// of the layer were read, and can end it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the layer is missing or is not what its name says.
    pub fn pack_layer(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        docker: bool,
        tell: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<PackedLayer> {
        let path = self.layer_path(diff_id).join(TAR);
        let file = File::open(&path)
            .map_err(|e| Error::Damaged(format!("the layer {diff_id} is missing: {e}")))?;
        let directory = self.temporary()?;
        let to = directory.path().join("blob");
        let writing = || format!("compressing the layer {diff_id}");
        let mut options = File::options();
        let out = options.read(true).write(true).create_new(true).open(&to);
        let out = Measured::new(out.map_err(io_error(writing))?);
        let mut compressor = Compressor::new(compression, out).map_err(io_error(writing))?;
        let mut counted = Counted { file, hasher: Hasher::sha256(), done: 0, tell };
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = io::Read::read(&mut counted, &mut buffer).map_err(io_error(writing))?;
            if n == 0 {
                break;
            }
            compressor.write_all(buffer.get(..n).unwrap_or_default()).map_err(io_error(writing))?;
        }
        let actual = counted.hasher.finish();
        if actual != diff_id.digest() {
            return Err(Error::Damaged(format!(
                "{} has the digest {actual}: the layer {diff_id} was changed on the disk",
                path.display()
            )));
        }
        let measured = compressor.finish().map_err(io_error(writing))?;
        let media_type = match (compression, docker) {
            (Compression::Zstd, _) => media_type::LAYER_ZSTD,
            (Compression::Gzip, true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Compression::Gzip, false) => media_type::LAYER_GZIP,
            (_, true) => "application/vnd.docker.image.rootfs.diff.tar",
            (_, false) => media_type::LAYER,
        };
        let blob = KnownBlob {
            blob: measured.hasher.finish(),
            size: measured.size,
            media_type: media_type.to_owned(),
        };
        Ok(PackedLayer { blob, file: measured.out, _directory: directory })
    }

    /// The layer's uncompressed size, if it is here.
    pub fn layer_size(&self, diff_id: &DiffId) -> Option<u64> {
        Some(self.layer_info(diff_id)?.tar_size)
    }

    /// What a layer travels as, as far as that was seen with our own eyes; the last seen first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn blobs_of(&self, diff_id: &DiffId) -> Result<Vec<KnownBlob>> {
        let mut statement = self.database.connection().prepare_cached(
            "SELECT blob, size, media_type FROM layer_blobs WHERE diff_id = ?1 AND verified \
             ORDER BY \
             (SELECT max(seen_ns) FROM blob_repositories r WHERE r.blob = layer_blobs.blob) DESC",
        )?;
        let rows = statement.query_map([diff_id.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut known = Vec::new();
        for row in rows {
            let (blob, size, media_type) = row?;
            let size = u64::try_from(size).unwrap_or(0);
            known.push(KnownBlob { blob: blob.parse()?, size, media_type });
        }
        Ok(known)
    }

    /// Repositories, as `domain/path`, in which a blob was seen; the last seen first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn repositories_of(&self, blob: &Digest) -> Result<Vec<String>> {
        let mut statement = self.database.connection().prepare_cached(
            "SELECT repository FROM blob_repositories WHERE blob = ?1 ORDER BY seen_ns DESC",
        )?;
        let rows = statement.query_map([blob.to_string()], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Manifests an image is known under; the last seen first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn manifests_of(&self, image: &ImageId) -> Result<Vec<KnownManifest>> {
        let mut statement = self.database.connection().prepare_cached(
            "SELECT digest, media_type, raw FROM manifests WHERE image_id = ?1 \
             ORDER BY added_ns DESC",
        )?;
        let rows = statement.query_map([image.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        let mut known = Vec::new();
        for row in rows {
            let (digest, media_type, raw) = row?;
            known.push(KnownManifest { digest: digest.parse()?, media_type, raw });
        }
        Ok(known)
    }

    /// Remembers what a push has put where, with whether the blob was made here, and the name with a digest that the image got by it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_pushed(
        &self,
        image: &ImageId,
        name: &Reference,
        manifest: &KnownManifest,
        layers: &[(IncomingLayer, bool)],
    ) -> Result<()> {
        self.writable_store()?;
        self.database.transaction(|tx| {
            let known = tx
                .prepare_cached("SELECT 1 FROM images WHERE id = ?1")?
                .exists([image.to_string()])?;
            // It may have been removed meanwhile.
            if !known {
                return Ok(());
            }
            for (layer, verified) in layers {
                note_blob(tx, layer, *verified, &name.repository())?;
            }
            note_manifest(tx, image, manifest)?;
            let digested = name.with_digest(manifest.digest);
            tx.prepare_cached(
                "INSERT INTO image_tags(reference, image_id) VALUES (?1, ?2) \
                 ON CONFLICT(reference) DO UPDATE SET image_id = excluded.image_id",
            )?
            .execute(params![digested.to_string(), image.to_string()])?;
            Ok(())
        })
    }

    /// All names with a tag in a repository, and their images.
    ///
    /// # Errors
    /// Those of the database.
    pub fn tags_in(&self, repository: &Reference) -> Result<Vec<(Reference, ImageId)>> {
        self.tags_of(repository)
    }

    /// Now, in nanoseconds since the epoch.
    pub fn now_ns() -> i64 {
        files::now_ns()
    }
}
