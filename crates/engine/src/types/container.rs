//! `Config`, and what `inspect`, `ps`, `top`, `stats` and `events` answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host::{HostConfig, List, null_default};
use super::network::{EndpointSettings, NetworkSettings, NetworkingConfig};

/// An empty JSON object: the value of a set in Docker's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// What a container is, wherever it runs; `Config` of the Engine API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Host name; empty takes the short id.
    #[serde(deserialize_with = "null_default")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(deserialize_with = "null_default")]
    pub domainname: String,
    /// `user[:group]`, names or ids; empty is the image's, else root.
    #[serde(deserialize_with = "null_default")]
    pub user: String,
    /// The client wants to write to standard input.
    #[serde(deserialize_with = "null_default")]
    pub attach_stdin: bool,
    /// The client wants standard output.
    #[serde(deserialize_with = "null_default")]
    pub attach_stdout: bool,
    /// The client wants standard error.
    #[serde(deserialize_with = "null_default")]
    pub attach_stderr: bool,
    /// Ports the image says it listens on, as `80/tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// Give it a terminal.
    #[serde(deserialize_with = "null_default")]
    pub tty: bool,
    /// Keep standard input open.
    #[serde(deserialize_with = "null_default")]
    pub open_stdin: bool,
    /// Close standard input when the first attached client has gone.
    #[serde(deserialize_with = "null_default")]
    pub stdin_once: bool,
    /// Environment, each `NAME=value`; a bare `NAME` removes the image's.
    pub env: List<String>,
    /// Command; `null` takes the image's.
    pub cmd: List<String>,
    /// How health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows only; kept for the shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    /// Image as the user named it.
    #[serde(deserialize_with = "null_default")]
    pub image: String,
    /// Destinations of anonymous volumes.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Working directory.
    #[serde(deserialize_with = "null_default")]
    pub working_dir: String,
    /// Entry point; `null` takes the image's, `[]` (or `[""]`) none.
    pub entrypoint: List<String>,
    /// No network at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_disabled: Option<bool>,
    /// MAC address; of API versions before 1.44.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Triggers for images built from this one.
    pub on_build: List<String>,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to stop; empty is SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; -1 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of the image's shell-form commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: List<String>,
}

/// How health is checked. Durations in nanoseconds, 0 inherits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`; empty inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: List<String>,
    /// Between two checks; 0 is the default, 30 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub interval: i64,
    /// One check at the most; 0 is the default, 30 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub timeout: i64,
    /// In which a failure does not count; default 0.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub start_period: i64,
    /// Between two checks during the start period; default 5 s.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0 is the default, 3.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub retries: i64,
}

fn is_zero(v: &i64) -> bool {
    *v == 0
}

/// A plain directory used as root filesystem (`--rootfs`); ours, not Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Rootfs {
    /// Absolute path of the directory on the host.
    pub path: String,
    /// Write into the directory itself instead of into an overlay on top.
    pub writable: bool,
}

/// All that `create` needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// Name without the leading slash; `None` makes one up.
    #[serde(skip)]
    pub name: Option<String>,
    /// `os/arch[/variant]` the image must have.
    #[serde(skip)]
    pub platform: Option<String>,
    /// What the container is.
    #[serde(flatten)]
    pub config: Config,
    /// What it gets from the host.
    pub host_config: HostConfig,
    /// The networks it is connected to.
    #[serde(deserialize_with = "null_default")]
    pub networking_config: NetworkingConfig,
    /// A directory instead of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// Where docker-py's `create_container` names the runtime. The place of it is
    /// [`HostConfig::runtime`], which is asked first.
    #[serde(skip_serializing)]
    pub runtime: Option<String>,
}

/// Answer to `create`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Created {
    /// The container's id, 64 hex digits.
    pub id: String,
    /// Things the person should know; never null.
    pub warnings: Vec<String>,
}

/// `docker container inspect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerInspect {
    /// 64 hex digits.
    pub id: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it is doing now.
    pub state: ContainerState,
    /// Image id, `sha256:…`; empty with `--rootfs`.
    pub image: String,
    /// Files the engine keeps for it on the host.
    pub resolv_conf_path: String,
    /// See `resolv_conf_path`.
    pub hostname_path: String,
    /// See `resolv_conf_path`.
    pub hosts_path: String,
    /// The journal's current file; empty with the log driver `none`.
    pub log_path: String,
    /// With a leading slash.
    pub name: String,
    /// How often the restart policy started it again.
    pub restart_count: u32,
    /// Storage driver in use.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux label of its mounts.
    pub mount_label: String,
    /// SELinux label of its processes.
    pub process_label: String,
    /// AppArmor profile of its processes.
    pub app_armor_profile: String,
    /// Running execs' ids.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: List<String>,
    /// What it gets from the host.
    pub host_config: HostConfig,
    /// Where its files are.
    pub graph_driver: GraphDriver,
    /// Bytes of the writable layer, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of the whole root filesystem, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Mounts other than the root filesystem.
    pub mounts: Vec<MountPoint>,
    /// What it is.
    pub config: Config,
    /// Its networks.
    pub network_settings: NetworkSettings,
    /// A directory instead of an image; ours, not Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
}

/// Where a container's files are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GraphDriver {
    /// Directories by role.
    pub data: Option<BTreeMap<String, String>>,
    /// Storage driver.
    pub name: String,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// True while paused too.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Waiting to be started again.
    pub restarting: bool,
    /// The kernel killed one of its processes for lack of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed.
    pub dead: bool,
    /// Pid on the host, 0 when not running.
    pub pid: i32,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// RFC 3339; `0001-01-01T00:00:00Z` for never.
    pub started_at: String,
    /// As `started_at`.
    pub finished_at: String,
    /// Result of the health checks, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Result of the health checks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five checks.
    pub log: Vec<HealthLog>,
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthLog {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0 healthy, 1 unhealthy, -1 timed out or could not run.
    pub exit_code: i32,
    /// First 4096 bytes of its output.
    pub output: String,
}

/// One mount, as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub r#type: String,
    /// Name of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Volume driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as given.
    pub mode: String,
    /// Writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Mount propagation.
    pub propagation: String,
}

/// One row of `ps`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// 64 hex digits.
    pub id: String,
    /// Each with a leading slash.
    pub names: Vec<String>,
    /// Image as the user named it.
    pub image: String,
    /// Image id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Program and arguments in one line.
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Published ports.
    pub ports: Vec<serde_json::Value>,
    /// Bytes of the writable layer, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of the whole root filesystem, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// As `ContainerState::status`.
    pub state: String,
    /// For people: `Up 3 minutes (healthy)`.
    pub status: String,
    /// The part of `HostConfig` that `ps` shows.
    pub host_config: SummaryHostConfig,
    /// Its networks.
    pub network_settings: SummaryNetworks,
    /// Its mounts.
    pub mounts: Vec<MountPoint>,
}

/// The part of `HostConfig` that `ps` shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// As `HostConfig::network_mode`.
    pub network_mode: String,
}

/// A container's networks in `ps`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryNetworks {
    /// By network name. Boxed, because a tree's node has room for eleven values, and most containers have one network.
    pub networks: BTreeMap<String, Box<EndpointSettings>>,
}

/// Limits that `update` changes on a living container; `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateRequest {
    /// See `HostConfig`.
    pub cpu_shares: Option<i64>,
    /// See `HostConfig`.
    pub memory: Option<i64>,
    /// See `HostConfig`.
    pub memory_swap: Option<i64>,
    /// See `HostConfig`.
    pub memory_reservation: Option<i64>,
    /// See `HostConfig`.
    pub nano_cpus: Option<i64>,
    /// See `HostConfig`.
    pub cpu_period: Option<i64>,
    /// See `HostConfig`.
    pub cpu_quota: Option<i64>,
    /// See `HostConfig`.
    pub cpu_realtime_period: Option<i64>,
    /// See `HostConfig`.
    pub cpu_realtime_runtime: Option<i64>,
    /// See `HostConfig`.
    pub cpuset_cpus: Option<String>,
    /// See `HostConfig`.
    pub cpuset_mems: Option<String>,
    /// See `HostConfig`.
    pub blkio_weight: Option<u16>,
    /// See `HostConfig`.
    pub pids_limit: Option<i64>,
    /// See `HostConfig`.
    pub restart_policy: Option<RestartPolicyUpdate>,
}

/// A new restart policy.
pub type RestartPolicyUpdate = super::host::RestartPolicy;

/// What to run in a living container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecConfig {
    /// The client wants to write to standard input.
    #[serde(deserialize_with = "null_default")]
    pub attach_stdin: bool,
    /// The client wants standard output.
    #[serde(deserialize_with = "null_default")]
    pub attach_stdout: bool,
    /// The client wants standard error.
    #[serde(deserialize_with = "null_default")]
    pub attach_stderr: bool,
    /// Initial terminal size, rows then columns.
    pub console_size: Option<[u32; 2]>,
    /// `ctrl-p,ctrl-q` and the like. Docker takes fields' names in any case, and docker-py sends this one so.
    #[serde(deserialize_with = "null_default", alias = "detachKeys")]
    pub detach_keys: String,
    /// Give it a terminal.
    #[serde(deserialize_with = "null_default")]
    pub tty: bool,
    /// Environment on top of the container's.
    pub env: List<String>,
    /// Program and arguments.
    pub cmd: List<String>,
    /// All capabilities.
    #[serde(deserialize_with = "null_default")]
    pub privileged: bool,
    /// `user[:group]`; empty is the container's.
    #[serde(deserialize_with = "null_default")]
    pub user: String,
    /// Working directory; empty is the container's.
    #[serde(deserialize_with = "null_default")]
    pub working_dir: String,
}

/// What is known of an exec.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecInspect {
    /// 64 hex digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// It was started and has not ended.
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// What it runs.
    pub process_config: ExecProcessConfig,
    /// Its standard input is open to a client.
    pub open_stdin: bool,
    /// Its standard error goes to a client.
    pub open_stderr: bool,
    /// Its standard output goes to a client.
    pub open_stdout: bool,
    /// Always false; kept for the shape.
    pub can_remove: bool,
    /// Where it runs.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// As asked for.
    pub detach_keys: String,
    /// Pid on the host, 0 before the start.
    pub pid: i32,
}

/// What an exec runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    /// It has a terminal.
    pub tty: bool,
    /// The program.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// It has all capabilities.
    pub privileged: bool,
    /// Whose it is, as asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

/// Answer to `top`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Top {
    /// Column headings.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

/// One path that `diff` names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiffEntry {
    /// Absolute path in the container.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// One event, as the API streams it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Old name of `action`, container and image events only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Old name of the actor's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Old name of the container's image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`, `daemon`, `builder`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor")]
    pub actor: EventActor,
    /// `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Whom an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventActor {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, exit code …
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
