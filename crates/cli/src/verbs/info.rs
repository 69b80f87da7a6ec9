//! `info`: this engine and its host.

use engine::types::Info;
use serde::Serialize;

use crate::app::VERSION;
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::json::Json;
use crate::output::template::Format;
use crate::registry::Verb;

/// Options of `info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Both<'a> {
    #[serde(flatten)]
    info: &'a Info,
    client_info: ClientInfo,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClientInfo {
    debug: bool,
    version: &'static str,
    context: String,
    plugins: Vec<String>,
    warnings: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["system", "info"], &["info"]],
        "[OPTIONS]",
        "Show what this engine and its host are",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let info = context.engine()?.info()?;
        let debug = context.globals.debug;
        let name = crate::target::context_name(&context.globals);
        match self.format.as_deref() {
            None | Some("") => {
                context::print(&text(&info, debug, &name))?;
                for warning in &info.warnings {
                    context::note(warning);
                }
            }
            Some(format) => {
                let client_info = ClientInfo {
                    debug,
                    version: VERSION,
                    context: name,
                    plugins: Vec::new(),
                    warnings: Vec::new(),
                };
                let both = Both { info: &info, client_info };
                let shown = match format {
                    "json" => serde_json::to_string(&both)?,
                    template => Format::parse(template)?.fill(&Json::of(&both)?)?,
                };
                context::println(&shown)?;
            }
        }
        Ok(0)
    }
}

/// As Docker lays it out.
fn text(i: &Info, debug: bool, context: &str) -> String {
    let mut out = format!(
        "Client:\n Version:    {VERSION}\n Context:    {context}\n Debug Mode: {debug}\n\nServer:\n"
    );
    let mut line = |indent: usize, key: &str, value: &str| {
        out.push_str(&format!("{:indent$}{key}: {value}\n", ""));
    };
    line(1, "Containers", &i.containers.to_string());
    line(2, "Running", &i.containers_running.to_string());
    line(2, "Paused", &i.containers_paused.to_string());
    line(2, "Stopped", &i.containers_stopped.to_string());
    line(1, "Images", &i.images.to_string());
    line(1, "Server Version", &i.server_version);
    line(1, "Storage Driver", &i.driver);
    for [key, value] in &i.driver_status {
        line(2, key, value);
    }
    line(1, "Logging Driver", &i.logging_driver);
    line(1, "Cgroup Driver", &i.cgroup_driver);
    line(1, "Cgroup Version", &i.cgroup_version);
    line(1, "Plugins", "");
    line(2, "Volume", &i.plugins.volume.join(" "));
    line(2, "Network", &i.plugins.network.join(" "));
    line(2, "Log", &i.plugins.log.join(" "));
    line(1, "IPv4 Forwarding", &i.ipv4_forwarding.to_string());
    line(1, "Swarm", &i.swarm.local_node_state);
    let runtimes: Vec<&str> = i.runtimes.keys().map(String::as_str).collect();
    line(1, "Runtimes", &runtimes.join(" "));
    line(1, "Default Runtime", &i.default_runtime);
    line(1, "Init Binary", &i.init_binary);
    line(1, "Security Options", "");
    for option in &i.security_options {
        let mut parts = option.split(',').filter_map(|p| p.split_once('='));
        if let Some((_, name)) = parts.next() {
            line(2, name, "\0");
        }
        for (key, value) in parts {
            line(3, &title(key), value);
        }
    }
    line(1, "Kernel Version", &i.kernel_version);
    line(1, "Operating System", &i.operating_system);
    line(1, "OSType", &i.os_type);
    line(1, "Architecture", &i.architecture);
    line(1, "CPUs", &i.n_cpu.to_string());
    line(1, "Total Memory", &human::size1024(i.mem_total as f64));
    line(1, "Name", &i.name);
    line(1, "ID", &i.id);
    line(1, "Docker Root Dir", &i.docker_root_dir);
    line(1, "Debug Mode", &i.debug.to_string());
    line(1, "Experimental", &i.experimental_build.to_string());
    line(1, "Live Restore Enabled", &i.live_restore_enabled.to_string());
    // A heading has nothing after its colon, an option no colon.
    out.replace(": \0", "").replace(": \n", ":\n")
}

fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_dockers() {
        let info = Info {
            containers: 3,
            containers_running: 2,
            containers_stopped: 1,
            images: 4,
            driver: "overlay".into(),
            driver_status: vec![["Backing Filesystem".into(), "ext4".into()]],
            security_options: vec!["name=seccomp,profile=builtin".into(), "name=cgroupns".into()],
            mem_total: 8 << 30,
            n_cpu: 2,
            server_version: VERSION.into(),
            ..Info::default()
        };
        insta::assert_snapshot!(text(&info, false, "default"));
    }
}
