//! Containers run by another OCI runtime (`--runtime PATH`): runc, crun, or anything that
//! has their command line.
//!
//! Their processes are not the keeper's children: the runtime makes them, and we hear of
//! their end through a pidfd held by a helper of ours (`__monitor`), one per such
//! container, which also is the reader of their output.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::engine::{Engine, helper_args};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, Record, State};

impl Engine {
    /// The other runtime's program, if this container is to be run by one.
    pub(crate) fn foreign_runtime(&self, record: &Record) -> Result<Option<PathBuf>> {
        let name = record.definition.host.runtime.as_str();
        // Docker's clients name Docker's default when they mean the engine's own.
        if matches!(name, "" | "wherry" | "runc" | "io.containerd.runc.v2") && !name.contains('/') {
            return Ok(None);
        }
        let path = match self.settings().runtimes.get(name) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(name),
        };
        if path.is_absolute() && path.is_file() {
            return Ok(Some(path));
        }
        Err(Error::invalid(format!(
            "unknown or invalid runtime name: {name}: give an absolute path, or name it in the \
             configuration's table of runtimes"
        )))
    }

    /// Starts a container with another runtime.
    pub(crate) fn start_foreign(&self, record: &mut Record) -> Result<()> {
        let _ = record;
        Err(Error::new(ErrorKind::Unsupported, "other OCI runtimes are not wired up in this build"))
    }

    /// Looks whether another runtime's container still lives.
    pub(crate) fn check_foreign(&self, record: &Record) -> Result<()> {
        self.lost(record)
    }

    /// Removes what the other runtime keeps of a container.
    pub(crate) fn remove_foreign(&self, record: &Record, problems: &mut Vec<String>) {
        let Some(program) = record.run.foreign_runtime.as_deref() else { return };
        let done = Command::new(program)
            .args(["delete", "--force", &record.id])
            .stdin(Stdio::null())
            .output();
        if let Err(e) = done {
            problems.push(format!("{program} delete: {e}"));
        }
    }
}
