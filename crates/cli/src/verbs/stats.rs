//! `stats`: what containers use, again and again.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use engine::ListOptions;
use engine::types::Stats;

use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human::{self, size1024};
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those that do not run too
    #[arg(long, short = 'a')]
    all: bool,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show one reading and end
    #[arg(long)]
    no_stream: bool,
    /// Show everything in full length
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: Columns = Columns {
    all: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
        ("PIDs", "PIDS"),
    ],
};
const DEFAULT: &[&str] =
    &["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
/// Between two readings on a terminal.
const PERIOD: Duration = Duration::from_secs(1);
/// Between the two readings that one row needs for its share of the CPUs.
const FIRST: Duration = Duration::from_millis(500);

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "stats"], &["stats"]],
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use of this machine",
    );

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        for name in &self.args {
            engine.inspect(name, false)?;
        }
        let terminal = std::io::stdout().is_terminal() && !self.no_stream;
        let mut before: BTreeMap<String, Stats> = BTreeMap::new();
        self.read(&engine, &mut before)?;
        std::thread::sleep(FIRST);
        loop {
            let rows = self.read(&engine, &mut before)?;
            let text = listing::format(&COLUMNS, DEFAULT, self.format.as_deref(), &rows)?;
            if terminal {
                // Home, the text with the rest of each line cleared, then all below.
                let text = crate::output::clean::text(&text).replace('\n', "\x1b[K\n");
                let mut out = context::out();
                std::io::Write::write_all(&mut out, format!("\x1b[H{text}\x1b[J").as_bytes())?;
                std::io::Write::flush(&mut out)?;
            } else {
                context::print(&text)?;
            }
            let named_all_gone = !self.args.is_empty() && rows.is_empty();
            if self.no_stream || named_all_gone {
                return Ok(0);
            }
            std::thread::sleep(PERIOD);
        }
    }
}

impl Args {
    fn read(
        &self,
        engine: &Door,
        before: &mut BTreeMap<String, Stats>,
    ) -> anyhow::Result<Vec<Row>> {
        let names: Vec<String> = if self.args.is_empty() {
            let found = engine.list(ListOptions { all: self.all, ..ListOptions::default() })?;
            found.into_iter().map(|c| c.id).collect()
        } else {
            self.args.clone()
        };
        let mut rows = Vec::new();
        for name in names {
            // One that has just ended is left out.
            let Ok(stats) = engine.stats(&name, before.get(&name)) else { continue };
            rows.push(row(&name, &stats, !self.no_trunc));
            before.insert(name, stats);
        }
        Ok(rows)
    }
}

/// Per cent of one CPU, as Docker counts it.
fn cpu_percent(s: &Stats) -> f64 {
    let used =
        s.cpu_stats.cpu_usage.total_usage as f64 - s.precpu_stats.cpu_usage.total_usage as f64;
    let system = s.cpu_stats.system_cpu_usage as f64 - s.precpu_stats.system_cpu_usage as f64;
    let cpus = match s.cpu_stats.online_cpus {
        0 => s.cpu_stats.cpu_usage.percpu_usage.len() as f64,
        n => f64::from(n),
    };
    if s.precpu_stats.system_cpu_usage == 0 || system <= 0.0 || used <= 0.0 {
        return 0.0;
    }
    used / system * cpus * 100.0
}

/// Bytes in use without the part of the page cache that is not in active use.
fn memory(s: &Stats) -> u64 {
    let usage = s.memory_stats.usage;
    for key in ["total_inactive_file", "inactive_file"] {
        if let Some(inactive) = s.memory_stats.stats.get(key).filter(|v| **v < usage) {
            return usage.saturating_sub(*inactive);
        }
    }
    usage
}

/// One container as a row.
fn row(name: &str, s: &Stats, short: bool) -> Row {
    if s.read.starts_with("0001-01-01") || s.memory_stats.limit == 0 && s.pids_stats.current == 0 {
        return Row::from([
            ("BlockIO", cell("0B / 0B")),
            ("CPUPerc", cell("0.00%")),
            ("Container", cell(name)),
            ("ID", cell(if short { human::short_id(&s.id) } else { &s.id })),
            ("MemPerc", cell("0.00%")),
            ("MemUsage", cell("0B / 0B")),
            ("Name", cell(s.name.trim_start_matches('/'))),
            ("NetIO", cell("0B / 0B")),
            ("PIDs", cell("0")),
        ]);
    }
    let used = memory(s) as f64;
    let limit = s.memory_stats.limit as f64;
    let percent = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (mut rx, mut tx) = (0u64, 0u64);
    for net in s.networks.iter().flat_map(|n| n.values()) {
        rx = rx.saturating_add(net.rx_bytes);
        tx = tx.saturating_add(net.tx_bytes);
    }
    let io = |op: &str| {
        s.blkio_stats
            .io_service_bytes_recursive
            .iter()
            .filter(|e| e.op.eq_ignore_ascii_case(op))
            .fold(0u64, |sum, e| sum.saturating_add(e.value))
    };
    let size3 = |n: u64| human::size3(i64::try_from(n).unwrap_or(i64::MAX));
    Row::from([
        ("BlockIO", cell(format!("{} / {}", size3(io("read")), size3(io("write"))))),
        ("CPUPerc", cell(format!("{:.2}%", cpu_percent(s)))),
        ("Container", cell(name)),
        ("ID", cell(if short { human::short_id(&s.id) } else { &s.id })),
        ("MemPerc", cell(format!("{percent:.2}%"))),
        ("MemUsage", cell(format!("{} / {}", size1024(used), size1024(limit)))),
        ("Name", cell(s.name.trim_start_matches('/'))),
        ("NetIO", cell(format!("{} / {}", size3(rx), size3(tx)))),
        ("PIDs", cell(s.pids_stats.current.to_string())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_as_docker_counts() {
        let mut s =
            Stats { id: "0123456789abcdef".into(), name: "/boat".into(), ..Stats::default() };
        s.cpu_stats.cpu_usage.total_usage = 3_000;
        s.precpu_stats.cpu_usage.total_usage = 1_000;
        s.cpu_stats.system_cpu_usage = 20_000;
        s.precpu_stats.system_cpu_usage = 10_000;
        s.cpu_stats.online_cpus = 2;
        assert!((cpu_percent(&s) - 40.0).abs() < 1e-9);
        s.memory_stats.usage = 3 << 20;
        s.memory_stats.limit = 1 << 30;
        s.memory_stats.stats.insert("inactive_file".into(), 1 << 20);
        assert_eq!(memory(&s), 2 << 20);
        s.pids_stats.current = 4;
        insta::assert_snapshot!(
            listing::format(&COLUMNS, DEFAULT, None, &[row("boat", &s, true)]).unwrap()
        );
        s.precpu_stats.system_cpu_usage = 0;
        assert_eq!(cpu_percent(&s), 0.0);
    }
}
