//! Remove networks that no container is connected to.

use super::confirm;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what matches (name=value)
    #[arg(long, value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Ask nothing
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["network", "prune"]],
        "[OPTIONS]",
        "Remove networks that no container is connected to",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let warning =
            "WARNING! This will remove all custom networks not used by at least one container.";
        confirm(self.force, warning)?;
        let pruned = context.engine()?.prune_networks(&super::filters(&self.filter))?;
        super::section("Deleted Networks:", &pruned.deleted)?;
        Ok(0)
    }
}
