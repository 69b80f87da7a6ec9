//! `network inspect`: everything known of networks.

use super::inspect::{Kind, show};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `network inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    /// Means nothing here: for clusters
    #[arg(long)]
    scope: Option<String>,
    /// Means nothing here: for clusters
    #[arg(long, short = 'v')]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["network", "inspect"]],
        "[OPTIONS] NETWORK [NETWORK...]",
        "Show everything known of networks",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let _ = (&self.scope, self.verbose);
        show(context, &self.args, self.format.as_deref(), false, &[Kind::Network], false)
    }
}
