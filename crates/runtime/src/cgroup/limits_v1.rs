//! Limits on version 1.

use std::os::fd::BorrowedFd;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Cgroup, Group, read_at};
use crate::error::{Doing, Error, Result};

/// A new cpuset group is empty, and nothing can enter it until it has CPUs and memory nodes.
///
/// A group that gets them here hands them on to groups made in it. To write them into each would have the
/// kernel compare it with all its neighbours and compute its scheduling domains anew, which with
/// thousands of containers is milliseconds.
pub(super) fn inherit_cpuset(parent: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Result<()> {
    let mut made = false;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read_at(dir, file).is_some_and(|text| !text.trim().is_empty()) {
            continue;
        }
        let text = read_at(parent, file).unwrap_or_default();
        rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| rustix::io::write(&fd, text.trim().as_bytes()))
            .map(drop)
            .doing(|| format!("take {file} from the cgroup above"))?;
        made = true;
    }
    if made {
        let file = "cgroup.clone_children";
        // It only spares time.
        let _ = rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| rustix::io::write(&fd, b"1"));
    }
    Ok(())
}

pub(super) fn apply(cgroup: &Cgroup, group: &Group, resources: &LinuxResources) -> Result<()> {
    let path = cgroup.path();
    if group.has("memory") {
        memory(path, group, resources)?;
    }
    if group.has("cpu") {
        cpu(path, group, resources)?;
    }
    if group.has("cpuset")
        && let Some(cpu) = resources.cpu()
    {
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                group.write(path, file, value)?;
            }
        }
    }
    if group.has("pids")
        && let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        let value = if pids.limit() < 0 { "max".to_owned() } else { pids.limit().to_string() };
        group.write(path, "pids.max", &value)?;
    }
    if group.has("blkio") {
        blkio(path, group, resources)?;
    }
    if group.has("devices")
        && let Some(rules) = resources.devices()
    {
        crate::devices::apply_v1(rules, |file, value| group.write(path, file, value))?;
    }
    if group.has("hugetlb") {
        for limit in resources.hugepage_limits().iter().flatten() {
            let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
            group.write(path, &file, &limit.limit().to_string())?;
        }
    }
    if let Some(network) = resources.network() {
        if group.has("net_cls")
            && let Some(class) = network.class_id()
        {
            group.write(path, "net_cls.classid", &class.to_string())?;
        }
        if group.has("net_prio") {
            for item in network.priorities().iter().flatten() {
                group.write(
                    path,
                    "net_prio.ifpriomap",
                    &format!("{} {}", item.name(), item.priority()),
                )?;
            }
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
    Ok(())
}

fn memory(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let swap_file = "memory.memsw.limit_in_bytes";
    let limit_file = "memory.limit_in_bytes";
    let limit = memory.limit().filter(|value| *value != 0);
    // A limit without a word about swap lets as much again be swapped, as runc leaves it.
    let swap = memory.swap().filter(|value| *value != 0);
    if let Some(value) = limit
        && memory.check_before_update().unwrap_or(false)
        && value > 0
        && group.read_number("memory.usage_in_bytes").is_some_and(|now| now > value.unsigned_abs())
    {
        return Err(Error::spec(
            "linux.resources.memory.limit",
            format!("{value} is less than what is in use now"),
        ));
    }
    let set_limit = |value: i64| group.write(path, limit_file, &value.to_string());
    let set_swap = |value: i64| {
        if !group.exists(swap_file) {
            return if value < 0 {
                Ok(())
            } else {
                Err(Error::spec(
                    "linux.resources.memory.swap",
                    "this kernel does not count swap; boot with swapaccount=1 or leave it out",
                ))
            };
        }
        group.write(path, swap_file, &value.to_string())
    };
    match (limit, swap) {
        (Some(limit), Some(swap)) => {
            // The sum of both must never be below the first: order by direction.
            let now = group.read_number(limit_file).unwrap_or(u64::MAX);
            let grows = swap < 0 || (limit >= 0 && swap.unsigned_abs() >= now);
            if grows {
                set_swap(swap)?;
                set_limit(limit)?;
            } else {
                set_limit(limit)?;
                set_swap(swap)?;
            }
        }
        (Some(limit), None) => {
            if limit < 0 && group.exists(swap_file) {
                set_swap(-1)?;
            }
            set_limit(limit)?;
        }
        (None, Some(swap)) => set_swap(swap)?,
        (None, None) => {}
    }
    if let Some(value) = memory.reservation().filter(|value| *value != 0) {
        group.write(path, "memory.soft_limit_in_bytes", &value.to_string())?;
    }
    #[allow(deprecated)]
    if let Some(value) = memory.kernel_tcp().filter(|value| *value != 0) {
        group.write(path, "memory.kmem.tcp.limit_in_bytes", &value.to_string())?;
    }
    if let Some(value) = memory.swappiness() {
        if value > 100 {
            return Err(Error::spec(
                "linux.resources.memory.swappiness",
                format!("{value} is not between 0 and 100"),
            ));
        }
        group.write(path, "memory.swappiness", &value.to_string())?;
    }
    if memory.disable_oom_killer().unwrap_or(false) {
        group.write(path, "memory.oom_control", "1")?;
    }
    Ok(())
}

fn cpu(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    if let Some(idle) = cpu.idle()
        && group.exists("cpu.idle")
    {
        group.write(path, "cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
        group.write(path, "cpu.shares", &shares.to_string())?;
    }
    let period = cpu.period().filter(|value| *value != 0).map(|value| value.to_string());
    let quota = cpu.quota().filter(|value| *value != 0).map(|value| value.to_string());
    // Lowering the period with the old quota may exceed what the group above has; then the quota
    // goes first.
    let mut period_later = false;
    if let Some(period) = &period {
        match group.write(path, "cpu.cfs_period_us", period) {
            Err(Error::System { errno, .. })
                if errno.0 == Errno::INVAL.raw_os_error() && quota.is_some() =>
            {
                period_later = true;
            }
            result => result?,
        }
    }
    if let Some(quota) = &quota {
        group.write(path, "cpu.cfs_quota_us", quota)?;
    }
    if period_later && let Some(period) = &period {
        group.write(path, "cpu.cfs_period_us", period)?;
    }
    if let Some(burst) = cpu.burst() {
        group.write(path, "cpu.cfs_burst_us", &burst.to_string())?;
    }
    super::realtime::apply(
        path,
        group,
        cpu.realtime_period().filter(|value| *value != 0),
        cpu.realtime_runtime().filter(|value| *value != 0),
    )
}

fn blkio(path: &str, group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    // The scheduler decides which of the two files there is, if any.
    let weight_file =
        if group.exists("blkio.weight") { "blkio.weight" } else { "blkio.bfq.weight" };
    let absent = |what: &str| {
        Error::spec(
            format!("linux.resources.blockIO.{what}"),
            "no I/O scheduler of this kernel supports weights (BFQ does); leave it out",
        )
    };
    if let Some(weight) = io.weight().filter(|value| *value != 0) {
        if !group.exists(weight_file) {
            return Err(absent("weight"));
        }
        group.write(path, weight_file, &weight.to_string())?;
    }
    if let Some(weight) = io.leaf_weight().filter(|value| *value != 0) {
        if !group.exists("blkio.leaf_weight") {
            return Err(absent("leafWeight"));
        }
        group.write(path, "blkio.leaf_weight", &weight.to_string())?;
    }
    for item in io.weight_device().iter().flatten() {
        let device = format!("{}:{}", item.major(), item.minor());
        let file = format!("{weight_file}_device");
        if let Some(weight) = item.weight().filter(|value| *value != 0) {
            if !group.exists(&file) {
                return Err(absent("weightDevice"));
            }
            group.write(path, &file, &format!("{device} {weight}"))?;
        }
        if let Some(weight) = item.leaf_weight().filter(|value| *value != 0) {
            group.write(path, "blkio.leaf_weight_device", &format!("{device} {weight}"))?;
        }
    }
    for (list, file) in [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
    ] {
        for item in list.iter().flatten() {
            let value = format!("{}:{} {}", item.major(), item.minor(), item.rate());
            group.write(path, file, &value)?;
        }
    }
    Ok(())
}
