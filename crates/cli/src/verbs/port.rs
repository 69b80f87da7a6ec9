//! List the ports a container publishes.

use super::one;
use crate::context::{self, Context};
use crate::failure::Failure;
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
    const SPEC: Spec = Spec::new(
        &[&["container", "port"], &["port"]],
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List the ports a container publishes",
    )
    .args(1, 2);

    fn run(self, context: &Context) -> Outcome {
        let name = one(&self.args)?;
        let found = context.engine()?.inspect(name, false)?;
        let published = &found.network_settings.ports;
        let wanted = self.args.get(1).map(|p| match p.contains('/') {
            true => p.clone(),
            false => format!("{p}/tcp"),
        });
        let mut out = String::new();
        for (port, bindings) in published {
            if wanted.as_ref().is_some_and(|w| w != port) {
                continue;
            }
            for binding in bindings.iter().flatten() {
                let ip = match binding.host_ip.as_str() {
                    "" => "0.0.0.0".to_owned(),
                    ip if ip.contains(':') => format!("[{ip}]"),
                    ip => ip.to_owned(),
                };
                let host = format!("{ip}:{}\n", binding.host_port);
                match wanted {
                    Some(_) => out.push_str(&host),
                    None => out.push_str(&format!("{port} -> {host}")),
                }
            }
        }
        if let (Some(wanted), true) = (&wanted, out.is_empty()) {
            return Err(Failure::new(1, format!("no public port '{wanted}' published for {name}"))
                .bare()
                .into());
        }
        context::print(&out)?;
        Ok(0)
    }
}
