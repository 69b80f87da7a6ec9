//! What can go wrong, in a form that survives the way from the child to the caller.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Os(pub i32);

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library appends "(os error 2)"; the words alone are what people search. In small
        // letters, as Go writes them: Docker's client tells by "is a directory" which code to exit with.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut letters = text.chars();
        match (letters.next(), letters.clone().next()) {
            // But for names, as in "RFS specific error".
            (Some(first), Some(second)) if second.is_lowercase() => {
                write!(f, "{}{}", first.to_lowercase(), letters.as_str())
            }
            _ => f.write_str(text),
        }
    }
}

impl From<sys::Errno> for Os {
    fn from(errno: sys::Errno) -> Os {
        Os(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Os {
    fn from(error: std::io::Error) -> Os {
        Os(error.raw_os_error().unwrap_or(sys::Errno::IO.raw_os_error()))
    }
}

/// An error of this crate. It can be sent to another process and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specification asks for something that makes no sense or is not supported.
    #[error("{what}: {problem}")]
    Spec {
        /// The field or object.
        what: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A system call failed.
    #[error("cannot {doing}: {errno}")]
    System {
        /// What was attempted, with the object's name.
        doing: String,
        /// The kernel's answer.
        errno: Os,
    },
    /// The program to run does not exist in the container.
    #[error("exec: \"{program}\": executable file not found in {place}")]
    NotFound {
        /// As given in `process.args[0]`.
        program: String,
        /// Where it was looked for: `$PATH` or `the container`.
        place: String,
    },
    /// The program exists but cannot be executed.
    #[error("exec: \"{program}\": {errno}")]
    NotExecutable {
        /// As given in `process.args[0]`.
        program: String,
        /// The kernel's answer.
        errno: Os,
    },
    /// A hook failed.
    #[error("{kind} hook \"{path}\": {problem}")]
    Hook {
        /// Which list of hooks, as spelled in the specification.
        kind: String,
        /// The hook's program.
        path: String,
        /// How it failed.
        problem: String,
    },
    /// The child died while it was being set up.
    #[error(
        "the container's first process died while it was being set up ({how}); \
         if a memory limit is set, it may be too small"
    )]
    Died {
        /// Its exit status or signal.
        how: String,
    },
    /// A file with saved state cannot be used.
    #[error("{path}: {problem}")]
    State {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The class of an [`Error`], for exit codes and for programs that react to errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The program was not found (a shell would exit with 127).
    NotFound,
    /// The program was found and cannot be executed (126).
    NotExecutable,
    /// The specification is wrong.
    Spec,
    /// Anything else.
    Other,
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotFound { .. } => Kind::NotFound,
            Error::NotExecutable { .. } => Kind::NotExecutable,
            Error::Spec { .. } => Kind::Spec,
            _ => Kind::Other,
        }
    }

    /// The exit code that Docker and shells use for it: 127, 126, or 125 for the engine's own.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            Kind::NotFound => 127,
            Kind::NotExecutable => 126,
            Kind::Spec | Kind::Other => 125,
        }
    }

    /// The kernel's error number, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { errno, .. } | Error::NotExecutable { errno, .. } => Some(errno.0),
            _ => None,
        }
    }

    pub(crate) fn spec(what: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Spec { what: what.into(), problem: problem.into() }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when a system call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Os>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::System { doing: what(), errno: error.into() })
    }
}
