//! `list`

use anyhow::Result;
use clap::ValueEnum;
use runtime::state::Status;
use serde_json::json;

use super::store::Container;
use super::{Global, say, state};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// IDs only
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let mut ids = Vec::new();
    match std::fs::read_dir(&global.root) {
        Ok(entries) => {
            for entry in entries {
                ids.extend(entry?.file_name().into_string());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    ids.sort();
    let mut containers = Vec::new();
    for id in ids {
        match Container::load(global, &id) {
            Ok(container) => containers.push(container),
            // Being deleted, or not a container's.
            Err(error) => global.log("warning", &format!("{error:#}")),
        }
    }
    if args.quiet {
        for container in &containers {
            say(&container.record.id)?;
        }
        return Ok(0);
    }
    let rows: Vec<_> = containers
        .iter()
        .map(|container| {
            let record = &container.record;
            let status = container.status();
            let stopped = status == Status::Stopped;
            let pid = record.process.filter(|_| !stopped).map_or(0, |process| process.pid);
            (record, status, pid)
        })
        .collect();
    match args.format {
        Format::Json => {
            let list: Vec<_> = rows
                .iter()
                .map(|(record, status, pid)| {
                    json!({
                        "ociVersion": record.plan.oci_version, "id": record.id, "pid": pid,
                        "status": status.as_str(), "bundle": record.plan.bundle,
                        "rootfs": record.plan.rootfs, "created": record.created,
                        "annotations": record.plan.annotations, "owner": state::owner(record.owner),
                    })
                })
                .collect();
            say(&serde_json::to_string(&list)?)?;
        }
        Format::Table => {
            let mut table =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            for (record, status, pid) in rows {
                table.push([
                    record.id.clone(),
                    pid.to_string(),
                    status.as_str().to_owned(),
                    record.plan.bundle.display().to_string(),
                    record.created.clone(),
                    state::owner(record.owner),
                ]);
            }
            let mut widths = [12; 6];
            for row in &table {
                for (width, cell) in widths.iter_mut().zip(row) {
                    *width = (*width).max(cell.chars().count() + 3);
                }
            }
            for row in &table {
                let mut line = String::new();
                for (width, cell) in widths.iter().zip(row) {
                    line.push_str(&format!("{cell:width$}"));
                }
                say(line.trim_end())?;
            }
        }
    }
    Ok(0)
}
