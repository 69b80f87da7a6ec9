//! Indexes that were pulled whole: their bytes, their images, and whatever else they name. That is kept as it
//! travels, under its digest in `blobs/`: indexes in the index, and the manifests and blobs of attestations and of
//! images for other systems. It goes when no index names it any more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use oci::digest::HashingReader;
use oci::limits::{MAX_INDEX_DEPTH, MAX_JSON};
use oci::manifest::{Descriptor, Index, Manifest};
use oci::{Digest, ImageId, Reference};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::io as io_error;
use crate::ingest::{BlobSource, IngestError};
use crate::pulled::KnownManifest;
use crate::{Error, Result, Store};

/// Rows of names that still mean what they meant when the index was pulled.
const VALID: &str = "EXISTS (SELECT 1 FROM index_images i JOIN image_tags t \
     ON t.reference = i.reference AND t.image_id = i.image_id WHERE i.reference = indexes.reference)";

impl Store {
    /// Keeps an index that was pulled whole under these names, and its images as long as one of them is there.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_index(
        &self,
        names: &[Reference],
        index: &KnownManifest,
        images: &[ImageId],
    ) -> Result<()> {
        self.writable_store()?;
        self.database.transaction(|tx| {
            for name in names {
                let name = name.to_string();
                tx.prepare_cached("DELETE FROM indexes WHERE reference = ?1")?.execute([&name])?;
                tx.prepare_cached(
                    "INSERT INTO indexes(reference, digest, media_type, raw) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    name,
                    index.digest.to_string(),
                    index.media_type,
                    index.raw
                ])?;
                for image in images {
                    tx.prepare_cached(
                        "INSERT OR IGNORE INTO index_images(reference, image_id) VALUES (?1, ?2)",
                    )?
                    .execute(params![name, image.to_string()])?;
                }
            }
            Ok(())
        })
    }

    /// A name means an image alone from now on.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_index(&self, name: &Reference) -> Result<()> {
        self.writable_store()?;
        self.database.transaction(|tx| {
            tx.prepare_cached("DELETE FROM indexes WHERE reference = ?1")?
                .execute([name.to_string()])?;
            Ok(())
        })
    }

    /// The index that was pulled whole under a name, if the name still means it, and its images.
    ///
    /// # Errors
    /// Those of the database.
    pub fn index_of(&self, reference: &Reference) -> Result<Option<(KnownManifest, Vec<ImageId>)>> {
        let connection = self.database.connection();
        let name = reference.to_string();
        let found = connection
            .prepare_cached(&format!(
                "SELECT digest, media_type, raw FROM indexes WHERE reference = ?1 AND {VALID}"
            ))?
            .query_row([&name], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((digest, media_type, raw)) = found else { return Ok(None) };
        let mut statement =
            connection.prepare_cached("SELECT image_id FROM index_images WHERE reference = ?1")?;
        let ids = statement
            .query_map([&name], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let ids = ids.iter().map(|id| id.parse()).collect::<oci::Result<_>>()?;
        Ok(Some((KnownManifest { digest: digest.parse()?, media_type, raw }, ids)))
    }

    /// Keeps something that an index names, as it travels; the caller has a [`crate::Hold`]. Returns whether it had
    /// to be read.
    ///
    /// # Errors
    /// [`IngestError::Source`]; [`Error::Oci`] for content that is not what was announced.
    pub fn keep_blob(
        &self,
        blob: &Descriptor,
        source: &mut dyn BlobSource,
    ) -> Result<bool, IngestError> {
        self.writable_store()?;
        let path = self.blob_path(&blob.digest);
        let name = format!("blob-{}-{}", blob.digest.algorithm(), blob.digest.hex());
        let _lock = self.named_lock(&name)?;
        if path.exists() {
            return Ok(false);
        }
        self.check_space()?;
        let what = format!("blob {}", blob.digest);
        let writing = || format!("keeping the {what}");
        let temporary = self.temporary()?;
        let from = temporary.path().join("blob");
        let mut file = File::create_new(&from).map_err(io_error(writing))?;
        let incoming = source.open(0).map_err(IngestError::Source)?;
        // A byte more than announced is enough to know that it is wrong.
        let mut reader =
            HashingReader::new(incoming.take(blob.size.saturating_add(1)), blob.digest.hasher());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(IngestError::Source(error)),
            };
            if n == 0 {
                break;
            }
            io::Write::write_all(&mut file, buffer.get(..n).unwrap_or_default())
                .map_err(io_error(writing))?;
        }
        let (digest, size) = reader.finish().map_err(IngestError::Source)?;
        if size != blob.size {
            let (expected, actual) = (blob.size, size);
            return Err(Error::Oci(oci::Error::SizeMismatch { what, expected, actual }).into());
        }
        if digest != blob.digest {
            let wrong = oci::Error::digest_mismatch(what, blob.digest, digest);
            return Err(Error::Oci(wrong).into());
        }
        let publish = || {
            if self.durable() {
                file.sync_all()?;
            }
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
                std::fs::rename(&from, &path)?;
                if self.durable() {
                    File::open(parent)?.sync_all()?;
                }
            }
            Ok::<_, io::Error>(())
        };
        publish().map_err(io_error(writing))?;
        Ok(true)
    }

    /// A blob that [`Store::keep_blob`] has kept.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn kept_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(|| format!("opening {}", path.display()))(error)),
        }
    }

    /// A manifest or an index that [`Store::keep_blob`] has kept.
    ///
    /// # Errors
    /// Those of reading; [`Error::Oci`] if it was changed on the disk.
    pub fn kept_document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.kept_blob(digest)? else { return Ok(None) };
        let what = format!("blob {digest}");
        let mut raw = Vec::new();
        file.take(MAX_JSON.saturating_add(1))
            .read_to_end(&mut raw)
            .map_err(io_error(|| format!("reading the {what}")))?;
        if raw.len() as u64 > MAX_JSON {
            return Err(Error::TooLarge { what, limit: MAX_JSON });
        }
        digest.verify(&what, &raw)?;
        Ok(Some(raw))
    }

    /// Everything that indexes name. Most of it is images, which are no blobs here.
    pub(crate) fn named_by_indexes(&self) -> Result<BTreeSet<Digest>> {
        let connection = self.database.connection();
        let mut statement =
            connection.prepare_cached(&format!("SELECT raw FROM indexes WHERE {VALID}"))?;
        let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        let mut left: Vec<(Vec<u8>, usize)> = Vec::new();
        for raw in rows {
            left.push((raw?, 0));
        }
        let mut named = BTreeSet::new();
        while let Some((raw, depth)) = left.pop() {
            if let Ok(index) = Index::parse(&raw) {
                for entry in index.manifests {
                    if !named.insert(entry.digest) || depth > MAX_INDEX_DEPTH {
                        continue;
                    }
                    // One that was damaged has to go.
                    if let Ok(Some(raw)) = self.kept_document(&entry.digest) {
                        left.push((raw, depth + 1));
                    }
                }
            } else if let Ok(manifest) = Manifest::parse(&raw) {
                named.insert(manifest.config.digest);
                named.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        Ok(named)
    }
}

/// A new name for what had another: it means the whole index, if that one did.
pub(crate) fn copy_index(
    tx: &Transaction<'_>,
    from: &Reference,
    to: &Reference,
) -> rusqlite::Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    if from == to {
        return Ok(());
    }
    tx.prepare_cached("DELETE FROM indexes WHERE reference = ?1")?.execute([&to])?;
    let copied = tx
        .prepare_cached(&format!(
            "INSERT INTO indexes(reference, digest, media_type, raw) \
             SELECT ?2, digest, media_type, raw FROM indexes WHERE reference = ?1 AND {VALID}"
        ))?
        .execute([&from, &to])?;
    if copied > 0 {
        tx.prepare_cached(
            "INSERT INTO index_images(reference, image_id) \
             SELECT ?2, image_id FROM index_images WHERE reference = ?1",
        )?
        .execute([&from, &to])?;
    }
    Ok(())
}
