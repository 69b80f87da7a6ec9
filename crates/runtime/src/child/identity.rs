//! The last phase: who the program is and what it may do, then the program itself.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::program::Program;
use super::terminal::Stdio;
use crate::capabilities;
use crate::error::{Doing, Error, Result};
use crate::plan::Process;
use crate::report::Reporter;
use crate::seccomp::Filter;
use crate::trace::Recorder;

/// Files of the host's /proc through which labels are set at the next execve.
pub(super) struct Labels {
    apparmor: Option<OwnedFd>,
    selinux: Option<OwnedFd>,
}

impl Labels {
    /// Opened before the root changes. A label that was asked for and cannot be had is an error;
    /// to run without it would pretend a protection that is not there.
    pub(super) fn open(process: &Process) -> Result<Labels> {
        let file = |wanted: &Option<String>, what: &str, module: &str, path: &str| {
            let Some(label) = wanted else { return Ok(None) };
            if label == "unconfined" {
                return Ok(None);
            }
            if !Path::new(module).exists() {
                return Err(Error::spec(
                    what,
                    format!("\"{label}\" was asked for, but this kernel has no such module"),
                ));
            }
            rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map(Some)
                .doing(|| format!("open {path}"))
        };
        Ok(Labels {
            apparmor: file(
                &process.apparmor_profile,
                "process.apparmorProfile",
                "/sys/module/apparmor/parameters/enabled",
                "/proc/self/attr/apparmor/exec",
            )?,
            selinux: file(
                &process.selinux_label,
                "process.selinuxLabel",
                "/sys/fs/selinux",
                "/proc/self/attr/exec",
            )?,
        })
    }

    fn apply(&self, process: &Process) -> Result<()> {
        if let (Some(fd), Some(profile)) = (&self.apparmor, &process.apparmor_profile) {
            rustix::io::write(fd, format!("exec {profile}").as_bytes())
                .doing(|| format!("enter the AppArmor profile \"{profile}\" (is it loaded?)"))?;
        }
        if let (Some(fd), Some(label)) = (&self.selinux, &process.selinux_label) {
            rustix::io::write(fd, label.as_bytes())
                .doing(|| format!("take the SELinux label \"{label}\""))?;
        }
        Ok(())
    }
}

/// Sets oom_score_adj through the host's /proc.
pub(super) fn adjust_oom_score(process: &Process, report: &Reporter) -> Result<()> {
    let Some(value) = process.oom_score_adj else { return Ok(()) };
    match super::write_file("/proc/self/oom_score_adj", &value.to_string()) {
        Err(error) if !process.oom_score_adj_required => {
            report.note(&error.to_string());
            Ok(())
        }
        result => result,
    }
}

/// What the last phase needs.
pub(super) struct Last<'a> {
    pub(super) process: &'a Process,
    pub(super) personality: Option<u32>,
    pub(super) seccomp: Option<&'a Filter>,
    pub(super) gate: Option<&'a OwnedFd>,
    pub(super) open_files: Option<(u64, u64)>,
    pub(super) report: &'a Reporter,
    pub(super) trace: &'a Recorder,
}

impl Last<'_> {
    /// Sets everything that belongs to the program's identity, calls `before` (the gate, the last
    /// hooks) and executes.
    ///
    /// Closes all descriptors but the program's, the gate and the report socket; who else owns one
    /// must not drop it after this.
    pub(super) fn finish(
        &self,
        labels: Labels,
        stdio: Stdio,
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Infallible> {
        let process = self.process;
        let phase = self.trace.phase("drop privileges and load the filter");
        stdio.install(process)?;
        if let Some((soft, hard)) = self.open_files {
            let resource = crate::rlimit::number("NOFILE")?;
            sys::privilege::set_rlimit(0, resource, soft, hard)
                .doing(|| "set the limit of open files back".to_owned())?;
        }
        for limit in &process.rlimits {
            if let Some(note) = crate::rlimit::apply(limit)? {
                self.report.note(&note);
            }
        }
        if let Some(domain) = self.personality {
            sys::exec::personality(domain).doing(|| "set the execution domain".to_owned())?;
        }
        schedule(process)?;
        labels.apply(process)?;
        drop(labels);
        // From here on names are the container's: nothing of the host may be reachable by them.
        let mut keep = vec![self.report.socket.as_fd()];
        keep.extend(self.gate.map(AsFd::as_fd));
        let first = 3u32.saturating_add(process.preserve_fds);
        sys::fds::close_all_but(first, &keep)
            .doing(|| "close the host's descriptors".to_owned())?;
        if process.no_new_privileges {
            sys::privilege::no_new_privileges().doing(|| "set no_new_privs".to_owned())?;
        } else if let Some(filter) = self.seccomp {
            // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
            filter.install()?;
        }
        let sets = process.capabilities.unwrap_or_default();
        capabilities::limit_bounding(sets.bounding)?;
        sys::privilege::keep_capabilities(true).doing(|| "keep capabilities".to_owned())?;
        // As root where root may, so that a user can start in a directory that only an image's
        // author could enter; as the user where only that one may (network filesystems).
        let entered = enter_directory(process, false)?;
        become_user(process)?;
        if !entered {
            enter_directory(process, true)?;
        }
        capabilities::apply(&sets)?;
        sys::privilege::keep_capabilities(false)
            .doing(|| "stop keeping capabilities".to_owned())?;
        // Said before the gate: who creates a container wants to know now.
        let program = Program::find(process)?;
        before()?;
        if let Some(filter) = self.seccomp
            && process.no_new_privileges
        {
            filter.install()?;
        }
        sys::fds::cloexec_from(first).doing(|| "mark descriptors to be closed".to_owned())?;
        drop(phase);
        if self.trace.is_on() {
            self.report.phases(&self.trace.take());
        }
        self.report.executing();
        program.execute()
    }
}

fn become_user(process: &Process) -> Result<()> {
    match sys::privilege::setgroups(&process.additional_gids) {
        Ok(()) => {}
        // A user namespace made without the right to change groups has none to give.
        Err(sys::Errno::PERM) if process.additional_gids.is_empty() => {}
        Err(errno) => {
            return Err(errno).doing(|| format!("set the groups {:?}", process.additional_gids));
        }
    }
    let hint = |errno: sys::Errno| {
        if errno == sys::Errno::INVAL { " (not mapped in the user namespace)" } else { "" }
    };
    let (uid, gid) = (process.uid, process.gid);
    sys::privilege::setgid(gid)
        .map_err(|errno| (errno, hint(errno)))
        .or_else(|(errno, hint)| Err(errno).doing(|| format!("become group {gid}{hint}")))?;
    sys::privilege::setuid(uid)
        .map_err(|errno| (errno, hint(errno)))
        .or_else(|(errno, hint)| Err(errno).doing(|| format!("become user {uid}{hint}")))
}

/// Enters the working directory; false when that is forbidden, for another attempt.
///
/// Never through a link as those in /proc/PID/fd, which could lead out of the container.
fn enter_directory(process: &Process, last: bool) -> Result<bool> {
    let doing = || format!("enter the working directory {}", process.cwd.display());
    let root = super::Root::open(rustix::fs::CWD, "/")?;
    let entered = root
        .at(&process.cwd, OFlags::PATH | OFlags::DIRECTORY)
        .and_then(|directory| rustix::process::fchdir(&directory));
    match entered {
        Ok(()) => Ok(true),
        Err(sys::Errno::ACCESS | sys::Errno::PERM) if !last => Ok(false),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn schedule(process: &Process) -> Result<()> {
    if let Some(s) = process.scheduler {
        let mut attributes = sys::sched::Attributes::default();
        attributes.policy = s.policy;
        attributes.flags = s.flags;
        attributes.nice = s.nice;
        attributes.priority = s.priority;
        attributes.runtime = s.runtime;
        attributes.deadline = s.deadline;
        attributes.period = s.period;
        sys::sched::set_attributes(attributes)
            .doing(|| "set the scheduling policy (real-time policies need CAP_SYS_NICE and cpu.rt_runtime_us of the cgroup)".to_owned())?;
    }
    if let Some((class, level)) = process.io_priority {
        sys::sched::set_io_priority(class, level).doing(|| "set the I/O priority".to_owned())?;
    }
    if let Some(list) = &process.cpu_affinity {
        let mut set = rustix::thread::CpuSet::new();
        for cpu in crate::cgroup::parse_cpu_list(list)
            .ok_or_else(|| Error::spec("execCPUAffinity", format!("\"{list}\" is not a list")))?
        {
            if cpu < rustix::thread::CpuSet::MAX_CPU {
                set.set(cpu);
            }
        }
        rustix::thread::sched_setaffinity(None, &set)
            .doing(|| format!("run on the CPUs {list}"))?;
    }
    Ok(())
}
