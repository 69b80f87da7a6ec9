//! Start the containers that are to run whenever the host does.

use crate::context::{self, Context};
use crate::failure::{Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop all that runs, because the host is about to end
    #[arg(long)]
    stop: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["system", "boot"]],
        "[OPTIONS]",
        "Start the containers that are to run whenever the host does",
    )
    .long(
        "Containers with the restart policy always, with unless-stopped unless a person stopped them, and\n\
         with on-failure where they failed, are started unless they run. The unit wherry-boot, written by\n\
         serve --install, does it when the host starts; any other way of running a command then is as good.\n\
         With --stop, for the host's end, containers are stopped with their own signals and in their own time;\n\
         the next boot starts them as if they had run until then.",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let engine = context.local()?;
        let (done, failures) = if self.stop {
            let halted = engine.halt()?;
            (halted.stopped, halted.failed)
        } else {
            let booted = engine.boot()?;
            (booted.started, booted.failed)
        };
        for name in &done {
            context::println(name)?;
        }
        let failed = !failures.is_empty();
        for (name, error) in failures {
            context.complain(&anyhow::Error::from(error).context(name));
        }
        all_or_one(failed)
    }
}
