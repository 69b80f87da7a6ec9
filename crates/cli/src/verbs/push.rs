//! `push`: images to registries.

use engine::PushOptions;

use super::transfer_flags::TransferFlags;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Send all tags of the repository
    #[arg(long, short = 'a')]
    all_tags: bool,
    /// Accepted for Docker's scripts: nothing is signed
    #[arg(long, default_value = "true")]
    disable_content_trust: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "push"], &["push"]],
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to a registry",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        super::no_trust("push", self.disable_content_trust)?;
        let name = super::one(&self.args)?;
        let mut show = self.transfer.show()?;
        let reference: oci::Reference = name.parse()?;
        if reference.tag().is_none() && !self.all_tags && !self.transfer.quiet && !show.is_json() {
            context::println("Using default tag: latest")?;
        }
        let options = PushOptions {
            reference: name.to_owned(),
            all_tags: self.all_tags,
            platform: self.transfer.platform(),
        };
        context.engine()?.push(context, &options, &mut show)?;
        if self.transfer.quiet {
            let whole = if self.all_tags { reference } else { reference.or_latest() };
            context::println(&whole.to_string())?;
        }
        Ok(0)
    }
}
