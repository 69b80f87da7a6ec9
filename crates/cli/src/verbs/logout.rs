//! `logout`: forgets the credentials for a registry.

use ::registry::DOCKER_HUB_KEY;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registries;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(&[&["logout"]], "[SERVER]", "Log out from a registry")
        .long("Docker Hub if no server is named.")
        .args(0, 1);

    fn run(self, _: &Context) -> Outcome {
        let server = self.args.first().map_or(DOCKER_HUB_KEY, String::as_str);
        let key = ::registry::server_key(server);
        context::println(&format!("Removing login credentials for {key}"))?;
        registries::docker_config()?.erase(&key)?;
        Ok(0)
    }
}
