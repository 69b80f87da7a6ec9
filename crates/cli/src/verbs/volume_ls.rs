//! `volume ls`: the list of volumes.

use engine::types::Volume;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of `volume ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Refused: for cluster volumes
    #[arg(long)]
    cluster: bool,
    /// Only what matches (name=value)
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show only names
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// What a volume has in the list.
pub(crate) const COLUMNS: Columns = Columns {
    all: &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
};

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["volume", "ls"], &["volume", "list"]], "[OPTIONS]", "List volumes")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        if self.cluster {
            return Err(Failure::new(
                1,
                "volume ls --cluster: this engine is not part of a cluster; leave it out",
            )
            .into());
        }
        let mut found = context.engine()?.volumes(&super::filters(&self.filter))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if self.quiet && self.format.is_none() {
            let names: String = found.iter().map(|v| format!("{}\n", v.name)).collect();
            context::print(&names)?;
            return Ok(0);
        }
        let rows: Vec<Row> = found.iter().map(row).collect();
        listing::print(&COLUMNS, &["Driver", "Name"], self.format.as_deref(), &rows)?;
        Ok(0)
    }
}

/// One volume as a row.
pub(crate) fn row(v: &Volume) -> Row {
    let labels: Vec<String> = v.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    let (links, size) = match &v.usage_data {
        Some(usage) => (usage.ref_count.to_string(), human::size(usage.size)),
        None => ("N/A".to_owned(), "N/A".to_owned()),
    };
    Row::from([
        ("Availability", cell("N/A")),
        ("Driver", cell(v.driver.as_str())),
        ("Group", cell("N/A")),
        ("Labels", cell(labels.join(","))),
        ("Links", cell(links)),
        ("Mountpoint", cell(v.mountpoint.as_str())),
        ("Name", cell(v.name.as_str())),
        ("Scope", cell(v.scope.as_str())),
        ("Size", cell(size)),
        ("Status", cell("N/A")),
    ])
}
