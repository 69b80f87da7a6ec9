//! `update`

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxResources;
use runtime::state::Status;
use serde_json::{Map, Value, json};

use super::Global;
use super::store::Container;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File with resources in JSON; - is standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds
    #[arg(long, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved for later, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// CPU share, relative to others
    #[arg(long, alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period, in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// 1 makes all processes run only when nothing else wants to
    #[arg(long, allow_negative_numbers = true)]
    cpu_idle: Option<i64>,
    /// Memory limit in bytes
    #[arg(long, allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Soft memory limit in bytes
    #[arg(long, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes; -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Number of processes
    #[arg(long, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let mut container = Container::load(global, &args.id)?;
    if container.status() == Status::Stopped {
        bail!("container \"{}\" is not running: container not running", args.id);
    }
    let resources: LinuxResources = match &args.resources {
        Some(path) => {
            let text = if path.as_os_str() == "-" {
                let mut text = Vec::new();
                std::io::stdin().read_to_end(&mut text).context("read standard input")?;
                text
            } else {
                std::fs::read(path).with_context(|| format!("read {}", path.display()))?
            };
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is not resources in JSON", path.display()))?
        }
        None => serde_json::from_value(from_options(&args))?,
    };
    container.cgroup()?.update(&resources)?;
    // Remembered over the ones before, for who reads the state.
    let mut merged = serde_json::to_value(container.record.resources.unwrap_or_default())?;
    merge(&mut merged, serde_json::to_value(&resources)?);
    container.record.resources = Some(serde_json::from_value(merged)?);
    container.save()?;
    Ok(0)
}

fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

fn from_options(args: &Args) -> Value {
    let object = |items: Vec<(&str, Option<Value>)>| -> Value {
        let map: Map<String, Value> =
            items.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        Value::Object(map)
    };
    let mut result = json!({
        "cpu": object(vec![
            ("period", args.cpu_period.map(Value::from)),
            ("quota", args.cpu_quota.map(Value::from)),
            ("burst", args.cpu_burst.map(Value::from)),
            ("shares", args.cpu_share.map(Value::from)),
            ("realtimePeriod", args.cpu_rt_period.map(Value::from)),
            ("realtimeRuntime", args.cpu_rt_runtime.map(Value::from)),
            ("cpus", args.cpuset_cpus.clone().map(Value::from)),
            ("mems", args.cpuset_mems.clone().map(Value::from)),
            ("idle", args.cpu_idle.map(Value::from)),
        ]),
        "memory": object(vec![
            ("limit", args.memory.map(Value::from)),
            ("reservation", args.memory_reservation.map(Value::from)),
            ("swap", args.memory_swap.map(Value::from)),
        ]),
    });
    if let Some(limit) = args.pids_limit {
        result["pids"] = json!({"limit": limit});
    }
    if let Some(weight) = args.blkio_weight {
        result["blockIO"] = json!({"weight": weight});
    }
    result
}
