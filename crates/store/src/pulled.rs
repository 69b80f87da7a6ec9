//! Images whose layers have come from a registry, and what is remembered of that: under which digests layers
//! travel, where those were seen, which manifests an image has.

use std::collections::HashMap;

use oci::config::ImageConfig;
use oci::{DiffId, Digest, ImageId, Reference};
use rusqlite::{Transaction, params};

use crate::image::{NewImage, insert_image};
use crate::ingest::IncomingLayer;
use crate::layer::{LayerInfo, insert_layer};
use crate::{Error, ImageRecord, Result, Store, files};

/// A manifest and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub raw: Vec<u8>,
}

/// An image whose layers have come.
#[derive(Debug)]
pub struct PulledImage<'a> {
    /// The bytes of its configuration.
    pub config_raw: &'a [u8],
    /// Names it gets; those with a digest too.
    pub references: &'a [Reference],
    /// Its manifest.
    pub manifest: &'a KnownManifest,
    /// Its layers, lowest first.
    pub layers: &'a [IncomingLayer],
    /// Blobs among them that were read and checked; of the others only the manifest says what they are.
    pub verified: &'a [Digest],
    /// `domain/path` where it came from.
    pub repository: &'a str,
}

impl Store {
    /// Makes an image visible whose layers have come. The caller has a [`Hold`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if a layer is missing; a configuration that is none.
    pub fn add_pulled(&self, image: &PulledImage<'_>) -> Result<ImageRecord> {
        self.writable_store()?;
        let config = ImageConfig::parse(image.config_raw)?;
        let id = ImageConfig::id(image.config_raw);
        let mut layers: Vec<(DiffId, LayerInfo)> = Vec::new();
        for layer in image.layers {
            let info = self
                .layer_info(&layer.diff_id)
                .ok_or_else(|| Error::Damaged(format!("the layer {} vanished", layer.diff_id)))?;
            layers.push((layer.diff_id, info));
        }
        self.write_blob(image.config_raw)?;
        let diff_ids: Vec<DiffId> = layers.iter().map(|(diff_id, _)| *diff_id).collect();
        if self.form()?.is_erofs() && !diff_ids.is_empty() {
            // A later start would do it; somebody waits for that one.
            let chain = self.stage_chain(&diff_ids, &HashMap::new())?;
            self.sync_chain(&chain)?;
            self.publish_chain(&chain)?;
        }
        self.database.transaction(|tx| {
            for (diff_id, info) in &layers {
                insert_layer(tx, diff_id, *info)?;
            }
            insert_image(
                tx,
                &id,
                &NewImage {
                    config: &config,
                    config_raw: image.config_raw,
                    parent: None,
                    references: image.references,
                    layers: &layers,
                },
            )?;
            for layer in image.layers {
                let verified = image.verified.contains(&layer.blob);
                note_blob(tx, layer, verified, image.repository)?;
                tx.prepare_cached("DELETE FROM layer_leases WHERE diff_id = ?1")?
                    .execute([layer.diff_id.to_string()])?;
            }
            note_manifest(tx, &id, image.manifest)
        })?;
        self.database.sync()?;
        self.database.checkpoint_if_large()?;
        self.image_by_id(&id)
    }
}

/// Remembers what a layer travels as, and where that is. What nobody verified never replaces what somebody
/// did: a manifest can say anything.
pub(crate) fn note_blob(
    tx: &Transaction<'_>,
    layer: &IncomingLayer,
    verified: bool,
    repository: &str,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO layer_blobs(blob, diff_id, size, media_type, verified) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT(blob) DO UPDATE SET diff_id = excluded.diff_id, \
         size = excluded.size, media_type = excluded.media_type, verified = 1 \
         WHERE excluded.verified = 1",
    )?
    .execute(params![
        layer.blob.to_string(),
        layer.diff_id.to_string(),
        i64::try_from(layer.size).unwrap_or(i64::MAX),
        layer.media_type,
        verified
    ])?;
    tx.prepare_cached(
        "INSERT INTO blob_repositories(blob, repository, seen_ns) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO UPDATE SET seen_ns = excluded.seen_ns",
    )?
    .execute(params![layer.blob.to_string(), repository, files::now_ns()])?;
    Ok(())
}

/// Remembers a manifest of an image.
pub(crate) fn note_manifest(
    tx: &Transaction<'_>,
    image: &ImageId,
    manifest: &KnownManifest,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO manifests(digest, image_id, media_type, raw, added_ns) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT(digest) DO UPDATE SET added_ns = excluded.added_ns",
    )?
    .execute(params![
        manifest.digest.to_string(),
        image.to_string(),
        manifest.media_type,
        manifest.raw,
        files::now_ns()
    ])?;
    Ok(())
}
