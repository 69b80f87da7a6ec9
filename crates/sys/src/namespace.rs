//! Joining and leaving namespaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// Joins a namespace by its descriptor (`kinds` is 0 or the one expected kind), or several
/// namespaces of the process a pidfd refers to (`kinds` says which; `clone::NEW*` values).
///
/// Joining a PID namespace changes where the caller's next child is born, not the caller.
pub fn setns(fd: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds as libc::c_int) }).map(drop)
}

/// Moves this process to new namespaces of the given kinds (`clone::NEW*` values).
pub fn unshare(kinds: u64) -> Result<()> {
    // SAFETY: only namespace flags are meant; no memory is unshared that was shared.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds as libc::c_ulong) }).map(drop)
}
