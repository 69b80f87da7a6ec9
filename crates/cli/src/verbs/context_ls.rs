//! `context ls`: the engines that are known.

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;
use crate::target::{self, Contexts, DEFAULT};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show only names
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: Columns = Columns {
    all: &[
        ("Current", "CURRENT"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Name", "NAME"),
    ],
};

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "ls"], &["context", "list"]],
        "[OPTIONS]",
        "List the engines that are known",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let current = target::context_name(&context.globals);
        let host = std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty());
        let own = (
            DEFAULT.to_owned(),
            host.clone().map_or("The engine of this machine".to_owned(), |_| {
                "Current DOCKER_HOST based configuration".to_owned()
            }),
            host.unwrap_or_else(|| "in this program".to_owned()),
        );
        let others = Contexts::open()?.all()?;
        let others = others
            .into_iter()
            .map(|meta| (meta.name.clone(), meta.description().to_owned(), meta.host().to_owned()));
        let mut all: Vec<_> = std::iter::once(own).chain(others).collect();
        all.sort();
        if self.quiet {
            let names: String = all.iter().map(|(name, ..)| format!("{name}\n")).collect();
            context::print(&names)?;
            return Ok(0);
        }
        let raw = self.format.as_deref().is_some_and(|f| !f.starts_with("table"));
        let rows: Vec<Row> = all
            .into_iter()
            .map(|(name, description, host)| {
                let is_current = name == current;
                let shown = match (raw, is_current) {
                    (false, true) => format!("{name} *"),
                    _ => name,
                };
                Row::from([
                    ("Current", cell(is_current.to_string())),
                    ("Description", cell(human::ellipsis(&description, 50))),
                    ("DockerEndpoint", cell(host)),
                    ("Error", cell("")),
                    ("Name", cell(shown)),
                ])
            })
            .collect();
        let default = ["Name", "Description", "DockerEndpoint", "Error"];
        listing::print(&COLUMNS, &default, self.format.as_deref(), &rows)?;
        if current == DEFAULT
            && target::in_use().is_some()
            && std::env::var_os("DOCKER_HOST").is_some()
        {
            context::note(
                "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.",
            );
        }
        Ok(0)
    }
}
