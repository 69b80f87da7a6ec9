//! `logs`: what a container wrote.

use std::io::Write;

use engine::{LogOptions, LogShape, StreamKind};

use super::one;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::time::{now, parse_time};

/// Options of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the labels and variables that --log-opt names
    #[arg(long)]
    details: bool,
    /// Go on with what it writes from now
    #[arg(long, short = 'f')]
    follow: bool,
    /// From this time on (2025-01-02T13:23:37Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// How many lines from the end
    #[arg(long, short = 'n', value_name = "string", default_value = "all")]
    tail: String,
    /// Show when each line was written
    #[arg(long, short = 't')]
    timestamps: bool,
    /// Up to this time (as --since)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "logs"], &["logs"]],
        "[OPTIONS] CONTAINER",
        "Show what a container wrote",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let name = one(&self.args)?;
        let now = now();
        let time = |flag: &str, text: &Option<String>| {
            text.as_deref()
                .filter(|t| !t.is_empty())
                .map(|t| parse_time(t, now))
                .transpose()
                .map_err(|why| Failure::new(1, format!("invalid value for \"{flag}\": {why}")))
        };
        let tail = match self.tail.as_str() {
            "all" | "" => None,
            text => match text.parse::<i64>() {
                Ok(n) => u64::try_from(n).ok(),
                Err(_) => {
                    return Err(Failure::new(
                        1,
                        format!("--tail {text:?} is neither a number nor \"all\""),
                    )
                    .into());
                }
            },
        };
        let options = LogOptions {
            stdout: true,
            stderr: true,
            follow: self.follow,
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            tail,
        };
        let engine = context.engine()?;
        let details = match self.details {
            true => Some(engine.inspect(name, false)?.log_details()),
            false => None,
        };
        let mut broken: Option<std::io::Error> = None;
        let mut shape = LogShape::new(self.timestamps, details);
        let mut out = crate::context::out();
        engine.logs(name, options, &mut |line| {
            let bytes = shape.show(&line);
            let written = match line.stream {
                StreamKind::Stdout if self.follow => {
                    out.write_all(&bytes).and_then(|()| out.flush())
                }
                StreamKind::Stdout => out.write_all(&bytes),
                StreamKind::Stderr => {
                    out.flush().and_then(|()| std::io::stderr().lock().write_all(&bytes))
                }
            };
            match written {
                Ok(()) => true,
                Err(e) => {
                    broken = Some(e);
                    false
                }
            }
        })?;
        if let Some(e) = broken {
            return Err(e.into());
        }
        out.flush()?;
        Ok(0)
    }
}
