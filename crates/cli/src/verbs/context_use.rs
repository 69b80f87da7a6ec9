//! `context use`: which engine commands mean from now on.

use super::one;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts, DEFAULT};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["context", "use"]], "CONTEXT", "Mean another engine from now on")
            .long("docker reads the same file: it means the same engine from then on.")
            .args(1, 1);

    fn run(self, _: &Context) -> Outcome {
        let name = one(&self.args)?;
        if name == DEFAULT {
            target::set_in_use(None)?;
        } else {
            Contexts::open()?.get(name)?.ok_or_else(|| target::not_found(name))?;
            target::set_in_use(Some(name))?;
        }
        context::println(name)?;
        context::note(&format!("Current context is now \"{name}\""));
        if name != DEFAULT && std::env::var_os("DOCKER_HOST").is_some_and(|h| !h.is_empty()) {
            context::note(&format!(
                "Warning: DOCKER_HOST environment variable overrides the active context. To use \"{name}\", either set the global --context flag, or unset DOCKER_HOST environment variable."
            ));
        }
        Ok(0)
    }
}
