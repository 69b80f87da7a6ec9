//! Give a container another name.

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
        &[&["container", "rename"], &["rename"]],
        "CONTAINER NEW_NAME",
        "Give a container another name",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [old, new] = two(&self.args)?;
        context.engine()?.rename(old, new)?;
        Ok(0)
    }
}
