//! Which images an index has, and which of them is meant.

use std::collections::BTreeSet;

use oci::Digest;
use oci::limits::{MAX_INDEX_DEPTH, MAX_MANIFESTS};
use oci::manifest::{Descriptor, Index, Platform, media_type};
use registry::Document;

use crate::error::{Error, ErrorKind, Result};

/// Says of a manifest in an index that it is about another one in it: `attestation-manifest`.
const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// All that an index names, through the indexes in it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Indexes in it, each before those that name it.
    pub(crate) nested: Vec<Document>,
    /// What is no index, in order, each once.
    pub(crate) entries: Vec<Descriptor>,
}

impl Tree {
    /// Reads an index, and those in it by `fetch`; with `only`, not those that say they are for other platforms.
    ///
    /// # Errors
    /// Those of `fetch`; indexes nested too deep, or naming too much.
    pub(crate) fn read(
        top: &Document,
        only: Option<&Platform>,
        fetch: &mut dyn FnMut(&Descriptor) -> Result<Document>,
    ) -> Result<Self> {
        let mut tree = Self::default();
        let mut seen = BTreeSet::from([top.digest]);
        tree.add(top, None, only, fetch, 0, &mut seen)?;
        Ok(tree)
    }

    fn add(
        &mut self,
        index: &Document,
        platform: Option<&Platform>,
        only: Option<&Platform>,
        fetch: &mut dyn FnMut(&Descriptor) -> Result<Document>,
        depth: usize,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(Error::invalid(format!(
                "{}: indexes are nested more than {MAX_INDEX_DEPTH} deep",
                index.digest
            )));
        }
        for mut entry in Index::parse(&index.raw)?.manifests {
            if !seen.insert(entry.digest) {
                continue;
            }
            if seen.len() > MAX_MANIFESTS {
                return Err(Error::invalid(format!(
                    "{}: the index and those in it name more than {MAX_MANIFESTS} manifests",
                    index.digest
                )));
            }
            // What an index says of its platform holds for those in it that say nothing.
            entry.platform = entry.platform.or_else(|| platform.cloned());
            if !entry.is_index() {
                self.entries.push(entry);
                continue;
            }
            let other = |p: &Platform, only: &Platform| {
                p.os != only.os || p.architecture != only.architecture
            };
            if let (Some(platform), Some(only)) = (&entry.platform, only)
                && other(platform, only)
            {
                continue;
            }
            let document = fetch(&entry)?;
            self.add(&document, entry.platform.as_ref(), only, fetch, depth + 1, seen)?;
            self.nested.push(document);
        }
        Ok(())
    }
}

/// Whether a document is an index.
pub(crate) fn is_index(document: &Document) -> bool {
    matches!(document.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX)
}

/// An image that can be unpacked here. Attestations stand in indexes for the platform `unknown`.
pub(crate) fn is_image(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture != "unknown")
        && is_no_other(entry)
}

/// Neither an index nor something about an image, as BuildKit's attestations are.
fn is_no_other(entry: &Descriptor) -> bool {
    !entry.is_index() && entry.annotation(ANNOTATION_REFERENCE_TYPE).is_none()
}

/// The best entry for a platform: the variant asked for, else the highest below it, as processors run
/// what was made for older ones.
pub(crate) fn choose<'i>(
    entries: &'i [Descriptor],
    wanted: &Platform,
    explicit: bool,
) -> Option<&'i Descriptor> {
    let number = |variant: &Option<String>, architecture: &str| -> Option<u32> {
        let default = match architecture {
            "arm" => "v7",
            "arm64" => "v8",
            _ => "v1",
        };
        variant.as_deref().unwrap_or(default).strip_prefix('v')?.parse().ok()
    };
    let limit = number(&wanted.variant, &wanted.architecture)?;
    let fits = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|p| {
            p.os == wanted.os
                && p.architecture == wanted.architecture
                && number(&p.variant, &p.architecture).is_some_and(|have| have <= limit)
        }) && is_no_other(entry)
    };
    let rank = |entry: &&Descriptor| {
        entry.platform.as_ref().and_then(|p| number(&p.variant, &p.architecture)).unwrap_or(0)
    };
    // Of equal ones the first counts, as in containerd.
    let mut best: Option<&Descriptor> = None;
    for entry in entries.iter().filter(fits) {
        if best.is_none_or(|best| rank(&entry) > rank(&best)) {
            best = Some(entry);
        }
    }
    // An index with one entry that says nothing of platforms is that image.
    best.or_else(|| match entries {
        [only] if only.platform.is_none() && is_no_other(only) && !explicit => Some(only),
        _ => None,
    })
}

pub(crate) fn no_match(entries: &[Descriptor], wanted: &Platform) -> Error {
    let mut have: Vec<String> = entries
        .iter()
        .filter(|m| is_image(m))
        .filter_map(|m| m.platform.as_ref().map(ToString::to_string))
        .collect();
    have.dedup();
    let list =
        if have.is_empty() { String::new() } else { format!(" (it has {})", have.join(", ")) };
    Error::new(
        ErrorKind::NotFound,
        format!("no matching manifest for {wanted} in the manifest list entries{list}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[&str]) -> Vec<Descriptor> {
        let entries = platforms.iter().map(|text| {
            let mut entry = Descriptor::new(media_type::MANIFEST, Digest::sha256(text), 1);
            let mut parts = text.split('/').map(str::to_owned);
            entry.platform = Some(Platform {
                os: parts.next().unwrap(),
                architecture: parts.next().unwrap(),
                variant: parts.next(),
                os_version: None,
            });
            entry
        });
        entries.collect()
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let all = entries(&[
            "linux/amd64",
            "linux/amd64/v3",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm64",
            "windows/amd64",
            "unknown/unknown",
        ]);
        let find = |wanted: &str| {
            choose(&all, &Platform::parse(wanted).unwrap(), true)
                .and_then(|d| d.platform.as_ref().map(ToString::to_string))
        };
        assert_eq!(find("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(find("linux/amd64/v3").as_deref(), Some("linux/amd64/v3"));
        assert_eq!(find("linux/amd64/v2").as_deref(), Some("linux/amd64"));
        assert_eq!(find("linux/arm/v7").as_deref(), Some("linux/arm/v6"));
        assert_eq!(find("linux/arm/v5").as_deref(), Some("linux/arm/v5"));
        assert_eq!(find("linux/arm64/v8").as_deref(), Some("linux/arm64"));
        assert_eq!(find("linux/s390x"), None);
        let wanted = Platform::parse("linux/s390x").unwrap();
        assert!(
            no_match(&all, &wanted).message.starts_with("no matching manifest for linux/s390x")
        );
    }

    fn document(manifests: Vec<Descriptor>) -> Document {
        let index = Index { schema_version: 2, media_type: None, manifests, annotations: None };
        let raw = serde_json::to_vec(&index).unwrap();
        Document { media_type: media_type::INDEX.to_owned(), digest: Digest::sha256(&raw), raw }
    }

    fn entry_of(document: &Document) -> Descriptor {
        Descriptor::new(&document.media_type, document.digest, document.raw.len() as u64)
    }

    #[test]
    fn indexes_in_indexes_are_read_to_a_depth() {
        let arm = document(entries(&["linux/arm64/v8"]));
        let mut named = entries(&["linux/amd64"]);
        named[0].platform = None;
        let amd = document(named);
        let mut amd_entry = entry_of(&amd);
        amd_entry.platform = Some(Platform::parse("linux/amd64").unwrap());
        let mut arm_entry = entry_of(&arm);
        arm_entry.platform = Some(Platform::parse("linux/arm64").unwrap());
        let top = document(vec![arm_entry, amd_entry]);
        let mut asked = 0;
        let mut fetch = |entry: &Descriptor| {
            asked += 1;
            Ok(if entry.digest == arm.digest { arm.clone() } else { amd.clone() })
        };
        let wanted = Platform::parse("linux/amd64").unwrap();
        let tree = Tree::read(&top, Some(&wanted), &mut fetch).unwrap();
        assert!(choose(&tree.entries, &wanted, true).is_some(), "the outer platform counts");
        assert_eq!((tree.entries.len(), tree.nested.len()), (1, 1), "arm64 was not looked at");
        let tree = Tree::read(&top, None, &mut fetch).unwrap();
        assert_eq!((tree.entries.len(), tree.nested.len()), (2, 2));
        assert_eq!(asked, 3);
        // A chain of them.
        for (length, good) in [(MAX_INDEX_DEPTH, true), (MAX_INDEX_DEPTH + 1, false)] {
            let mut all = vec![document(entries(&["linux/amd64"]))];
            for _ in 0..length {
                all.push(document(vec![entry_of(all.last().unwrap())]));
            }
            let top = all.last().unwrap().clone();
            let tree = Tree::read(&top, None, &mut |entry| {
                Ok(all.iter().find(|d| d.digest == entry.digest).unwrap().clone())
            });
            match tree {
                Ok(tree) => {
                    assert!(good);
                    // Inner ones first: that is the order in which a registry takes them.
                    let inner = all.iter().take(length).map(|d| d.digest);
                    assert!(tree.nested.iter().map(|d| d.digest).eq(inner));
                }
                Err(error) => assert!(!good && error.message.contains("nested"), "{error}"),
            }
        }
    }

    #[test]
    fn attestations_are_no_images() {
        let mut all = entries(&["linux/amd64", "linux/amd64/v2", "unknown/unknown"]);
        let about = [(ANNOTATION_REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned())];
        all[1].annotations = Some(about.into());
        assert_eq!(all.iter().map(is_image).collect::<Vec<_>>(), [true, false, false]);
        let wanted = Platform::parse("linux/amd64/v3").unwrap();
        assert_eq!(choose(&all, &wanted, true), Some(&all[0]));
    }
}
