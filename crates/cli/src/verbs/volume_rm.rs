//! Remove volumes that no container uses.

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A volume that is not there is no failure
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["volume", "rm"], &["volume", "remove"]],
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove volumes that no container uses",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.remove_volume(name, self.force) {
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
