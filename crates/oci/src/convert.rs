//! Docker's manifests and manifest lists in the terms of the OCI image specification. Image layouts hold
//! nothing else: what reads them passes over a manifest of another type. Configurations and layers are
//! the same bytes in both; a manifest's digest changes with its types.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::manifest::{Descriptor, media_type};
use crate::{Digest, Result};

/// The specification's name for a type of Docker's.
fn oci_type(docker: &str) -> Option<&'static str> {
    Some(match docker {
        media_type::DOCKER_MANIFEST => media_type::MANIFEST,
        media_type::DOCKER_INDEX => media_type::INDEX,
        "application/vnd.docker.container.image.v1+json" => media_type::CONFIG,
        "application/vnd.docker.image.rootfs.diff.tar" => media_type::LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => media_type::LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => media_type::LAYER_ZSTD,
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        _ => return None,
    })
}

/// A manifest or an index of the type `kind`, in OCI's terms: its type and bytes. `converted` holds, by
/// their old digests, what has become of the manifests that an index names. `None` if it is in those
/// terms already.
///
/// # Errors
/// It is not JSON.
pub fn in_oci_terms(
    kind: &str,
    raw: &[u8],
    converted: &BTreeMap<Digest, Descriptor>,
) -> Result<Option<(String, Vec<u8>)>> {
    let error = |source| crate::Error::Json { what: "the manifest".to_owned(), source };
    let mut document: Value = serde_json::from_slice(raw).map_err(error)?;
    let mut changed = oci_type(kind).is_some();
    let mut retype = |value: &mut Value| {
        if let Some(Value::String(kind)) = value.get_mut("mediaType")
            && let Some(other) = oci_type(kind)
        {
            *kind = other.to_owned();
            changed = true;
        }
    };
    retype(&mut document);
    if let Some(config) = document.get_mut("config") {
        retype(config);
    }
    for list in ["layers", "manifests"] {
        if let Some(Value::Array(entries)) = document.get_mut(list) {
            entries.iter_mut().for_each(&mut retype);
        }
    }
    if let Some(Value::Array(entries)) = document.get_mut("manifests") {
        for entry in entries {
            let digest = entry.get("digest").and_then(Value::as_str).and_then(|d| d.parse().ok());
            if let (Some(new), Value::Object(entry)) =
                (digest.and_then(|d: Digest| converted.get(&d)), entry)
            {
                entry.insert("mediaType".to_owned(), new.media_type.clone().into());
                entry.insert("digest".to_owned(), new.digest.to_string().into());
                entry.insert("size".to_owned(), new.size.into());
                changed = true;
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    let kind = oci_type(kind).unwrap_or(kind).to_owned();
    Ok(Some((kind, serde_json::to_vec(&document).map_err(error)?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn types_change_and_nothing_else() {
        let one = Digest::sha256(b"1");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{one}","size":1}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"{one}","size":1,"urls":["x"]}}]}}"#,
            media_type::DOCKER_MANIFEST
        );
        let none = BTreeMap::new();
        let (kind, raw) =
            in_oci_terms(media_type::DOCKER_MANIFEST, manifest.as_bytes(), &none).unwrap().unwrap();
        assert_eq!(kind, media_type::MANIFEST);
        let text = String::from_utf8(raw.clone()).unwrap();
        assert!(!text.contains("vnd.docker"), "{text}");
        assert!(text.contains(&one.to_string()) && text.contains("\"urls\":[\"x\"]"), "{text}");
        // Once more there is nothing to do.
        assert_eq!(in_oci_terms(&kind, &raw, &none).unwrap(), None);
    }

    #[test]
    fn an_index_names_what_its_manifests_became() {
        let (old, new) = (Digest::sha256(b"old"), Digest::sha256(b"new"));
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{old}","size":3,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_MANIFEST
        );
        let converted = [(old, Descriptor::new(media_type::MANIFEST, new, 7))].into();
        let (kind, raw) =
            in_oci_terms(media_type::DOCKER_INDEX, index.as_bytes(), &converted).unwrap().unwrap();
        let index = crate::manifest::Index::parse(&raw).unwrap();
        assert_eq!(kind, media_type::INDEX);
        assert_eq!((index.manifests[0].digest, index.manifests[0].size), (new, 7));
        assert_eq!(index.manifests[0].media_type, media_type::MANIFEST);
        assert!(index.manifests[0].platform.is_some());
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(in_oci_terms(media_type::MANIFEST, b"{", &BTreeMap::new()).is_err());
    }
}
