//! The configuration of registries: mirrors, rewrites, who may be reached insecurely.
//!
//! `docs/registries.md` describes the file for users.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Reference;
use serde::Deserialize;

use crate::credentials::{DOCKER_HUB_KEY, DOCKER_IO};
use crate::proxy::is_loopback;
use crate::{Error, Result};

/// The host that serves the API for `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Largest file, in bytes.
const MOST: usize = 1 << 20;

/// What is configured about registries.
#[derive(Clone, Debug)]
pub struct Config {
    /// Layers that are fetched at once.
    pub max_downloads: usize,
    /// Layers that are sent at once.
    pub max_uploads: usize,
    /// How often a request is tried again when it failed for a reason that may pass.
    pub retries: u32,
    /// The wait before the first of these tries; doubled for each further one.
    pub retry_delay: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next byte.
    pub read_timeout: Duration,
    /// Bytes in one request of an upload; 0 sends each blob in one.
    pub chunk_size: u64,
    /// Directories with certificates, `HOST[:PORT]/*.crt` in them.
    pub certificates: Vec<PathBuf>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    prefix: String,
    location: Option<Location>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Location>,
}

/// Where something is served: `[http[s]://]HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    https: Option<bool>,
    host: String,
    path: String,
    insecure: bool,
}

/// One place where a repository is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    pub host: String,
    /// The repository there.
    pub path: String,
    /// Under what credentials for it are kept.
    pub key: String,
    /// It is a mirror: it may lack what its original has.
    pub mirror: bool,
    /// `https` or `http` and nothing else, if that is configured.
    pub(crate) https: Option<bool>,
    /// Its certificate is not checked, and plain HTTP is tried.
    pub(crate) insecure: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    max_concurrent_downloads: Option<usize>,
    max_concurrent_uploads: Option<usize>,
    retries: Option<u32>,
    retry_delay_ms: Option<u64>,
    connect_timeout_seconds: Option<u64>,
    read_timeout_seconds: Option<u64>,
    chunk_size: Option<u64>,
    certificates: Option<Vec<PathBuf>>,
    #[serde(default)]
    registry: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileRule {
    prefix: String,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirrors: Vec<FileMirror>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileMirror {
    Plain(String),
    Full(FullMirror),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FullMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_downloads: 3,
            max_uploads: 5,
            retries: 5,
            retry_delay: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            chunk_size: 0,
            certificates: vec!["/etc/wherry/certs.d".into(), "/etc/docker/certs.d".into()],
            rules: Vec::new(),
        }
    }
}

impl Location {
    fn parse(text: &str, insecure: bool) -> Result<Location, String> {
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err(format!("{text:?}: the scheme must be http or https")),
            None => (None, text),
        };
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A reference's own rules say what a host and a path may be.
        let probe = if path.is_empty() { format!("{host}/x") } else { format!("{host}/{path}") };
        let looks = host.contains(['.', ':']) || host == "localhost";
        if !looks || Reference::parse(&probe).is_err() {
            return Err(format!("{text:?}: expected [http[s]://]HOST[:PORT][/PATH]"));
        }
        Ok(Location { https, host: host.to_owned(), path: path.to_owned(), insecure })
    }

    /// The place of what follows the prefix.
    fn endpoint(&self, rest: &str, mirror: bool) -> Endpoint {
        let path = match (self.path.as_str(), rest) {
            ("", rest) => rest.to_owned(),
            (path, "") => path.to_owned(),
            (path, rest) => format!("{path}/{rest}"),
        };
        let mut endpoint = Endpoint::of(&self.host, &path);
        endpoint.https = self.https;
        endpoint.insecure |= self.insecure;
        endpoint.mirror = mirror;
        endpoint
    }
}

impl Endpoint {
    /// A repository on a host, without any configuration.
    pub(crate) fn of(domain: &str, path: &str) -> Endpoint {
        let hub = domain == DOCKER_IO || domain == "index.docker.io";
        let host = if hub { DOCKER_HUB_HOST } else { domain };
        let name = host_name(host);
        Endpoint {
            host: host.to_owned(),
            path: path.to_owned(),
            key: if hub { DOCKER_HUB_KEY.to_owned() } else { domain.to_owned() },
            mirror: false,
            https: None,
            insecure: is_loopback(name),
        }
    }
}

/// The host without its port.
pub(crate) fn host_name(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_once(']').map_or(host, |(name, _)| name.trim_start_matches('['));
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

impl Rule {
    /// What follows the prefix, if the name begins with it.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        if let Some(above) = self.prefix.strip_prefix("*.") {
            let (host, rest) = name.split_once('/')?;
            let fits = host_name(host).strip_suffix(above)?.ends_with('.');
            return fits.then_some(rest);
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl Config {
    /// Reads the file. Not existing is no mistake unless `must_exist`.
    ///
    /// # Errors
    /// [`Error::Config`] with the line.
    pub fn load(path: &Path, must_exist: bool) -> Result<Config> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text)
                .map_err(|reason| Error::Config { path: path.to_owned(), reason }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                Ok(Config::default())
            }
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        }
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Config, String> {
        if text.len() > MOST {
            return Err("larger than 1 MiB".to_owned());
        }
        let file: File = toml::from_str(text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..start).unwrap_or_default();
            let line = before.iter().filter(|b| **b == b'\n').count().saturating_add(1);
            format!("line {line}: {}", e.message())
        })?;
        let mut config = Config::default();
        let bounded = |name: &str, value: Option<usize>, default| match value {
            Some(n @ 1..=64) => Ok(n),
            Some(n) => Err(format!("{name} = {n}: expected 1 to 64")),
            None => Ok(default),
        };
        config.max_downloads =
            bounded("max-concurrent-downloads", file.max_concurrent_downloads, 3)?;
        config.max_uploads = bounded("max-concurrent-uploads", file.max_concurrent_uploads, 5)?;
        config.retries = file.retries.unwrap_or(config.retries).min(100);
        let seconds = |given: Option<u64>, default: Duration| {
            given.map_or(default, |n| Duration::from_secs(n.clamp(1, 86_400)))
        };
        config.connect_timeout = seconds(file.connect_timeout_seconds, config.connect_timeout);
        config.read_timeout = seconds(file.read_timeout_seconds, config.read_timeout);
        if let Some(delay) = file.retry_delay_ms {
            config.retry_delay = Duration::from_millis(delay.min(60_000));
        }
        config.chunk_size = file.chunk_size.unwrap_or(0);
        if let Some(certificates) = file.certificates {
            config.certificates = certificates;
        }
        for rule in file.registry {
            let at = format!("registry {:?}", rule.prefix);
            let plain = rule.prefix.trim_start_matches("*.").trim_end_matches('/');
            Location::parse(plain, false).map_err(|why| format!("{at}: prefix {why}"))?;
            let location = rule.location.as_deref().map(|text| Location::parse(text, false));
            let location = location.transpose().map_err(|why| format!("{at}: location {why}"))?;
            let mirrors = rule
                .mirrors
                .into_iter()
                .map(|mirror| match mirror {
                    FileMirror::Plain(text) => Location::parse(&text, false),
                    FileMirror::Full(full) => Location::parse(&full.location, full.insecure),
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(|why| format!("{at}: mirror {why}"))?;
            let prefix = rule.prefix.trim_end_matches('/').to_owned();
            let (insecure, blocked) = (rule.insecure, rule.blocked);
            config.rules.push(Rule { prefix, location, insecure, blocked, mirrors });
        }
        // The longest prefix counts; of equal ones the first.
        config.rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Ok(config)
    }

    /// Where the repository of a reference is served, in the order in which to ask: mirrors first.
    /// The last one is the repository itself.
    ///
    /// # Errors
    /// [`Error::Blocked`].
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = reference.repository();
        let found = self.rules.iter().find_map(|rule| Some((rule, rule.rest(&name)?)));
        let Some((rule, rest)) = found else {
            return Ok(vec![Endpoint::of(reference.domain(), reference.path())]);
        };
        if rule.blocked {
            return Err(Error::Blocked(reference.familiar_name()));
        }
        let mut endpoints: Vec<Endpoint> =
            rule.mirrors.iter().map(|mirror| mirror.endpoint(rest, true)).collect();
        let mut own = match &rule.location {
            Some(location) => location.endpoint(rest, false),
            None => Endpoint::of(reference.domain(), reference.path()),
        };
        own.insecure |= rule.insecure;
        endpoints.push(own);
        Ok(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(config: &Config, name: &str) -> Vec<String> {
        config
            .endpoints(&Reference::parse(name).unwrap())
            .unwrap()
            .into_iter()
            .map(|e| {
                let scheme = match e.https {
                    Some(true) => "https://",
                    Some(false) => "http://",
                    None => "",
                };
                format!(
                    "{scheme}{}/{}{}",
                    e.host,
                    e.path,
                    if e.insecure { " insecure" } else { "" }
                )
            })
            .collect()
    }

    #[test]
    fn places() {
        let config = Config::parse(
            r#"
            max-concurrent-downloads = 7
            [[registry]]
            prefix = "docker.io"
            mirrors = ["http://cache.local:5000", { location = "m.example/hub", insecure = true }]
            [[registry]]
            prefix = "docker.io/team"
            location = "reg.example/other"
            [[registry]]
            prefix = "*.lab.example"
            insecure = true
            [[registry]]
            prefix = "bad.example"
            blocked = true
            "#,
        )
        .unwrap();
        assert_eq!(config.max_downloads, 7);
        assert_eq!(
            endpoints(&config, "debian"),
            [
                "http://cache.local:5000/library/debian",
                "m.example/hub/library/debian insecure",
                "registry-1.docker.io/library/debian"
            ]
        );
        assert_eq!(endpoints(&config, "team/app"), ["reg.example/other/app"]);
        assert_eq!(endpoints(&config, "teams/app").len(), 3);
        assert_eq!(endpoints(&config, "a.lab.example:5000/x"), ["a.lab.example:5000/x insecure"]);
        assert_eq!(endpoints(&config, "lab.example/x"), ["lab.example/x"]);
        assert_eq!(endpoints(&config, "localhost:5000/x"), ["localhost:5000/x insecure"]);
        let error = config.endpoints(&Reference::parse("bad.example/x").unwrap()).unwrap_err();
        assert!(error.to_string().contains("bad.example/x is blocked"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            ("retry = 1", "unknown field `retry`"),
            ("\n[[registry]]\nprefix = 1", "line 3"),
            ("[[registry]]\nprefix = \"UP CASE\"", "expected [http[s]://]HOST"),
            ("[[registry]]\nprefix = \"a.b\"\nmirrors = [\"ftp://x\"]", "http or https"),
            ("max-concurrent-downloads = 0", "expected 1 to 64"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.contains(want), "{text}: {why}");
        }
        assert!(Config::load(Path::new("/nonexistent"), true).is_err());
        assert!(Config::load(Path::new("/nonexistent"), false).is_ok());
    }
}
