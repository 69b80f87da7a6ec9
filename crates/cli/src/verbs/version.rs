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

    fn run(self, _context: &Context) -> Outcome {
        let _ = &self.args;
        let server = info::version();
        match self.format.as_deref() {
            None | Some("") => context::print(&text(&server))?,
            Some(format) => {
                let client = Client {
                    platform: server.platform.clone(),
                    version: server.version.clone(),
                    api_version: server.api_version.clone(),
                    default_api_version: server.api_version.clone(),
                    git_commit: server.git_commit.clone(),
                    go_version: server.go_version.clone(),
                    os: server.os.clone(),
                    arch: server.arch.clone(),
                    build_time: server.build_time.clone(),
                    context: "default".to_owned(),
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

fn text(v: &VersionInfo) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {:<19}{value}\n", format!("{key}:")));
        }
    };
    let arch = format!("{}/{}", v.os, v.arch);
    line("Version", &v.version);
    line("API version", &v.api_version);
    line("Git commit", &v.git_commit);
    line("Built", &v.build_time);
    line("OS/Arch", &arch);
    line("Context", "default");
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
    line("OS/Arch", &arch);
    line("Kernel", &v.kernel_version);
    let name = &v.platform.name;
    format!(
        "Client: {name}\n{client}\nServer: {name} (in this program, no daemon)\n Engine:\n{out}"
    )
}
