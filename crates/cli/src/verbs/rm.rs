//! Remove containers.

use engine::ErrorKind;
use engine::RemoveOptions;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::failure::{Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill it first when it is running
    #[arg(long, short = 'f')]
    force: bool,
    /// Refused: links are made with run --link and go with the container
    #[arg(long, short = 'l')]
    link: bool,
    /// Remove its anonymous volumes too
    #[arg(long, short = 'v')]
    volumes: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "rm"], &["container", "remove"], &["rm"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove containers",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        if self.link {
            return Err(Failure::new(
                1,
                "rm --link: this engine keeps no links of their own; they go with the container",
            )
            .into());
        }
        let options = RemoveOptions { force: self.force, volumes: self.volumes };
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.remove(name, options) {
                Ok(()) => context::println(name)?,
                // Docker: with --force, what is not there needs no removing.
                Err(error) if self.force && error.kind == ErrorKind::NotFound => {
                    context.complain(&error.into());
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
