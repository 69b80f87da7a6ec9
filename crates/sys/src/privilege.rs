//! Capability and identity calls for this thread.

use std::os::fd::RawFd;

use crate::{Result, check};

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets of capset(2), one bit per capability number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// Checked by the kernel now.
    pub effective: u64,
    /// The most that can be made effective.
    pub permitted: u64,
    /// Kept across execve where the file agrees.
    pub inheritable: u64,
}

/// The calling thread's capability sets.
pub fn capget() -> Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 of the interface reads a header and writes two data structures.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |f: fn(&Data) -> u32| u64::from(f(&data[0])) | (u64::from(f(&data[1])) << 32);
    Ok(Sets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// Sets the calling thread's capability sets.
pub fn capset(sets: Sets) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 of the interface reads a header and two data structures.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

fn prctl(option: libc::c_int, a: u64, b: u64) -> Result<libc::c_long> {
    // SAFETY: the options used in this file take integers only.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, option, a as libc::c_ulong, b as libc::c_ulong, 0, 0)
    })
}

/// Removes a capability from the bounding set.
pub fn drop_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Whether a capability is in the bounding set; `INVAL` when the kernel does not know it.
pub fn in_bounding(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|value| value == 1)
}

/// Adds a capability to the ambient set.
pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into()).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Keeps the permitted set when the user ID changes from 0.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// Forbids this process and its children to gain privileges by execve.
pub fn no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Makes /proc/self belong to the process again after a change of user.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

/// Asks the kernel to send a signal to this process when its parent's thread ends; 0 undoes it.
pub fn parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Sets the supplementary groups.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length describe one slice of gid_t.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the real, effective and saved group ID.
pub fn setgid(gid: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the real, effective and saved user ID.
pub fn setuid(uid: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets a resource limit of a process (0: this one) by the kernel's number of the resource.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = [soft, hard];
    // SAFETY: prlimit64 reads two 64-bit numbers and, given null, writes nothing.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, new.as_ptr(), std::ptr::null_mut::<u64>())
    })
    .map(drop)
}

/// A resource limit of a process (0: this one) as (soft, hard).
pub fn get_rlimit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut old = [0u64; 2];
    // SAFETY: prlimit64 writes two 64-bit numbers and, given null, sets nothing.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<u64>(), old.as_mut_ptr())
    })?;
    Ok((old[0], old[1]))
}

/// Numbers of standard input, output and error.
pub const STDIO: [RawFd; 3] = [0, 1, 2];
