//! Give a container another name.

use super::two;
use crate::context::Context;
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
        &[&["container", "rename"], &["rename"]],
        "CONTAINER NEW_NAME",
        "Give a container another name",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [old, new] = two(&self.args)?;
        if let Err(error) = context.engine()?.rename(old, new) {
            context.complain(&error.into());
            context.sum_up("rename container named", &[old]);
            return all_or_one(true);
        }
        Ok(0)
    }
}
