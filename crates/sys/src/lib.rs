//! System calls that `rustix` lacks, and nothing else.
//!
//! This is the only crate of the workspace that may use `unsafe`; every function here is safe to
//! call, and each `unsafe` block says why. One file per subject. No function here decides
//! anything: policy lives in the crates above, errors are the kernel's ([`Errno`]).
//!
//! Start reading at [`clone`] (how a container's first process comes to be) and [`socket`] (how
//! descriptors travel between processes).

pub mod bpf;
pub mod clone;
pub mod exec;
pub mod fds;
pub mod keyring;
pub mod lock;
pub mod loop_device;
pub mod loopback;
pub mod mount;
pub mod namespace;
pub mod pidfd;
pub mod privilege;
pub mod reflink;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod writeback;

pub use rustix::io::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// The error of the C library's last failed call in this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Turns the C library's `-1` into an [`Errno`].
fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 { Err(last_errno()) } else { Ok(value) }
}

/// Makes an owned descriptor of a system call's result.
fn check_fd(value: libc::c_long) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let value = check(value)?;
    let raw = i32::try_from(value).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(raw) })
}
