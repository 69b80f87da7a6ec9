//! `image inspect`: everything known of images.

use engine::Engine;

use super::inspect::{Kind, show, show_with};
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::json::Json;
use crate::registry::Verb;

/// Options of `image inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    /// With --remote, the platform of an image that has several; else refused
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Look at the image in its registry, without fetching it
    #[arg(long)]
    remote: bool,
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
        if self.remote {
            let client = crate::registries::client(context, false)?;
            let platform = self.platform.as_deref().filter(|p| !p.is_empty());
            return show_with(context, &self.args, self.format.as_deref(), |name| {
                Ok(Json::of(&Engine::inspect_remote(&client, name, platform)?)?)
            });
        }
        super::no_platform("inspect", self.platform.as_deref())?;
        show(context, &self.args, self.format.as_deref(), false, &[Kind::Image], false)
    }
}
