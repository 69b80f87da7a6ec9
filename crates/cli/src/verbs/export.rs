//! Write a container's filesystem as a tar archive.

use super::{archive_to, one};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to this file in place of STDOUT
    #[arg(long, short = 'o', value_name = "string")]
    output: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "export"], &["export"]],
        "[OPTIONS] CONTAINER",
        "Write a container's filesystem as a tar archive",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let name = one(&self.args)?;
        let engine = context.engine()?;
        archive_to(context, self.output.as_deref(), &mut |out| Ok(engine.export(name, out)?))
    }
}
