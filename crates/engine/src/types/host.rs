//! `HostConfig`: what a container gets from this host (mounts, limits, namespaces).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A list that may be absent; Docker distinguishes `null` from `[]` only in output.
pub type List<T> = Option<Vec<T>>;

/// What a container gets from its host; `HostConfig` of the Engine API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `-v` in its short form: `source:destination[:options]`.
    pub binds: List<String>,
    /// File the container's id was written to (`--cidfile`).
    #[serde(rename = "ContainerIDFile", deserialize_with = "null_default")]
    pub container_id_file: String,
    /// Log driver and its options.
    #[serde(deserialize_with = "null_default")]
    pub log_config: LogConfig,
    /// `none`, `host`, `container:ID` or the name of a network.
    #[serde(deserialize_with = "null_default")]
    pub network_mode: String,
    /// Published ports by `port/protocol`.
    #[serde(deserialize_with = "null_default")]
    pub port_bindings: BTreeMap<String, List<PortBinding>>,
    /// What to do when the container's first process ends.
    #[serde(deserialize_with = "null_default")]
    pub restart_policy: RestartPolicy,
    /// `--rm`.
    #[serde(deserialize_with = "null_default")]
    pub auto_remove: bool,
    /// Driver for volumes named in `binds`; only `local` and empty are known.
    #[serde(deserialize_with = "null_default")]
    pub volume_driver: String,
    /// `--volumes-from`: `container[:ro|rw]`.
    pub volumes_from: List<String>,
    /// Initial terminal size, rows then columns.
    #[serde(deserialize_with = "null_default")]
    pub console_size: [u32; 2],
    /// Free-form annotations, copied to the OCI spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// `--cap-add`.
    pub cap_add: List<String>,
    /// `--cap-drop`.
    pub cap_drop: List<String>,
    /// `private` or `host`; empty takes the default (`private`).
    #[serde(deserialize_with = "null_default")]
    pub cgroupns_mode: String,
    /// `--dns`.
    pub dns: List<String>,
    /// `--dns-option`.
    pub dns_options: List<String>,
    /// `--dns-search`.
    pub dns_search: List<String>,
    /// `--add-host`: `name:address`.
    pub extra_hosts: List<String>,
    /// `--group-add`: names or ids.
    pub group_add: List<String>,
    /// `private`, `shareable`, `host`, `none` or `container:ID`.
    #[serde(deserialize_with = "null_default")]
    pub ipc_mode: String,
    /// Unused by every client today; kept for the shape.
    #[serde(deserialize_with = "null_default")]
    pub cgroup: String,
    /// `--link`.
    pub links: List<String>,
    /// `--oom-score-adj`, -1000 to 1000.
    #[serde(deserialize_with = "null_default")]
    pub oom_score_adj: i64,
    /// Empty, `host` or `container:ID`.
    #[serde(deserialize_with = "null_default")]
    pub pid_mode: String,
    /// `--privileged`.
    #[serde(deserialize_with = "null_default")]
    pub privileged: bool,
    /// `-P`.
    #[serde(deserialize_with = "null_default")]
    pub publish_all_ports: bool,
    /// `--read-only`.
    #[serde(deserialize_with = "null_default")]
    pub readonly_rootfs: bool,
    /// `--security-opt`, each `name=value` or a bare name.
    pub security_opt: List<String>,
    /// `--storage-opt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_opt: Option<BTreeMap<String, String>>,
    /// `--tmpfs`: destination to options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Empty or `host`.
    #[serde(rename = "UTSMode", deserialize_with = "null_default")]
    pub uts_mode: String,
    /// Empty or `host`.
    #[serde(deserialize_with = "null_default")]
    pub userns_mode: String,
    /// Bytes of `/dev/shm`; 0 takes the default, 64 MiB.
    #[serde(deserialize_with = "null_default")]
    pub shm_size: i64,
    /// `--sysctl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// Name or path of an OCI runtime; empty and `wherry` are our own.
    #[serde(deserialize_with = "null_default")]
    pub runtime: String,
    /// Windows only; kept for the shape.
    #[serde(deserialize_with = "null_default")]
    pub isolation: String,
    /// Relative CPU weight, 2 to 262144; 0 is the default.
    #[serde(deserialize_with = "null_default")]
    pub cpu_shares: i64,
    /// Memory limit in bytes; 0 is none.
    #[serde(deserialize_with = "null_default")]
    pub memory: i64,
    /// CPUs in units of 1e-9 (`--cpus`).
    #[serde(deserialize_with = "null_default")]
    pub nano_cpus: i64,
    /// Cgroup under which the container's own is made.
    #[serde(deserialize_with = "null_default")]
    pub cgroup_parent: String,
    /// Block I/O weight, 10 to 1000; 0 is the default.
    #[serde(deserialize_with = "null_default")]
    pub blkio_weight: u16,
    /// Block I/O weight per device.
    pub blkio_weight_device: List<WeightDevice>,
    /// `--device-read-bps`.
    pub blkio_device_read_bps: List<ThrottleDevice>,
    /// `--device-write-bps`.
    pub blkio_device_write_bps: List<ThrottleDevice>,
    /// `--device-read-iops`.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: List<ThrottleDevice>,
    /// `--device-write-iops`.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: List<ThrottleDevice>,
    /// Length of a CPU period in microseconds.
    #[serde(deserialize_with = "null_default")]
    pub cpu_period: i64,
    /// CPU time per period in microseconds.
    #[serde(deserialize_with = "null_default")]
    pub cpu_quota: i64,
    /// Length of a real-time period in microseconds.
    #[serde(deserialize_with = "null_default")]
    pub cpu_realtime_period: i64,
    /// Real-time CPU time per period in microseconds.
    #[serde(deserialize_with = "null_default")]
    pub cpu_realtime_runtime: i64,
    /// CPUs to run on, as `0-2,4`.
    #[serde(deserialize_with = "null_default")]
    pub cpuset_cpus: String,
    /// Memory nodes to use.
    #[serde(deserialize_with = "null_default")]
    pub cpuset_mems: String,
    /// `--device`.
    pub devices: List<DeviceMapping>,
    /// `--device-cgroup-rule`, as `c 1:3 rwm`.
    pub device_cgroup_rules: List<String>,
    /// GPU requests; none can be met yet, and one that asks gets an error.
    pub device_requests: List<serde_json::Value>,
    /// Soft memory limit in bytes.
    #[serde(deserialize_with = "null_default")]
    pub memory_reservation: i64,
    /// Memory plus swap in bytes; -1 is unlimited swap.
    #[serde(deserialize_with = "null_default")]
    pub memory_swap: i64,
    /// 0 to 100; cgroup v1 only.
    pub memory_swappiness: Option<i64>,
    /// Do not kill on out of memory; cgroup v1 only.
    pub oom_kill_disable: Option<bool>,
    /// `--init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Limit of processes and threads; 0 and -1 are none.
    pub pids_limit: Option<i64>,
    /// `--ulimit`.
    pub ulimits: List<Ulimit>,
    /// Windows only; kept for the shape.
    #[serde(deserialize_with = "null_default")]
    pub cpu_count: i64,
    /// Windows only; kept for the shape.
    #[serde(deserialize_with = "null_default")]
    pub cpu_percent: i64,
    /// Windows only; kept for the shape.
    #[serde(rename = "IOMaximumIOps", deserialize_with = "null_default")]
    pub io_maximum_iops: u64,
    /// Windows only; kept for the shape.
    #[serde(rename = "IOMaximumBandwidth", deserialize_with = "null_default")]
    pub io_maximum_bandwidth: u64,
    /// `--mount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: List<Mount>,
    /// Paths hidden from the container; `null` takes the default list.
    pub masked_paths: List<String>,
    /// Paths the container may not write; `null` takes the default list.
    pub readonly_paths: List<String>,
}

/// Reads `null` as the type's default, as Docker's server does.
pub(crate) fn null_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Log driver and options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// `json-file`, `local`, `none`, `passthrough`; empty is the configured default.
    #[serde(deserialize_with = "null_default")]
    pub r#type: String,
    /// `max-size`, `max-file`, …
    #[serde(deserialize_with = "null_default")]
    pub config: BTreeMap<String, String>,
}

/// What to do when the container's first process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// `no`, `on-failure`, `always` or `unless-stopped`; empty is `no`.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// For `on-failure`: how often at the most; 0 is no bound.
    #[serde(deserialize_with = "null_default")]
    pub maximum_retry_count: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { name: "no".into(), maximum_retry_count: 0 }
    }
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortBinding {
    /// Host address; empty is every address.
    #[serde(rename = "HostIp", deserialize_with = "null_default")]
    pub host_ip: String,
    /// Host port or range; empty is any free one.
    #[serde(rename = "HostPort", deserialize_with = "null_default")]
    pub host_port: String,
}

/// Block I/O weight of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    /// Device node on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// Block I/O limit of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// Device node on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// One `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    /// Device node, or a directory of them, on the host.
    pub path_on_host: String,
    /// Where it stands in the container; empty is the same path.
    pub path_in_container: String,
    /// Any of `r`, `w`, `m`.
    pub cgroup_permissions: String,
}

/// One `--ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// Name as in `nofile`.
    pub name: String,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
}

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs` or `image`.
    #[serde(deserialize_with = "null_default")]
    pub r#type: String,
    /// Path on the host, or name of the volume.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub source: String,
    /// Absolute path in the container.
    #[serde(deserialize_with = "null_default")]
    pub target: String,
    /// Read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub read_only: bool,
    /// For Docker Desktop; accepted and ignored, as on Linux.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub consistency: String,
    /// Options of a bind mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Options of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Options of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    /// `rprivate`, `rslave`, `rshared`, `private`, `slave`, `shared`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub propagation: String,
    /// Leave out what is mounted below the source.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub non_recursive: bool,
    /// Make the source directory where it is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub create_mountpoint: bool,
    /// Read-only at the top only.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub read_only_non_recursive: bool,
    /// Fail where a recursively read-only mount can't be made.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub read_only_force_recursive: bool,
}

/// Options of a volume mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeOptions {
    /// Do not seed the volume from the image.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub no_copy: bool,
    /// Labels of a volume made by this mount.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// A path inside the volume.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub subpath: String,
    /// Driver of a volume made by this mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// Driver of a volume made by a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DriverConfig {
    /// Only `local` and empty are known.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub name: String,
    /// `type`, `o`, `device` for the local driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub options: BTreeMap<String, String>,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    /// Bytes at the most; 0 is no bound of its own.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_default")]
    pub size_bytes: i64,
    /// Mode bits of its root; 0 is 01777.
    #[serde(skip_serializing_if = "is_zero_u32", deserialize_with = "null_default")]
    pub mode: u32,
    /// Further mount options, each a list of one or two words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<Vec<String>>>,
}

fn is_zero(v: &i64) -> bool {
    *v == 0
}

fn is_zero_u32(v: &u32) -> bool {
    *v == 0
}
