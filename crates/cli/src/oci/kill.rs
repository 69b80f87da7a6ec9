//! `kill`

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use runtime::plan::Namespace;
use runtime::state::Status;

use super::Global;
use super::store::Container;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Send the signal to all processes of the container
    #[arg(short, long)]
    all: bool,
    /// The container's ID
    id: String,
    /// Name or number; SIGTERM if not given
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let signal = number(&args.signal)?;
    let container = Container::load(global, &args.id)?;
    let cgroup = container.cgroup();
    if args.all {
        if container.status() == Status::Stopped && cgroup.as_ref().map_or(true, |c| !c.exists()) {
            return Ok(0);
        }
        cgroup?.kill_all(signal)?;
        return Ok(0);
    }
    let process = container.process()?;
    sys::pidfd::send_signal(process.as_fd(), signal)
        .with_context(|| format!("send signal {signal} to container \"{}\"", args.id))?;
    if signal == 9 {
        // Without a PID namespace of its own the others would live on.
        if !container.record.plan.namespaces.contains_key(&Namespace::Pid) {
            cgroup?.kill_all(signal)?;
        } else if let Ok(cgroup) = cgroup
            && cgroup.frozen()
        {
            let _ = cgroup.thaw();
        }
    }
    Ok(0)
}

/// Names by number, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal given by name (with or without SIG) or number.
fn number(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("{number} is not the number of a signal");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(i32::try_from(index)? + 1);
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            return Some(0);
        }
        rest.strip_prefix(sign)?.parse().ok().filter(|n| (0..=30).contains(n))
    };
    let found = match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => offset(rest, '+').map(|n| 34 + n),
            (_, Some(rest)) => offset(rest, '-').map(|n| 64 - n),
            _ => None,
        },
    };
    match found {
        Some(number) => Ok(number),
        None => bail!("unknown signal \"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
            ("64", 64),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "RTMIN3", "RTMIN+99", "NOPE"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
