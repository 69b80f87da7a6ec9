//! `events`

use std::time::Duration;

use anyhow::{Result, bail};
use runtime::cgroup::Stats;
use runtime::state::Status;
use serde_json::{Value, json};

use super::store::{Container, wait_end};
use super::{Global, say};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print statistics once
    #[arg(long)]
    stats: bool,
    /// Seconds between statistics, with a unit: 5s, 1m
    #[arg(long, default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// The container's ID
    id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("\"{text}\" is not a time such as 5s or 500ms");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split).ok_or_else(problem)?;
    let number: u64 = number.parse().map_err(|_| problem())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(problem()),
    };
    if duration.is_zero() { Err("must be greater than zero".to_owned()) } else { Ok(duration) }
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let container = Container::load(global, &args.id)?;
    if container.status() == Status::Stopped {
        bail!("container \"{}\" is not running: container not running", args.id);
    }
    let cgroup = container.cgroup()?;
    let process = container.process()?;
    let mut ooms = cgroup.oom_kills();
    loop {
        let event = |kind: &str, data: Value| json!({"type": kind, "id": args.id, "data": data});
        say(&event("stats", data(&cgroup.stats())).to_string())?;
        if args.stats {
            return Ok(0);
        }
        wait_end(&process, args.interval);
        let now = cgroup.oom_kills();
        if now > ooms {
            say(&event("oom", json!({})).to_string())?;
            ooms = now;
        }
        if container.status() == Status::Stopped {
            return Ok(0);
        }
    }
}

/// The layout runc prints.
fn data(stats: &Stats) -> Value {
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let unlimited = 0x7fff_ffff_ffff_f000u64;
    let entry = |limit: Option<u64>, usage: u64, max: u64, failures: u64| json!({"limit": limit.unwrap_or(unlimited), "usage": usage, "max": max, "failcnt": failures});
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    for (device, [rb, wb, ro, wo]) in &stats.blkio.devices {
        let (major, minor) = device.split_once(':').unwrap_or((device, "0"));
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let item = |op: &str, value: &u64| json!({"major": number(major), "minor": number(minor), "op": op, "value": value});
        bytes.extend([item("Read", rb), item("Write", wb)]);
        operations.extend([item("Read", ro), item("Write", wo)]);
    }
    let cache = memory.stat.get("cache").or_else(|| memory.stat.get("file")).copied().unwrap_or(0);
    json!({
        "cpu": {
            "usage": {
                "total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user
            },
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled
            },
            "psi": stats.cpu_pressure,
        },
        "memory": {
            "cache": cache,
            "usage": entry(
                memory.limit, memory.usage, memory.max_usage.unwrap_or(0), memory.failures
            ),
            "swap": entry(memory.swap_limit, memory.swap_usage.unwrap_or(0), 0, 0),
            "kernel": entry(None, memory.kernel_usage.unwrap_or(0), 0, 0),
            "raw": memory.stat,
            "psi": stats.memory_pressure,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations,
            "psi": stats.io_pressure,
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
