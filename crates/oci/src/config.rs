//! The configuration document of an image.
//!
//! Image specification, "Image Configuration", with Docker's additions (Healthcheck, OnBuild,
//! Shell, …). What is stored, saved and hashed is always the document's own bytes; these types are a
//! view of them. Fields they do not know are kept in `other`, so that a changed document
//! loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{DiffId, Error, ImageId, limits};

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// GOARCH name of the processor architecture.
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// Variant of the architecture, such as `v8`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// GOOS name of the operating system.
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// Version of the operating system; used by Windows images.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Defaults for containers made from the image.
    #[serde(default, deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Fields these types do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Defaults for containers: the `config` object of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User name or UID, with an optional group, to run as.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports the image's program listens on: `80/tcp`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First words of the command line. `None` and an empty list differ for `docker inspect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the command if there is no entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that become anonymous volumes.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Directory to start in.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free-form metadata.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds between that signal and SIGKILL (Docker).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The command line is already escaped (Windows).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// How to find out whether the program works (Docker).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for builds that use the image as their base (Docker).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// What runs the shell form of commands (Docker).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Fields these types do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ContainerConfig {
    /// Takes out the fields that Docker's engine writes into this structure for a container, and that say
    /// nothing of an image.
    pub fn forget_container(&mut self) {
        for field in [
            "Hostname",
            "Domainname",
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
            "Tty",
            "OpenStdin",
            "StdinOnce",
            "Image",
            "MacAddress",
            "NetworkDisabled",
        ] {
            self.other.remove(field);
        }
    }
}

/// The value of a Go `map[string]struct{}`: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Empty, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Empty {})
    }
}

/// A health check. Durations in nanoseconds, as Docker stores them; 0 means the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`; empty means inherited.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time one check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time after the start during which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row after which the container is unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image, lowest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step made no layer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Go writes `null` for empty slices and maps.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl ImageConfig {
    /// Reads a document and checks what the rest of the program relies on.
    ///
    /// # Errors
    /// JSON that is no configuration; a root filesystem of another type than `layers`; more layers
    /// than [`limits::MAX_LAYERS`]; a document larger than [`limits::MAX_JSON`].
    pub fn parse(raw: &[u8]) -> Result<ImageConfig, Error> {
        let what = "image configuration";
        if raw.len() as u64 > limits::MAX_JSON {
            return Err(Error::limit(what, "it is larger than 4 MiB"));
        }
        let config: ImageConfig = serde_json::from_slice(raw)
            .map_err(|source| Error::Json { what: what.to_owned(), source })?;
        if config.rootfs.kind != "layers" {
            let reason = format!("unknown rootfs type {:?}", config.rootfs.kind);
            return Err(Error::document(what, reason));
        }
        if config.rootfs.diff_ids.len() > limits::MAX_LAYERS {
            let count = config.rootfs.diff_ids.len();
            let reason = format!("it has {count} layers, at most {} work", limits::MAX_LAYERS);
            return Err(Error::limit(what, reason));
        }
        Ok(config)
    }

    /// The document for this configuration. Field order and map order are fixed.
    ///
    /// # Errors
    /// None in practice: every value here can be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|source| Error::Json { what: "image configuration".to_owned(), source })
    }

    /// The ID of the image whose configuration has these bytes.
    pub fn id(raw: &[u8]) -> ImageId {
        ImageId(crate::Digest::sha256(raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{"architecture":"amd64","config":{"Hostname":"","User":"app","Env":["A=b"],
        "Cmd":null,"Entrypoint":["/x"],"Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},
        "Labels":null,"OnBuild":null,"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000,
        "Retries":3},"Shell":["/bin/bash","-c"],"ArgsEscaped":true,"StopSignal":"SIGINT"},
        "container":"abc","created":"2024-01-01T00:00:00Z","docker_version":"1","history":null,
        "os":"linux","rootfs":{"type":"layers","diff_ids":
        ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

    #[test]
    fn reads_dockers_document_and_keeps_what_it_does_not_know() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, None);
        assert_eq!(config.config.entrypoint.as_deref(), Some(&["/x".to_owned()][..]));
        assert!(config.config.volumes.contains_key("/data"));
        assert_eq!(config.config.healthcheck.as_ref().unwrap().retries, 3);
        assert!(config.config.args_escaped);
        assert_eq!(config.other["container"], "abc");
        assert_eq!(config.config.other["Hostname"], "");
        let again = ImageConfig::parse(&config.to_bytes().unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn wrong_documents_are_refused() {
        let parse = |text: &str| ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(parse("[]").contains("image configuration"));
        assert!(parse("{}").contains("rootfs"));
        assert!(parse(r#"{"rootfs":{"type":"tree"}}"#).contains("tree"));
        assert!(parse(r#"{"rootfs":{"type":"layers","diff_ids":["x"]}}"#).contains("digest"));
        assert!(parse(r#"{"rootfs":{"type":"layers"},"config":{"Env":"A"}}"#).contains("sequence"));
        let id = crate::Digest::sha256("").to_string();
        let ids = serde_json::to_string(&vec![id; 128]).unwrap();
        let many = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":{ids}}}}}"#);
        assert!(parse(&many).contains("128 layers"));
        let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
        assert!(parse(&deep).contains("recursion"));
    }
}
