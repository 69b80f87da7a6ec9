//! Finding and executing the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use sys::Errno;

use crate::error::{Error, Os, Result};
use crate::plan::Process;

/// What is needed to execute, made before anything can forbid it.
pub(super) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// Looks for the program in the container, as the container's user.
    pub(super) fn find(process: &Process) -> Result<Program> {
        let name = process.args.first().cloned().unwrap_or_default();
        let path = if name.contains('/') {
            match executable(&name) {
                Ok(()) => name.clone(),
                Err(errno) => return Err(failure(&name, errno, "the container")),
            }
        } else {
            search(&name, process)?
        };
        let text = |text: &str| {
            CString::new(text)
                .map_err(|_| Error::spec("process.args, process.env", "contains a null character"))
        };
        let mut env = Vec::with_capacity(process.env.len());
        for item in &process.env {
            env.push(text(item)?);
        }
        Ok(Program {
            path: text(&path)?,
            args: process.args.iter().map(|arg| text(arg)).collect::<Result<_>>()?,
            env,
            name,
        })
    }

    /// Becomes the program.
    pub(super) fn execute(&self) -> Result<Infallible> {
        fn list(items: &[CString]) -> Vec<&CStr> {
            items.iter().map(CString::as_c_str).collect()
        }
        match sys::exec::execve(&self.path, &list(&self.args), &list(&self.env)) {
            Ok(never) => Ok(never),
            Err(errno) => Err(failure(&self.name, errno, "the container")),
        }
    }
}

fn search(name: &str, process: &Process) -> Result<String> {
    // The last one wins, as in a shell's environment list given twice.
    let path = process.env.iter().rev().find_map(|item| item.strip_prefix("PATH="));
    let path = path.unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => denied = Some(errno),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(errno) if !name.is_empty() => {
            Error::NotExecutable { program: name.to_owned(), errno: Os::from(errno) }
        }
        _ => Error::NotFound { program: name.to_owned(), place: "$PATH".to_owned() },
    })
}

/// Whether the effective user may execute the file.
fn executable(path: &str) -> std::result::Result<(), Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn failure(name: &str, errno: Errno, place: &str) -> Error {
    match errno {
        // NOENT from execve also means a missing interpreter; the words are the same for both.
        Errno::NOENT | Errno::NOTDIR => {
            Error::NotFound { program: name.to_owned(), place: place.to_owned() }
        }
        errno => Error::NotExecutable { program: name.to_owned(), errno: Os::from(errno) },
    }
}
