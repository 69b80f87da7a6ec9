//! Manifests and indexes: OCI, and Docker's schema 2 which has the same shape.
//!
//! Image specification, "Image Manifest", "Image Index", "Content Descriptors".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, limits};

/// Media types by which a document says what it is.
pub mod media_type {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
}

/// Annotation with the reference's tag (or, from containerd, the whole name) in an index.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the whole name, as containerd and Docker write it.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// Where some content is and how to check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// For which platform the image is; in indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        let media_type = media_type.to_owned();
        Descriptor { media_type, digest, size, annotations: None, platform: None }
    }

    /// One annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The content is itself an index.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX)
    }
}

/// A platform an image is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH name.
    pub architecture: String,
    /// GOOS name.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// The platform of the machine this program was built for.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8".to_owned())),
            "arm" => ("arm", Some("v7".to_owned())),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant,
            os_version: None,
        }
    }

    /// Parses `os[/architecture[/variant]]` or an architecture alone, with the usual other names
    /// (`x86_64`, `aarch64`).
    ///
    /// # Errors
    /// Text with an empty or a fourth component.
    pub fn parse(text: &str) -> Result<Platform, Error> {
        let bad =
            || Error::document(format!("platform {text:?}"), "expected os/architecture[/variant]");
        let parts: Vec<&str> = text.split('/').collect();
        let word = |w: &&str| {
            !w.is_empty()
                && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => return Ok(Platform::host()),
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
            _ => return Err(bad()),
        };
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i686", variant) => ("386", variant),
            ("aarch64" | "arm64", None) => ("arm64", Some("v8".to_owned())),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf" | "arm", None) => ("arm", Some("v7".to_owned())),
            ("armel", None) => ("arm", Some("v6".to_owned())),
            other => other,
        };
        Ok(Platform {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant,
            os_version: None,
        })
    }

    /// An image for `self` can be used where `wanted` is asked for. A missing variant on either side
    /// matches.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && match (&self.variant, &wanted.variant) {
                (Some(have), Some(want)) => have == want,
                _ => true,
            }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers as they travel, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An index: a list of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

fn parse<'de, T: Deserialize<'de>>(what: &str, raw: &'de [u8]) -> Result<T, Error> {
    if raw.len() as u64 > limits::MAX_JSON {
        return Err(Error::limit(what, "it is larger than 4 MiB"));
    }
    serde_json::from_slice(raw).map_err(|source| Error::Json { what: what.to_owned(), source })
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// Wrong JSON, schema version or media type; too many layers.
    pub fn parse(raw: &[u8]) -> Result<Manifest, Error> {
        let what = "image manifest";
        let manifest: Manifest = parse(what, raw)?;
        if manifest.schema_version != 2 {
            return Err(Error::document(
                what,
                format!("schema version {}", manifest.schema_version),
            ));
        }
        if let Some(kind) = manifest.media_type.as_deref()
            && !matches!(kind, media_type::MANIFEST | media_type::DOCKER_MANIFEST)
        {
            return Err(Error::document(what, format!("media type {kind:?}")));
        }
        if manifest.layers.len() > limits::MAX_LAYERS {
            return Err(Error::limit(what, format!("{} layers", manifest.layers.len())));
        }
        Ok(manifest)
    }
}

impl Index {
    /// Reads and checks an index.
    ///
    /// # Errors
    /// Wrong JSON, schema version or media type; too many manifests.
    pub fn parse(raw: &[u8]) -> Result<Index, Error> {
        let what = "image index";
        let index: Index = parse(what, raw)?;
        if index.schema_version != 2 {
            return Err(Error::document(what, format!("schema version {}", index.schema_version)));
        }
        if let Some(kind) = index.media_type.as_deref()
            && !matches!(kind, media_type::INDEX | media_type::DOCKER_INDEX)
        {
            return Err(Error::document(what, format!("media type {kind:?}")));
        }
        if index.manifests.len() > limits::MAX_MANIFESTS {
            return Err(Error::limit(what, format!("{} manifests", index.manifests.len())));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let parse = |text: &str| Platform::parse(text).unwrap().to_string();
        assert_eq!(parse("linux/x86_64"), "linux/amd64");
        assert_eq!(parse("arm64"), "linux/arm64/v8");
        assert_eq!(parse("linux/arm/v6"), "linux/arm/v6");
        assert!(Platform::parse("a/b/c/d").is_err());
        assert!(Platform::parse("linux//").is_err());
        let plain = Platform { variant: None, ..Platform::parse("arm64").unwrap() };
        assert!(plain.satisfies(&Platform::parse("arm64").unwrap()));
        assert!(!Platform::parse("amd64").unwrap().satisfies(&plain));
    }

    #[test]
    fn wrong_documents_are_refused() {
        assert!(Manifest::parse(b"{").is_err());
        assert!(Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::INDEX);
        assert!(Index::parse(index.as_bytes()).unwrap().manifests.is_empty());
        assert!(Manifest::parse(index.as_bytes()).is_err());
    }
}
