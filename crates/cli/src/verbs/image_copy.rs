//! `image copy`: images between registries, archives and layouts, without pulling them.

use engine::{CopyOptions, Place};

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::transfer::Show;
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
    /// Of an image for several platforms, the one for this (os/arch[/variant])
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// How to show progress: auto, plain, tty, json or quiet
    #[arg(long, value_name = "string")]
    progress: Option<String>,
    /// Print only the digest
    #[arg(long, short = 'q')]
    quiet: bool,
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
        let mut show = Show::stdout(self.progress.as_deref(), self.quiet)?;
        let options =
            CopyOptions { all: self.all, platform: self.platform.filter(|p| !p.is_empty()) };
        let digest = context.engine()?.copy_image(&client, &from, &to, &options, &mut show)?;
        if self.quiet {
            context::println(&digest)?;
        }
        Ok(0)
    }
}
