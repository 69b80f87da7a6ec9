//! What can go wrong, in the words Docker's clients know.

/// Whose mistake it is; decides the exit code of a command and the status of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The thing named does not exist (404).
    NotFound,
    /// The request itself is wrong (400).
    Invalid,
    /// It contradicts the present state (409).
    Conflict,
    /// Already so; nothing was done (304).
    NotModified,
    /// Not allowed (403).
    Forbidden,
    /// The program could not be found in the container (exit code 127).
    CommandNotFound,
    /// The program is there but can't be executed (exit code 126).
    CommandNotExecutable,
    /// This host can't do it (501).
    Unsupported,
    /// The host failed: disk, kernel, a process of the engine (500).
    System,
}

/// An error of the engine: its kind, and one line that names the object, the cause and
/// the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose mistake it is.
    pub kind: ErrorKind,
    /// One line for people; clients match on parts of it.
    pub message: String,
    /// What lies under it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, in one line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The host failed while doing something.
    pub fn system(
        what: impl std::fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        // The standard library appends "(os error 2)"; the words alone are what people search.
        let text = source.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        Self { kind: ErrorKind::System, message: format!("{what}: {text}"), source: Some(source) }
    }

    /// Exit code of a command that failed to start a container because of this:
    /// 125, 126 or 127 as Docker has them.
    pub fn run_exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::CommandNotFound => 127,
            ErrorKind::CommandNotExecutable => 126,
            _ => 125,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        store::Error::from(e).into()
    }
}

impl From<store::Error> for Error {
    fn from(e: store::Error) -> Self {
        use store::Error as S;
        let kind = match &e {
            S::NoSuchImage(_) | S::NoSuchVolume(_) | S::NoSuchWritable(_) | S::NoSuchNetwork(_) => {
                ErrorKind::NotFound
            }
            S::ImageConflict { .. }
            | S::VolumeConflict(_)
            | S::VolumeInUse { .. }
            | S::NetworkExists(_) => ErrorKind::Conflict,
            S::Net(e) => net_kind(e),
            S::AmbiguousImage(..)
            | S::AmbiguousNetwork(..)
            | S::Invalid(_)
            | S::Refused { .. }
            | S::TooLarge { .. }
            | S::Oci(_) => ErrorKind::Invalid,
            _ => ErrorKind::System,
        };
        Self { kind, message: e.to_string(), source: Some(Box::new(e)) }
    }
}

fn net_kind(e: &net::Error) -> ErrorKind {
    match e {
        net::Error::Invalid(_)
        | net::Error::Name(_)
        | net::Error::AddressUnavailable(..)
        | net::Error::NoSubnet
        | net::Error::NoAddress { .. } => ErrorKind::Invalid,
        _ => ErrorKind::System,
    }
}

impl From<net::Error> for Error {
    fn from(e: net::Error) -> Self {
        Self { kind: net_kind(&e), message: e.to_string(), source: Some(Box::new(e)) }
    }
}

impl From<oci::Error> for Error {
    fn from(e: oci::Error) -> Self {
        Self { kind: ErrorKind::Invalid, message: e.to_string(), source: Some(Box::new(e)) }
    }
}

impl From<registry::Error> for Error {
    fn from(e: registry::Error) -> Self {
        use registry::Error as R;
        let kind = match &e {
            R::NotFound { .. } => ErrorKind::NotFound,
            R::Unauthorized { .. } | R::Denied { .. } | R::Blocked(_) => ErrorKind::Forbidden,
            R::Oci(_) | R::Config { .. } => ErrorKind::Invalid,
            _ => ErrorKind::System,
        };
        Self { kind, message: e.to_string(), source: Some(Box::new(e)) }
    }
}

impl From<keeper::Error> for Error {
    fn from(e: keeper::Error) -> Self {
        let kind = match &e {
            keeper::Error::Failed { code: 126, .. } => ErrorKind::CommandNotExecutable,
            keeper::Error::Failed { code: 127, .. } => ErrorKind::CommandNotFound,
            keeper::Error::Failed { not_found: true, .. } => ErrorKind::Conflict,
            _ => ErrorKind::System,
        };
        Self { kind, message: e.to_string(), source: Some(Box::new(e)) }
    }
}

impl From<runtime::Error> for Error {
    fn from(e: runtime::Error) -> Self {
        let kind = match e.exit_code() {
            126 => ErrorKind::CommandNotExecutable,
            127 => ErrorKind::CommandNotFound,
            _ => ErrorKind::System,
        };
        Self { kind, message: e.to_string(), source: Some(Box::new(e)) }
    }
}

/// As [`Error::system`], of a system call.
pub(crate) fn errno(what: impl std::fmt::Display, e: rustix::io::Errno) -> Error {
    Error::system(what, std::io::Error::from(e))
}
