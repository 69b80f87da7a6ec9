//! Remove containers.

use engine::ErrorKind;
use engine::RemoveOptions;

use crate::context::Context;
use crate::each::{Verdict, each};
use crate::failure::Failure;
use crate::failure::Outcome;
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
        each(
            context,
            &self.args,
            |engine, name| engine.remove(name, options),
            |error| match error.kind {
                // Docker: with --force, what is not there needs no removing.
                ErrorKind::NotFound if self.force => Verdict::Told,
                _ => Verdict::Failed,
            },
        )
    }
}
