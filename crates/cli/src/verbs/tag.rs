//! Give an image another name.

use super::two;
use crate::context::Context;
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
    const SPEC: Spec = Spec::new(
        &[&["image", "tag"], &["tag"]],
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Give an image another name",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [source, target] = two(&self.args)?;
        context.engine()?.tag(source, target)?;
        Ok(0)
    }
}
