//! One repository, with its mirrors: manifests and tags. Distribution specification, "Pull", "Push",
//! "Content Discovery".

use oci::limits::MAX_JSON;
use oci::manifest::media_type;
use oci::{Digest, Reference};
use serde::Deserialize;

use crate::config::Endpoint;
use crate::http::{Answer, Payload};
use crate::{Client, Error, Result};

/// What the repository is opened for; decides what a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Pull,
    /// To write and to read.
    Push,
}

/// A manifest or an index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub raw: Vec<u8>,
}

/// Most pages of a list of tags.
const MOST_PAGES: usize = 10_000;

/// A repository. Cheap to make; shared between threads.
#[derive(Debug)]
pub struct Repository<'c> {
    pub(crate) client: &'c Client,
    reference: Reference,
    endpoints: Vec<Endpoint>,
    access: Access,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl<'c> Repository<'c> {
    pub(crate) fn new(
        client: &'c Client,
        reference: Reference,
        endpoints: Vec<Endpoint>,
        access: Access,
    ) -> Repository<'c> {
        Repository { client, reference, endpoints, access }
    }

    /// The reference it was opened with.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The client.
    pub fn client(&self) -> &'c Client {
        self.client
    }

    /// The place itself, after its mirrors.
    pub(crate) fn own(&self) -> Result<&Endpoint> {
        self.endpoints.last().ok_or_else(|| Error::Blocked(self.reference.familiar_name()))
    }

    pub(crate) fn scopes(&self, endpoint: &Endpoint) -> Vec<String> {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        vec![format!("repository:{}:{actions}", endpoint.path)]
    }

    /// Asks the mirrors, then the repository itself. The last error counts: it is of the repository that
    /// was named.
    pub(crate) fn each<T>(&self, mut f: impl FnMut(&Endpoint) -> Result<T>) -> Result<T> {
        let mut failed = None;
        for endpoint in &self.endpoints {
            match f(endpoint) {
                Ok(value) => return Ok(value),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::Blocked(self.reference.familiar_name())))
    }

    fn get(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        path: &str,
        headers: &[(&str, String)],
    ) -> Result<Answer> {
        self.client.call_again(endpoint, method, path, headers, None, &self.scopes(endpoint))
    }

    fn accept() -> [(&'static str, String); 1] {
        let all = [
            media_type::INDEX,
            media_type::DOCKER_INDEX,
            media_type::MANIFEST,
            media_type::DOCKER_MANIFEST,
        ];
        [("accept", all.join(", "))]
    }

    /// What a tag (or `latest`), or a digest, stands for.
    fn target(&self) -> String {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => oci::reference::DEFAULT_TAG.to_owned(),
        }
    }

    /// The manifest or index of the reference.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Digest`], those of the connection.
    pub fn document(&self) -> Result<Document> {
        self.fetch(&self.target(), self.reference.digest())
    }

    /// The manifest or index with this digest.
    ///
    /// # Errors
    /// As [`Repository::document`].
    pub fn document_by_digest(&self, digest: &Digest) -> Result<Document> {
        self.fetch(&digest.to_string(), Some(*digest))
    }

    fn fetch(&self, target: &str, expected: Option<Digest>) -> Result<Document> {
        let what = format!("manifest for {}", self.reference.familiar());
        self.each(|endpoint| {
            let path = format!("{}/manifests/{target}", endpoint.path);
            let answer = self.get(endpoint, "GET", &path, &Self::accept())?;
            if answer.status != 200 {
                return Err(answer.fail(&what));
            }
            let url = answer.url.clone();
            let kind = answer.header("content-type").unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
            let said: Option<Digest> =
                answer.header("docker-content-digest").and_then(|d| d.parse().ok());
            let raw = answer.bytes(MAX_JSON)?;
            let digest = match expected.or(said) {
                Some(expected) => {
                    let mut hasher = expected.hasher();
                    hasher.update(&raw);
                    let actual = hasher.finish();
                    if actual != expected {
                        let (expected, actual) = (Box::new(expected), Box::new(actual));
                        return Err(Error::Digest { what: what.clone(), expected, actual });
                    }
                    expected
                }
                None => Digest::sha256(&raw),
            };
            let media_type = document_type(&raw, &kind).ok_or_else(|| {
                Error::protocol(url, format!("{kind:?} is neither a manifest nor an index that is known; images of Docker before 1.10 must be pushed anew"))
            })?;
            Ok(Document { media_type, digest, raw })
        })
    }

    /// The digest a tag has now; None if there is no such tag. Saves fetching it.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn digest_of(&self, target: &str) -> Result<Option<Digest>> {
        let endpoint = self.own()?;
        let path = format!("{}/manifests/{target}", endpoint.path);
        let answer = self.get(endpoint, "HEAD", &path, &Self::accept())?;
        match answer.status {
            200 => Ok(answer.header("docker-content-digest").and_then(|d| d.parse().ok())),
            404 => Ok(None),
            _ => Err(answer.fail("the manifest")),
        }
    }

    /// Writes a manifest or an index, by a tag or by its digest. What it refers to must be there.
    ///
    /// # Errors
    /// Those of the connection; a registry that refuses it.
    pub fn put_document(&self, target: &str, document: &Document) -> Result<()> {
        let endpoint = self.own()?;
        let path = format!("{}/manifests/{target}", endpoint.path);
        let headers = [("content-type", document.media_type.clone())];
        let answer = self.client.call_again(
            endpoint,
            "PUT",
            &path,
            &headers,
            Some(&document.raw),
            &self.scopes(endpoint),
        )?;
        match answer.status {
            200..=299 => {
                let said: Option<Digest> =
                    answer.header("docker-content-digest").and_then(|d| d.parse().ok());
                match said {
                    Some(actual) if actual != document.digest => Err(Error::Digest {
                        what: format!("manifest {target} as the registry took it"),
                        expected: Box::new(document.digest),
                        actual: Box::new(actual),
                    }),
                    _ => Ok(()),
                }
            }
            _ => Err(answer.fail("the repository")),
        }
    }

    /// All tags, sorted.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn tags(&self) -> Result<Vec<String>> {
        self.each(|endpoint| {
            let mut path = format!("{}/tags/list", endpoint.path);
            let mut all = Vec::new();
            for _ in 0..MOST_PAGES {
                let answer = self.get(endpoint, "GET", &path, &[])?;
                if answer.status != 200 {
                    return Err(answer.fail(&self.reference.familiar_name()));
                }
                let next = answer.header("link").and_then(next_page);
                let url = answer.url.clone();
                let raw = answer.bytes(64 << 20)?;
                let page: Tags = serde_json::from_slice(&raw)
                    .map_err(|e| Error::protocol(&*url, format!("no list of tags: {e}")))?;
                all.extend(page.tags.unwrap_or_default());
                match next {
                    // Only the query counts: the rest may name an inner address of the registry.
                    Some(next) => match next.split_once('?') {
                        Some((_, query)) => {
                            path = format!("{}/tags/list?{query}", endpoint.path);
                        }
                        None => break,
                    },
                    None => break,
                }
            }
            // Tags that are none could not be pulled, and could be mistaken for something else.
            all.retain(|tag| self.reference.with_tag(tag).is_ok());
            all.sort();
            all.dedup();
            Ok(all)
        })
    }

    /// Sends an upload's request, once.
    pub(crate) fn send(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        path: &str,
        headers: &[(&str, String)],
        payload: &mut Payload<'_>,
        scopes: &[String],
    ) -> Result<Answer> {
        self.client.call(endpoint, method, path, headers, payload, scopes)
    }
}

/// The address in `<address>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    let (address, rest) = header.trim().strip_prefix('<')?.split_once('>')?;
    let next = rest.split([';', ',']).any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
    next.then(|| address.to_owned())
}

/// What a document says it is; registries' headers are less reliable.
fn document_type(raw: &[u8], header: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Look {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        config: Option<serde::de::IgnoredAny>,
    }
    let known = |kind: &str| {
        matches!(
            kind,
            media_type::INDEX
                | media_type::DOCKER_INDEX
                | media_type::MANIFEST
                | media_type::DOCKER_MANIFEST
        )
    };
    let look: Look = serde_json::from_slice(raw).ok()?;
    if look.schema_version != 2 {
        return None;
    }
    // The OCI types may leave it out; a document that is both is an attempt at deception.
    match (&look.media_type, look.manifests.is_some(), look.config.is_some()) {
        (_, true, true) | (_, false, false) => None,
        (Some(kind), index, _) => {
            let says_index = matches!(kind.as_str(), media_type::INDEX | media_type::DOCKER_INDEX);
            (known(kind) && says_index == index).then(|| kind.clone())
        }
        (None, true, _) => {
            let docker = header == media_type::DOCKER_INDEX;
            Some(if docker { media_type::DOCKER_INDEX } else { media_type::INDEX }.to_owned())
        }
        (None, false, _) => {
            let docker = header == media_type::DOCKER_MANIFEST;
            Some(if docker { media_type::DOCKER_MANIFEST } else { media_type::MANIFEST }.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        assert_eq!(
            next_page("</v2/x/tags/list?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("/v2/x/tags/list?last=b&n=2")
        );
        assert_eq!(next_page("</x>; rel=\"prev\""), None);
        assert_eq!(next_page("x"), None);
    }

    #[test]
    fn documents_say_what_they_are() {
        let kind = |text: &str, header: &str| document_type(text.as_bytes(), header);
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(kind(manifest, "").as_deref(), Some(media_type::MANIFEST));
        assert_eq!(
            kind(manifest, media_type::DOCKER_MANIFEST).as_deref(),
            Some(media_type::DOCKER_MANIFEST)
        );
        assert_eq!(
            kind(r#"{"schemaVersion":2,"manifests":[]}"#, "").as_deref(),
            Some(media_type::INDEX)
        );
        for bad in [
            r#"{"schemaVersion":1,"config":{}}"#,
            r#"{"schemaVersion":2,"config":{},"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            "[]",
            "",
        ] {
            assert_eq!(kind(bad, media_type::MANIFEST), None, "{bad}");
        }
        let lies =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{{}}}}"#, media_type::INDEX);
        assert_eq!(kind(&lies, ""), None);
    }
}
