//! Looking at images in registries without fetching them.

use oci::Reference;
use oci::manifest::{Descriptor, Index, Manifest, Platform};
use registry::{Access, Client, Repository};
use store::ImageRecord;

use crate::engine::Engine;
use crate::error::Result;
use crate::platforms::{Tree, choose, is_image, is_index, no_match};
use crate::pull::{Image, explain};
use crate::types::ImageInspect;

/// A manifest, as `manifest inspect --verbose` shows it.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    /// The whole name, by digest if it was found in an index.
    pub reference: String,
    /// What it is; its platform too, if that is known.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub raw: Vec<u8>,
}

/// A manifest, or an index with its manifests.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// What the name stands for.
    pub top: RemoteManifest,
    /// What is in it, if it is an index and that was asked for.
    pub manifests: Vec<RemoteManifest>,
}

impl Engine {
    /// The manifest or index of a name in its registry; with `deep`, of an index its manifests too, and of
    /// a manifest its platform.
    ///
    /// # Errors
    /// A name that the registry does not have; those of the connection.
    pub fn remote_manifest(client: &Client, name: &str, deep: bool) -> Result<RemoteImage> {
        let reference = Reference::parse(name)?.or_latest();
        Self::remote(client, &reference, deep).map_err(|e| explain(&reference, e))
    }

    fn remote(client: &Client, reference: &Reference, deep: bool) -> Result<RemoteImage> {
        let repository = client.repository(reference, Access::Pull)?;
        let document = repository.document()?;
        let size = document.raw.len() as u64;
        let mut descriptor = Descriptor::new(&document.media_type, document.digest, size);
        let mut manifests = Vec::new();
        if deep && is_index(&document) {
            for entry in Index::parse(&document.raw)?.manifests {
                let raw = repository.document_by_digest(&entry.digest)?.raw;
                let reference = format!("{}@{}", reference, entry.digest);
                manifests.push(RemoteManifest { reference, descriptor: entry, raw });
            }
        } else if deep {
            descriptor.platform = platform(&repository, &document.raw)?;
        }
        let top =
            RemoteManifest { reference: reference.to_string(), descriptor, raw: document.raw };
        Ok(RemoteImage { top, manifests })
    }

    /// Everything about an image in its registry. Sizes are those of the compressed layers.
    ///
    /// # Errors
    /// As [`Engine::remote_manifest`]; an image for other platforms.
    pub fn inspect_remote(
        client: &Client,
        name: &str,
        platform: Option<&str>,
    ) -> Result<ImageInspect> {
        let reference = Reference::parse(name)?.or_latest();
        let explicit = platform.is_some();
        let wanted = platform.map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
        let look = || -> Result<ImageRecord> {
            let repository = client.repository(&reference, Access::Pull)?;
            let top = repository.document()?;
            let digest = top.digest;
            let image = if is_index(&top) {
                let tree = Tree::read(&top, None, &mut |entry| {
                    Ok(repository.document_by_digest(&entry.digest)?)
                })?;
                let entry = choose(&tree.entries, &wanted, explicit)
                    .or_else(|| tree.entries.iter().find(|m| is_image(m)).filter(|_| !explicit))
                    .ok_or_else(|| no_match(&tree.entries, &wanted))?;
                Image::of(&repository, entry)?
            } else {
                Image::fetch(&repository, top)?
            };
            let size = image.manifest.layers.iter().fold(0u64, |sum, l| sum.saturating_add(l.size));
            Ok(ImageRecord {
                id: oci::config::ImageConfig::id(&image.config_raw),
                references: reference.tag().map(|_| reference.clone()).into_iter().collect(),
                digests: vec![reference.with_digest(digest)],
                parent: None,
                size,
                added_ns: 0,
                tagged_ns: None,
                layers: image.config.rootfs.diff_ids.clone(),
                config: image.config,
                config_raw: image.config_raw,
            })
        };
        let record = look().map_err(|e| explain(&reference, e))?;
        Self::inspect_record(&record, None)
    }
}

/// What the configuration of a manifest says of its platform.
fn platform(repository: &Repository<'_>, raw: &[u8]) -> Result<Option<Platform>> {
    let manifest = Manifest::parse(raw)?;
    let raw = repository.blob_bytes(&manifest.config, oci::limits::MAX_JSON)?;
    let Ok(config) = oci::config::ImageConfig::parse(&raw) else { return Ok(None) };
    Ok(Some(Platform {
        architecture: config.architecture,
        os: config.os,
        variant: Some(config.variant).filter(|v| !v.is_empty()),
        os_version: None,
    }))
}
