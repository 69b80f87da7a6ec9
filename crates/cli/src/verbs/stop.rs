//! Stop running containers.

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
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
        &[&["container", "stop"], &["stop"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop running containers",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.stop(name, self.signal.as_deref(), self.timeout) {
                Ok(()) => context::println(name)?,
                // Stopping what is stopped is no mistake.
                Err(error) if error.kind == engine::ErrorKind::NotModified => {
                    context::println(name)?;
                }
                Err(error) => {
                    failed = true;
                    context.complain(&error.into());
                }
            }
        }
        all_or_one(failed)
    }
}
