//! `clone3` and `fork` for a process that has one thread.
//!
//! The child is a copy of the caller with its own memory, as after `fork`. In a process with
//! several threads the copy may hold locks (of the allocator, for one) that no thread of the child
//! will ever release; so callers must have one thread, or take care that the others are idle.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, check, check_fd};

/// New mount namespace.
pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
/// New cgroup namespace.
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// New UTS namespace.
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
/// New IPC namespace.
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
/// New user namespace.
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// New PID namespace.
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
/// New network namespace.
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
/// New time namespace.
pub const NEWTIME: u64 = 0x80;
/// The child and the caller share one table of descriptors, until the child leaves it
/// ([`crate::fds::leave_shared`]); what either closes or opens before that, it does for both.
pub const FILES: u64 = libc::CLONE_FILES as u64;
/// The child's parent is the caller's parent.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

const PIDFD: u64 = libc::CLONE_PIDFD as u64;
const INTO_CGROUP: u64 = 0x2_0000_0000;
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the caller of [`clone3`] is afterwards.
#[derive(Debug)]
pub enum Side {
    /// The process that called; it knows the child by number and by descriptor.
    Parent {
        /// The child's number in the caller's PID namespace.
        pid: i32,
        /// Refers to the child, whatever happens to the number.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Makes a child process in the given new namespaces (`NEW*` flags, [`PARENT`], [`FILES`]).
///
/// With `cgroup`, a descriptor of a version 2 cgroup directory, the child begins its life there.
/// Signal handlers are reset in the child. The caller must have one thread; see the page above.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | PIDFD | CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the kernel takes the exit signal of the caller.
        exit_signal: if flags & PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `args` is a valid clone_args of the size passed; without CLONE_VM and without a
    // stack the child continues here on a copy of all our memory, as after fork(2).
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<CloneArgs>())
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor, owned by nobody yet.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
}

/// `fork`, with the same rule about threads as [`clone3`].
pub fn fork() -> Result<Side> {
    clone3(0, None)
}

/// A descriptor for the process that has this number now.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    check_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}
