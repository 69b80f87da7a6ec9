//! `system df`: what takes how much of the disk.

use engine::types::{ContainerSummary, DiskUsage};

use super::{images, ps, volume_ls};
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::json::Json;
use crate::output::listing::{self, Columns, Row, cell};
use crate::output::table;
use crate::registry::Verb;

/// Options of `system df`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show each thing
    #[arg(long, short = 'v')]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: Columns = Columns {
    all: &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ],
};
const DEFAULT: &[&str] = &["Type", "TotalCount", "Active", "Size", "Reclaimable"];

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["system", "df"]], "[OPTIONS]", "Show what takes how much of the disk")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let usage = context.engine()?.disk_usage()?;
        if self.verbose {
            match self.format.as_deref() {
                None | Some("" | "table") => context::print(&verbose(&usage))?,
                Some("json") => context::println(&serde_json::to_string(&usage)?)?,
                Some(template) => {
                    let format = crate::output::template::Format::parse(template)?;
                    context::println(&format.fill(&Json::of(&usage)?)?)?;
                }
            }
            return Ok(0);
        }
        listing::print(&COLUMNS, DEFAULT, self.format.as_deref(), &summary(&usage))?;
        Ok(0)
    }
}

fn is_active(c: &ContainerSummary) -> bool {
    matches!(c.state.as_str(), "running" | "paused" | "restarting")
}

fn line(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
    let mut back = human::size(reclaimable);
    if size > 0 && kind != "Build Cache" {
        let percent = i128::from(reclaimable) * 100 / i128::from(size);
        back.push_str(&format!(" ({percent}%)"));
    }
    Row::from([
        ("Active", cell(active.to_string())),
        ("Reclaimable", cell(back)),
        ("Size", cell(human::size(size))),
        ("TotalCount", cell(total.to_string())),
        ("Type", cell(kind)),
    ])
}

/// Bytes that only builds keep.
fn cached(u: &DiskUsage) -> i64 {
    let own = u.build_cache.iter().filter(|record| record["Shared"] != true);
    own.filter_map(|record| record["Size"].as_i64()).fold(0, i64::saturating_add)
}

/// A line per result of a build.
fn build_cache(u: &DiskUsage) -> String {
    if u.build_cache.is_empty() {
        return String::new();
    }
    let head = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for record in &u.build_cache {
        let text = |name: &str| match &record[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let day = |name: &str| text(name).chars().take(19).collect::<String>().replace('T', " ");
        rows.push(vec![
            text("ID").chars().take(12).collect(),
            text("Type"),
            human::size(record["Size"].as_i64().unwrap_or(0)),
            day("CreatedAt"),
            day("LastUsedAt"),
            text("UsageCount"),
            text("Shared"),
        ]);
    }
    format!("\n{}", table::render(&rows))
}

/// A line per kind of thing.
fn summary(u: &DiskUsage) -> Vec<Row> {
    let used: i64 = u
        .images
        .iter()
        .filter(|i| i.containers != 0 && i.size >= 0 && i.shared_size >= 0)
        .fold(0, |sum, i| sum.saturating_add(i.size.saturating_sub(i.shared_size)));
    let images_active = u.images.iter().filter(|i| i.containers > 0).count();
    let free =
        if images_active == 0 { u.layers_size } else { u.layers_size.saturating_sub(used).max(0) };
    let written = |c: &ContainerSummary| c.size_rw.unwrap_or(0);
    let containers: i64 = u.containers.iter().map(written).fold(0, i64::saturating_add);
    let idle: i64 =
        u.containers.iter().filter(|c| !is_active(c)).map(written).fold(0, i64::saturating_add);
    let volume = |v: &engine::types::Volume| {
        v.usage_data.as_ref().map_or((0, 0), |d| (d.ref_count, d.size.max(0)))
    };
    let volumes: i64 = u.volumes.iter().map(|v| volume(v).1).fold(0, i64::saturating_add);
    let unused: i64 = u
        .volumes
        .iter()
        .map(volume)
        .filter(|(count, _)| *count == 0)
        .fold(0, |sum, (_, size)| sum.saturating_add(size));
    let mut rows = vec![
        line("Images", u.images.len(), images_active, u.layers_size, free),
        line(
            "Containers",
            u.containers.len(),
            u.containers.iter().filter(|c| is_active(c)).count(),
            containers,
            idle,
        ),
        line(
            "Local Volumes",
            u.volumes.len(),
            u.volumes.iter().filter(|v| volume(v).0 > 0).count(),
            volumes,
            unused,
        ),
        line("Build Cache", u.build_cache.len(), 0, cached(u), cached(u)),
    ];
    if !u.other.is_empty() {
        let other = u.other.values().copied().fold(0, i64::saturating_add);
        let trash = u.other.get("trash").copied().unwrap_or(0);
        rows.push(line("Other", u.other.len(), 0, other, trash));
    }
    rows
}

const IMAGES: Columns = Columns {
    all: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};

/// Every thing with its size.
fn verbose(u: &DiskUsage) -> String {
    let now = jiff::Timestamp::now().as_second();
    let part = |columns: &Columns, keys: &[&str], rows: &[Row]| {
        listing::format(columns, keys, None, rows).unwrap_or_default()
    };
    let keys: Vec<&str> = IMAGES.all.iter().map(|(k, _)| *k).collect();
    let images: Vec<Row> =
        u.images.iter().flat_map(|i| images::rows(i, true, false, now)).collect();
    let mut text = format!("Images space usage:\n\n{}", part(&IMAGES, &keys, &images));
    let containers: Vec<Row> = u.containers.iter().map(|c| ps::row(c, true, now)).collect();
    let keys = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    text.push_str(&format!(
        "\nContainers space usage:\n\n{}",
        part(&ps::COLUMNS, &keys, &containers)
    ));
    let volumes: Vec<Row> = u.volumes.iter().map(volume_ls::row).collect();
    text.push_str(&format!(
        "\nLocal Volumes space usage:\n\n{}",
        part(&volume_ls::COLUMNS, &["Name", "Links", "Size"], &volumes)
    ));
    text.push_str(&format!("\nBuild cache usage: {}\n", human::size(cached(u))));
    text.push_str(&build_cache(u));
    if !u.other.is_empty() {
        let mut rows = vec![vec!["NAME".to_owned(), "SIZE".to_owned()]];
        rows.extend(u.other.iter().map(|(name, size)| vec![name.clone(), human::size(*size)]));
        text.push_str(&format!("\nOther space usage:\n\n{}", table::render(&rows)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::types::{ImageSummary, Volume, VolumeUsage};

    #[test]
    fn every_kind_has_its_line() {
        let usage = DiskUsage {
            layers_size: 300_000_000,
            images: vec![
                ImageSummary {
                    containers: 1,
                    size: 200_000_000,
                    shared_size: 50_000_000,
                    ..Default::default()
                },
                ImageSummary {
                    containers: 0,
                    size: 150_000_000,
                    shared_size: 50_000_000,
                    ..Default::default()
                },
            ],
            containers: vec![
                ContainerSummary {
                    state: "running".into(),
                    size_rw: Some(1_000),
                    ..Default::default()
                },
                ContainerSummary {
                    state: "exited".into(),
                    size_rw: Some(3_000),
                    ..Default::default()
                },
            ],
            volumes: vec![Volume {
                usage_data: Some(VolumeUsage { ref_count: 0, size: 5_000_000 }),
                ..Default::default()
            }],
            other: [("database".to_owned(), 40_960), ("trash".to_owned(), 1_000)].into(),
            ..Default::default()
        };
        insta::assert_snapshot!(
            listing::format(&COLUMNS, DEFAULT, None, &summary(&usage)).unwrap()
        );
    }
}
