//! What `info` and `version` answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `docker info`: this host and this engine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Info {
    /// Id of this engine; the same as long as its data root is.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers in all.
    pub containers: usize,
    /// Those that run.
    pub containers_running: usize,
    /// Those that are frozen.
    pub containers_paused: usize,
    /// Those that do not run.
    pub containers_stopped: usize,
    /// Images.
    pub images: usize,
    /// Storage driver.
    pub driver: String,
    /// What there is to know of it, name and value.
    pub driver_status: Vec<[String; 2]>,
    /// What can be plugged in, by kind.
    pub plugins: Plugins,
    /// Memory can be limited.
    pub memory_limit: bool,
    /// Swap can be limited.
    pub swap_limit: bool,
    /// CPU quotas have a period.
    pub cpu_cfs_period: bool,
    /// CPU quotas can be set.
    pub cpu_cfs_quota: bool,
    /// CPU time can be shared by weight.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Containers can be bound to CPUs.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Processes can be limited.
    pub pids_limit: bool,
    /// Killing for lack of memory can be turned off.
    pub oom_kill_disable: bool,
    /// The host forwards IPv4.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// The engine says more than usual.
    pub debug: bool,
    /// Open descriptors of the process that answers.
    #[serde(rename = "NFd")]
    pub n_fd: usize,
    /// Threads of the process that answers.
    #[serde(rename = "NGoroutines")]
    pub n_goroutines: usize,
    /// RFC 3339.
    pub system_time: String,
    /// Log driver of containers that name none.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Listeners to events.
    #[serde(rename = "NEventsListener")]
    pub n_events_listener: usize,
    /// Release of the kernel.
    pub kernel_version: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// As `uname -m`.
    pub architecture: String,
    /// Where images are pulled from when no registry is named.
    pub index_server_address: String,
    /// Registries.
    pub registry_config: RegistryConfig,
    /// CPUs this process may use.
    #[serde(rename = "NCPU")]
    pub n_cpu: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Resources of a cluster; always null here.
    pub generic_resources: Option<Vec<serde_json::Value>>,
    /// Where images, containers and volumes are kept.
    pub docker_root_dir: String,
    /// Proxy for HTTP.
    pub http_proxy: String,
    /// Proxy for HTTPS.
    pub https_proxy: String,
    /// What needs no proxy.
    pub no_proxy: String,
    /// Name of the host.
    pub name: String,
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Experiments are on.
    pub experimental_build: bool,
    /// Version of the engine.
    pub server_version: String,
    /// OCI runtimes by name.
    pub runtimes: BTreeMap<String, RuntimeInfo>,
    /// Runtime of containers that name none.
    pub default_runtime: String,
    /// This engine's part in a cluster: none.
    pub swarm: Swarm,
    /// Containers go on when the engine does not: always, there is nothing to stop.
    pub live_restore_enabled: bool,
    /// Windows only; kept for the shape.
    pub isolation: String,
    /// Program for `--init`.
    pub init_binary: String,
    /// Build of containerd: none.
    pub containerd_commit: Commit,
    /// Build of runc: our own runtime's.
    pub runc_commit: Commit,
    /// Build of the init.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin` and the like.
    pub security_options: Vec<String>,
    /// Directories with CDI specifications.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What can be plugged in, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Plugins {
    /// Volume drivers.
    pub volume: Vec<String>,
    /// Network drivers.
    pub network: Vec<String>,
    /// Authorisation.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    pub log: Vec<String>,
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RegistryConfig {
    /// Networks whose registries need no TLS.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    /// Registries by name.
    pub index_configs: BTreeMap<String, serde_json::Value>,
    /// Mirrors.
    pub mirrors: Vec<String>,
}

/// An OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// The program.
    #[serde(default)]
    pub path: String,
    /// Arguments put before the command.
    #[serde(rename = "runtimeArgs", default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Part in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Swarm {
    /// Id of this node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Address of this node.
    pub node_addr: String,
    /// `inactive`.
    pub local_node_state: String,
    /// It could manage the cluster.
    pub control_available: bool,
    /// What is wrong.
    pub error: String,
    /// Other managers.
    pub remote_managers: Option<Vec<serde_json::Value>>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Commit {
    /// Version or hash; empty when there is none.
    #[serde(rename = "ID")]
    pub id: String,
}

/// `docker version`: the server's part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VersionInfo {
    /// The product.
    pub platform: Platform,
    /// Its parts.
    pub components: Vec<Component>,
    /// Version of the engine.
    pub version: String,
    /// Newest API.
    pub api_version: String,
    /// Oldest API.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// What it was built from.
    pub git_commit: String,
    /// Version of Go; names the language here.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// GOARCH's name for the architecture.
    pub arch: String,
    /// Release of the kernel.
    pub kernel_version: String,
    /// Experiments are on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub experimental: bool,
    /// When it was built; empty in a reproducible build.
    pub build_time: String,
}

/// The product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Platform {
    /// Its name.
    pub name: String,
}

/// A part of the product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// More of it, name and value.
    pub details: BTreeMap<String, String>,
}
