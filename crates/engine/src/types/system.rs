//! What `info`, `version`, `system df` and `stats` answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::{ContainerSummary, Empty};
use super::image::{ImageSummary, Volume};

/// `docker system df`, with one part more: what belongs to none of Docker's kinds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: i64,
    /// Images with their shared sizes.
    pub images: Vec<ImageSummary>,
    /// Containers with their sizes.
    pub containers: Vec<ContainerSummary>,
    /// Volumes with their sizes.
    pub volumes: Vec<Volume>,
    /// Build cache.
    pub build_cache: Vec<serde_json::Value>,
    /// Everything else under the data root, by what it is: `database`, `journals`,
    /// `trash`, `temporary`, `blobs`, or a path nobody knows. With the parts above
    /// it adds up to every byte.
    pub other: BTreeMap<String, i64>,
}

/// CPU counters of one reading.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// Nanoseconds.
    pub cpu_usage: CpuUsage,
    /// Nanoseconds all CPUs of the host have run.
    pub system_cpu_usage: u64,
    /// CPUs on line.
    pub online_cpus: u32,
    /// How often and how long the quota held it back.
    pub throttling_data: Throttling,
}

/// Nanoseconds of CPU time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// In all.
    pub total_usage: u64,
    /// By CPU; cgroup v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user space.
    pub usage_in_usermode: u64,
}

/// How often and how long the quota held it back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttling {
    /// Periods in all.
    pub periods: u64,
    /// Periods in which it was held back.
    pub throttled_periods: u64,
    /// Nanoseconds in all.
    pub throttled_time: u64,
}

/// Memory of one reading, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// Highest use; cgroup v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usage: Option<u64>,
    /// `memory.stat`.
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failcnt: Option<u64>,
    /// The limit, or the host's memory.
    pub limit: u64,
}

/// Processes of one reading.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// Processes and threads.
    pub current: u64,
    /// The limit.
    pub limit: u64,
}

/// One counter of block I/O.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// `read`, `write`, …
    pub op: String,
    /// Bytes or operations.
    pub value: u64,
}

/// Block I/O of one reading.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    pub io_serviced_recursive: Vec<BlkioEntry>,
}

/// Traffic of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStats {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received with an error.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Not sent for an error.
    pub tx_errors: u64,
    /// Not sent.
    pub tx_dropped: u64,
}

/// One reading of `stats`, with the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Name with a leading slash.
    pub name: String,
    /// The container.
    pub id: String,
    /// RFC 3339.
    pub read: String,
    /// RFC 3339, of the reading before.
    pub preread: String,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Block I/O.
    pub blkio_stats: BlkioStats,
    /// Windows only; kept for the shape.
    pub num_procs: u32,
    /// Windows only; kept for the shape.
    pub storage_stats: Empty,
    /// CPU.
    pub cpu_stats: CpuStats,
    /// CPU, of the reading before.
    pub precpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// By interface; absent with the host's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<String, NetworkStats>>,
}
