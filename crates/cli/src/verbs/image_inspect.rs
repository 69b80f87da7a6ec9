//! `image inspect`: everything known of images.

use super::inspect::{Kind, show};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `image inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    /// Refused: an image here has one platform
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "inspect"]],
        "[OPTIONS] IMAGE [IMAGE...]",
        "Show everything known of images",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        super::no_platform("inspect", self.platform.as_deref())?;
        show(context, &self.args, self.format.as_deref(), false, &[Kind::Image], false)
    }
}
