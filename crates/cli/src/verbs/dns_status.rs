//! `dns status`: whether the host resolves names of containers.

use engine::types::HostNames;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["dns", "status"]], "", "Show whether the host resolves names of containers")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        print(&context.local()?.host_names()?)?;
        Ok(0)
    }
}

/// A line for each thing a person may want to know.
pub(crate) fn print(names: &HostNames) -> std::io::Result<()> {
    let Some(address) = names.address.filter(|_| names.enabled) else {
        return context::println("disabled");
    };
    context::println(&format!("enabled: containers are in {}", names.domain))?;
    context::println(&match names.in_place {
        true => format!("resolver: {} asks {address}", names.by),
        false => format!(
            "resolver: {} does not ask {address}, somebody has changed it; enable it again",
            names.by
        ),
    })?;
    context::println(match names.answers {
        true => "server: answers",
        false => "server: not there; it is while a container with an address runs",
    })
}
