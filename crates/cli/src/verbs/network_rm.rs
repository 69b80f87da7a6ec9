//! Remove networks that nobody is in.

use engine::ErrorKind;

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A network that is not there is no failure
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["network", "rm"], &["network", "remove"]],
        "NETWORK [NETWORK...]",
        "Remove networks that nobody is in",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.remove_network(name) {
                Ok(()) => context::println(name)?,
                Err(error) => {
                    failed |= !(self.force && error.kind == ErrorKind::NotFound);
                    context.complain(&error.into());
                }
            }
        }
        if failed && context.is_docker() {
            // Its last word, for a status that it has no message for.
            context::note("exit status 1");
        }
        all_or_one(failed)
    }
}
