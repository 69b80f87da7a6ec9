//! Show what a container changed in its filesystem.

use super::one;
use crate::context::{self, Context};
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
        &[&["container", "diff"], &["diff"]],
        "CONTAINER",
        "Show what a container changed in its filesystem",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let mut text = String::new();
        for entry in context.engine()?.diff(one(&self.args)?)? {
            let letter = match entry.kind {
                0 => 'C',
                1 => 'A',
                _ => 'D',
            };
            text.push_str(&format!("{letter} {}\n", entry.path));
        }
        context::print(&text)?;
        Ok(0)
    }
}
