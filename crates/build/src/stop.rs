//! Whether a build is to end: asked between the pieces of what takes long.

use std::io::{Error as IoError, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, Result, io};

/// Whether a build is to end; shared by all who take part in it. Once set it stays.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: AtomicBool,
    /// Who is at something that hears of nothing until it is done.
    deaf: AtomicUsize,
    /// Readable when it is set.
    heard: Option<OwnedFd>,
    end: Mutex<Option<OwnedFd>>,
}

impl Stop {
    /// One with a descriptor that can be waited for, see [`Stop::fd`].
    ///
    /// # Errors
    /// That of making a pipe.
    pub fn with_descriptor() -> Result<Self> {
        let (heard, end) =
            pipe_with(PipeFlags::CLOEXEC).map_err(io(|| "making a pipe".to_owned()))?;
        let (heard, end) = (Some(heard), Mutex::new(Some(end)));
        Ok(Self(Arc::new(Inner { heard, end, ..Inner::default() })))
    }

    /// The build is to end: what listens ends with [`Error::GivenUp`].
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        let end = self.0.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            // It is readable also if a process that was made meanwhile has the other end, too.
            let _ = rustix::io::write(&end, b"x");
        }
    }

    /// Whether the build is to end.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Something goes on that does not listen: it is of no use to wait for it after [`Stop::set`].
    pub fn is_deaf(&self) -> bool {
        self.0.deaf.load(Ordering::SeqCst) > 0
    }

    /// While what this returns is held nobody listens.
    #[must_use]
    pub fn deaf(&self) -> Deaf {
        self.0.deaf.fetch_add(1, Ordering::SeqCst);
        Deaf(self.clone())
    }

    /// Readable when it is set; None unless made by [`Stop::with_descriptor`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.heard.as_ref().map(AsFd::as_fd)
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
    pub fn within<T>(&self, inner: T) -> Stopping<T> {
        Stopping { inner, stop: self.clone() }
    }
}

/// See [`Stop::deaf`].
#[derive(Debug)]
pub struct Deaf(Stop);

impl Drop for Deaf {
    fn drop(&mut self) {
        self.0.0.deaf.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that fails when the build is to end.
#[derive(Debug)]
pub struct Stopping<T> {
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
