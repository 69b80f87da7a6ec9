//! `context rm`: forget engines elsewhere.

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts, DEFAULT};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Even one that is in use
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "rm"], &["context", "remove"]],
        "CONTEXT [CONTEXT...]",
        "Forget engines elsewhere",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let contexts = Contexts::open()?;
        let current = target::in_use();
        let mut failed = false;
        for name in &self.args {
            let forget = || -> anyhow::Result<()> {
                if name == DEFAULT {
                    return Err(Failure::new(1, "context \"default\" cannot be removed").into());
                }
                if contexts.get(name)?.is_none() && !self.force {
                    return Err(target::not_found(name).into());
                }
                if current.as_deref() == Some(name) {
                    if !self.force {
                        return Err(Failure::new(
                            1,
                            format!("context {name:?} is in use, set -f flag to force remove"),
                        )
                        .into());
                    }
                    target::set_in_use(None)?;
                }
                contexts.remove(name)
            };
            match forget() {
                Ok(()) => context::println(name)?,
                Err(e) => {
                    failed = true;
                    context.complain(&e);
                }
            }
        }
        all_or_one(failed)
    }
}
