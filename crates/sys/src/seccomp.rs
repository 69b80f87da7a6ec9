//! Installing a seccomp filter.

use std::os::fd::OwnedFd;

use crate::{Errno, Result, check, check_fd};

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

const SET_MODE_FILTER: libc::c_uint = 1;
/// Apply to all threads.
pub const TSYNC: u32 = 1;
/// Log actions other than allow.
pub const LOG: u32 = 2;
/// Do not turn on the mitigation of speculative store bypass.
pub const SPEC_ALLOW: u32 = 4;
const NEW_LISTENER: u32 = 8;
/// With a listener: only fatal signals interrupt a waiting caller.
pub const WAIT_KILLABLE_RECV: u32 = 32;

/// Installs a filter for this thread and all it will start. Needs no_new_privs or CAP_SYS_ADMIN.
pub fn install(program: &[Instruction], flags: u32) -> Result<()> {
    set(program, flags).map(drop)
}

/// As [`install`], and returns the descriptor that receives the calls the filter notifies about.
pub fn install_with_listener(program: &[Instruction], flags: u32) -> Result<OwnedFd> {
    check_fd(set(program, flags | NEW_LISTENER)?)
}

fn set(program: &[Instruction], flags: u32) -> Result<libc::c_long> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` describes `len` instructions that outlive the call; the kernel checks them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) })
}
