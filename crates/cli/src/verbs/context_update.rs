//! `context update`: change what is remembered of an engine elsewhere.

use super::one;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what it is
    #[arg(long, value_name = "string")]
    description: Option<String>,
    /// The engine: host=ADDRESS, ca=FILE, cert=FILE, key=FILE, skip-tls-verify=BOOL, from=CONTEXT
    #[arg(long, value_name = "stringToString")]
    docker: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "update"]],
        "[OPTIONS] CONTEXT",
        "Change what is remembered of an engine elsewhere",
    )
    .args(1, 1);

    fn run(self, _: &Context) -> Outcome {
        let name = one(&self.args)?;
        target::check_name(name)?;
        let contexts = Contexts::open()?;
        let mut meta = contexts.get(name)?.ok_or_else(|| target::not_found(name))?;
        let mut files = contexts.tls_files(name);
        if let Some(text) = &self.description {
            meta.describe(text);
        }
        super::context_create::apply(&contexts, &mut meta, &mut files, &self.docker)?;
        contexts.put_tls(name, &files)?;
        contexts.put(&meta)?;
        context::println(name)?;
        context::note(&format!("Successfully updated context \"{name}\""));
        Ok(0)
    }
}
