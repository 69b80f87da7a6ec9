//! What the verbs that move images have in common: `pull`, `push`, `image copy`.

use crate::failure::Failure;
use crate::output::transfer::Show;

/// Which image of several, and how its coming along is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct TransferFlags {
    /// Of an image for several platforms, only the one for this (os/arch[/variant])
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// How to show progress: auto, plain, tty, json or quiet
    #[arg(long, value_name = "string")]
    progress: Option<String>,
    /// Print only the name, or the digest, of the result
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
}

impl TransferFlags {
    /// The platform, if one was named.
    pub(crate) fn platform(&self) -> Option<String> {
        self.platform.clone().filter(|platform| !platform.is_empty())
    }

    /// What shows the progress, on standard output.
    pub(crate) fn show(&self) -> Result<Show, Failure> {
        Show::stdout(self.progress.as_deref(), self.quiet)
    }
}
