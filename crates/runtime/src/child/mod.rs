//! What the new process does, in order, until it is the container's program.
//!
//! One function per phase; [`run`] and [`run_exec`] list them. Any error is reported to the parent
//! and ends the process. No memory is shared with the parent, so nothing here can harm it.
//!
//! The other direction needs care: until it executes, this process is the caller's image with the
//! caller's descriptors, and the container may try to use it as a bridge to the host. So it is not
//! dumpable, which closes `/proc/PID` to the container; the host's descriptors are closed before
//! the container's user, directory or program is looked at; and no path that the container names
//! is walked through `/proc/self/fd` and the like.

mod cgroup_mount;
mod devices;
mod identity;
mod mounts;
mod program;
mod root;
mod terminal;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use crate::cgroup::{Cgroup, Entrances};
use crate::error::{Doing, Error, Result};
use crate::launch::{Descriptors, ExecPlan, hook_state};
use crate::plan::{Namespace, Plan, Process};
use crate::report::Reporter;
use crate::state::Status;
use crate::trace::Recorder;

use root::Root;

/// What the parent prepared.
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// Opened by the parent when the child will lack the right.
    pub(crate) attach: Option<Entrances>,
    /// Namespaces made by clone3.
    pub(crate) flags: u64,
    /// Namespaces to unshare at the right moment.
    pub(crate) late: u64,
    pub(crate) joined: BTreeMap<Namespace, OwnedFd>,
    pub(crate) id_maps: BTreeMap<usize, OwnedFd>,
    pub(crate) d: Descriptors,
    pub(crate) wait_for_maps: bool,
    pub(crate) foreign_user: bool,
}

/// The life of a container's first process before its program.
pub(crate) fn run(job: Job<'_>, report: Reporter) -> ! {
    sys::signal::reset();
    let Err(error) = container(job, &report);
    leave(&error, &report)
}

/// The life of an exec's process before its program.
pub(crate) fn run_exec(
    plan: &ExecPlan,
    target: BorrowedFd<'_>,
    cgroup: Option<&Cgroup>,
    attach: Option<Entrances>,
    d: Descriptors,
    report: Reporter,
) -> ! {
    sys::signal::reset();
    let Err(error) = exec(plan, target, cgroup, attach, d, &report);
    leave(&error, &report)
}

fn leave(error: &Error, report: &Reporter) -> ! {
    report.error(error);
    sys::exec::exit_now(error.exit_code())
}

fn container(job: Job<'_>, report: &Reporter) -> Result<Infallible> {
    // Its descriptors are closed in bulk at the end; see `close_all_but`.
    let mut job = ManuallyDrop::new(job);
    let plan = job.plan;
    let process = &plan.process;
    let trace = Recorder::when(plan.trace, "child");
    let phase = trace.phase("join groups and namespaces");
    // While the host's /proc is there and this process may still write to its own files.
    identity::adjust_oom_score(process, report)?;
    let labels = identity::Labels::open(process)?;
    if job.wait_for_maps {
        report.wait_go()?;
    }
    enter_cgroup(job.cgroup, job.attach.take())?;
    if job.joined.contains_key(&Namespace::User) {
        join(&mut job.joined)?;
        second(job.flags, report)?;
    } else {
        join(&mut job.joined)?;
    }
    if job.foreign_user {
        become_root()?;
    } else {
        sys::privilege::set_dumpable(false).doing(|| "close /proc to the container".to_owned())?;
    }
    // Some of what follows needs a session of its own; it fails only for a session's leader.
    let _ = rustix::process::setsid();
    unshare_late(plan, job.late)?;
    if plan.loopback {
        sys::loopback::up().doing(|| "bring up the loopback interface".to_owned())?;
    }
    if process.new_keyring {
        join_keyring(&plan.id, report)?;
    }
    names(plan)?;
    write_sysctls(plan)?;
    let mask = rustix::process::umask(Mode::empty());
    drop(phase);

    let phase = trace.phase("mount");
    let propagation = mounts::prepare_namespace(plan)?;
    let root = mounts::attach_root(plan, job.d.rootfs.take())?;
    let mut mounter = mounts::Mounter {
        plan,
        root: &root,
        cgroup: job.cgroup,
        may_remount: job.foreign_user
            || process.capabilities.is_some_and(|sets| sets.bounding.has("SYS_ADMIN")),
        id_maps: std::mem::take(&mut job.id_maps),
        given: std::mem::take(&mut job.d.mounts),
        empty: None,
    };
    mounter.mount_all()?;
    let empty = mounter.empty.take();
    drop(mounter);
    drop(phase);
    let phase = trace.phase("devices and standard streams");
    devices::make(plan, &root, job.foreign_user)?;
    root.ensure(&process.cwd, root::Target::Directory)?;
    let stdio = terminal::stdio(process, job.d.stdio.take(), &root, true, report)?;
    drop(phase);
    let phase = trace.phase("hooks");
    if !plan.prestart.is_empty() || !plan.create_runtime.is_empty() {
        report.hooks()?;
    }
    let mut state = hook_state(plan, Status::Creating);
    state.pid = i32::try_from(std::process::id()).ok();
    crate::hooks::run("createContainer", &plan.create_container, &state)?;
    drop(phase);
    let phase = trace.phase("change the root");
    mounts::hide(plan, &root, empty)?;
    mounts::change_root(plan, &root, propagation)?;
    drop(root);
    drop(phase);

    rustix::process::umask(process.umask.map_or(mask, Mode::from_raw_mode));
    let last = identity::Last {
        process,
        personality: plan.personality,
        seccomp: plan.seccomp.as_ref(),
        gate: job.d.gate.as_ref(),
        open_files: job.d.open_files,
        report,
        trace: &trace,
    };
    last.finish(labels, stdio, || {
        if let Some(gate) = &job.d.gate {
            report.ready()?;
            wait_at(gate)?;
        }
        state.status = Status::Created;
        crate::hooks::run("startContainer", &plan.start_container, &state)
    })
}

fn exec(
    plan: &ExecPlan,
    target: BorrowedFd<'_>,
    cgroup: Option<&Cgroup>,
    attach: Option<Entrances>,
    d: Descriptors,
    report: &Reporter,
) -> Result<Infallible> {
    let mut d = ManuallyDrop::new(d);
    let process = &plan.process;
    enter_cgroup(cgroup, attach)?;
    identity::adjust_oom_score(process, report)?;
    let labels = identity::Labels::open(process)?;
    sys::privilege::set_dumpable(false).doing(|| "close /proc to the container".to_owned())?;
    let mut kinds = 0;
    for kind in &plan.namespaces {
        if *kind != Namespace::Pid && !d.namespaces.contains_key(kind) {
            kinds |= kind.flag();
        }
    }
    if kinds != 0 {
        sys::namespace::setns(target, kinds)
            .doing(|| "join the container's namespaces".to_owned())?;
    }
    join(&mut d.namespaces)?;
    if plan.namespaces.contains(&Namespace::User) {
        become_root()?;
    }
    let _ = rustix::process::setsid();
    if process.new_keyring {
        join_keyring(&plan.container, report)?;
    }
    let root = Root::open(CWD, "/")?;
    let stdio = terminal::stdio(process, d.stdio.take(), &root, false, report)?;
    drop(root);
    if let Some(mask) = process.umask {
        rustix::process::umask(Mode::from_raw_mode(mask));
    }
    let last = identity::Last {
        process,
        personality: plan.personality,
        seccomp: plan.seccomp.as_ref(),
        gate: d.gate.as_ref(),
        open_files: d.open_files,
        report,
        trace: &Recorder::default(),
    };
    last.finish(labels, stdio, || {
        if let Some(gate) = &d.gate {
            report.ready()?;
            wait_at(gate)?;
        }
        Ok(())
    })
}

fn enter_cgroup(cgroup: Option<&Cgroup>, attach: Option<Entrances>) -> Result<()> {
    match (attach, cgroup) {
        (Some(entrances), _) => entrances.enter(),
        (None, Some(cgroup)) => cgroup.entrances()?.enter(),
        (None, None) => Ok(()),
    }
}

fn join(namespaces: &mut BTreeMap<Namespace, OwnedFd>) -> Result<()> {
    for (kind, fd) in std::mem::take(namespaces) {
        sys::namespace::setns(fd.as_fd(), kind.flag())
            .doing(|| format!("join the {} namespace", kind.file_name()))?;
        if kind == Namespace::User {
            become_root()?;
        }
    }
    Ok(())
}

/// Replaces this process by a sibling that is made inside the joined user namespace, so that its
/// new namespaces belong to that. The parent learns of it and reaps this one.
fn second(flags: u64, report: &Reporter) -> Result<()> {
    match sys::clone::clone3(flags | sys::clone::PARENT, None)
        .doing(|| "create the container's first process".to_owned())?
    {
        sys::clone::Side::Child => Ok(()),
        sys::clone::Side::Parent { pidfd, .. } => {
            report.second(pidfd.as_fd())?;
            sys::exec::exit_now(0)
        }
    }
}

/// In a user namespace, root is who the map says, and files made must belong to it.
fn become_root() -> Result<()> {
    // Without a map for groups this is forbidden, and then there are none to drop.
    let _ = sys::privilege::setgroups(&[]);
    sys::privilege::setgid(0).doing(|| "become group 0 of the user namespace".to_owned())?;
    // This also makes the process not dumpable, which shall stay so.
    sys::privilege::setuid(0).doing(|| "become root of the user namespace".to_owned())?;
    sys::privilege::set_dumpable(false).doing(|| "close /proc to the container".to_owned())
}

fn unshare_late(plan: &Plan, late: u64) -> Result<()> {
    if late == 0 {
        return Ok(());
    }
    sys::namespace::unshare(late).doing(|| "create the cgroup or time namespace".to_owned())?;
    if late & sys::clone::NEWTIME != 0 && !plan.time_offsets.is_empty() {
        let text: String = plan
            .time_offsets
            .iter()
            .map(|(clock, (seconds, nanoseconds))| format!("{clock} {seconds} {nanoseconds}\n"))
            .collect();
        // A process that is not dumpable may not open its own files when root is a mapped one.
        let doing = || "open /proc/self".to_owned();
        sys::privilege::set_dumpable(true).doing(doing)?;
        let written = write_file("/proc/self/timens_offsets", &text);
        sys::privilege::set_dumpable(false).doing(doing)?;
        written?;
    }
    Ok(())
}

/// The container's processes share a session keyring, which is known by its name.
fn join_keyring(id: &str, report: &Reporter) -> Result<()> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).unwrap_or_else(|_| c"_ses".into());
    match sys::keyring::join_session(&name).and_then(sys::keyring::let_join) {
        Ok(()) => Ok(()),
        // Kernels without keys, filters that forbid them, and users over their quota.
        Err(
            errno @ (sys::Errno::NOSYS | sys::Errno::PERM | sys::Errno::ACCESS | sys::Errno::DQUOT),
        ) => {
            report.note(&format!("no session keyring: {errno}"));
            Ok(())
        }
        Err(errno) => Err(errno).doing(|| "create a session keyring".to_owned()),
    }
}

fn names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .doing(|| format!("set the host name \"{name}\""))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .doing(|| format!("set the domain name \"{name}\""))?;
    }
    Ok(())
}

/// Through the host's /proc: which namespace's value is meant depends on the writer only, and the
/// container's /proc may be missing or hostile.
fn write_sysctls(plan: &Plan) -> Result<()> {
    for (key, value) in &plan.sysctl {
        // With dots as separators a slash stands for a dot (interface names), and the reverse.
        let path: String = if key.find('.') < key.find('/') || !key.contains('/') {
            key.chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect()
        } else {
            key.clone()
        };
        write_file(&format!("/proc/sys/{path}"), value)?;
    }
    Ok(())
}

fn write_file(path: &str, text: &str) -> Result<()> {
    let doing = || format!("write {path} ({:?})", text.trim_end());
    let fd =
        rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    rustix::io::write(&fd, text.as_bytes()).map(drop).doing(doing)
}

fn wait_at(gate: &OwnedFd) -> Result<()> {
    let mut byte = [0];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Ok(1) => return Ok(()),
            Err(sys::Errno::INTR) => {}
            Ok(_) => return Err(Error::Died { how: "the gate was closed".to_owned() }),
            Err(errno) => return Err(errno).doing(|| "wait at the gate".to_owned()),
        }
    }
}

/// Whether the process's user is not root.
fn unprivileged(process: &Process) -> bool {
    process.uid != 0
}
