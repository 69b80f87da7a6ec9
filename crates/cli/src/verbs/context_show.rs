//! `context show`: the name of the engine that is meant.

use crate::context::{self, Context};
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
    const SPEC: Spec =
        Spec::new(&[&["context", "show"]], "", "Show which context is in use").args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        context::println(&crate::target::context_name(&context.globals))?;
        Ok(0)
    }
}
