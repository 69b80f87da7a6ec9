//! Let frozen processes go on.

use crate::context::Context;
use crate::each::{Verdict, each};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "unpause"], &["unpause"]],
        "CONTAINER [CONTAINER...]",
        "Let frozen processes go on",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        each(context, &self.args, |engine, name| engine.unpause(name), |_| Verdict::Failed)
    }
}
