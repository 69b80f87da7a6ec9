//! The OCI state of a container, and telling a process from a later one with the same number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Os, Result};

/// The status of a container (runtime specification, "State").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being created.
    #[default]
    Creating,
    /// Created, the program not yet started.
    Created,
    /// The program runs.
    Running,
    /// Frozen; an addition that runc and its callers know.
    Paused,
    /// The program has ended.
    Stopped,
}

impl Status {
    /// As spelled in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state that `state` prints and hooks receive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Its first process, as the host numbers it; absent when stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle directory.
    pub bundle: PathBuf,
    /// From the specification.
    pub annotations: BTreeMap<String, String>,
}

/// A process number together with the process's start time: numbers are reused, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Number in the caller's PID namespace.
    pub pid: i32,
    /// Clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
}

impl ProcessIdentity {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Result<ProcessIdentity> {
        let stat = Stat::read(pid)?;
        Ok(ProcessIdentity { pid, start_time: stat.start_time })
    }

    /// Whether it still runs. A zombie does not.
    pub fn alive(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| {
            stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X' | 'x')
        })
    }

    /// A descriptor for the process; an error with `SRCH` when it has gone.
    pub fn open(&self) -> Result<std::os::fd::OwnedFd> {
        let doing = || format!("open process {}", self.pid);
        let fd = sys::clone::pidfd_open(self.pid).doing(doing)?;
        // The number may have been reused before we opened it.
        if Stat::read(self.pid).is_ok_and(|stat| stat.start_time == self.start_time) {
            Ok(fd)
        } else {
            Err(Error::System { doing: doing(), errno: Os::from(sys::Errno::SRCH) })
        }
    }
}

/// The part of /proc/PID/stat that is needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` and so on.
    pub state: char,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Reads it.
    pub fn read(pid: i32) -> Result<Stat> {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read(&path).doing(|| format!("read {path}"))?;
        Stat::parse(&text).ok_or_else(|| Error::State { path, problem: "unreadable".to_owned() })
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The second field is the program's name in parentheses and may contain anything.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Stat { state, start_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_program_name() {
        let line = b"42 (a) Z 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', start_time: 777 }));
        assert_eq!(Stat::parse(b"42"), None);
        assert_eq!(Stat::parse(b"42 (x) S 1"), None);
    }

    #[test]
    fn self_is_alive_and_a_changed_time_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut me = ProcessIdentity::of(pid).unwrap();
        assert!(me.alive());
        me.open().unwrap();
        me.start_time += 1;
        assert!(!me.alive());
        assert_eq!(me.open().unwrap_err().errno(), Some(3));
    }
}
