//! `ps`

use anyhow::{Context, Result, bail};

use super::list::Format;
use super::store::Container;
use super::{Global, say};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// The container's ID
    id: String,
    /// Options of the host's ps; -ef if not given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let pids = Container::load(global, &args.id)?.cgroup()?.pids()?;
    if matches!(args.format, Format::Json) {
        say(&serde_json::to_string(&pids)?)?;
        return Ok(0);
    }
    let options = if args.options.is_empty() { vec!["-ef".to_owned()] } else { args.options };
    let output = std::process::Command::new("ps")
        .args(&options)
        .output()
        .context("run ps (package procps)")?;
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let Some(column) = title.split_whitespace().position(|name| name == "PID") else {
        bail!("ps printed no column PID; choose other options");
    };
    say(title)?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            say(line)?;
        }
    }
    Ok(0)
}
