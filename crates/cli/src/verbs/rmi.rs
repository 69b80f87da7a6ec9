//! Remove images.

use engine::ErrorKind;

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove it though containers use it or it has other names
    #[arg(long, short = 'f')]
    force: bool,
    /// Keep parents that have no name
    #[arg(long)]
    no_prune: bool,
    /// Refused: images here have one platform each
    #[arg(long, value_name = "strings")]
    platform: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "rm"], &["image", "remove"], &["rmi"]],
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove images",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        super::no_platform("rmi", self.platform.first().map(String::as_str))?;
        let engine = context.engine()?;
        let mut failed = false;
        for name in &self.args {
            match engine.remove_image(name, self.force, self.no_prune) {
                Ok(steps) => context::print(&super::steps(&steps))?,
                Err(error) => {
                    // With --force a missing image is reported but is no failure.
                    failed |= !(self.force && error.kind == ErrorKind::NotFound);
                    context.complain(&error.into());
                }
            }
        }
        all_or_one(failed)
    }
}
