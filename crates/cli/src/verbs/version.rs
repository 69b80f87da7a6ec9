//! `version`: of this program and of the engine, which are one.

use engine::info;
use engine::types::VersionInfo;
use serde::Serialize;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::json::Json;
use crate::output::template::Format;
use crate::registry::Verb;

/// Options of `version`.
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
struct Both {
    client: Client,
    server: VersionInfo,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Client {
    platform: engine::types::Platform,
    version: String,
    api_version: String,
    #[serde(rename = "DefaultAPIVersion")]
    default_api_version: String,
    git_commit: String,
    go_version: String,
    os: String,
    arch: String,
    build_time: String,
    context: String,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(&[&["version"]], "[OPTIONS]", "Show versions").args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let own = info::version();
        let name = crate::target::context_name(&context.globals);
        let elsewhere = crate::target::of(&context.globals)?;
        let server = match &elsewhere {
            None => own.clone(),
            Some(_) => context.engine()?.version()?,
        };
        match self.format.as_deref() {
            None | Some("") => {
                context::print(&text(&own, &server, &name, elsewhere.map(|t| t.host.to_string())))?
            }
            Some(format) => {
                let client = Client {
                    platform: own.platform.clone(),
                    version: own.version.clone(),
                    api_version: own.api_version.clone(),
                    default_api_version: own.api_version.clone(),
                    git_commit: own.git_commit.clone(),
                    go_version: own.go_version.clone(),
                    os: own.os.clone(),
                    arch: own.arch.clone(),
                    build_time: own.build_time.clone(),
                    context: name,
                };
                let both = Both { client, server };
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

fn text(own: &VersionInfo, v: &VersionInfo, context: &str, host: Option<String>) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {:<19}{value}\n", format!("{key}:")));
        }
    };
    let arch = format!("{}/{}", own.os, own.arch);
    line("Version", &own.version);
    line("API version", &own.api_version);
    line("Git commit", &own.git_commit);
    line("Built", &own.build_time);
    line("OS/Arch", &arch);
    line("Context", context);
    let client = std::mem::take(&mut out);
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("  {:<18}{value}\n", format!("{key}:")));
        }
    };
    line("Version", &v.version);
    line("API version", &format!("{} (minimum version {})", v.api_version, v.min_api_version));
    line("Git commit", &v.git_commit);
    line("Built", &v.build_time);
    line("OS/Arch", &format!("{}/{}", v.os, v.arch));
    line("Kernel", &v.kernel_version);
    let (client_name, name) = (&own.platform.name, &v.platform.name);
    let name = if name.is_empty() { "Docker Engine" } else { name };
    let place = match host {
        None => "in this program, no daemon".to_owned(),
        Some(host) => format!("at {host}"),
    };
    format!("Client: {client_name}\n{client}\nServer: {name} ({place})\n Engine:\n{out}")
}
