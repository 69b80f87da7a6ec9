//! Which engine a command means: what the options, the environment and Docker's contexts say.
//!
//! The order is Docker's: `--host` or `--context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context in use, the
//! engine of this machine. Contexts are Docker's own files, `~/.docker/contexts`, so that both programs have
//! the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use remote::{Host, Tls};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::context::Globals;
use crate::failure::Failure;

/// The name of what needs no context.
pub(crate) const DEFAULT: &str = "default";
/// The part of a context that is about an engine.
pub(crate) const DOCKER: &str = "docker";
/// Files of a context's certificates.
pub(crate) const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// What is remembered of an engine elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Endpoint {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
    /// What other programs keep there.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// A context: what `meta.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
}

impl Meta {
    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn describe(&mut self, text: &str) {
        self.metadata.insert("Description".into(), text.into());
    }

    pub(crate) fn host(&self) -> &str {
        self.endpoints.get(DOCKER).map_or("", |e| e.host.as_str())
    }
}

/// Where contexts are kept.
#[derive(Debug, Clone)]
pub(crate) struct Contexts {
    directory: PathBuf,
}

/// A context's directory is named after its name's hash.
fn key(name: &str) -> String {
    oci::Digest::sha256(name.as_bytes()).hex()
}

/// Docker's rule.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b));
    if name == DEFAULT {
        return Err(Failure::new(1, "context: \"default\" is a reserved context name"));
    }
    if good {
        return Ok(());
    }
    Err(Failure::new(
        1,
        format!(
            "context name {name:?} is invalid, names are validated against regexp \
             \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ),
    ))
}

pub(crate) fn not_found(name: &str) -> Failure {
    Failure::new(1, format!("context {name:?}: context not found: no such context; see context ls"))
}

impl Contexts {
    /// Of this person.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let config = crate::registries::docker_config_path()?;
        let directory = config.parent().unwrap_or(Path::new("/")).join("contexts");
        Ok(Self { directory })
    }

    pub(crate) fn meta_directory(&self, name: &str) -> PathBuf {
        self.directory.join("meta").join(key(name))
    }

    pub(crate) fn tls_directory(&self, name: &str) -> PathBuf {
        self.directory.join("tls").join(key(name))
    }

    /// What is remembered under a name.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<Option<Meta>> {
        let path = self.meta_directory(name).join("meta.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let meta = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        Ok(Some(meta))
    }

    /// All, by name.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Meta>> {
        let entries = match std::fs::read_dir(self.directory.join("meta")) {
            Ok(entries) => entries,
            Err(_) => return Ok(Vec::new()),
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            // What is not a context's is somebody else's.
            let Ok(bytes) = std::fs::read(entry.path().join("meta.json")) else { continue };
            if let Ok(meta) = serde_json::from_slice::<Meta>(&bytes) {
                all.push(meta);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Writes it; what a reader sees at the same time is the old or the new.
    pub(crate) fn put(&self, meta: &Meta) -> anyhow::Result<()> {
        let directory = self.meta_directory(&meta.name);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&directory)?;
            let new = directory.join(format!("meta.json.{}", std::process::id()));
            std::fs::write(&new, serde_json::to_vec(meta)?)?;
            std::fs::rename(&new, directory.join("meta.json"))
        };
        write().with_context(|| directory.display().to_string())
    }

    /// Keeps certificates for a context; none removes what was there.
    pub(crate) fn put_tls(&self, name: &str, files: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let top = self.tls_directory(name);
        let write = || -> std::io::Result<()> {
            remove(&top)?;
            if files.is_empty() {
                return Ok(());
            }
            let directory = top.join(DOCKER);
            std::fs::create_dir_all(&directory)?;
            for (file, bytes) in files {
                let path = directory.join(file);
                let mut options = std::fs::OpenOptions::new();
                // A key is nobody's but its owner's.
                let mut out = options.write(true).create_new(true).mode(0o600).open(path)?;
                std::io::Write::write_all(&mut out, bytes)?;
            }
            Ok(())
        };
        write().with_context(|| top.display().to_string())
    }

    /// Names and contents of the certificates that are kept.
    pub(crate) fn tls_files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let directory = self.tls_directory(name).join(DOCKER);
        let read =
            |file: &&str| Some(((*file).to_owned(), std::fs::read(directory.join(file)).ok()?));
        TLS_FILES.iter().filter_map(read).collect()
    }

    /// Forgets it.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        for directory in [self.tls_directory(name), self.meta_directory(name)] {
            remove(&directory).with_context(|| directory.display().to_string())?;
        }
        Ok(())
    }

    fn target(&self, name: &str) -> anyhow::Result<Target> {
        let meta = self.get(name)?.ok_or_else(|| not_found(name))?;
        let endpoint = meta.endpoints.get(DOCKER).cloned().unwrap_or_default();
        if endpoint.host.is_empty() {
            return Err(Failure::new(
                1,
                format!("context {name:?} names no engine: its docker endpoint has no host"),
            )
            .into());
        }
        let files: BTreeMap<_, _> = self.tls_files(name).into_iter().collect();
        let get = |file: &str| files.get(file).cloned();
        let tls = (!files.is_empty() || endpoint.skip_tls_verify).then(|| Tls {
            ca: get("ca.pem"),
            client: get("cert.pem").zip(get("key.pem")),
            any_server: endpoint.skip_tls_verify,
        });
        Ok(Target { host: Host::parse(&endpoint.host)?, tls })
    }
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The context that `context use` chose, of a file that mostly has none.
pub(crate) fn in_use() -> Option<String> {
    let path = crate::registries::docker_config_path().ok()?;
    let text = std::fs::read_to_string(path).ok()?;
    if !text.contains("\"currentContext\"") {
        return None;
    }
    let config: Value = serde_json::from_str(&text).ok()?;
    let name = config.get("currentContext")?.as_str()?;
    (!name.is_empty() && name != DEFAULT).then(|| name.to_owned())
}

/// Chooses a context for the commands to come; what else the file holds stays.
pub(crate) fn set_in_use(name: Option<&str>) -> anyhow::Result<()> {
    let path = crate::registries::docker_config_path()?;
    let mut config: Map<String, Value> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    match name {
        Some(name) => {
            config.insert("currentContext".into(), name.into());
        }
        None => {
            if config.remove("currentContext").is_none() {
                return Ok(());
            }
        }
    }
    let write = || -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let new = path.with_file_name(format!("config.json.{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        std::io::Write::write_all(&mut out, &serde_json::to_vec_pretty(&config)?)?;
        std::fs::rename(&new, &path)
    };
    write().with_context(|| path.display().to_string())
}

/// An engine elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) tls: Option<Tls>,
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The name of the context that a command uses.
pub(crate) fn context_name(globals: &Globals) -> String {
    let own = globals.data_root.is_some() || globals.run_root.is_some();
    if let Some(name) = &globals.context {
        return name.clone();
    }
    if globals.host.is_some() || own || variable("DOCKER_HOST").is_some() {
        return DEFAULT.to_owned();
    }
    variable("DOCKER_CONTEXT").or_else(in_use).unwrap_or_else(|| DEFAULT.to_owned())
}

/// Which engine is meant; `None`: that of this machine.
pub(crate) fn of(globals: &Globals) -> anyhow::Result<Option<Target>> {
    let own = globals.data_root.is_some() || globals.run_root.is_some();
    if let (Some(host), Some(name)) = (&globals.host, &globals.context) {
        return Err(Failure::new(
            1,
            format!("conflicting options: cannot specify both --host {host} and --context {name}"),
        )
        .into());
    }
    if own {
        // Folders of this machine are named: there is no doubt which engine is meant.
        if let Some(given) = globals.host.as_ref().or(globals.context.as_ref())
            && given != DEFAULT
        {
            return Err(Failure::new(
                1,
                format!(
                    "{given} is an engine elsewhere, and --data-root and --run-root name one of this machine: \
                     leave either out"
                ),
            )
            .into());
        }
        return Ok(None);
    }
    let host = match &globals.context {
        Some(_) => None,
        None => globals.host.clone().or_else(|| variable("DOCKER_HOST")),
    };
    if let Some(host) = host {
        let host = Host::parse(&host)?;
        let tls = match &host {
            Host::Tcp { .. } => tls(globals)?,
            _ => None,
        };
        return Ok(Some(Target { host, tls }));
    }
    match context_name(globals).as_str() {
        DEFAULT => Ok(None),
        name => Contexts::open()?.target(name).map(Some),
    }
}

/// Certificates that options and environment name, if TLS is wanted at all.
fn tls(globals: &Globals) -> anyhow::Result<Option<Tls>> {
    let verify = globals.tlsverify.unwrap_or_else(|| variable("DOCKER_TLS_VERIFY").is_some());
    let named =
        globals.tlscacert.is_some() || globals.tlscert.is_some() || globals.tlskey.is_some();
    if !(verify || named || globals.tls || variable("DOCKER_TLS").is_some()) {
        return Ok(None);
    }
    let directory = match variable("DOCKER_CERT_PATH") {
        Some(path) => PathBuf::from(path),
        None => {
            let config = crate::registries::docker_config_path()?;
            config.parent().unwrap_or(Path::new("/")).to_owned()
        }
    };
    let read = |given: &Option<PathBuf>, name: &str| -> anyhow::Result<Option<Vec<u8>>> {
        let path = given.clone().unwrap_or_else(|| directory.join(name));
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && given.is_none() => Ok(None),
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    };
    let client = read(&globals.tlscert, "cert.pem")?.zip(read(&globals.tlskey, "key.pem")?);
    Ok(Some(Tls { ca: read(&globals.tlscacert, "ca.pem")?, client, any_server: !verify }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_as_docker_keeps_them() {
        // The directory's name that Docker gives a context "remote".
        assert_eq!(key("remote").len(), 64);
        let text = r#"{"Name":"a1","Metadata":{"Description":"d","X":1},"Endpoints":{"docker":{"Host":"unix:///x","SkipTLSVerify":false,"Y":[2]}}}"#;
        let meta: Meta = serde_json::from_str(text).unwrap();
        assert_eq!((meta.description(), meta.host()), ("d", "unix:///x"));
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
        let dir = std::env::temp_dir().join(format!("wherry-contexts-{}", std::process::id()));
        let contexts = Contexts { directory: dir.clone() };
        contexts.put(&meta).unwrap();
        contexts.put_tls("a1", &[("ca.pem".into(), b"x".to_vec())]).unwrap();
        assert_eq!(contexts.all().unwrap(), std::slice::from_ref(&meta));
        assert_eq!(contexts.tls_files("a1"), [("ca.pem".to_owned(), b"x".to_vec())]);
        assert!(contexts.target("a1").unwrap().tls.is_some());
        contexts.remove("a1").unwrap();
        assert_eq!(contexts.get("a1").unwrap(), None);
        std::fs::remove_dir_all(dir).unwrap();
        for wrong in ["", "a", "default", "-a", "a/b", "a b"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        assert!(check_name("a1.b-c_d+e").is_ok());
    }
}
