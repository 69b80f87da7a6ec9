//! Counters of a group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cgroup, Group};

/// Everything a group counts. A part that the host does not count is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes.
    pub pids: Pids,
    /// Block devices: totals over all devices.
    pub blkio: Blkio,
    /// Time lost waiting for processors.
    pub cpu_pressure: Option<Pressure>,
    /// Time lost waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Time lost waiting for devices.
    pub io_pressure: Option<Pressure>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// All.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Per processor, where the host tells.
    pub per_cpu: Vec<u64>,
    /// Periods of the bandwidth limit.
    pub periods: u64,
    /// Periods in which the limit was reached.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// In use, the page cache included.
    pub usage: u64,
    /// The most that was in use.
    pub max_usage: Option<u64>,
    /// The limit; absent when there is none.
    pub limit: Option<u64>,
    /// How often the limit was reached.
    pub failures: u64,
    /// Swap in use (version 1: memory and swap together).
    pub swap_usage: Option<u64>,
    /// Its limit.
    pub swap_limit: Option<u64>,
    /// Kernel memory in use.
    pub kernel_usage: Option<u64>,
    /// The kernel's `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
}

/// Processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Tasks now.
    pub current: u64,
    /// The limit; absent when there is none.
    pub limit: Option<u64>,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
    /// The same by device, `major:minor`.
    pub devices: BTreeMap<String, [u64; 4]>,
}

/// Pressure stall information.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some task waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// Shares of the time in percent, and the total in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureLine {
    /// Over the last 10 s.
    pub avg10: f64,
    /// Over the last 60 s.
    pub avg60: f64,
    /// Over the last 300 s.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    let mut stats = Stats::default();
    let v2 = cgroup.v2_group();
    if cgroup.v1_groups().is_empty() {
        if let Some(group) = v2 {
            read_v2(group, &mut stats);
        }
    } else {
        read_v1(cgroup, &mut stats);
    }
    stats.memory.oom_kills = cgroup.oom_kills();
    if let Some(group) = v2 {
        let pressure = |file: &str| group.read(file).map(|text| parse_pressure(&text));
        stats.cpu_pressure = pressure("cpu.pressure");
        stats.memory_pressure = pressure("memory.pressure");
        stats.io_pressure = pressure("io.pressure");
    }
    stats
}

/// `key value` lines.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// A limit so large that it is none: version 1 shows the largest number of pages.
fn real_limit(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value < 1 << 62)
}

fn read_v1(cgroup: &Cgroup, stats: &mut Stats) {
    if let Some(group) = cgroup.group("cpuacct") {
        stats.cpu.total = group.read_number("cpuacct.usage").unwrap_or(0);
        stats.cpu.per_cpu = group
            .read("cpuacct.usage_percpu")
            .map(|text| text.split_whitespace().filter_map(|n| n.parse().ok()).collect())
            .unwrap_or_default();
        stats.cpu.user = group.read_number("cpuacct.usage_user").unwrap_or(0);
        stats.cpu.system = group.read_number("cpuacct.usage_sys").unwrap_or(0);
    }
    if let Some(group) = cgroup.group("cpu") {
        let table = table(&group.read("cpu.stat").unwrap_or_default());
        let get = |key: &str| table.get(key).copied().unwrap_or(0);
        stats.cpu.periods = get("nr_periods");
        stats.cpu.throttled_periods = get("nr_throttled");
        stats.cpu.throttled = get("throttled_time");
    }
    if let Some(group) = cgroup.group("memory") {
        let m = &mut stats.memory;
        m.usage = group.read_number("memory.usage_in_bytes").unwrap_or(0);
        m.max_usage = group.read_number("memory.max_usage_in_bytes");
        m.limit = real_limit(group.read_number("memory.limit_in_bytes"));
        m.failures = group.read_number("memory.failcnt").unwrap_or(0);
        m.swap_usage = group.read_number("memory.memsw.usage_in_bytes");
        m.swap_limit = real_limit(group.read_number("memory.memsw.limit_in_bytes"));
        m.kernel_usage = group.read_number("memory.kmem.usage_in_bytes");
        m.stat = table(&group.read("memory.stat").unwrap_or_default());
    }
    if let Some(group) = cgroup.group("pids") {
        pids(group, stats);
    }
    if let Some(group) = cgroup.group("blkio") {
        let first = |names: [&str; 3]| {
            names
                .iter()
                .filter_map(|name| group.read(name))
                .find(|text| text.lines().count() > 1)
                .unwrap_or_default()
        };
        let bytes = first([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]);
        let ops = first([
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]);
        blkio_v1(&bytes, [0, 1], &mut stats.blkio);
        blkio_v1(&ops, [2, 3], &mut stats.blkio);
        total(&mut stats.blkio);
    }
}

fn blkio_v1(text: &str, [read, write]: [usize; 2], blkio: &mut Blkio) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(operation), Some(value)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let index = match operation {
            "Read" => read,
            "Write" => write,
            _ => continue,
        };
        let entry = blkio.devices.entry(device.to_owned()).or_default();
        if let (Some(slot), Ok(value)) = (entry.get_mut(index), value.parse()) {
            *slot = value;
        }
    }
}

fn total(blkio: &mut Blkio) {
    let sum = |index: usize| {
        blkio
            .devices
            .values()
            .filter_map(|device| device.get(index))
            .fold(0, |a: u64, b| a.saturating_add(*b))
    };
    let [rb, wb, ro, wo] = [sum(0), sum(1), sum(2), sum(3)];
    (blkio.read_bytes, blkio.write_bytes, blkio.read_ops, blkio.write_ops) = (rb, wb, ro, wo);
}

fn pids(group: &Group, stats: &mut Stats) {
    stats.pids.current = group.read_number("pids.current").unwrap_or(0);
    stats.pids.limit = group.read_number("pids.max");
}

fn read_v2(group: &Group, stats: &mut Stats) {
    let cpu = table(&group.read("cpu.stat").unwrap_or_default());
    let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu.total = get("usage_usec").saturating_mul(1000);
    stats.cpu.user = get("user_usec").saturating_mul(1000);
    stats.cpu.system = get("system_usec").saturating_mul(1000);
    stats.cpu.periods = get("nr_periods");
    stats.cpu.throttled_periods = get("nr_throttled");
    stats.cpu.throttled = get("throttled_usec").saturating_mul(1000);
    let m = &mut stats.memory;
    m.usage = group.read_number("memory.current").unwrap_or(0);
    m.max_usage = group.read_number("memory.peak");
    m.limit = group.read_number("memory.max");
    m.swap_usage = group.read_number("memory.swap.current");
    m.swap_limit = group.read_number("memory.swap.max");
    m.stat = table(&group.read("memory.stat").unwrap_or_default());
    m.kernel_usage = m.stat.get("kernel").copied();
    m.failures =
        table(&group.read("memory.events").unwrap_or_default()).get("max").copied().unwrap_or(0);
    pids(group, stats);
    for line in group.read("io.stat").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        let mut entry = [0u64; 4];
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let index = match key {
                "rbytes" => 0,
                "wbytes" => 1,
                "rios" => 2,
                "wios" => 3,
                _ => continue,
            };
            if let (Some(slot), Ok(value)) = (entry.get_mut(index), value.parse()) {
                *slot = value;
            }
        }
        stats.blkio.devices.insert(device.to_owned(), entry);
    }
    total(&mut stats.blkio);
}

fn parse_pressure(text: &str) -> Pressure {
    let mut result = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let target = match words.next() {
            Some("some") => &mut result.some,
            Some("full") => &mut result.full,
            _ => continue,
        };
        for word in words {
            match word.split_once('=') {
                Some(("avg10", value)) => target.avg10 = value.parse().unwrap_or(0.0),
                Some(("avg60", value)) => target.avg60 = value.parse().unwrap_or(0.0),
                Some(("avg300", value)) => target.avg300 = value.parse().unwrap_or(0.0),
                Some(("total", value)) => target.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines() {
        let p = parse_pressure(
            "some avg10=1.50 avg60=0.20 avg300=0.00 total=777\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        );
        assert_eq!((p.some.avg10, p.some.total, p.full.total), (1.5, 777, 5));
    }

    #[test]
    fn block_devices() {
        let mut blkio = Blkio::default();
        blkio_v1(
            "8:0 Read 100\n8:0 Write 5\n8:16 Read 1\n8:16 Sync 9\nTotal 106\n",
            [0, 1],
            &mut blkio,
        );
        total(&mut blkio);
        assert_eq!((blkio.read_bytes, blkio.write_bytes), (101, 5));
    }
}
