//! `network ls`: the list of networks.

use engine::types::Network;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of `network ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what matches (name=value)
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show everything in full length
    #[arg(long)]
    no_trunc: bool,
    /// Show only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// What a network has in the list.
pub(crate) const COLUMNS: Columns = Columns {
    all: &[
        ("CreatedAt", "CREATED AT"),
        ("Driver", "DRIVER"),
        ("ID", "NETWORK ID"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Name", "NAME"),
        ("Scope", "SCOPE"),
    ],
};

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["network", "ls"], &["network", "list"]], "[OPTIONS]", "List networks")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let found = context.engine()?.networks(&super::filters(&self.filter))?;
        if self.quiet && self.format.is_none() {
            let ids: String =
                found.iter().map(|n| format!("{}\n", id(n, !self.no_trunc))).collect();
            context::print(&ids)?;
            return Ok(0);
        }
        let rows: Vec<Row> = found.iter().map(|n| row(n, !self.no_trunc)).collect();
        let default = ["ID", "Name", "Driver", "Scope"];
        listing::print(&COLUMNS, &default, self.format.as_deref(), &rows)?;
        Ok(0)
    }
}

fn id(network: &Network, short: bool) -> &str {
    if short { human::short_id(&network.id) } else { &network.id }
}

/// One network as a row.
pub(crate) fn row(n: &Network, short: bool) -> Row {
    let labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Row::from([
        ("CreatedAt", cell(n.created.as_str())),
        ("Driver", cell(n.driver.as_str())),
        ("ID", cell(id(n, short))),
        ("IPv4", cell(n.enable_ipv4.to_string())),
        ("IPv6", cell(n.enable_ipv6.to_string())),
        ("Internal", cell(n.internal.to_string())),
        ("Labels", cell(labels.join(","))),
        ("Name", cell(n.name.as_str())),
        ("Scope", cell(n.scope.as_str())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let network = Network {
            name: "front".into(),
            id: "0123456789abcdef".repeat(4),
            driver: "bridge".into(),
            scope: "local".into(),
            ..Network::default()
        };
        let table = listing::format(
            &COLUMNS,
            &["ID", "Name", "Driver", "Scope"],
            None,
            &[row(&network, true)],
        );
        assert_eq!(
            table.unwrap(),
            "NETWORK ID     NAME      DRIVER    SCOPE\n0123456789ab   front     bridge    local\n"
        );
    }
}
