//! Send running containers a signal.

use crate::context::Context;
use crate::each::{Verdict, each};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Signal to send
    #[arg(long, short = 's', value_name = "string", default_value = "KILL")]
    signal: String,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "kill"], &["kill"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Send running containers a signal",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        each(
            context,
            &self.args,
            |engine, name| engine.kill(name, &self.signal),
            |_| Verdict::Failed,
        )
    }
}
