//! Searching, where a registry has it: the first API's endpoint, which Docker Hub still serves.

use oci::Reference;
use serde::Deserialize;

use crate::http::{Ask, Payload};
use crate::token::{basic, encode};
use crate::{Client, Credential, DOCKER_HUB_KEY, Error, Result};

/// One repository that was found.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct SearchResult {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub description: Option<String>,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// It is kept by Docker.
    #[serde(default)]
    pub is_official: bool,
    /// It is built from a source repository.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

/// Which of what was found is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchFilter {
    stars: u64,
    official: Option<bool>,
}

impl SearchFilter {
    /// Reads `stars`, `is-official` and `is-automated`.
    ///
    /// # Errors
    /// What is wrong, as `name=value`.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> std::result::Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            let wrong = || format!("{name}={value}");
            match name {
                "stars" => filter.stars = value.parse().map_err(|_| wrong())?,
                "is-official" => {
                    filter.official = Some(match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(wrong()),
                    });
                }
                // Docker Hub builds nothing by itself any more.
                "is-automated" => {}
                _ => return Err(wrong()),
            }
        }
        Ok(filter)
    }

    /// Whether this is wanted.
    pub fn matches(&self, found: &SearchResult) -> bool {
        found.star_count >= self.stars && self.official.is_none_or(|o| found.is_official == o)
    }
}

impl Client {
    /// Repositories whose name or description has `term`, which may begin with a registry's host.
    ///
    /// # Errors
    /// Those of the connection; a registry without a search.
    pub fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchResult>> {
        let host = term.split_once('/').map(|(host, _)| host);
        let host = host.filter(|host| host.contains(['.', ':']) || *host == "localhost");
        let (domain, words) = match host {
            Some(host) => (host, term.get(host.len() + 1..).unwrap_or_default()),
            None => ("docker.io", term),
        };
        let reference = Reference::parse(&format!("{domain}/x"))?;
        let Some(mut endpoint) = self.options().config.endpoints(&reference)?.pop() else {
            return Err(Error::Blocked(domain.to_owned()));
        };
        if endpoint.key == DOCKER_HUB_KEY {
            endpoint.host = "index.docker.io".to_owned();
        }
        let insecure = endpoint.insecure || self.options().insecure;
        let authorization = match self.options().credentials.get(&endpoint.key)? {
            Some(Credential::Password { username, password }) => Some(basic(&username, &password)),
            _ => None,
        };
        let schemes: &[&str] = match endpoint.https {
            Some(true) => &["https"],
            Some(false) => &["http"],
            None if insecure => &["https", "http"],
            None => &["https"],
        };
        let mut failed = None;
        for scheme in schemes {
            let url =
                format!("{scheme}://{}/v1/search?n={limit}&q={}", endpoint.host, encode(words));
            let ask = Ask { method: "GET", url: &url, headers: &[], insecure };
            let answer = match self.exchange(ask, authorization.as_deref(), &mut Payload::None) {
                Ok(answer) => answer,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            match answer.status {
                200 => {}
                404 => {
                    return Err(Error::NotFound {
                        what: format!("the search of {}", endpoint.host),
                        message: "this registry has none; only Docker Hub and few others do"
                            .to_owned(),
                    });
                }
                _ => return Err(answer.fail("the search")),
            }
            let raw = answer.bytes(16 << 20)?;
            let page: Page = serde_json::from_slice(&raw)
                .map_err(|e| Error::protocol(&*url, format!("no search results: {e}")))?;
            return Ok(page.results.unwrap_or_default());
        }
        Err(failed.unwrap_or_else(|| Error::protocol(domain, "it has no scheme")))
    }
}
