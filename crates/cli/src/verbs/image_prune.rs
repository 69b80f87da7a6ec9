//! Remove images that nothing uses.

use super::{Head, confirm};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::size::parse_size;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those with a name too
    #[arg(long, short = 'a')]
    all: bool,
    /// Only what matches: until=, label=, label!=, unused-for=
    #[arg(long, value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Ask nothing
    #[arg(long, short = 'f')]
    force: bool,
    /// Only as much as it takes for images to fit into this size, the longest unused first
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    keep_storage: Option<i64>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["image", "prune"]], "[OPTIONS]", "Remove images that nothing uses")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        confirm(
            self.force,
            if self.all {
                "WARNING! This will remove all images without at least one container associated to them."
            } else {
                "WARNING! This will remove all dangling images."
            },
        )?;
        let pruned = context.engine()?.prune_images(
            self.all,
            &super::filters(&self.filter),
            self.keep_storage.and_then(|n| u64::try_from(n).ok()),
        )?;
        let lines: Vec<String> =
            super::steps(&pruned.deleted).lines().map(|l| l.to_lowercase_head()).collect();
        super::report("Deleted Images:", &lines, pruned.space_reclaimed)
    }
}
