//! Stop containers and start them again.

use crate::context::Context;
use crate::each::{Verdict, each};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::number::parse_int;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Signal to send
    #[arg(long, short = 's', value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before the container is killed
    #[arg(long, visible_alias = "time", short = 't', value_name = "int", value_parser = parse_int)]
    timeout: Option<i64>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "restart"], &["restart"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop containers and start them again",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        each(
            context,
            &self.args,
            |engine, name| engine.restart(name, self.signal.as_deref(), self.timeout),
            |_| Verdict::Failed,
        )
    }
}
