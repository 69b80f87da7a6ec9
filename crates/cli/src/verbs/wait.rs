//! Wait until containers stop and print their exit codes.

use engine::WaitCondition;

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
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
        &[&["container", "wait"], &["wait"]],
        "CONTAINER [CONTAINER...]",
        "Wait until containers stop and print their exit codes",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.wait(name, WaitCondition::NotRunning) {
                Ok(code) => context::println(&code.to_string())?,
                Err(error) => {
                    failed = true;
                    context.complain(&error.into());
                }
            }
        }
        all_or_one(failed)
    }
}
