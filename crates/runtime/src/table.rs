//! The table of descriptors that a child begins with.
//!
//! Usually a copy of its caller's, which the child closes but for its own. To a caller that holds very many, copying and
//! closing them costs more with each; it says from which number on they are none of the child's
//! ([`crate::Descriptors::own_from`]). Then the child begins with the caller's table itself, leaves it for one with copies of
//! the lower numbers, and says so. Until then what either closes or opens is closed and opened for both: the caller waits,
//! and in the child nothing may be dropped.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use sys::clone::Side;

use crate::error::{Doing, Error, Result};
use crate::report::{self, Message, Reporter};

/// How a child comes to its table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Shared with the caller at first, and from this number on not copied.
    own_from: Option<u32>,
}

impl Table {
    /// Shared, unless one of those that the child needs lies too high.
    pub(crate) fn new<'a>(
        own_from: Option<u32>,
        mut needed: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> Table {
        let below = |first: &u32| needed.all(|fd| fd.as_raw_fd().unsigned_abs() < *first);
        Table { own_from: own_from.filter(below) }
    }

    fn is_shared(&self) -> bool {
        self.own_from.is_some()
    }

    /// For `clone3`.
    pub(crate) fn flags(&self) -> u64 {
        if self.is_shared() { sys::clone::FILES } else { 0 }
    }

    /// The child's first deed; `ours` is the caller's end of the socket.
    pub(crate) fn in_child(&self, ours: OwnedFd, theirs: OwnedFd) -> Reporter {
        let report = Reporter { socket: theirs };
        if let Some(first) = self.own_from {
            let left = sys::fds::leave_shared(first)
                .doing(|| "leave the caller's table of descriptors".to_owned())
                .and_then(|()| report.apart());
            if let Err(error) = left {
                report.error(&error);
                sys::exec::exit_now(error.exit_code());
            }
        }
        drop(ours);
        report
    }

    /// Waits until the child has a table of its own. The end of the stream does not tell of its death here, for its end of
    /// the socket is open in this process, too. After an error the child has ended and has been reaped.
    pub(crate) fn in_parent(&self, socket: &OwnedFd, child: BorrowedFd<'_>) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let failed = loop {
            let mut ready = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(child, PollFlags::IN),
            ];
            match rustix::event::poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => break Err(errno).doing(|| "wait for the child".to_owned()),
            }
            match report::receive(socket, false) {
                Ok(Some(Message::Apart)) => return Ok(()),
                Ok(Some(Message::Error(error))) | Err(error) => break Err(error),
                Ok(None) if ready.iter().all(|fd| !fd.revents().contains(PollFlags::IN)) => {}
                Ok(_) => break Err(Error::Died { how: "at its very beginning".to_owned() }),
            }
        };
        let _ = sys::pidfd::send_signal(child, 9);
        let _ = sys::pidfd::wait(child, true);
        failed
    }
}

/// Drops a descriptor, but not in the child, which may share the table with the caller still.
pub(crate) fn keep_in_child<E>(side: &std::result::Result<Side, E>, fd: OwnedFd) {
    if matches!(side, Ok(Side::Child)) {
        std::mem::forget(fd);
    }
}
