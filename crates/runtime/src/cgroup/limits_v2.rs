//! Limits on version 2.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use super::{Cgroup, Group, read_at};
use crate::error::{Doing, Error, Result};

/// Passes all controllers of a group on to those below it. Those that cannot be passed on are
/// found missing when a limit is to be set.
pub(super) fn enable_controllers(parent: BorrowedFd<'_>) {
    let available = read_at(parent, "cgroup.controllers").unwrap_or_default();
    if available.trim().is_empty() {
        return;
    }
    let enabled = read_at(parent, "cgroup.subtree_control").unwrap_or_default();
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(parent, "cgroup.subtree_control", flags, Mode::empty()) else {
        return;
    };
    if rustix::io::write(&fd, missing.join(" ").as_bytes()).is_err() {
        // One that cannot be had must not keep the others away.
        for name in &missing {
            let _ = rustix::io::write(&fd, name.as_bytes());
        }
    }
}

pub(super) fn apply(
    cgroup: &Cgroup,
    group: &Group,
    resources: &LinuxResources,
    alone: bool,
) -> Result<()> {
    let path = cgroup.path();
    // On a hybrid host the controllers are on version 1, and the limits with them.
    if alone {
        memory(path, group, resources)?;
        cpu(path, group, resources)?;
        if let Some(pids) = resources.pids()
            && pids.limit() != 0
        {
            group.write(path, "pids.max", &number_or_max(pids.limit()))?;
        }
        io(path, group, resources)?;
        if let Some(rules) = resources.devices() {
            let program = crate::devices::compile_v2(rules);
            let doing = || format!("set the device rules of the cgroup {path}");
            let fd = sys::bpf::load_device_program(&program).doing(doing)?;
            sys::bpf::set_device_program(group.dir.as_fd(), fd.as_fd()).doing(doing)?;
        }
    }
    if group.has("hugetlb") {
        for limit in resources.hugepage_limits().iter().flatten() {
            let file = format!("hugetlb.{}.max", limit.page_size());
            group.write(path, &file, &number_or_max(limit.limit()))?;
        }
    }
    if group.has("rdma") {
        for (device, limit) in resources.rdma().iter().flatten() {
            let part = |name: &str, value: Option<u32>| {
                value.map(|value| format!(" {name}={value}")).unwrap_or_default()
            };
            let value = format!(
                "{device}{}{}",
                part("hca_handle", limit.hca_handles()),
                part("hca_object", limit.hca_objects())
            );
            group.write(path, "rdma.max", &value)?;
        }
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') || !file.contains('.') {
            return Err(Error::spec(
                format!("linux.resources.unified: {file}"),
                "is not a file of a cgroup",
            ));
        }
        // Several lines are several writes.
        for line in value.lines() {
            group.write(path, file, line)?;
        }
    }
    Ok(())
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let limit = memory.limit().filter(|value| *value != 0);
    if let Some(swap) = memory.swap().filter(|value| *value != 0) {
        // The specification counts memory and swap together, version 2 counts swap alone.
        let value = match limit {
            _ if swap < 0 => "max".to_owned(),
            Some(limit) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => {
                return Err(Error::spec(
                    "linux.resources.memory.swap",
                    "must not be less than the memory limit, which must be given with it",
                ));
            }
        };
        if group.exists("memory.swap.max") || value != "max" && value != "0" {
            group.write(path, "memory.swap.max", &value)?;
        }
    }
    if let Some(limit) = limit {
        group.write(path, "memory.max", &number_or_max(limit))?;
    }
    if let Some(value) = memory.reservation().filter(|value| *value != 0) {
        group.write(path, "memory.low", &number_or_max(value))?;
    }
    Ok(())
}

/// `cpu.shares` (2 to 262144) to `cpu.weight` (1 to 10000), so that the ends and the default
/// (1024 to 100) meet: a quadratic curve in the logarithms, as current runtimes agreed on.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn cpu(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    if let Some(idle) = cpu.idle() {
        group.write(path, "cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
        group.write(path, "cpu.weight", &weight(shares).to_string())?;
    }
    let quota = cpu.quota().filter(|value| *value != 0);
    let period = cpu.period().filter(|value| *value != 0);
    if quota.is_some() || period.is_some() {
        let mut text = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            None => group
                .read("cpu.max")
                .and_then(|text| text.split_whitespace().next().map(str::to_owned))
                .unwrap_or_else(|| "max".to_owned()),
        };
        if let Some(period) = period {
            text.push_str(&format!(" {period}"));
        }
        group.write(path, "cpu.max", &text)?;
    }
    if let Some(burst) = cpu.burst() {
        group.write(path, "cpu.max.burst", &burst.to_string())?;
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            group.write(path, file, value)?;
        }
    }
    if cpu.realtime_runtime().is_some_and(|value| value != 0) {
        return Err(Error::spec(
            "linux.resources.cpu.realtimeRuntime",
            "cgroup version 2 has no real-time budgets; leave it out",
        ));
    }
    Ok(())
}

fn io(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    // BFQ takes the specification's numbers; io.weight has another range.
    let bfq = group.exists("io.bfq.weight");
    let scale = |weight: u16| {
        let weight = u64::from(weight);
        if bfq { weight } else { 1 + (weight.saturating_sub(10)) * 9999 / 990 }
    };
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    if let Some(weight) = io.weight().filter(|value| *value != 0) {
        group.write(path, file, &scale(weight).to_string())?;
    }
    for item in io.weight_device().iter().flatten() {
        if let Some(weight) = item.weight().filter(|value| *value != 0) {
            let value = format!("{}:{} {}", item.major(), item.minor(), scale(weight));
            group.write(path, file, &value)?;
        }
    }
    for (list, key) in [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ] {
        for item in list.iter().flatten() {
            let rate = if item.rate() == 0 { "max".to_owned() } else { item.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", item.major(), item.minor());
            group.write(path, "io.max", &value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_become_weights() {
        assert_eq!(super::weight(2), 1);
        assert_eq!(super::weight(1024), 100);
        assert_eq!(super::weight(262_144), 10_000);
        assert!(super::weight(512) < 100);
    }
}
