//! The errors of this crate.

use crate::Digest;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a name, a document or an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference that the grammar of the distribution specification does not allow.
    #[error("invalid reference format")]
    InvalidReference,
    /// A reference whose repository has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    ReferenceNotLowercase(String),
    /// 64 hexadecimal digits, which would be taken for an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    ReferenceIsId(String),
    /// A repository longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    ReferenceTooLong,
    /// Text that is not `algorithm:hex`, or an unknown algorithm.
    #[error("invalid digest {0:?}: {1}")]
    InvalidDigest(String, &'static str),
    /// Content that does not match its name.
    #[error("{what}: content has digest {actual}, expected {expected}: the archive is damaged")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest it was announced with.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// Content whose length differs from its descriptor.
    #[error("{what}: content has {actual} bytes, expected {expected}: the archive is damaged")]
    SizeMismatch {
        /// What was read.
        what: String,
        /// The size it was announced with.
        expected: u64,
        /// The size it has.
        actual: u64,
    },
    /// A JSON document that cannot be understood.
    #[error("{what} is not valid: {source}")]
    Json {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document whose JSON is fine but whose content is not.
    #[error("{what} is not valid: {reason}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A bound of [`crate::limits`] was passed.
    #[error("{what} is refused: {reason}")]
    Limit {
        /// Which object.
        what: String,
        /// Which bound.
        reason: String,
    },
    /// A tar archive that breaks its format.
    #[error("damaged tar archive at byte {offset}: {reason}")]
    Tar {
        /// Offset of the header in the archive.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// An archive that is neither of the two known forms, or lacks a part.
    #[error("not an image archive that can be loaded: {0}")]
    Archive(String),
    /// A Dockerfile instruction given to `--change` that cannot be understood.
    #[error("invalid change {0:?}: {1}")]
    Instruction(String, String),
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being read or written.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn document(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Document { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn limit(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Limit { what: what.into(), reason: reason.into() }
    }
}
