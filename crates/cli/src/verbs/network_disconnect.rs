//! Take a container out of a network.

use super::two;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One that is gone is no failure
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["network", "disconnect"]],
        "[OPTIONS] NETWORK CONTAINER",
        "Take a container out of a network",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [network, container] = two(&self.args)?;
        context.engine()?.disconnect_network(network, container, self.force)?;
        Ok(0)
    }
}
