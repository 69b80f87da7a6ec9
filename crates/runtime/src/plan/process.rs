//! The process of a container or of an exec, as data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxSchedulerPolicy};
use serde::{Deserialize, Serialize};

use crate::capabilities::Sets;
use crate::error::{Error, Result};
use crate::rlimit;

/// A range of identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First identifier in the container.
    pub inside: u32,
    /// First identifier on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdMap {
    /// Converts the specification's list.
    pub fn list(list: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
        list.iter()
            .flatten()
            .map(|item| IdMap {
                inside: item.container_id(),
                outside: item.host_id(),
                count: item.size(),
            })
            .collect()
    }

    /// The text of `/proc/PID/uid_map`.
    pub fn text(list: &[IdMap]) -> String {
        list.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
    }
}

/// A resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    pub name: String,
    /// The limit in force.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
    /// Fail when the kernel forbids to raise it (for lack of CAP_SYS_RESOURCE). Otherwise the
    /// inherited limit stays and a note is reported.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// Scheduling, as of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// What to run and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// Working directory, absolute, in the container.
    pub cwd: PathBuf,
    /// Standard input, output and error are a terminal.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// User ID in the container.
    pub uid: u32,
    /// Group ID in the container.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Capabilities; absent means none.
    pub capabilities: Option<Sets>,
    /// Forbid gaining privileges by execve.
    pub no_new_privileges: bool,
    /// Adjustment of the out-of-memory killer's choice.
    pub oom_score_adj: Option<i32>,
    /// Fail when the adjustment is forbidden; otherwise it is reported as a note.
    pub oom_score_adj_required: bool,
    /// AppArmor profile to enter.
    pub apparmor_profile: Option<String>,
    /// SELinux label of the process.
    pub selinux_label: Option<String>,
    /// Scheduling.
    pub scheduler: Option<Scheduler>,
    /// I/O priority: class and level.
    pub io_priority: Option<(u16, u16)>,
    /// CPUs the program may run on, for an exec: a list as `0-3,7`.
    pub cpu_affinity: Option<String>,
    /// How many descriptors from number 3 on the program inherits from the caller.
    pub preserve_fds: u32,
    /// Give the container a session keyring of its own.
    pub new_keyring: bool,
}

impl Process {
    /// Converts the specification's process.
    pub fn from_spec(process: &oci_spec::runtime::Process) -> Result<Process> {
        let args = process.args().clone().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::spec("process.args", "must have at least one element"));
        }
        for text in args.iter().chain(process.env().iter().flatten()) {
            if text.contains('\0') {
                return Err(Error::spec("process.args, process.env", "contains a null character"));
            }
        }
        if !process.cwd().is_absolute() {
            return Err(Error::spec(
                "process.cwd",
                format!("\"{}\" is not an absolute path", process.cwd().display()),
            ));
        }
        let user = process.user();
        let side = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        let mut rlimits: BTreeMap<String, Rlimit> = BTreeMap::new();
        for limit in process.rlimits().iter().flatten() {
            let name = limit.typ().to_string();
            rlimit::number(&name)?;
            let item = Rlimit {
                name: name.clone(),
                soft: limit.soft(),
                hard: limit.hard(),
                required: true,
            };
            if rlimits.insert(name.clone(), item).is_some() {
                return Err(Error::spec("process.rlimits", format!("{name} is given twice")));
            }
        }
        Ok(Process {
            args,
            env: process.env().clone().unwrap_or_default(),
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: process
                .console_size()
                .as_ref()
                .map(|size| (side(size.height()), side(size.width()))),
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            rlimits: rlimits.into_values().collect(),
            capabilities: process.capabilities().as_ref().map(Sets::from_spec),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            oom_score_adj_required: true,
            apparmor_profile: process.apparmor_profile().clone().filter(|name| !name.is_empty()),
            selinux_label: process.selinux_label().clone().filter(|name| !name.is_empty()),
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            cpu_affinity: process
                .exec_cpu_affinity()
                .as_ref()
                .and_then(|affinity| affinity.cpu_affinity_final().clone()),
            preserve_fds: 0,
            new_keyring: true,
        })
    }
}

fn scheduler(scheduler: &oci_spec::runtime::Scheduler) -> Result<Scheduler> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let mut flags = 0;
    for flag in scheduler.flags().iter().flatten() {
        let name = flag.to_string().to_ascii_uppercase();
        flags |= match name.trim_start_matches("SCHED_FLAG_") {
            "RESET_ON_FORK" | "SCHEDRESETONFORK" => 1,
            "RECLAIM" => 2,
            "DL_OVERRUN" => 4,
            "KEEP_POLICY" => 8,
            "KEEP_PARAMS" => 16,
            "UTIL_CLAMP_MIN" => 32,
            "UTIL_CLAMP_MAX" => 64,
            _ => {
                return Err(Error::spec(
                    "process.scheduler.flags",
                    format!("\"{name}\" is not known"),
                ));
            }
        };
    }
    Ok(Scheduler {
        policy,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(scheduler.priority().unwrap_or(0)).unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

fn io_priority(priority: &oci_spec::runtime::LinuxIOPriority) -> Result<(u16, u16)> {
    use oci_spec::runtime::IOPriorityClass as Class;
    let class = match priority.class() {
        Class::IoprioClassRt => 1,
        Class::IoprioClassBe => 2,
        Class::IoprioClassIdle => 3,
    };
    match u16::try_from(priority.priority()) {
        Ok(level) if level <= 7 => Ok((class, level)),
        _ => Err(Error::spec(
            "process.ioPriority.priority",
            format!("{} is not between 0 and 7", priority.priority()),
        )),
    }
}
