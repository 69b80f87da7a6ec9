//! `image copy`: images between registries, archives and layouts, without pulling them.

use engine::{CopyOptions, Place};

use super::transfer_flags::TransferFlags;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Copy the images of all platforms, and their index
    #[arg(long, short = 'a')]
    all: bool,
    /// Take any certificate, and plain HTTP
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "copy"]],
        "[OPTIONS] SOURCE TARGET",
        "Copy an image between registries, archives and layouts",
    )
    .long(
        "SOURCE and TARGET are the name of an image in a registry, oci:DIR[:NAME],\noci-archive:FILE[:NAME] or docker-archive:FILE[:NAME:TAG]. Nothing is unpacked.",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [from, to] = super::two(&self.args)?;
        let (from, to) = (Place::parse(from)?, Place::parse(to)?);
        let client = crate::registries::client(context, self.insecure)?;
        let mut show = self.transfer.show()?;
        let options = CopyOptions { all: self.all, platform: self.transfer.platform() };
        let digest = context.local()?.copy_image(&client, &from, &to, &options, &mut show)?;
        if self.transfer.quiet {
            context::println(&digest)?;
        }
        Ok(0)
    }
}
