//! Credentials, and Docker's file of them: `~/.docker/config.json`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::helper::Helper;
use crate::{Error, Result};

/// The domain of references to Docker Hub.
pub(crate) const DOCKER_IO: &str = "docker.io";
/// Under what credentials for Docker Hub are kept, for historical reasons.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The name that says that the secret is an identity token.
pub(crate) const TOKEN_USER: &str = "<token>";
/// Largest file, in bytes.
const MOST: u64 = 16 << 20;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password, or a personal access token.
        password: String,
    },
    /// A refresh token that was given at a login.
    Identity(String),
}

/// Secrets are not shown.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credential::Password { username, .. } => write!(f, "Password({username:?})"),
            Credential::Identity(_) => f.write_str("Identity"),
        }
    }
}

/// Where credentials come from.
pub trait Credentials: Send + Sync + std::fmt::Debug {
    /// The credential kept under `key`: a host with its port, or [`DOCKER_HUB_KEY`].
    ///
    /// # Errors
    /// Those of files and helpers.
    fn get(&self, key: &str) -> Result<Option<Credential>>;
}

/// Always the same answer.
#[derive(Clone, Debug, Default)]
pub struct Fixed(pub Option<Credential>);

impl Credentials for Fixed {
    fn get(&self, _: &str) -> Result<Option<Credential>> {
        Ok(self.0.clone())
    }
}

/// Under what credentials for a server are kept, which people may write as a URL: the host with its port.
pub fn server_key(server: &str) -> String {
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | DOCKER_IO | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY.to_owned(),
        host => host.to_owned(),
    }
}

/// `config.json`. What it holds besides credentials is kept as it is.
#[derive(Debug)]
pub struct DockerConfig {
    path: PathBuf,
    content: Mutex<Map<String, Value>>,
}

impl DockerConfig {
    /// Reads the file; not existing is an empty one.
    ///
    /// # Errors
    /// A file that is no JSON object.
    pub fn load(path: &Path) -> Result<DockerConfig> {
        use std::io::Read;
        let mut text = String::new();
        let content = match std::fs::File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
            Ok(file) => {
                file.take(MOST)
                    .read_to_string(&mut text)
                    .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
                if text.trim().is_empty() {
                    Map::new()
                } else {
                    serde_json::from_str(&text).map_err(|e| Error::Config {
                        path: path.to_owned(),
                        reason: format!("not Docker's configuration: {e}"),
                    })?
                }
            }
        };
        Ok(DockerConfig { path: path.to_owned(), content: Mutex::new(content) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn content(&self) -> Map<String, Value> {
        match self.content.lock() {
            Ok(content) => content.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// The helper for a server: its own, or that for all.
    fn helper(&self, key: &str) -> Option<Helper> {
        let content = self.content();
        let own = content.get("credHelpers").and_then(|all| {
            all.get(key).or_else(|| if key == DOCKER_HUB_KEY { all.get(DOCKER_IO) } else { None })
        });
        let name = own.or_else(|| content.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| Helper::new(name))
    }

    /// Whether credentials for this server end up in the file itself, readable by whoever reads it.
    pub fn is_plain(&self, key: &str) -> bool {
        self.helper(key).is_none()
    }

    /// Keeps a credential: with the helper, or in the file.
    ///
    /// # Errors
    /// Those of the helper and of writing.
    pub fn store(&self, key: &str, credential: &Credential) -> Result<()> {
        let entry = match self.helper(key) {
            Some(helper) => {
                helper.store(key, credential)?;
                // Clients list the file to know which servers there are.
                Map::new()
            }
            None => {
                let mut entry = Map::new();
                match credential {
                    Credential::Password { username, password } => {
                        let auth = STANDARD.encode(format!("{username}:{password}"));
                        entry.insert("auth".to_owned(), auth.into());
                    }
                    Credential::Identity(token) => {
                        let auth = STANDARD.encode(format!("{TOKEN_USER}:"));
                        entry.insert("auth".to_owned(), auth.into());
                        entry.insert("identitytoken".to_owned(), token.clone().into());
                    }
                }
                entry
            }
        };
        self.change(|auths| {
            auths.retain(|name, _| server_key(name) != key || name == key);
            auths.insert(key.to_owned(), Value::Object(entry));
            true
        })
    }

    /// Forgets a credential. False if there was none.
    ///
    /// # Errors
    /// Those of the helper and of writing.
    pub fn erase(&self, key: &str) -> Result<bool> {
        let mut found = false;
        if let Some(helper) = self.helper(key) {
            found |= helper.get(key)?.is_some();
            helper.erase(key)?;
        }
        self.change(|auths| {
            let before = auths.len();
            auths.retain(|name, _| server_key(name) != key);
            found |= auths.len() != before;
            auths.len() != before
        })?;
        Ok(found)
    }

    /// Reads the file again, changes its credentials, and replaces it, whole or not at all.
    fn change(&self, f: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<()> {
        let mut content = DockerConfig::load(&self.path)?.content();
        let auths = content.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        if let Some(auths) = auths.as_object_mut()
            && !f(auths)
        {
            return Ok(());
        }
        self.write(&content)?;
        match self.content.lock() {
            Ok(mut own) => *own = content,
            Err(poisoned) => *poisoned.into_inner() = content,
        }
        Ok(())
    }

    fn write(&self, content: &Map<String, Value>) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let what = || format!("writing {}", self.path.display());
        // People link it from elsewhere; the link stays one.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".part-{}", std::process::id()));
        let part = target.with_file_name(name);
        let write = || {
            if let Some(parent) = target.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let _ = std::fs::remove_file(&part);
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&part)?;
            let mut text = Vec::new();
            let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
            serde::Serialize::serialize(content, &mut serializer)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&part, &target)
        };
        write().map_err(|e| {
            let _ = std::fs::remove_file(&part);
            Error::io(what(), e)
        })
    }
}

/// One entry of `auths`.
fn entry(value: &Value) -> Option<Credential> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Credential::Identity(token.to_owned()));
    }
    let decoded = text("auth").and_then(|auth| STANDARD.decode(auth.trim()).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((username, password)) = decoded.as_deref().and_then(|t| t.split_once(':')) {
        // Old versions padded with zeros.
        let password = password.trim_end_matches('\0').to_owned();
        return Some(Credential::Password { username: username.to_owned(), password });
    }
    let (username, password) = (text("username")?, text("password")?);
    Some(Credential::Password { username: username.to_owned(), password: password.to_owned() })
}

impl Credentials for DockerConfig {
    fn get(&self, key: &str) -> Result<Option<Credential>> {
        if let Some(helper) = self.helper(key)
            && let Some(found) = helper.get(key)?
        {
            return Ok(Some(found));
        }
        let content = self.content();
        let Some(auths) = content.get("auths").and_then(Value::as_object) else { return Ok(None) };
        // The exact name first; then what older clients wrote, with a scheme or a path.
        let exact = auths.get(key).and_then(entry);
        Ok(exact.or_else(|| {
            auths.iter().filter(|(name, _)| server_key(name) == key).find_map(|(_, v)| entry(v))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir()
            .join(format!("wherry-docker-config-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn what_is_stored_is_found_and_the_rest_is_kept() {
        let dir = scratch("kept");
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.json");
        std::fs::write(
            &path,
            r#"{"psFormat":"x","auths":{"https://old.example/v1/":{"auth":"YTpi"}}}"#,
        )
        .unwrap();
        let config = DockerConfig::load(&path).unwrap();
        assert_eq!(config.get("old.example").unwrap(), Some(password("a", "b")));
        assert_eq!(config.get("new.example:5000").unwrap(), None);
        config.store("new.example:5000", &password("ann", "p:w")).unwrap();
        config.store(DOCKER_HUB_KEY, &Credential::Identity("tok".into())).unwrap();
        let again = DockerConfig::load(&path).unwrap();
        assert_eq!(again.get("new.example:5000").unwrap(), Some(password("ann", "p:w")));
        assert_eq!(again.get(DOCKER_HUB_KEY).unwrap(), Some(Credential::Identity("tok".into())));
        assert!(std::fs::read_to_string(&path).unwrap().contains("psFormat"));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(again.erase("old.example").unwrap());
        assert!(!again.erase("old.example").unwrap());
        assert_eq!(DockerConfig::load(&path).unwrap().get("old.example").unwrap(), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn names_of_servers() {
        for (given, key) in [
            ("docker.io", DOCKER_HUB_KEY),
            ("https://index.docker.io/v1/", DOCKER_HUB_KEY),
            ("https://a.example/v2/", "a.example"),
            ("a.example:5000", "a.example:5000"),
            ("", DOCKER_HUB_KEY),
        ] {
            assert_eq!(server_key(given), key, "{given}");
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        let dir = scratch("wrong");
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.json");
        std::fs::write(&path, "[]").unwrap();
        assert!(DockerConfig::load(&path).unwrap_err().to_string().contains("config.json"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
