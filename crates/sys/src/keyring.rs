//! The session keyring.

use std::ffi::CStr;

use crate::{Result, check};

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives this process a session keyring of its own, called `name`, so that it cannot see its
/// parent's keys.
pub fn join_session(name: &CStr) -> Result<()> {
    // SAFETY: `name` ends with a null byte and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
        .map(drop)
}
