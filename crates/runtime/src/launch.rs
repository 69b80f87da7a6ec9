//! Starting a container's process, and another one in a running container, from the caller's side.
//!
//! The caller is a process with one thread (the keeper, or the `oci` command). [`launch`] and
//! [`exec`] return as soon as the child exists; what becomes of it is told by [`Launching`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use serde::{Deserialize, Serialize};
use sys::clone::Side;

use crate::cgroup::Cgroup;
use crate::child;
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::plan::{IdMap, MountKind, Namespace, NamespaceSource, Plan, Process};
use crate::report::{self, Message};
use crate::seccomp::Filter;
use crate::state::{State, Status};
use crate::table::{Table, keep_in_child};
use crate::trace::{self, Phase};

/// Descriptors the caller made and hands over; all are closed if anything fails.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// A detached mount (fsmount, open_tree) to become the root; else the path in the plan.
    pub rootfs: Option<OwnedFd>,
    /// Detached mounts for the specification's mounts by index, attached as they are.
    pub mounts: BTreeMap<usize, OwnedFd>,
    /// Namespaces to join, in place of what the plan says about the kind.
    pub namespaces: BTreeMap<Namespace, OwnedFd>,
    /// Standard input, output and error. Without them the program inherits the caller's, unless
    /// the plan asks for a terminal: then the child makes one from the container's own devpts and
    /// the master comes back.
    pub stdio: Option<[OwnedFd; 3]>,
    /// The child reads one byte from it just before it executes the program: create and start.
    pub gate: Option<OwnedFd>,
    /// The version 2 cgroup the child is born into, when `cgroup` is not given or has none.
    pub cgroup_v2: Option<OwnedFd>,
    /// The caller's descriptors from this number on are of no use to the child, which is spared their copies. Of no
    /// effect when one that the child needs has such a number, and where a user namespace is joined or made.
    pub own_from: Option<u32>,
    /// The limit of open files (soft, hard) for the program, unless the plan has one: for a caller that has raised its own.
    pub open_files: Option<(u64, u64)>,
}

impl Descriptors {
    fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let several = self.mounts.values().chain(self.namespaces.values());
        let several = several.chain(self.stdio.iter().flatten());
        [&self.rootfs, &self.gate, &self.cgroup_v2]
            .into_iter()
            .flatten()
            .chain(several)
            .map(AsFd::as_fd)
    }
}

/// A process to run in a running container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecPlan {
    /// What to run and as whom.
    pub process: Process,
    /// The namespaces to take from the container's first process: those the container has of its
    /// own or joined.
    pub namespaces: Vec<Namespace>,
    /// The container's system call filter.
    pub seccomp: Option<Filter>,
    /// The container's execution domain.
    pub personality: Option<u32>,
    /// The container's ID, by which its session keyring is found.
    pub container: String,
}

impl ExecPlan {
    /// The plan to run `process` in the container that was started with `container`.
    pub fn new(process: Process, container: &Plan) -> ExecPlan {
        ExecPlan {
            process,
            namespaces: container.namespaces.keys().copied().collect(),
            seccomp: container.seccomp.clone(),
            personality: container.personality,
            container: container.id.clone(),
        }
    }

    /// As [`ExecPlan::new`], from the specification's process.
    pub fn from_spec(process: &oci_spec::runtime::Process, container: &Plan) -> Result<ExecPlan> {
        Ok(ExecPlan::new(Process::from_spec(process)?, container))
    }
}

/// What a step of [`Launching::on_report`] found.
#[derive(Debug)]
pub enum Progress {
    /// Nothing new; wait until the descriptor is readable again.
    Pending,
    /// The master of the new terminal.
    Console(OwnedFd),
    /// The program runs, or, when a gate was given, the child waits at the gate. After the gate
    /// has been opened `on_report` says `Ready` again when the program runs, or the error.
    Ready,
}

/// A child on its way.
#[derive(Debug)]
pub struct Launching {
    /// Its number, in the caller's PID namespace.
    pub pid: i32,
    /// Refers to it.
    pub pidfd: OwnedFd,
    /// What the child had to say that is no error, for the log.
    pub notes: Vec<String>,
    /// The child's phases, if the plan asked for them.
    pub phases: Vec<Phase>,
    socket: OwnedFd,
    executing: bool,
    finished: bool,
    hooks: Option<Box<HookJob>>,
    heard_at_once: bool,
}

#[derive(Debug)]
struct HookJob {
    prestart: Vec<hooks::Hook>,
    create_runtime: Vec<hooks::Hook>,
    state: State,
}

/// Starts the container's first process and returns at once.
pub fn launch(plan: &Plan, cgroup: Option<&Cgroup>, mut d: Descriptors) -> Result<Launching> {
    let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
    let has_gate = d.gate.is_some();
    let mut joined = std::mem::take(&mut d.namespaces);
    let mut flags = 0;
    let mut late = 0;
    for (kind, source) in &plan.namespaces {
        if joined.contains_key(kind) {
            continue;
        }
        match source {
            // These two show their effect relative to where the process is when it unshares:
            // the cgroup it has been put in, the clock offsets it has set.
            NamespaceSource::New if matches!(kind, Namespace::Cgroup | Namespace::Time) => {
                late |= kind.flag();
            }
            NamespaceSource::New => flags |= kind.flag(),
            NamespaceSource::Path(path) => {
                joined.insert(*kind, open_namespace(path)?);
            }
        }
    }
    let new_user = flags & sys::clone::NEWUSER != 0;
    let foreign_user = new_user || joined.contains_key(&Namespace::User);
    if foreign_user {
        // The mapped root may not be allowed to walk to the sources; we are.
        open_sources(plan, &mut d)?;
    }
    let mut id_maps = BTreeMap::new();
    for (index, mount) in plan.mounts.iter().enumerate() {
        if !mount.uid_maps.is_empty() {
            id_maps.insert(index, id_map_namespace(&mount.uid_maps, &mount.gid_maps)?);
        }
    }
    // An opened tasks file carries the rights of who opened it.
    let attach = match cgroup {
        Some(cgroup) if foreign_user => Some(cgroup.entrances()?),
        _ => None,
    };
    let v2 = cgroup.and_then(Cgroup::v2_fd).or_else(|| d.cgroup_v2.as_ref().map(AsFd::as_fd));
    let v2 =
        v2.map(|fd| fd.try_clone_to_owned()).transpose().doing(|| "copy a descriptor".into())?;
    let pid_namespace = joined.remove(&Namespace::Pid);
    let more = joined.values().chain(id_maps.values()).chain([&ours, &theirs]);
    let table = table_for(&d, cgroup, foreign_user, more);

    let job = child::Job {
        plan,
        cgroup,
        attach,
        flags,
        late,
        joined,
        id_maps,
        d,
        wait_for_maps: new_user,
        foreign_user,
    };
    // A new namespace belongs to the user namespace it is made in; so when one is joined, the
    // child joins it first and then has a sibling of itself made there.
    let two_steps = job.joined.contains_key(&Namespace::User);
    let first_flags = table.flags() | if two_steps { 0 } else { flags };
    let side = in_pid_namespace(pid_namespace.as_ref().map(AsFd::as_fd), || {
        sys::clone::clone3(first_flags, v2.as_ref().map(AsFd::as_fd))
            .doing(|| "create the container's first process".to_owned())
    })?;
    let (pid, pidfd) = match side {
        Side::Child => child::run(job, table.in_child(ours, theirs)),
        Side::Parent { pid, pidfd } => {
            table.in_parent(&ours, pidfd.as_fd())?;
            drop(job);
            (pid, pidfd)
        }
    };
    drop(theirs);
    let mut launching = Launching {
        pid,
        pidfd,
        notes: Vec::new(),
        phases: Vec::new(),
        socket: ours,
        executing: false,
        finished: false,
        hooks: hook_job(plan),
        heard_at_once: plan.process.terminal || has_gate || plan.trace || new_user,
    };
    launching.heard_at_once |= launching.hooks.is_some();
    if two_steps {
        launching.adopt_second()?;
    }
    if new_user {
        let result = write_maps(launching.pid, plan).and_then(|()| report::go(&launching.socket));
        if let Err(error) = result {
            launching.abandon();
            return Err(error);
        }
    }
    Ok(launching)
}

/// Starts a process in the container whose first process `target` (a pidfd) is.
pub fn exec(
    plan: &ExecPlan,
    target: BorrowedFd<'_>,
    cgroup: Option<&Cgroup>,
    d: Descriptors,
) -> Result<Launching> {
    let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
    let has_gate = d.gate.is_some();
    let foreign_user = plan.namespaces.contains(&Namespace::User);
    let attach = match cgroup {
        Some(cgroup) if foreign_user => Some(cgroup.entrances()?),
        _ => None,
    };
    let v2 = cgroup.and_then(Cgroup::v2_fd).or_else(|| d.cgroup_v2.as_ref().map(AsFd::as_fd));
    let pid_namespace = plan.namespaces.contains(&Namespace::Pid).then_some(target);
    // The caller holds it among its own, and the child needs it.
    let near = d.own_from.map(|_| rustix::io::fcntl_dupfd_cloexec(target, 0)).transpose();
    let near = near.doing(|| "copy a descriptor".to_owned())?;
    let table = table_for(&d, cgroup, foreign_user, near.iter().chain([&ours, &theirs]));
    let flags = table.flags();
    let side = in_pid_namespace(pid_namespace, || {
        let mut made = sys::clone::clone3(flags, v2);
        if made.as_ref().is_err_and(|errno| *errno == Errno::BUSY)
            && let Some(cgroup) = cgroup
            && let Some(below) = cgroup.v2_below(target)?
        {
            made = sys::clone::clone3(flags, Some(below.as_fd()));
            keep_in_child(&made, below);
        }
        made.doing(|| "create the process".to_owned())
    })?;
    match side {
        Side::Child => {
            let target = near.as_ref().map_or(target, AsFd::as_fd);
            child::run_exec(plan, target, cgroup, attach, d, table.in_child(ours, theirs))
        }
        Side::Parent { pid, pidfd } => {
            table.in_parent(&ours, pidfd.as_fd())?;
            Ok(Launching {
                pid,
                pidfd,
                notes: Vec::new(),
                phases: Vec::new(),
                socket: ours,
                executing: false,
                finished: false,
                hooks: None,
                heard_at_once: plan.process.terminal || has_gate,
            })
        }
    }
}

/// How the child comes to its table of descriptors; `more` is what it needs besides what was given for it.
fn table_for<'a>(
    d: &'a Descriptors,
    cgroup: Option<&'a Cgroup>,
    foreign_user: bool,
    more: impl Iterator<Item = &'a OwnedFd>,
) -> Table {
    let needed = d.all().chain(cgroup.into_iter().flat_map(Cgroup::descriptors));
    Table::new(d.own_from.filter(|_| !foreign_user), needed.chain(more.map(AsFd::as_fd)))
}

impl Launching {
    /// Readable when [`Launching::on_report`] has something to do.
    pub fn report_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the child says something on its way that must be heard then: it hands a terminal over, waits for
    /// hooks or at the gate, or is traced. Of any other it is enough to hear that it has closed the socket, by
    /// executing its program or by ending; to be woken before, by the message that it is about to execute, would put
    /// the caller on the child's processor, and have it wait there until the program sleeps or ends.
    pub fn is_heard_at_once(&self) -> bool {
        self.heard_at_once
    }

    /// One step without waiting, except for the runtime's hooks of the plan, which run here.
    ///
    /// After an error the child has ended and has been reaped.
    pub fn on_report(&mut self) -> Result<Progress> {
        Ok(self.step(false)?.unwrap_or(Progress::Pending))
    }

    /// Waits until the program runs (or the child is at the gate); returns the console if one was
    /// made. After an error the child has ended and has been reaped.
    pub fn wait_ready(&mut self) -> Result<Option<OwnedFd>> {
        let mut console = None;
        loop {
            match self.step(true)? {
                Some(Progress::Console(fd)) => console = Some(fd),
                Some(Progress::Ready) => return Ok(console),
                Some(Progress::Pending) | None => {}
            }
        }
    }

    /// Waits until the program runs, for a child whose gate has been opened; one step.
    pub fn wait_started(&mut self) -> Result<Progress> {
        Ok(self.step(true)?.unwrap_or(Progress::Pending))
    }

    fn step(&mut self, block: bool) -> Result<Option<Progress>> {
        if self.finished {
            return Ok(Some(Progress::Ready));
        }
        loop {
            let message = match report::receive(&self.socket, block) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.abandon();
                    return Err(error);
                }
            };
            match message {
                Message::Note(text) => self.notes.push(text),
                Message::Console(fd) => return Ok(Some(Progress::Console(fd))),
                Message::Ready => return Ok(Some(Progress::Ready)),
                // Consumed by `adopt_second` and `Table::in_parent`; another one means nothing.
                Message::Second(_) | Message::Apart => {}
                Message::Phases(mut phases) => {
                    // In a PID namespace of its own it does not know its number here.
                    phases.iter_mut().for_each(|phase| phase.pid = self.pid);
                    self.phases.extend(phases);
                }
                Message::Executing => {
                    self.executing = true;
                    if let Some(last) = self.phases.last() {
                        let begin = trace::now();
                        let name = "execute".into();
                        self.phases.push(Phase { name, begin, length: 0, ..last.clone() });
                    }
                }
                Message::Hooks => {
                    if let Err(error) = self.run_hooks().and_then(|()| report::go(&self.socket)) {
                        self.abandon();
                        return Err(error);
                    }
                }
                Message::Error(error) => {
                    self.reap();
                    return Err(error);
                }
                Message::End if self.executing => {
                    self.finished = true;
                    if let Some(execute) = self.phases.last_mut() {
                        execute.length = trace::now().saturating_sub(execute.begin);
                    }
                    return Ok(Some(Progress::Ready));
                }
                Message::End => {
                    let how = match sys::pidfd::wait(self.pidfd.as_fd(), true) {
                        Ok(Some(sys::pidfd::Exit::Code(code))) => format!("exit status {code}"),
                        Ok(Some(sys::pidfd::Exit::Signal(signal))) => format!("signal {signal}"),
                        Ok(None) => "unknown".to_owned(),
                        Err(errno) => errno.to_string(),
                    };
                    self.finished = true;
                    return Err(Error::Died { how });
                }
            }
        }
    }

    fn run_hooks(&mut self) -> Result<()> {
        let Some(mut job) = self.hooks.take() else { return Ok(()) };
        job.state.pid = Some(self.pid);
        hooks::run("prestart", &job.prestart, &job.state)?;
        hooks::run("createRuntime", &job.create_runtime, &job.state)
    }

    /// Ends and reaps a child that is of no use.
    fn abandon(&mut self) {
        let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), 9);
        self.reap();
    }

    fn reap(&mut self) {
        let _ = sys::pidfd::wait(self.pidfd.as_fd(), true);
        self.finished = true;
    }

    /// Takes over the process that the first child made in our name (see `launch`).
    fn adopt_second(&mut self) -> Result<()> {
        let first = match report::receive(&self.socket, true) {
            Ok(Some(Message::Second(fd))) => fd,
            Ok(Some(Message::Error(error))) | Err(error) => {
                self.abandon();
                return Err(error);
            }
            Ok(_) => {
                self.abandon();
                return Err(Error::Died { how: "in the joined user namespace".to_owned() });
            }
        };
        self.reap();
        self.finished = false;
        self.pid =
            sys::pidfd::pid(first.as_fd()).doing(|| "find the container's process".to_owned())?;
        self.pidfd = first;
        Ok(())
    }
}

fn hook_job(plan: &Plan) -> Option<Box<HookJob>> {
    if plan.prestart.is_empty() && plan.create_runtime.is_empty() {
        return None;
    }
    Some(Box::new(HookJob {
        prestart: plan.prestart.clone(),
        create_runtime: plan.create_runtime.clone(),
        state: hook_state(plan, Status::Creating),
    }))
}

/// The state hooks receive; the process number is filled in by who knows it.
pub(crate) fn hook_state(plan: &Plan, status: Status) -> State {
    State {
        oci_version: plan.oci_version.clone(),
        id: plan.id.clone(),
        status,
        pid: None,
        bundle: plan.bundle.clone(),
        annotations: plan.annotations.clone(),
    }
}

fn open_namespace(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the namespace {}", path.display()))
}

/// Runs `make` with this process's children being born in the given PID namespace, and puts that
/// back, whatever happened. In the child nothing is to be put back.
fn in_pid_namespace(
    namespace: Option<BorrowedFd<'_>>,
    make: impl FnOnce() -> Result<Side>,
) -> Result<Side> {
    let Some(namespace) = namespace else { return make() };
    let own = open_namespace(Path::new("/proc/self/ns/pid"))?;
    sys::namespace::setns(namespace, sys::clone::NEWPID)
        .doing(|| "join the container's PID namespace".to_owned())?;
    let side = make();
    if matches!(side, Ok(Side::Child)) {
        keep_in_child(&side, own);
        return side;
    }
    let back = sys::namespace::setns(own.as_fd(), sys::clone::NEWPID)
        .doing(|| "return to the own PID namespace".to_owned());
    match (side, back) {
        (Ok(Side::Parent { pidfd, .. }), Err(error)) => {
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
            let _ = sys::pidfd::wait(pidfd.as_fd(), true);
            Err(error)
        }
        (side, _) => side,
    }
}

fn write_maps(pid: i32, plan: &Plan) -> Result<()> {
    write_proc(pid, "uid_map", &IdMap::text(&plan.uid_maps))?;
    write_proc(pid, "gid_map", &IdMap::text(&plan.gid_maps))
}

fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text)
        .doing(|| format!("write {path} ({:?})", text.trim().replace('\n', ", ")))
}

/// Opens the root and the bind sources as detached mounts.
fn open_sources(plan: &Plan, d: &mut Descriptors) -> Result<()> {
    if d.rootfs.is_none() {
        d.rootfs = Some(clone_tree(&plan.rootfs, true)?);
    }
    for (index, mount) in plan.mounts.iter().enumerate() {
        if let MountKind::Bind { source, recursive } = &mount.kind
            && !d.mounts.contains_key(&index)
        {
            let fd = clone_tree(source, *recursive)?;
            // Attributes and propagation are applied by the child, as to any bind.
            d.mounts.insert(index, fd);
        }
    }
    Ok(())
}

/// A detached copy of the mount at a path of the host.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
        .doing(|| format!("bind {}", path.display()))
}

/// A user namespace that exists for its identifier maps only.
fn id_map_namespace(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
    match sys::clone::clone3(sys::clone::NEWUSER, None)
        .doing(|| "create a user namespace for an ID-mapped mount".to_owned())?
    {
        Side::Child => {
            drop(ours);
            let mut buffer = [0];
            let _ = sys::socket::recv_with_fds(&theirs, &mut buffer, true);
            sys::exec::exit_now(0)
        }
        Side::Parent { pid, pidfd } => {
            let result = write_proc(pid, "uid_map", &IdMap::text(uids))
                .and_then(|()| write_proc(pid, "gid_map", &IdMap::text(gids)))
                .and_then(|()| open_namespace(Path::new(&format!("/proc/{pid}/ns/user"))));
            drop(ours);
            drop(theirs);
            let _ = sys::pidfd::wait(pidfd.as_fd(), true);
            result
        }
    }
}
