//! Bring interfaces, rules, addresses and names in line with what runs.

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
        &[&["network", "repair"]],
        "",
        "Bring networks in line with the containers that run",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let report = context.local()?.repair_networks()?;
        for line in &report.done {
            context::println(line)?;
        }
        if report.done.is_empty() && report.failed.is_empty() {
            context::println("nothing to mend")?;
        }
        for line in &report.failed {
            context::note(line);
        }
        all_or_one(!report.failed.is_empty())
    }
}
