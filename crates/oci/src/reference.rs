//! Names of images: `[domain/]path[:tag][@digest]`.
//!
//! The grammar is that of the distribution project's `reference` package; a name without a domain
//! is completed as Docker does it (`debian` is `docker.io/library/debian`), and shown to people in
//! the short, familiar form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits;
use crate::{Digest, Error};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library";
/// The tag a name without tag and digest stands for.
pub const DEFAULT_TAG: &str = "latest";

/// A complete name of an image.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name as a person writes it and completes its domain. The tag is left open when none
    /// is given: see [`Reference::or_latest`].
    ///
    /// # Errors
    /// The `Reference…` errors of [`Error`], in Docker's words.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::ReferenceIsId(text.to_owned()));
        }
        if text.len() > limits::MAX_PATH {
            return Err(Error::InvalidReference);
        }
        let (domain, remainder) = split_domain(text);
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.chars().any(char::is_uppercase) {
            return Err(Error::ReferenceNotLowercase(repository.to_owned()));
        }

        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| Error::InvalidReference)?;
                (name, Some(digest))
            }
            None => (remainder, None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || !is_domain(domain) || !is_path(path) {
            return Err(Error::InvalidReference);
        }
        let path = match domain {
            DEFAULT_DOMAIN if !path.contains('/') => format!("{OFFICIAL}/{path}"),
            _ => path.to_owned(),
        };
        if domain.len() + 1 + path.len() > 255 {
            return Err(Error::ReferenceTooLong);
        }
        let tag = tag.map(str::to_owned);
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry: a host name with an optional port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `domain/path`, complete.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `path` or `domain/path` as people write it, without tag and digest: what a table shows in its
    /// REPOSITORY column.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest,
            _ => self.path.as_str(),
        };
        // `docker.io/example.com/app` cut short would be an image of another registry.
        if split_domain(short) == (DEFAULT_DOMAIN, short) {
            short.to_owned()
        } else {
            self.repository()
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        let mut out = self.familiar_name();
        self.push_suffix(&mut out);
        out
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }

    /// With the tag `latest` if neither tag nor digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] if `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, Error> {
        if !is_tag(tag) {
            return Err(Error::InvalidReference);
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
}

/// The complete form, `docker.io/library/debian:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = self.repository();
        self.push_suffix(&mut out);
        f.write_str(&out)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Reference, Error> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reference::parse(&text).map_err(de::Error::custom)
    }
}

/// The first component is a domain only if it looks like one: a dot, a port, capital letters, or
/// the word localhost. Otherwise `a/b` would be ambiguous.
fn split_domain(text: &str) -> (&str, &str) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    (domain, remainder)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        let hex = |b: u8| b.is_ascii_hexdigit() || b == b':';
        if address.is_empty() || !address.bytes().all(hex) {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn completes_as_docker_does() {
        for (given, complete, familiar) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:13", "docker.io/library/debian:13", "debian:13"),
            ("a/b", "docker.io/a/b", "a/b"),
            ("docker.io/debian", "docker.io/library/debian", "debian"),
            ("index.docker.io/library/debian:x", "docker.io/library/debian:x", "debian:x"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("host:5000/x/y:1", "host:5000/x/y:1", "host:5000/x/y:1"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("Host/x", "Host/x", "Host/x"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("a--b.c__d_e", "docker.io/library/a--b.c__d_e", "a--b.c__d_e"),
            // Their short forms would name images of other registries.
            ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
            ("docker.io/localhost/c", "docker.io/localhost/c", "docker.io/localhost/c"),
            ("docker.io/docker.io/c", "docker.io/docker.io/c", "docker.io/docker.io/c"),
            (
                "docker.io/index.docker.io/c",
                "docker.io/index.docker.io/c",
                "docker.io/index.docker.io/c",
            ),
        ] {
            let reference = Reference::parse(given).unwrap();
            assert_eq!(reference.to_string(), complete);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
        let latest = Reference::parse("debian").unwrap().or_latest();
        assert_eq!(latest.familiar(), "debian:latest");
    }

    #[test]
    fn digest_references() {
        let digest = Digest::sha256("x");
        let reference = Reference::parse(&format!("debian:13@{digest}")).unwrap().or_latest();
        assert_eq!(reference.tag(), Some("13"));
        assert_eq!(reference.digest(), Some(digest));
        assert!(Reference::parse("debian@sha256:abc").is_err());
    }

    #[test]
    fn errors_in_dockers_words() {
        let error = |text: &str| Reference::parse(text).unwrap_err().to_string();
        assert_eq!(error("-x"), "invalid reference format");
        assert_eq!(
            error("Debian"),
            "invalid reference format: repository name (Debian) must be lowercase"
        );
        for text in [
            "", ":", "a:", "a@", "a//b", "/a", "a/", "a..b", "a___b", "a b", "a:b:c", "a:-b", "é",
            "a_",
        ] {
            assert_eq!(error(text), "invalid reference format", "{text:?}");
        }
        assert!(error(&"a".repeat(64)).starts_with("invalid repository name"));
        assert!(error(&"a".repeat(256)).contains("255"));
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(text in "\\PC{0,40}|[a-zA-Z0-9._:/@\\[\\]-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
