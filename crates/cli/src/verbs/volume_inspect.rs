//! `volume inspect`: everything known of volumes.

use super::inspect::{Kind, show};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `volume inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["volume", "inspect"]],
        "[OPTIONS] VOLUME [VOLUME...]",
        "Show everything known of volumes",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        show(context, &self.args, self.format.as_deref(), false, &[Kind::Volume], false)
    }
}
