//! List the processes of a container.

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::table;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "top"], &["top"]],
        "CONTAINER [ps OPTIONS]",
        "List the processes of a container",
    )
    .at_least(1)
    .options_first();

    fn run(self, context: &Context) -> Outcome {
        let (name, args) = self.args.split_first().map_or(("", &[][..]), |(n, a)| (n, a));
        let top = context.engine()?.top(name, args)?;
        let rows: Vec<Vec<String>> = std::iter::once(top.titles).chain(top.processes).collect();
        context::print(&table::render_with(&rows, 20, 3))?;
        Ok(0)
    }
}
