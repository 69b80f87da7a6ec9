//! Scheduling policy, CPU affinity and I/O priority of this process.

use crate::{Result, check};

/// The kernel's `sched_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// Sets this process's scheduling attributes.
pub fn set_attributes(mut attributes: Attributes) -> Result<()> {
    attributes.size = std::mem::size_of::<Attributes>() as u32;
    // SAFETY: the structure carries its own size, which the kernel checks.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// Sets this process's I/O priority: class (1 real-time, 2 best effort, 3 idle) and level.
pub fn set_io_priority(class: u16, level: u16) -> Result<()> {
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level & 0x1fff);
    // SAFETY: no pointers are passed. 1 is IOPRIO_WHO_PROCESS.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) }).map(drop)
}
