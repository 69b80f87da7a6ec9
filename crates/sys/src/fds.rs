//! Descriptors in bulk and by number.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Result, check};

const CLOSE_RANGE_UNSHARE: libc::c_uint = 2;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Marks every descriptor from `first` on to be closed by the next `execve`.
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: only sets flags of descriptors; no owner loses its descriptor before exec.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    })
    .map(drop)
}

/// Closes every descriptor from `first` on but those in `keep`, whoever owns them.
///
/// For a forked child that is about to execute: the owners of what is closed must never be dropped
/// in this process, since their numbers may come to mean something else.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    keep.sort_unstable();
    let mut from = first;
    for number in keep.into_iter().filter(|number| *number >= first) {
        if number > from {
            close_range(from, number - 1)?;
        }
        from = number.saturating_add(1);
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: by the contracts of the callers above nothing uses the closed descriptors any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes every descriptor from `first` on that whoever executed this program had left open, by intention or not:
/// locks, pipes, sockets that would be held for as long as this process lives.
///
/// For the beginning of `main`, before anything in this process owns a descriptor.
pub fn close_inherited(first: u32) -> Result<()> {
    close_range(first, libc::c_uint::MAX)
}

/// Gives a child that was made with [`crate::clone::FILES`] a table of its own, with copies of the descriptors below
/// `first` only: how many others there are costs nothing. Nothing is closed for whom it was shared with.
///
/// For a forked child that is about to execute, as with [`close_all_but`].
pub fn leave_shared(first: u32) -> Result<()> {
    // SAFETY: as in `close_range`; what is not copied is nobody's in this process.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_UNSHARE)
    })
    .map(drop)
}

/// Makes `target` (0, 1, 2 or another number known to be free or replaceable) a copy of `fd` that
/// survives `execve`.
pub fn install(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: fcntl with F_SETFD takes an integer.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: dup2 takes integers; the caller vouches that nothing owns `target`.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Takes ownership of a descriptor that another program handed to this one by number (socket
/// activation, `--preserve-fds`, a script's redirection), and keeps it from what this one executes. Fails
/// when nothing is open there.
///
/// The caller must not have taken the same number before.
pub fn adopt(raw: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes an integer.
    check(unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open, and by contract nobody in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
