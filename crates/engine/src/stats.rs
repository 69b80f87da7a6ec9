//! `stats`: what a container uses.

use std::collections::BTreeMap;

use crate::clock::{self, rfc3339};
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use crate::types::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    Throttling,
};

impl Engine {
    /// One reading. `previous` fills the fields that begin with `pre`. A container that
    /// does not run uses nothing.
    pub fn stats(&self, name: &str, previous: Option<&Stats>) -> Result<Stats> {
        let record = self.current(name)?;
        let mut stats = Stats {
            name: format!("/{}", record.name),
            id: record.id.clone(),
            read: rfc3339(clock::now()),
            preread: rfc3339(0),
            ..Stats::default()
        };
        if let Some(previous) = previous {
            stats.preread.clone_from(&previous.read);
            stats.precpu_stats = previous.cpu_stats.clone();
        }
        if !record.state.is_live() {
            return Ok(stats);
        }
        let read = record.open_cgroup()?.stats();
        stats.pids_stats =
            PidsStats { current: read.pids.current, limit: read.pids.limit.unwrap_or(0) };
        stats.cpu_stats = CpuStats {
            cpu_usage: CpuUsage {
                total_usage: read.cpu.total,
                percpu_usage: read.cpu.per_cpu,
                usage_in_kernelmode: read.cpu.system,
                usage_in_usermode: read.cpu.user,
            },
            system_cpu_usage: host_cpu(),
            online_cpus: online_cpus(),
            throttling_data: Throttling {
                periods: read.cpu.periods,
                throttled_periods: read.cpu.throttled_periods,
                throttled_time: read.cpu.throttled,
            },
        };
        let memory = host_memory();
        stats.memory_stats = MemoryStats {
            usage: read.memory.usage,
            max_usage: read.memory.max_usage,
            stats: read.memory.stat,
            failcnt: Some(read.memory.failures),
            // A limit beyond the host's memory limits nothing.
            limit: read.memory.limit.filter(|l| *l < memory).unwrap_or(memory),
        };
        stats.blkio_stats = blkio(&read.blkio.devices);
        stats.networks = networks(&record);
        Ok(stats)
    }
}

fn blkio(devices: &BTreeMap<String, [u64; 4]>) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for (device, [read_bytes, write_bytes, read_ops, write_ops]) in devices {
        let (major, minor) = device.split_once(':').unwrap_or(("0", "0"));
        let entry = |op: &str, value: u64| BlkioEntry {
            major: major.parse().unwrap_or(0),
            minor: minor.parse().unwrap_or(0),
            op: op.into(),
            value,
        };
        stats.io_service_bytes_recursive.push(entry("read", *read_bytes));
        stats.io_service_bytes_recursive.push(entry("write", *write_bytes));
        stats.io_serviced_recursive.push(entry("read", *read_ops));
        stats.io_serviced_recursive.push(entry("write", *write_ops));
    }
    stats
}

/// Nanoseconds all CPUs of the host have spent, idle or not.
fn host_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().next() else { return 0 };
    // Guest time is counted in user time already, so seven fields.
    let ticks: u64 =
        line.split_whitespace().skip(1).take(8).filter_map(|f| f.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000_000 / per_second)
}

fn online_cpus() -> u32 {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = runtime::cgroup::parse_cpu_list(list.trim()).map_or(1, |l| l.len());
    u32::try_from(count).unwrap_or(1)
}

/// Bytes of the host's memory.
pub(crate) fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Traffic of a container that has a network of its own.
fn networks(record: &Record) -> Option<BTreeMap<String, NetworkStats>> {
    if record.definition.host.network_mode == "host" {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", record.pid)).ok()?;
    let mut networks = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let n: Vec<u64> = counters.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        networks.insert(
            name.trim().to_owned(),
            NetworkStats {
                rx_bytes: at(0),
                rx_packets: at(1),
                rx_errors: at(2),
                rx_dropped: at(3),
                tx_bytes: at(8),
                tx_packets: at(9),
                tx_errors: at(10),
                tx_dropped: at(11),
            },
        );
    }
    (!networks.is_empty()).then_some(networks)
}
