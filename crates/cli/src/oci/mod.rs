//! `wherry oci`: the runtime alone, on a bundle, with the command line of `runc`; so that Docker,
//! Podman and containerd can use it as their runtime.
//!
//! One file per subcommand; [`store`] is the state on disk, [`start`](mod@container) what `create`,
//! `run` and `exec` share.

mod console;
mod container;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod store;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// The version of the OCI runtime specification.
pub(crate) const SPEC_VERSION: &str = "1.2.0";

fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0")
}

#[derive(Debug, Parser)]
#[command(name = "wherry-oci", about = "Run containers from OCI bundles", version = version())]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of all subcommands.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Directory for the state of containers
    #[arg(long, default_value = "/run/wherry/oci", value_name = "DIR")]
    root: PathBuf,
    /// Also write errors to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Log more
    #[arg(long)]
    debug: bool,
    /// Read cgroupsPath as systemd's "slice:prefix:name"
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for compatibility: whether root is needed is found out by trying
    #[arg(long, value_name = "BOOL", default_value = "auto", hide = true)]
    rootless: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a container; its program waits for `start`
    Create(create::Args),
    /// Start the program of a created container
    Start(start::Args),
    /// Print the state of a container
    State(state::Args),
    /// Send a signal to a container's first process
    Kill(kill::Args),
    /// Delete a container that has stopped
    Delete(delete::Args),
    /// Create and start a container
    Run(run::Args),
    /// Run another program in a running container
    Exec(exec::Args),
    /// List containers
    List(list::Args),
    /// Write a specification to begin with
    Spec(spec::Args),
    /// List the processes of a container
    Ps(ps::Args),
    /// Freeze all processes of a container
    Pause(pause::Args),
    /// Let the processes of a paused container run again
    Resume(resume::Args),
    /// Change limits of a container
    Update(update::Args),
    /// Print statistics
    Events(events::Args),
    /// Print what this runtime supports
    Features(features::Args),
}

/// Runs the command line, of which the first item is the program's name.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return u8::from(error.use_stderr());
        }
    };
    let global = cli.global;
    let result = match cli.command {
        Command::Create(args) => create::run(&global, args),
        Command::Start(args) => start::run(&global, args),
        Command::State(args) => state::run(&global, args),
        Command::Kill(args) => kill::run(&global, args),
        Command::Delete(args) => delete::run(&global, args),
        Command::Run(args) => run::run(&global, args),
        Command::Exec(args) => exec::run(&global, args),
        Command::List(args) => list::run(&global, args),
        Command::Spec(args) => spec::run(&global, args),
        Command::Ps(args) => ps::run(&global, args),
        Command::Pause(args) => pause::run(&global, args),
        Command::Resume(args) => resume::run(&global, args),
        Command::Update(args) => update::run(&global, args),
        Command::Events(args) => events::run(&global, args),
        Command::Features(args) => features::run(&global, args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let text = format!("{error:#}");
            global.log("error", &text);
            let _ = writeln!(std::io::stderr(), "wherry oci: {text}");
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
            let code = cause.map(runtime::Error::exit_code);
            code.filter(|code| matches!(code, 126 | 127)).unwrap_or(1)
        }
    }
}

impl Global {
    /// Adds a line to the log file. Callers of a runtime read the last error from there.
    fn log(&self, level: &str, text: &str) {
        let Some(path) = &self.log else { return };
        if level == "debug" && !self.debug {
            return;
        }
        let time = jiff::Timestamp::now().to_string();
        let line = match self.log_format {
            LogFormat::Json => {
                serde_json::json!({"level": level, "msg": text, "time": time}).to_string()
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={text:?}"),
        };
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// Prints a line; a reader that has gone is no error.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
