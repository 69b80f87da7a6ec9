//! Make an image of what a container changed.

use engine::CommitOptions;

use super::one;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who made it
    #[arg(long, short = 'a', value_name = "string", default_value = "")]
    author: String,
    /// Dockerfile instruction for the image
    #[arg(long, short = 'c', value_name = "list")]
    change: Vec<String>,
    /// Message of the commit
    #[arg(long, short = 'm', value_name = "string", default_value = "")]
    message: String,
    /// Freeze the container meanwhile
    #[arg(long, short = 'p', default_value = "true")]
    pause: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "commit"], &["commit"]],
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Make an image of what a container changed",
    )
    .args(1, 2);

    fn run(self, context: &Context) -> Outcome {
        let options = CommitOptions {
            reference: self.args.get(1).cloned(),
            author: self.author,
            message: self.message,
            pause: self.pause,
            changes: self.change,
            config: None,
        };
        let id = context.engine()?.commit(one(&self.args)?, options)?;
        context::println(&id)?;
        Ok(0)
    }
}
