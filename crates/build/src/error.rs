//! What can go wrong with a build.

use crate::language::problem::Diagnostic;

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile is wrong, or one of its instructions cannot be followed; with its line.
    #[error("{0}")]
    Dockerfile(Box<Diagnostic>),
    /// The command of a `RUN` did not end well.
    #[error("{diagnostic}")]
    Failed {
        /// Where, and what it said last.
        diagnostic: Box<Diagnostic>,
        /// The command.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// Somebody gave the build up.
    #[error("the build was given up; what was done until then is in the cache")]
    GivenUp,
    /// A wrong option, or a context that is none.
    #[error("{0}")]
    Invalid(String),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the object.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<Box<Diagnostic>> for Error {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::Dockerfile(diagnostic)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Self {
        Self::Engine(error.into())
    }
}

/// Turns an error of the operating system into ours.
pub(crate) fn io<E: Into<std::io::Error>>(
    what: impl FnOnce() -> String,
) -> impl FnOnce(E) -> Error {
    move |source| Error::Io { what: what(), source: source.into() }
}
