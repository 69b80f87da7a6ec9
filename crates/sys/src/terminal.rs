//! Making a terminal the controlling one.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// Makes `terminal` the controlling terminal of this session, of which the caller is the leader.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}
