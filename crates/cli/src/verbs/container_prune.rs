//! Remove all stopped containers.

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
    const SPEC: Spec =
        Spec::new(&[&["container", "prune"]], "[OPTIONS]", "Remove all stopped containers")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        confirm(self.force, "WARNING! This will remove all stopped containers.")?;
        let pruned = context.engine()?.prune_containers(&super::filters(&self.filter))?;
        super::report("Deleted Containers:", &pruned.deleted, pruned.space_reclaimed)
    }
}
