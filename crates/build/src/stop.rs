//! Whether a build is to end: asked between the pieces of what takes long.

use std::io::{Error as IoError, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Shared by the threads of a build; once set it stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on [`Stop::check`] fails.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::GivenUp`] if the build is to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::GivenUp) } else { Ok(()) }
    }

    /// An error that was caused by [`Stopping`] is that the build was given up.
    pub(crate) fn or(&self, error: Error) -> Error {
        if self.is_set() { Error::GivenUp } else { error }
    }

    /// A stream that fails when the build is to end.
    pub(crate) fn within<T>(&self, inner: T) -> Stopping<T> {
        Stopping { inner, stop: self.clone() }
    }
}

/// A stream that fails when the build is to end.
pub(crate) struct Stopping<T> {
    inner: T,
    stop: Stop,
}

impl<T> Stopping<T> {
    fn check(&self) -> std::io::Result<()> {
        if self.stop.is_set() { Err(IoError::other("the build was given up")) } else { Ok(()) }
    }
}

impl<T: Read> Read for Stopping<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Stopping<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
