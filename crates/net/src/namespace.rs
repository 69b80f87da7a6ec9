//! Doing something inside another network namespace.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Error, Result};

/// Runs something in a network namespace: a short thread enters it, ours stays where it is.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    let entered = move || {
        sys::namespace::setns(namespace, sys::clone::NEWNET)
            .map_err(|e| Error::kernel("enter the network namespace", e))?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn_scoped(scope, entered)
            .map_err(|e| Error::Invalid(format!("cannot start a thread: {e}")))?
            .join()
            .unwrap_or_else(|_| Err(Error::Invalid("a thread ended early".into())))
    })
}

/// Writes a setting below `/proc/sys/net` of the caller's network namespace, unless it is set
/// already: what is right is not written, so a read-only `/proc/sys` is no hindrance.
///
/// `name` is a path such as `ipv4/ip_forward`. Returns whether something was changed.
pub fn set_sysctl(name: &str, value: &str) -> Result<bool> {
    let path = Path::new("/proc/sys/net").join(name);
    let failed = |e: std::io::Error| {
        let errno = rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO);
        Error::kernel(format!("set {} to {value}", path.display()), errno)
    };
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(false);
    }
    std::fs::write(&path, value).map_err(failed)?;
    Ok(true)
}
