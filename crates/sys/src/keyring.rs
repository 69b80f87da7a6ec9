//! The session keyring.

use std::ffi::CStr;

use crate::{Result, check};

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

const KEYCTL_SETPERM: libc::c_int = 5;
/// What a session keyring allows (all to those who have it; view, read, link to its user), and that its user finds it.
const FOUND_BY_USER: libc::c_uint = 0x3f1b_0000;

/// Gives this process the session keyring called `name` in place of its parent's, whose keys it cannot see then: one that
/// may be found, or else a new one. The keyring's number.
pub fn join_session(name: &CStr) -> Result<i64> {
    // SAFETY: `name` ends with a null byte and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// Lets other processes of the same user join a session keyring by its name.
pub fn let_join(keyring: i64) -> Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, keyring, FOUND_BY_USER) })
        .map(drop)
}
