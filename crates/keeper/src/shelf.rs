//! Where the descriptors lie that the keeper holds for its containers: at high numbers, apart from those that come and go.
//!
//! A child is given copies of its caller's descriptors, several for each container that runs, and would close them one by
//! one. Those on the shelf it need not be given ([`runtime::Descriptors::own_from`]).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// The shelf's first number. What is below is enough for a thousand clients and the start that is made for one.
const SHELF: RawFd = 1024;
/// So many containers make it worth while: with fewer it takes longer to hear that the child has left our table than to
/// let it close its copies.
const WORTH_WHILE: usize = 100;

/// Puts a descriptor there. Where limits forbid such numbers it stays where it is.
pub(crate) fn put(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= SHELF { fd } else { copy(&fd).unwrap_or(fd) }
}

/// A copy that lies there, if possible.
pub(crate) fn copy(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = fd.as_fd();
    rustix::io::fcntl_dupfd_cloexec(fd, SHELF).or_else(|_| rustix::io::fcntl_dupfd_cloexec(fd, 3))
}

/// For [`runtime::Descriptors::own_from`].
pub(crate) fn own_from(containers: usize) -> Option<u32> {
    (containers >= WORTH_WHILE).then_some(SHELF.unsigned_abs())
}
