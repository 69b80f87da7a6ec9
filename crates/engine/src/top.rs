//! `top`: the processes of a container, as ps(1) shows them.

use std::process::Command;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::record::State;
use crate::types::Top;

impl Engine {
    /// Processes of a container. `args` are those of ps(1); empty is `-ef`.
    pub fn top(&self, name: &str, args: &[String]) -> Result<Top> {
        let record = self.current(name)?;
        if record.state != State::Running && record.state != State::Paused {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("container {} is not running", record.id),
            ));
        }
        let pids = record.open_cgroup()?.pids()?;
        let default = ["-ef".to_owned()];
        let args = if args.is_empty() { &default[..] } else { args };
        match ps(&pids, args)? {
            Some(top) => Ok(top),
            None => Ok(from_proc(&pids)),
        }
    }
}

/// Asks the host's ps; `None` where it has none.
fn ps(pids: &[i32], args: &[String]) -> Result<Option<Top>> {
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let output = match Command::new("ps").args(args).arg(format!("-q{}", list.join(","))).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::system("cannot run ps", e)),
    };
    // Some of its options do not go together with a list of processes.
    let output = if output.status.success() {
        output
    } else {
        Command::new("ps").args(args).output().map_err(|e| Error::system("cannot run ps", e))?
    };
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid(format!("ps: {}", message.trim().lines().next().unwrap_or(""))));
    }
    parse(&String::from_utf8_lossy(&output.stdout), pids).map(Some)
}

fn parse(text: &str, pids: &[i32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|t| t == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = Vec::new();
        let mut rest = line.trim_start();
        while fields.len() + 1 < titles.len() {
            let Some((field, after)) = rest.split_once(char::is_whitespace) else { break };
            fields.push(field.to_owned());
            rest = after.trim_start();
        }
        fields.push(rest.trim_end().to_owned());
        let pid = fields.get(column).and_then(|p| p.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            processes.push(fields);
        }
    }
    Ok(Top { titles, processes })
}

/// Where the host has no ps: what /proc says.
fn from_proc(pids: &[i32]) -> Top {
    let titles = ["UID", "PID", "PPID", "CMD"].map(str::to_owned).to_vec();
    let processes = pids
        .iter()
        .filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find_map(|l| l.strip_prefix(name))?;
                Some(line.split_whitespace().next().unwrap_or("").to_owned())
            };
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let command = match command.trim_end() {
                "" => format!("[{}]", field("Name:")?),
                command => command.to_owned(),
            };
            Some(vec![field("Uid:")?, pid.to_string(), field("PPid:")?, command])
        })
        .collect();
    Top { titles, processes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_processes_are_dropped() {
        let text = "UID   PID CMD\nroot  1 a b c\nroot 22 d\n";
        let top = parse(text, &[1]).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "1", "a b c"]]);
        assert!(parse("A B\n", &[1]).is_err());
    }
}
