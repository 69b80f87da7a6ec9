//! Remove everything that nothing uses.

use super::{Head, confirm};
use crate::context::Context;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images with a name too
    #[arg(long, short = 'a')]
    all: bool,
    /// Only what matches (name=value)
    #[arg(long, value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Ask nothing
    #[arg(long, short = 'f')]
    force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["system", "prune"]], "[OPTIONS]", "Remove everything that nothing uses")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let filters = super::filters(&self.filter);
        if self.volumes && filters.contains_key("until") {
            return Err(Failure::new(
                1,
                "ERROR: The \"until\" filter is not supported with \"--volumes\"",
            )
            .bare()
            .into());
        }
        let mut warning = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
        if self.volumes {
            warning.push_str("  - all anonymous volumes not used by at least one container\n");
        }
        warning.push_str(if self.all {
            "  - all images without at least one container associated to them\n"
        } else {
            "  - all dangling images\n"
        });
        confirm(self.force, &warning)?;
        let engine = context.engine()?;
        let containers = engine.prune_containers(&filters)?;
        let mut space = containers.space_reclaimed;
        super::section("Deleted Containers:", &containers.deleted)?;
        let networks = engine.prune_networks(&filters)?;
        super::section("Deleted Networks:", &networks.deleted)?;
        if self.volumes {
            let volumes = engine.prune_volumes(false, &filters)?;
            space = space.saturating_add(volumes.space_reclaimed);
            super::section("Deleted Volumes:", &volumes.deleted)?;
        }
        let images = engine.prune_images(self.all, &filters, None)?;
        space = space.saturating_add(images.space_reclaimed);
        let lines: Vec<String> =
            super::steps(&images.deleted).lines().map(|l| l.to_lowercase_head()).collect();
        super::section("Deleted Images:", &lines)?;
        super::report("", &[], space)
    }
}
