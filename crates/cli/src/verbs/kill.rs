//! Send running containers a signal.

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
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
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.kill(name, &self.signal) {
                Ok(()) => context::println(name)?,
                Err(error) => {
                    failed = true;
                    context.complain(&error.into());
                }
            }
        }
        all_or_one(failed)
    }
}
