//! `execve` and leaving without unwinding.

use std::convert::Infallible;
use std::ffi::CStr;

use crate::{Errno, Result, last_errno};

/// Replaces this process by the program at `path`; returns only on failure.
pub fn execve(path: &CStr, args: &[&CStr], env: &[&CStr]) -> Result<Infallible> {
    let list = |items: &[&CStr]| -> Vec<*const libc::c_char> {
        items.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (list(args), list(env));
    // SAFETY: both lists end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(last_errno())
}

/// Ends this process at once: no destructors, no buffers flushed. For children of a fork.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit may be called at any time.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Sets the execution domain (personality(2)).
pub fn personality(domain: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let old = unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) };
    if old < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends a signal by number, real-time signals included. `pid` as in kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointers are passed.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The error of a call that should not have returned.
pub const IMPOSSIBLE: Errno = Errno::NOTRECOVERABLE;
