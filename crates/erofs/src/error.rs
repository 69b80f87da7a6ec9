//! The errors of this crate.

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why layers cannot become an image filesystem.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An entry that is not accepted.
    #[error("{path:?} in the archive is refused: {reason}")]
    Refused {
        /// The entry's name.
        path: String,
        /// Why.
        reason: String,
    },
    /// More than an image filesystem holds.
    #[error("the image has {0}, more than an image filesystem can hold")]
    TooLarge(&'static str),
}
