//! From the files of an archive to images.

use serde::Deserialize;

use super::{Contents, LayerFacts, Node};
use crate::config::ImageConfig;
use crate::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest, Platform,
};
use crate::{Digest, Error, Reference, limits};

/// An image found in an archive. All its digests were checked.
#[derive(Clone, Debug)]
pub struct FoundImage {
    /// Its names.
    pub references: Vec<Reference>,
    /// The bytes of its configuration.
    pub config_raw: Vec<u8>,
    /// The configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first; as many as the configuration has diff IDs, with these digests.
    pub layers: Vec<LayerFacts>,
}

/// One element of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Contents {
    /// The images of the archive. Of an image for several platforms the one for `platform`, or for
    /// this machine, is taken.
    ///
    /// # Errors
    /// [`Error::Archive`] if a part is missing; [`Error::DigestMismatch`] if one is damaged; documents
    /// that are wrong.
    pub fn images(&self, platform: Option<&Platform>) -> Result<Vec<FoundImage>, Error> {
        if self.nodes.contains_key("manifest.json") {
            return self.docker_images(platform);
        }
        if self.nodes.contains_key("index.json") {
            return self.layout_images(platform);
        }
        let reason = if self.nodes.contains_key("repositories") {
            "it is in the form Docker wrote before version 1.10: load it into a newer Docker and save it again"
        } else {
            "it has neither manifest.json nor index.json. For the archive of a root filesystem use `import`"
        };
        Err(Error::Archive(reason.to_owned()))
    }

    /// Follows links to a file.
    fn node(&self, name: &str) -> Result<&Node, Error> {
        let mut name = name;
        for _ in 0..10 {
            match self.nodes.get(name) {
                Some(Node::Link(target)) => name = target,
                Some(node) => return Ok(node),
                None => return Err(Error::Archive(format!("{name} is missing"))),
            }
        }
        Err(Error::Archive(format!("{name} is a link to a link, too often")))
    }

    fn document(&self, name: &str) -> Result<&[u8], Error> {
        match self.node(name)? {
            Node::Document(raw) => Ok(raw),
            _ => Err(Error::Archive(format!("{name} is not a JSON document"))),
        }
    }

    fn layer(&self, name: &str) -> Result<LayerFacts, Error> {
        match self.node(name)? {
            Node::Layer(facts) => Ok(*facts),
            _ => Err(Error::Archive(format!("{name} is not a tar archive, plain, gzip or zstd"))),
        }
    }

    fn docker_images(&self, platform: Option<&Platform>) -> Result<Vec<FoundImage>, Error> {
        let raw = self.document("manifest.json")?;
        let list: Vec<DockerImage> = serde_json::from_slice(raw)
            .map_err(|source| Error::Json { what: "manifest.json".to_owned(), source })?;
        let mut out = Vec::new();
        for image in list {
            let name = super::clean_name(image.config.as_bytes())?;
            let config_raw = self.document(&name)?;
            let digits = name.rsplit('/').next().unwrap_or_default();
            let digits = digits.strip_suffix(".json").unwrap_or(digits);
            if let Ok(expected) = format!("sha256:{digits}").parse::<Digest>() {
                expected.verify(&name, config_raw)?;
            }
            let mut layers = Vec::new();
            for layer in image.layers.unwrap_or_default() {
                let name = super::clean_name(layer.as_bytes())?;
                let facts = self.layer(&name)?;
                check_blob(&name, super::promised_digest(&name), None, &facts)?;
                layers.push(facts);
            }
            let mut references = Vec::new();
            for tag in image.repo_tags.unwrap_or_default() {
                let reference = Reference::parse(&tag)
                    .map_err(|e| Error::Archive(format!("its image's name {tag:?}: {e}")))?;
                references.push(reference.or_latest());
            }
            let found = complete(config_raw.to_vec(), layers, references)?;
            let fits =
                platform.is_none_or(|platform| platform_of(&found.config).satisfies(platform));
            if fits {
                out.push(found);
            }
        }
        if let (true, Some(platform)) = (out.is_empty(), platform) {
            return Err(Error::Archive(format!("it has no image for {platform}")));
        }
        Ok(out)
    }

    fn layout_images(&self, platform: Option<&Platform>) -> Result<Vec<FoundImage>, Error> {
        let index = Index::parse(self.document("index.json")?)?;
        // Descriptors of the same name are the platforms of one image.
        let mut groups: Vec<(Option<String>, Vec<&Descriptor>)> = Vec::new();
        for descriptor in &index.manifests {
            let name = [ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME]
                .iter()
                .find_map(|key| descriptor.annotation(key))
                .map(str::to_owned);
            match groups.iter_mut().find(|(other, _)| *other == name) {
                Some((_, group)) if descriptor.platform.is_some() => group.push(descriptor),
                _ => groups.push((name, vec![descriptor])),
            }
        }
        let mut out: Vec<FoundImage> = Vec::new();
        for (name, group) in groups {
            let chosen = choose(&group, platform)?;
            let mut found = self.image_of(chosen, platform, 0)?;
            // Only a tag, or any words: no name we could use.
            let reference = name
                .filter(|name| name.contains([':', '/']))
                .and_then(|name| Reference::parse(&name).ok());
            found.references.extend(reference.map(Reference::or_latest));
            match out.iter_mut().find(|other| other.config_raw == found.config_raw) {
                Some(other) => other.references.append(&mut found.references),
                None => out.push(found),
            }
        }
        Ok(out)
    }

    fn image_of(
        &self,
        descriptor: &Descriptor,
        platform: Option<&Platform>,
        depth: usize,
    ) -> Result<FoundImage, Error> {
        let raw = self.blob_document(descriptor)?;
        if descriptor.is_index() || (descriptor.media_type.is_empty() && Index::parse(raw).is_ok())
        {
            if depth >= limits::MAX_INDEX_DEPTH {
                return Err(Error::limit("image index", "indexes are nested too deeply"));
            }
            let index = Index::parse(raw)?;
            let all: Vec<&Descriptor> = index.manifests.iter().collect();
            return self.image_of(choose(&all, platform)?, platform, depth + 1);
        }
        let manifest = Manifest::parse(raw)?;
        let config_raw = self.blob_document(&manifest.config)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let name = blob_name(&layer.digest);
            let facts = self.layer(&name)?;
            check_blob(&name, Some(layer.digest), Some(layer.size), &facts)?;
            layers.push(facts);
        }
        let found = complete(config_raw.to_vec(), layers, Vec::new())?;
        match platform {
            Some(platform) if !platform_of(&found.config).satisfies(platform) => {
                Err(Error::Archive(format!("it has no image for {platform}")))
            }
            _ => Ok(found),
        }
    }

    fn blob_document(&self, descriptor: &Descriptor) -> Result<&[u8], Error> {
        let name = blob_name(&descriptor.digest);
        let raw = self.document(&name)?;
        if raw.len() as u64 != descriptor.size {
            let (expected, actual) = (descriptor.size, raw.len() as u64);
            return Err(Error::SizeMismatch { what: name, expected, actual });
        }
        descriptor.digest.verify(&name, raw)?;
        Ok(raw)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: (!config.variant.is_empty()).then(|| config.variant.clone()),
        os_version: None,
    }
}

/// One descriptor of several that differ by platform.
fn choose<'a>(
    group: &[&'a Descriptor],
    platform: Option<&Platform>,
) -> Result<&'a Descriptor, Error> {
    if let ([only], None) = (group, platform) {
        return Ok(only);
    }
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    // Without a platform in the descriptor the configuration will tell.
    let fits = |d: &&&Descriptor| d.platform.as_ref().is_none_or(|have| have.satisfies(&wanted));
    group
        .iter()
        .find(fits)
        .copied()
        .ok_or_else(|| Error::Archive(format!("it has no image for {wanted}")))
}

fn check_blob(
    name: &str,
    expected: Option<Digest>,
    size: Option<u64>,
    facts: &LayerFacts,
) -> Result<(), Error> {
    if let Some(expected) = size.filter(|size| *size != facts.size) {
        let (what, actual) = (name.to_owned(), facts.size);
        return Err(Error::SizeMismatch { what, expected, actual });
    }
    match expected {
        Some(expected) if expected != facts.blob => {
            Err(Error::digest_mismatch(name, expected, facts.blob))
        }
        _ => Ok(()),
    }
}

/// Checks that the layers are those that the configuration names.
fn complete(
    config_raw: Vec<u8>,
    layers: Vec<LayerFacts>,
    references: Vec<Reference>,
) -> Result<FoundImage, Error> {
    let config = ImageConfig::parse(&config_raw)?;
    let expected = &config.rootfs.diff_ids;
    if expected.len() != layers.len() {
        let (have, want) = (layers.len(), expected.len());
        let reason = format!("the image has {have} layers, its configuration names {want}");
        return Err(Error::Archive(reason));
    }
    for (number, (expected, facts)) in expected.iter().zip(&layers).enumerate() {
        if *expected != facts.diff_id {
            let what = format!("layer {}", number + 1);
            return Err(Error::digest_mismatch(what, expected.digest(), facts.diff_id.digest()));
        }
    }
    Ok(FoundImage { references, config_raw, config, layers })
}
