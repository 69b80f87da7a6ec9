//! `search`: repositories of a registry that has a search.

use ::registry::{SearchFilter, SearchResult};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::json::Json;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what matches: is-official=true, stars=NUMBER
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Most results
    #[arg(long, value_name = "int")]
    limit: Option<u32>,
    /// Show descriptions whole
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: Columns = Columns {
    all: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

impl Verb for Args {
    const SPEC: Spec = Spec::new(&[&["search"]], "[OPTIONS] TERM", "Search Docker Hub for images")
        .long("A term that begins with a registry's host is searched for there.")
        .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let limit = self.limit.unwrap_or(25);
        if !(1..=100).contains(&limit) {
            return Err(
                Failure::new(1, format!("invalid limit {limit}: it should be 1 to 100")).into()
            );
        }
        let pairs = self.filter.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let filter = SearchFilter::parse(pairs)
            .map_err(|pair| Failure::new(1, format!("invalid filter '{pair}'")))?;
        let client = crate::registries::client(context, false)?;
        let term = super::one(&self.args)?;
        let found = client.search(term, limit as usize).map_err(engine::Error::from)?;
        let rows: Vec<Row> = found
            .iter()
            .filter(|r| filter.matches(r))
            .take(limit as usize)
            .map(|r| row(r, self.no_trunc))
            .collect();
        let columns = ["Name", "Description", "StarCount", "IsOfficial"];
        listing::print(&COLUMNS, &columns, self.format.as_deref(), &rows)?;
        Ok(0)
    }
}

fn row(found: &SearchResult, whole: bool) -> Row {
    const LONGEST: usize = 45;
    let description = found.description.as_deref().unwrap_or_default().replace(['\n', '\r'], " ");
    let description = if !whole && description.chars().count() > LONGEST {
        let cut: String = description.chars().take(LONGEST - 1).collect();
        format!("{cut}…")
    } else {
        description
    };
    let ok = |set: bool| cell(if set { "[OK]" } else { "" });
    Row::from([
        ("Name", cell(found.name.as_str())),
        ("Description", cell(description)),
        ("StarCount", Json::Uint(found.star_count)),
        ("IsOfficial", ok(found.is_official)),
        ("IsAutomated", ok(found.is_automated)),
    ])
}
