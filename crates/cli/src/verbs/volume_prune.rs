//! Remove volumes that no container uses.

use super::confirm;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those with a name too
    #[arg(long, short = 'a')]
    all: bool,
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
    const SPEC: Spec =
        Spec::new(&[&["volume", "prune"]], "[OPTIONS]", "Remove volumes that no container uses")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        confirm(
            self.force,
            if self.all {
                "WARNING! This will remove all local volumes not used by at least one container."
            } else {
                "WARNING! This will remove anonymous local volumes not used by at least one container."
            },
        )?;
        let pruned = context.engine()?.prune_volumes(self.all, &super::filters(&self.filter))?;
        super::report("Deleted Volumes:", &pruned.deleted, pruned.space_reclaimed)
    }
}
