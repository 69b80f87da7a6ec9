//! The errors of this crate.

use std::path::PathBuf;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with the data root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No image has this name or ID.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// More than one image has an ID with this prefix.
    #[error("image ID prefix {0:?} is ambiguous: {1} images have it; give more digits")]
    AmbiguousImage(String, usize),
    /// The image cannot be removed because of what refers to it.
    #[error("conflict: unable to {action} {image} ({rule}) - {reason}")]
    ImageConflict {
        /// `delete` or `remove repository reference`.
        action: &'static str,
        /// The image, as it was named.
        image: String,
        /// `must be forced` or `cannot be forced`.
        rule: &'static str,
        /// What refers to it.
        reason: String,
    },
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// A volume exists already, with other options.
    #[error(
        "a volume named {0} already exists with other options: remove it first or use another name"
    )]
    VolumeConflict(String),
    /// The volume is used by containers.
    #[error("remove {name}: volume is in use - [{users}]")]
    VolumeInUse {
        /// Its name.
        name: String,
        /// The IDs of the containers.
        users: String,
    },
    /// No network has this name or ID.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// More than one network has an ID with this beginning.
    #[error("network {0} is ambiguous ({1} matches found on ID prefix); give more digits")]
    AmbiguousNetwork(String, usize),
    /// A network has this name already.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// Addresses, subnets and ports.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A wrong argument.
    #[error("{0}")]
    Invalid(String),
    /// No writable layer has this ID.
    #[error("no writable layer {0}")]
    NoSuchWritable(String),
    /// A part of the store is missing or does not match its name.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An archive entry that is not accepted.
    #[error("{path:?} in the archive is refused: {reason}")]
    Refused {
        /// The entry's name.
        path: String,
        /// Why.
        reason: String,
    },
    /// Content larger than allowed.
    #[error(
        "{what} is larger than {limit} bytes, which is the limit: raise the limit if this is wanted"
    )]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk is full.
    #[error(
        "no space left on the disk ({what}): free some space (`system prune`, `system df`) and try again; nothing was kept"
    )]
    NoSpace {
        /// What was being written.
        what: String,
    },
    /// The store was opened for reading only.
    #[error("the data root {0:?} is open for reading only")]
    ReadOnly(PathBuf),
    /// The data root was written by another version of this program.
    #[error(
        "the data root {path:?} has layout version {found:?}, this program knows {known}: use the program that made it, or another data root"
    )]
    Layout {
        /// The data root.
        path: PathBuf,
        /// What its version file says.
        found: String,
        /// What we know.
        known: u32,
    },
    /// A name, document or archive is wrong.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// Layers that cannot become an image filesystem.
    #[error(transparent)]
    ImageFs(erofs::Error),
    /// The state database failed.
    #[error("state database: {0}")]
    Database(rusqlite::Error),
    /// A mount could not be made.
    #[error("cannot mount {what}: {source}{log}")]
    Mount {
        /// What kind of mount.
        what: String,
        /// The kernel's error number.
        source: std::io::Error,
        /// What the kernel said beyond the number, or where to look; with what joins it to the rest.
        log: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the object.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => {
                Self::NoSpace { what: "writing the state database".to_owned() }
            }
            _ => Self::Database(error),
        }
    }
}

impl From<erofs::Error> for Error {
    fn from(error: erofs::Error) -> Error {
        match error {
            erofs::Error::Refused { path, reason } => Error::Refused { path, reason },
            other => Error::ImageFs(other),
        }
    }
}

impl Error {
    /// The object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Error::NoSuchImage(_)
                | Error::NoSuchVolume(_)
                | Error::NoSuchWritable(_)
                | Error::NoSuchNetwork(_)
        )
    }
}

/// Turns an error of the operating system into ours; `what` says what was being done.
pub(crate) fn io<E: Into<std::io::Error>>(
    what: impl FnOnce() -> String,
) -> impl FnOnce(E) -> Error {
    move |source| {
        let source = source.into();
        let what = what();
        match source.raw_os_error() {
            // ENOSPC, EDQUOT
            Some(28 | 122) => Error::NoSpace { what },
            _ => Error::Io { what, source },
        }
    }
}
