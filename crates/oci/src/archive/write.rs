//! The files of an archive that is to be written. The same images give the same bytes: names are
//! sorted and times are zero.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;

use crate::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest, Platform, media_type,
};
use crate::tar::{Entry, Kind, TarWriter};
use crate::{Digest, Error, Reference, Result};

/// A layer as it is to stand in the archive.
#[derive(Clone, Debug)]
pub struct LayerToWrite {
    /// Digest of the bytes that will be written.
    pub blob: Digest,
    /// Their number.
    pub size: u64,
    /// One of [`media_type`]'s layer types.
    pub media_type: &'static str,
}

/// An image to write.
#[derive(Clone, Debug)]
pub struct ImageToWrite {
    /// Names under which it is to be found.
    pub references: Vec<Reference>,
    /// The bytes of its configuration.
    pub config_raw: Vec<u8>,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub layers: Vec<LayerToWrite>,
}

/// What the archive consists of: documents, and blobs that the caller provides.
#[derive(Debug, Default)]
pub struct Plan {
    documents: BTreeMap<String, Vec<u8>>,
    layers: BTreeMap<String, (Digest, u64)>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn json(value: &impl Serialize, what: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::Json { what: what.to_owned(), source })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// An OCI image layout.
///
/// # Errors
/// None in practice: all values can be written as JSON.
pub fn plan_oci(images: &[ImageToWrite]) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut manifests = Vec::new();
    for image in images {
        let config = Digest::sha256(&image.config_raw);
        plan.documents.insert(blob_name(&config), image.config_raw.clone());
        let mut layers = Vec::new();
        for layer in &image.layers {
            plan.layers.insert(blob_name(&layer.blob), (layer.blob, layer.size));
            layers.push(Descriptor::new(layer.media_type, layer.blob, layer.size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: Descriptor::new(media_type::CONFIG, config, image.config_raw.len() as u64),
            layers,
            annotations: None,
        };
        let raw = json(&manifest, "image manifest")?;
        let mut descriptor =
            Descriptor::new(media_type::MANIFEST, Digest::sha256(&raw), raw.len() as u64);
        descriptor.platform = Some(image.platform.clone());
        plan.documents.insert(blob_name(&descriptor.digest), raw);
        for reference in &image.references {
            let mut annotations = BTreeMap::new();
            annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), reference.to_string());
            if let Some(tag) = reference.tag() {
                annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
            }
            manifests.push(Descriptor { annotations: Some(annotations), ..descriptor.clone() });
        }
        if image.references.is_empty() {
            manifests.push(descriptor);
        }
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests,
        annotations: None,
    };
    plan.documents.insert("index.json".to_owned(), json(&index, "image index")?);
    plan.documents.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    Ok(plan)
}

/// What `docker save` writes since version 25: an OCI layout with a `manifest.json` and, for very old
/// readers, a `repositories` file.
///
/// # Errors
/// As [`plan_oci`].
pub fn plan_docker(images: &[ImageToWrite]) -> Result<Plan> {
    let mut plan = plan_oci(images)?;
    let mut list = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let tags: Vec<String> = image.references.iter().map(Reference::familiar).collect();
        list.push(DockerImage {
            config: blob_name(&Digest::sha256(&image.config_raw)),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: image.layers.iter().map(|layer| blob_name(&layer.blob)).collect(),
        });
        let top = image.layers.last().map(|layer| layer.blob.hex());
        for reference in &image.references {
            if let (Some(tag), Some(top)) = (reference.tag(), &top) {
                let tags = repositories.entry(reference.familiar_name()).or_default();
                tags.insert(tag.to_owned(), top.clone());
            }
        }
    }
    plan.documents.insert("manifest.json".to_owned(), json(&list, "manifest.json")?);
    if !repositories.is_empty() {
        plan.documents.insert("repositories".to_owned(), json(&repositories, "repositories")?);
    }
    Ok(plan)
}

impl Plan {
    /// Writes the archive. `layer` is called for each layer, once, and copies exactly the promised
    /// number of bytes.
    ///
    /// # Errors
    /// Those of writing and of `layer`.
    pub fn write<W, E>(
        &self,
        out: W,
        mut layer: impl FnMut(&Digest, &mut TarWriter<W>) -> Result<(), E>,
    ) -> Result<W, E>
    where
        W: Write,
        E: From<Error>,
    {
        let io = |source| Error::Io { what: "writing the image archive".to_owned(), source };
        let mut tar = TarWriter::new(out);
        let mut directories = BTreeSet::new();
        let names: BTreeSet<&String> = self.documents.keys().chain(self.layers.keys()).collect();
        for name in names {
            for (end, _) in name.match_indices('/') {
                let directory = name.get(..end).unwrap_or_default();
                if directories.insert(directory) {
                    tar.entry(&Entry::new(directory, Kind::Directory, 0o755)).map_err(io)?;
                }
            }
            let mut entry = Entry::new(name.as_str(), Kind::File, 0o644);
            if let Some(raw) = self.documents.get(name) {
                entry.size = raw.len() as u64;
                tar.entry(&entry).map_err(io)?;
                tar.write_data(raw).map_err(io)?;
            } else if let Some((digest, size)) = self.layers.get(name) {
                entry.size = *size;
                tar.entry(&entry).map_err(io)?;
                layer(digest, &mut tar)?;
            }
        }
        Ok(tar.finish().map_err(io)?)
    }
}
