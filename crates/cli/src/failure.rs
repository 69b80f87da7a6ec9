//! How a command fails: its exit code, and the one line that says why.

use std::fmt;

/// A failure of the command line itself, or one whose exit code differs from 1.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: u8,
    /// What to print; empty prints nothing.
    pub(crate) message: String,
    /// What to print after it: the usage line, where help is found.
    pub(crate) hint: String,
    /// Print the message without the program's name before it.
    pub(crate) bare: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Exit code and message.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), bare: false }
    }

    /// Leave with this code; everything was said already.
    pub(crate) fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// Print no program name before the message.
    pub(crate) fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// With a hint after the message.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// What a verb answers: its exit code.
pub(crate) type Outcome = anyhow::Result<u8>;

/// Exit code 1 when anything failed, else 0; each failure was printed when it happened.
pub(crate) fn all_or_one(failed: bool) -> Outcome {
    Ok(u8::from(failed))
}
