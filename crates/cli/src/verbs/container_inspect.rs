//! `container inspect`: everything known of containers.

use super::inspect::{Kind, show};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `container inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    /// Sizes too
    #[arg(long, short = 's')]
    size: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "inspect"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Show everything known of containers",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        show(context, &self.args, self.format.as_deref(), self.size, &[Kind::Container], false)
    }
}
