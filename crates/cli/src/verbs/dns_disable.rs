//! `dns disable`: the host's resolver as it was.

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
        Spec::new(&[&["dns", "disable"]], "", "Leave names of containers to containers").args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let changed = context.local()?.disable_host_names()?;
        context::println(if changed { "disabled" } else { "was not enabled" })?;
        Ok(0)
    }
}
