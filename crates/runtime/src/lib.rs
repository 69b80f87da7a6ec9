//! One container: from a specification to a running process, and exec into it.
//!
//! What it may touch: namespaces, mounts of the container, cgroups below the path it is given, and
//! the state directories the caller names. It knows no terminal, no environment variables, prints
//! nothing, runs no program other than the container's and its hooks, and never waits for a disk.
//!
//! Start reading at [`plan`]: everything a child will do is data before anything happens. Then
//! [`launch`] (the caller's side), `child` (what the new process does, in order), `report` (how
//! the two talk). [`cgroup`] holds limits and counters, [`seccomp`] the filter compiler.

pub mod capabilities;
pub mod cgroup;
mod child;
pub mod devices;
pub mod error;
pub mod hooks;
pub mod launch;
pub mod plan;
mod report;
pub mod rlimit;
pub mod seccomp;
pub mod state;
mod table;
pub mod trace;

pub use cgroup::Cgroup;
pub use error::{Error, Kind, Result};
pub use launch::{Descriptors, ExecPlan, Launching, Progress, exec, launch};
pub use plan::Plan;
