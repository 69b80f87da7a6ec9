//! The errors of this crate.

use std::path::PathBuf;

use oci::Digest;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry could not be reached, or the connection broke.
    #[error("{method} {url:?}: {reason}")]
    Connection {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// The cause.
        reason: String,
        /// Trying again may help.
        transient: bool,
    },
    /// The registry wants a login, or does not accept the one it got.
    #[error("{method} {url:?}: {message}")]
    Unauthorized {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// In the registry's words.
        message: String,
    },
    /// The registry knows who asks and refuses.
    #[error("{method} {url:?}: {message}")]
    Denied {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// In the registry's words.
        message: String,
    },
    /// The registry does not have it.
    #[error("{what} not found: {message}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// In the registry's words.
        message: String,
    },
    /// Any other answer that is no success.
    #[error("{method} {url:?}: {}: {message}", status_text(*.status))]
    Status {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// The HTTP status.
        status: u16,
        /// In the registry's words.
        message: String,
        /// After how many seconds to ask again, if the registry said so.
        retry_after: Option<u64>,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: the registry's answer makes no sense: {reason}")]
    Protocol {
        /// Who answered.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Content that is not what its digest says.
    #[error(
        "{what}: the registry sent content with digest {actual}, expected {expected}: nothing of it is kept; if this happens again the registry or a proxy on the way is broken"
    )]
    Digest {
        /// What was asked for.
        what: String,
        /// What it should be.
        expected: Box<Digest>,
        /// What it is.
        actual: Box<Digest>,
    },
    /// Content whose length differs from what was announced.
    #[error("{what}: the registry sent {actual} bytes, announced were {expected}")]
    Length {
        /// What was asked for.
        what: String,
        /// What was announced.
        expected: u64,
        /// What came, or more.
        actual: u64,
    },
    /// A document that is too large, or wrong.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// A configuration file cannot be understood.
    #[error("{}: {reason}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Why, with the line.
        reason: String,
    },
    /// The configuration forbids this registry.
    #[error("{0} is blocked by the registries' configuration file")]
    Blocked(String),
    /// A credential helper failed.
    #[error("credential helper docker-credential-{name}: {reason}")]
    Helper {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

fn status_text(status: u16) -> String {
    match status {
        429 => "too many requests (429)".to_owned(),
        500 => "internal server error (500)".to_owned(),
        502 => "bad gateway (502)".to_owned(),
        503 => "service unavailable (503)".to_owned(),
        504 => "gateway timeout (504)".to_owned(),
        other => format!("unexpected status {other}"),
    }
}

impl Error {
    /// Asking again, a little later, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connection { transient, .. } => *transient,
            Error::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// The registry does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }

    /// The registry wants other, or any, credentials.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Unauthorized { .. } | Error::Denied { .. })
    }

    /// Finds an error of this crate that travelled inside an I/O error.
    pub fn inside(error: &std::io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn protocol(url: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Protocol { url: url.into(), reason: reason.into() }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Error {
        Error::Io { what: what.into(), source }
    }
}
