//! Settings of the engine and where each came from.
//!
//! Four layers, later ones win: built-in defaults, the settings file
//! (`/etc/wherry/config.toml`), the environment (`WHERRY_` and the key in capitals), the
//! command line. The environment is handed in; this library reads none. Every key is
//! described in `docs/configuration.md`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::types::Ulimit;

mod file;
mod value;

pub(crate) use value::bridge_address;

/// Where the settings file is when nobody names another.
pub const DEFAULT_FILE: &str = "/etc/wherry/config.toml";
/// Where images, containers and volumes are when nobody names another place.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/wherry";
/// Where sockets and the state of this boot are when nobody names another place.
pub const DEFAULT_RUN_ROOT: &str = "/run/wherry";

/// Where mirrors and rewrites of registries are configured when nobody names another file.
pub const DEFAULT_REGISTRIES: &str = "/etc/wherry/registries.toml";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// Follows from another setting.
    Derived(&'static str),
    /// The settings file.
    File {
        /// Its path.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// An option on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Derived(from) => write!(f, "follows from {from}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "option {name}"),
        }
    }
}

/// What the command line said; `None` is nothing.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`; a file that is named must exist.
    pub config: Option<PathBuf>,
    /// `--data-root`
    pub data_root: Option<PathBuf>,
    /// `--run-root`
    pub run_root: Option<PathBuf>,
    /// `--debug`
    pub debug: Option<bool>,
    /// `--log-level`
    pub log_level: Option<String>,
}

/// An OCI runtime by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runtime {
    /// The program.
    pub path: PathBuf,
    /// Arguments put before the command.
    pub args: Vec<String>,
}

impl AsRef<std::ffi::OsStr> for Runtime {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.path.as_os_str()
    }
}

/// How layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageForm {
    /// The best this host can do.
    #[default]
    Auto,
    /// A directory per layer.
    Directories,
    /// One EROFS index per image over the layers' archives.
    Erofs,
}

impl StorageForm {
    /// The store's word for it.
    pub(crate) fn choice(self) -> store::FormChoice {
        match self {
            StorageForm::Auto => store::FormChoice::Auto,
            StorageForm::Directories => store::FormChoice::Directories,
            StorageForm::Erofs => store::FormChoice::Erofs,
        }
    }

    /// As it is written in the settings file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Directories => "directories",
            Self::Erofs => "erofs",
        }
    }
}

/// Settings of the engine.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where images, containers and volumes are kept.
    pub data_root: PathBuf,
    /// Where sockets and the state of this boot are kept.
    pub run_root: PathBuf,
    /// Log driver of containers that name none; empty is `json-file`.
    pub log_driver: String,
    /// Log options of containers that name none.
    pub log_opts: BTreeMap<String, String>,
    /// Runtime of containers that name none; empty and `wherry` are our own.
    pub default_runtime: String,
    /// Other OCI runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// Keys that detach; empty is `ctrl-p,ctrl-q`.
    pub detach_keys: String,
    /// How layers are kept.
    pub storage: StorageForm,
    /// Cgroup below which containers' cgroups are made; empty takes the engine's own.
    pub cgroup_parent: String,
    /// Limits of containers that name none.
    pub default_ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`; 0 takes the default, 64 MiB.
    pub shm_size: i64,
    /// Program for `--init`; `None` takes our own.
    pub init_path: Option<PathBuf>,
    /// Interface of the default bridge network; empty takes one that follows from the data root. One
    /// that is there already is used as it is.
    pub bridge: String,
    /// Subnet of the default bridge network with the bridge's address (`10.1.0.1/24`); empty takes a
    /// free one.
    pub bridge_address: String,
    /// Largest packet of the default bridge network in bytes; 0 takes 1500.
    pub bridge_mtu: u32,
    /// Where networks that name no subnet get theirs; empty are Docker's.
    pub address_pools: Vec<net::address::Pool>,
    /// The host's address that ports are published at unless they name one; `None` is all of them.
    pub publish_address: Option<std::net::IpAddr>,
    /// What comes from elsewhere to published ports has to pass the host's input chains.
    pub publish_respects_input: bool,
    /// File with mirrors and rewrites of registries; empty is the default one, which may be missing.
    pub registries: PathBuf,
    /// Say more.
    pub debug: bool,
    /// `debug`, `info`, `warn`, `error` or `fatal`; empty is `info`.
    pub log_level: String,
    /// Where values came from, by key; what is not named here is a default.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// One setting, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its key in the settings file.
    pub name: &'static str,
    /// Its value as it would be written in the settings file.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Every key, in the order it is shown.
pub const KEYS: &[&str] = &[
    "address-pools",
    "bridge",
    "bridge-address",
    "bridge-mtu",
    "cgroup-parent",
    "data-root",
    "debug",
    "default-runtime",
    "default-ulimits",
    "detach-keys",
    "init-path",
    "log-driver",
    "log-level",
    "log-opts",
    "publish-address",
    "publish-respects-input",
    "registries",
    "run-root",
    "runtimes",
    "shm-size",
    "storage",
];

impl Settings {
    /// Reads all layers. `environment` holds the caller's variables.
    pub fn load(environment: &BTreeMap<String, OsString>, flags: &Flags) -> Result<Self> {
        let mut settings = Self {
            data_root: DEFAULT_DATA_ROOT.into(),
            run_root: DEFAULT_RUN_ROOT.into(),
            ..Self::default()
        };
        let named =
            flags.config.clone().or_else(|| environment.get("WHERRY_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        match std::fs::read_to_string(&path) {
            Ok(text) => settings.read_file(&path, &text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {}
            Err(e) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("settings file {}: {e}; name another with --config", path.display()),
                ));
            }
        }
        settings.read_environment(environment)?;
        settings.read_flags(flags)?;
        settings.finish()?;
        Ok(settings)
    }

    /// A few letters that tell this engine's interfaces and rules from those of others on this host:
    /// they follow from the data root.
    pub fn network_tag(&self) -> String {
        hash_of(&self.data_root, 4)
    }

    /// Interface of the default bridge network. Engines on other data roots than the usual one have
    /// others.
    pub fn bridge_name(&self) -> String {
        match self.bridge.as_str() {
            "" if self.data_root == Path::new(DEFAULT_DATA_ROOT) => "wherry0".into(),
            "" => format!("wherry{}", self.network_tag()),
            name => name.to_owned(),
        }
    }

    /// The first part of the domain the host finds containers in. Engines on other data roots than the
    /// usual one have others.
    pub fn dns_label(&self) -> String {
        match self.data_root == Path::new(DEFAULT_DATA_ROOT) {
            true => "wherry".into(),
            false => format!("wherry{}", self.network_tag()),
        }
    }

    /// Where a key's value came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Every setting with its value and origin, by key.
    pub fn show(&self) -> Vec<Shown> {
        KEYS.iter()
            .map(|name| Shown {
                name,
                value: self.written(name),
                origin: self.origin(name).clone(),
            })
            .collect()
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, OsString>) -> Result<()> {
        for key in KEYS {
            let name = format!("WHERRY_{}", key.replace('-', "_").to_ascii_uppercase());
            let Some(text) = environment.get(&name) else { continue };
            let wrong = |why: String| Error::invalid(format!("environment {name}: {why}"));
            match *key {
                "data-root" => self.data_root = PathBuf::from(text),
                "run-root" => self.run_root = PathBuf::from(text),
                "log-opts" | "runtimes" | "default-ulimits" => continue,
                key => {
                    let text = text.to_str().ok_or_else(|| wrong("is not valid UTF-8".into()))?;
                    self.set_text(key, text).map_err(wrong)?;
                }
            }
            self.origins.insert(key, Origin::Environment(name));
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &Flags) -> Result<()> {
        if let Some(path) = &flags.data_root {
            self.data_root.clone_from(path);
            self.origins.insert("data-root", Origin::Flag("--data-root"));
        }
        if let Some(path) = &flags.run_root {
            self.run_root.clone_from(path);
            self.origins.insert("run-root", Origin::Flag("--run-root"));
        }
        if let Some(debug) = flags.debug {
            self.debug = debug;
            self.origins.insert("debug", Origin::Flag("--debug"));
        }
        if let Some(level) = &flags.log_level {
            self.set_text("log-level", level)
                .map_err(|why| Error::invalid(format!("--log-level: {why}")))?;
            self.origins.insert("log-level", Origin::Flag("--log-level"));
        }
        Ok(())
    }

    /// Makes the roots absolute, and keeps engines with different data roots apart.
    fn finish(&mut self) -> Result<()> {
        if self.origin("run-root") == &Origin::Default
            && self.origin("data-root") != &Origin::Default
        {
            let data = root(&self.data_root, "data-root")?;
            if data != Path::new(DEFAULT_DATA_ROOT) {
                self.run_root = derived_run_root(&data);
                self.origins.insert("run-root", Origin::Derived("data-root"));
            }
        }
        self.data_root = root(&self.data_root, "data-root")?;
        self.run_root = root(&self.run_root, "run-root")?;
        if self.data_root == self.run_root {
            return Err(Error::invalid(format!(
                "data-root and run-root are both {}; give each a directory of its own",
                self.data_root.display()
            )));
        }
        Ok(())
    }
}

/// Two engines must never share a run root: each data root gets one of its own.
fn derived_run_root(data: &Path) -> PathBuf {
    PathBuf::from(format!("{DEFAULT_RUN_ROOT}-{}", hash_of(data, 6)))
}

/// The first bytes of a path's hash, two digits each.
fn hash_of(path: &Path, bytes: usize) -> String {
    use sha2::Digest;
    use std::os::unix::ffi::OsStrExt;
    let digest = sha2::Sha256::digest(path.as_os_str().as_bytes());
    digest.iter().take(bytes).map(|b| format!("{b:02x}")).collect()
}

fn root(path: &Path, key: &str) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid(format!("{key} is empty; name a directory")));
    }
    let path = std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("{key} {}: {e}", path.display())))?;
    // `a/../b` is `b` here: nothing below a root is reached through a link's parent.
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests;
