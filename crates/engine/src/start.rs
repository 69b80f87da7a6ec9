//! Starting a container: everything it needs is built here as descriptors, then handed
//! to the keeper in one message.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use keeper::protocol::{Attach, CgroupRef, Known, Log, Message, Request, Role, Start};
use runtime::Plan;
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::plan::Namespace;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use store::{MountOptions, WritableLayer};

use crate::attachment::Attachment;
use crate::cgroup::Making;
use crate::clock;
use crate::engine::{AttachOptions, Engine};
use crate::error::{Error, ErrorKind, Result, errno};
use crate::events;
use crate::exec_basis::Basis;
use crate::record::{self, Record, State};
use crate::resume::Resume;

/// Where containers' cgroups are, unless `--cgroup-parent` says otherwise.
pub(crate) const CGROUP_PARENT: &str = "wherry";

/// Who takes care of a container's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// A person's command; with streams attached it stays until the end.
    Person,
    /// The steward, by the restart policy.
    Steward,
}

/// What another runtime needs beside the bundle.
pub(crate) struct Parts {
    /// The root filesystem as a detached mount.
    pub(crate) rootfs: OwnedFd,
    pub(crate) cgroup: String,
    pub(crate) log: Log,
    pub(crate) health: bool,
    /// It has names, and published ports, which must be taken back when it ends.
    pub(crate) networks: (bool, bool),
}

/// It was removed since its record was read.
fn no_such(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("No such container: {id}"))
}

/// What the keeper needs besides the record to start a container itself.
struct OwnParts {
    plan: Plan,
    fds: Vec<(Role, OwnedFd)>,
    /// Chain ID of the image whose mount is among the descriptors.
    image: Option<String>,
    log: Log,
    cgroup: String,
    health: bool,
    networks: (bool, bool),
}

/// Takes the image's mount from the keeper, if a container runs on it.
fn share_image(layer: &WritableLayer, keeper: &mut keeper::client::Connection) -> Result<()> {
    let Some(chain) = layer.chain() else { return Ok(()) };
    match keeper.ask(Request::Image { chain }, vec![])? {
        Message::Image { held: true } => {
            if let Some(mount) = keeper.fds.pop() {
                layer.use_image_mount(mount)?;
            }
            Ok(())
        }
        Message::Image { held: false } => Ok(()),
        _ => Err(keeper::Error::Version.into()),
    }
}

fn mount_layer(layer: &WritableLayer, record: &Record) -> Result<OwnedFd> {
    let volatile = record.definition.host.auto_remove;
    Ok(layer.mount(MountOptions { read_only: false, volatile })?)
}

impl Engine {
    /// Starts a container. With `attach`, the connection is made before the program runs,
    /// so nothing is missed.
    ///
    /// # Errors
    /// `NotModified` if it runs already; `CommandNotFound` and `CommandNotExecutable` if
    /// its program can't be run; `Conflict` for a paused or half-removed container.
    pub fn start(&self, name: &str, attach: Option<AttachOptions>) -> Result<Option<Attachment>> {
        let mut record = record::find(self.db(), name)?;
        if record.state.is_live() {
            self.reconcile()?;
            record = record::find(self.db(), &record.id)?;
        }
        self.start_record(&mut record, attach, Starter::Person)
    }

    pub(crate) fn start_record(
        &self,
        record: &mut Record,
        attach: Option<AttachOptions>,
        starter: Starter,
    ) -> Result<Option<Attachment>> {
        let running = |record: &Record| {
            let message = format!("container {} is already running", record.name);
            Err(Error::new(ErrorKind::NotModified, message))
        };
        let _turn = self.await_turn(&record.id)?;
        let now = record::step_of(self.db(), &record.id)?.ok_or_else(|| no_such(&record.id))?;
        if now != (record.state, record.started_ns) {
            // Somebody was faster. A policy looks again at what that was.
            if starter == Starter::Steward {
                return running(record);
            }
            *record = record::find(self.db(), &record.id)?;
        }
        match record.state {
            State::Running => return running(record),
            State::Paused => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "cannot start a paused container, try unpause instead",
                ));
            }
            State::Removing | State::Dead => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "container is marked for removal and cannot be started",
                ));
            }
            State::Created | State::Exited | State::Restarting => {}
        }
        let mut reserved = false;
        let outcome = self.launch(record, attach, starter, &mut reserved);
        if reserved && outcome.is_err() {
            self.give_back(record);
        }
        if let Err(e) = &outcome {
            record.error.clone_from(&e.message);
            record.exit_code = e.run_exit_code().into();
            if record.state == State::Restarting {
                record.state = State::Exited;
            }
            let (record, code) = (&*record, record.exit_code);
            // The start's own error is what matters; this one would only hide it.
            let _ = self.store().db().transaction(|tx| -> Result<()> {
                record::update(tx, record)?;
                if code != 125 {
                    let code = [("exitCode", code.to_string())];
                    events::note_container(tx, clock::now(), "die", record, &code)?;
                }
                Ok(())
            });
        }
        outcome
    }

    /// Held by who starts a container, until that is written down: two at once would take each other's cgroup away, and
    /// one would kill what the other has started.
    fn await_turn(&self, id: &str) -> Result<OwnedFd> {
        let directory = self.store().container_directory(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::empty())
            .and_then(|fd| rustix::fs::flock(&fd, FlockOperation::LockExclusive).map(|()| fd))
            .map_err(|e| match e {
                rustix::io::Errno::NOENT => no_such(id),
                e => errno(format!("cannot lock {}", directory.display()), e),
            })
    }

    fn launch(
        &self,
        record: &mut Record,
        attach: Option<AttachOptions>,
        starter: Starter,
        reserved: &mut bool,
    ) -> Result<Option<Attachment>> {
        let definition = &record.definition;
        let (config, host) = (&definition.config, &definition.host);
        let mut fds: Vec<(Role, OwnedFd)> = Vec::new();
        let foreign = self.foreign_runtime(record)?.is_some();
        let phase = self.trace().phase("connect to the keeper");
        let mut keeper = None;
        let mut layer = None;
        if !foreign {
            let keeper = keeper.insert(self.keeper().connect()?);
            layer = self.layer_of(record)?;
            if let Some(layer) = &layer {
                share_image(layer, keeper)?;
            }
            // Asked first and heard last, so that the keeper does it meanwhile.
            let cgroup = CgroupRef { path: self.cgroup_path(record) };
            keeper.request(Request::Cgroup { cgroup }, vec![])?;
        }
        drop(phase);
        // Not before the keeper was heard: woken by its answer one would wait for the processor that the thread has.
        let cgroup = Making::begin(record, self.cgroup_path(record))?;
        let endpoints = self.endpoints_to_join(record)?;
        let phase = self.trace().phase("mount the root filesystem");
        let mut image = None;
        let rootfs = match &layer {
            Some(layer) => {
                let rootfs = mount_layer(layer, record)?;
                image = layer.chain().zip(layer.image_mount());
                rootfs
            }
            None => self.mount_rootfs(record)?,
        };
        let image = image.map(|(chain, mount)| {
            fds.push((Role::Image, mount));
            chain
        });
        drop(phase);
        let phase = self.trace().phase("set up the network");
        let mut attached = self.attach_networks(record, endpoints)?;
        *reserved = attached.is_some();
        drop(phase);
        let phase = self.trace().phase("write the specification, make the plan");
        let (plan, given) = self.plan(record, &rootfs, attached.as_ref(), foreign)?;
        fds.extend(given.into_iter().map(|(index, fd)| (Role::Mount(index), fd)));
        fds.push((Role::Rootfs, rootfs));
        for (mode, kind) in [
            (&host.network_mode, Namespace::Network),
            (&host.pid_mode, Namespace::Pid),
            (&host.ipc_mode, Namespace::Ipc),
        ] {
            if let Some(peer) = mode.strip_prefix("container:") {
                fds.push((Role::Namespace(kind), self.namespace_of_peer(peer, kind)?));
            }
        }
        if let Some(attached) = &attached {
            let namespace = attached.namespace.try_clone();
            let namespace =
                namespace.map_err(|e| Error::system("cannot pass the network namespace on", e))?;
            fds.push((Role::Namespace(Namespace::Network), namespace));
        }
        let networks = (Self::has_names(attached.as_ref()), Self::has_ports(attached.as_ref()));
        let log = self.log_of(record)?;
        if log == Log::Passthrough && !config.tty {
            let stdio = [
                rustix::io::dup(rustix::stdio::stdin()),
                rustix::io::dup(rustix::stdio::stdout()),
                rustix::io::dup(rustix::stdio::stderr()),
            ];
            for (n, fd) in (0u8..).zip(stdio) {
                fds.push((Role::Stdio(n), fd.map_err(|e| errno("cannot pass descriptors on", e))?));
            }
        }
        let health = config.healthcheck.as_ref().is_some_and(crate::health::is_on);
        drop(phase);
        let phase = self.trace().phase("make the cgroup");
        if let Some(keeper) = &mut keeper {
            keeper.answer()?;
        }
        let cgroup = cgroup.take()?;
        let cgroup_path = cgroup.path().to_owned();
        drop(phase);
        if let Some(attached) = &mut attached {
            let _phase = self.trace().phase("hand names over, hear of ports");
            self.hand_names_over(record, attached)
                .and_then(|()| self.await_ports(&attached.joined))
                .inspect_err(|_| _ = cgroup.remove())?;
        }
        let phase = self.trace().phase("have it started");
        let started = match keeper {
            None => {
                let rootfs =
                    fds.into_iter().find_map(|(role, fd)| (role == Role::Rootfs).then_some(fd));
                let rootfs = rootfs.ok_or_else(|| Error::system("start", "no root filesystem"))?;
                let parts = Parts { rootfs, cgroup: cgroup_path.clone(), log, health, networks };
                self.start_foreign(record, parts, attach, starter)
            }
            Some(keeper) => {
                let cgroup = cgroup_path.clone();
                let parts = OwnParts { plan, fds, image, log, cgroup, health, networks };
                self.start_own(record, keeper, parts, attach, starter)
            }
        };
        let (attachment, pid, start_time, at) = match started {
            Ok(started) => started,
            Err(e) => {
                let _ = cgroup.remove();
                return Err(e);
            }
        };
        drop(phase);
        let phase = self.trace().phase("record the start");
        record.state = State::Running;
        record.pid = pid;
        record.start_time = start_time;
        record.boot_id = crate::reconcile::boot_id();
        record.started_ns = at;
        record.error.clear();
        record.exit_code = 0;
        record.oom_killed = false;
        record.run.cgroup = Some(cgroup_path);
        record.run.restart_at = None;
        record.run.halted = false;
        record.run.health = health.then(crate::health::starting);
        if starter == Starter::Person {
            record.run.stopped_by_hand = false;
            record.run.restart_delay = 0;
            record.run.gave_up = false;
            record.restarts = 0;
        }
        let there = self.store().db().transaction(|tx| -> Result<bool> {
            let Some(now) = record::by_id(tx, &record.id)? else { return Ok(false) };
            let known = now.started_ns >= at;
            if known {
                // Somebody else saw this run before we could write it down, perhaps its end, too.
                record.state = now.state;
                record.exit_code = now.exit_code;
                record.finished_ns = now.finished_ns;
                record.oom_killed = now.oom_killed;
                record.error = now.error;
                if !now.state.is_live() {
                    (record.pid, record.start_time) = (0, 0);
                    record.run.health = now.run.health;
                }
            }
            record::update(tx, record)?;
            if let Some(attached) = &attached {
                self.networks_started(tx, record, attached, at)?;
            }
            if !known {
                events::note_container(tx, at, "start", record, &[])?;
            }
            Ok(true)
        })?;
        if !there {
            // A short run with `--rm` is over, or somebody has removed it while it was being started.
            let pidfd = record.identity().open();
            if let Ok(pidfd) = &pidfd {
                let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
            }
            let _ = cgroup.remove();
            if pidfd.is_ok() || !record.definition.host.auto_remove {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("container {} was removed while it was being started", record.name),
                ));
            }
        }
        drop(phase);
        if let Some(attached) = &mut attached {
            let _phase = self.trace().phase("hear of names");
            self.confirm_names(record, attached);
        }
        if attached.is_some() && !networks.0 {
            // Those with names of their own have woken it.
            self.wake_names_later();
        }
        Ok(attachment)
    }

    /// Has the keeper start it with our own runtime.
    fn start_own(
        &self,
        record: &Record,
        mut keeper: keeper::client::Connection,
        parts: OwnParts,
        attach: Option<AttachOptions>,
        starter: Starter,
    ) -> Result<(Option<Attachment>, i32, u64, i64)> {
        let OwnParts { plan, fds, image, log, cgroup, health, networks } = parts;
        let (config, host) = (&record.definition.config, &record.definition.host);
        let attach = attach.map(|wanted| attach_of(record, wanted, starter));
        let owner = attach.as_ref().is_some_and(|attach| attach.owner);
        let again = attach.clone().map(|attach| (attach, journal_of(&log)));
        let known = self.known(record, &plan)?;
        let start = Start {
            id: record.id.clone(),
            plan,
            cgroup: Some(CgroupRef { path: cgroup }),
            tty: config.tty,
            open_stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            log,
            owner,
            attach,
            size: terminal_size(host.console_size),
            steward_at_exit: host.auto_remove || host.restart_policy.name != "no" || networks.0,
            steward_always: networks.1,
            steward_now: health,
            image,
            known,
        };
        let (pid, start_time, at) = match keeper.ask(Request::Start(Box::new(start)), fds) {
            Ok(Message::Started { pid, start_time, at, notes, trace, .. }) => {
                self.trace().add(trace);
                notes.iter().for_each(|note| self.debug(note));
                (pid, start_time, at)
            }
            Ok(_) => return Err(keeper::Error::Version.into()),
            Err(e @ keeper::Error::Broken(_)) => {
                let what = "the keeper was killed while it started the container; start it again";
                match self.started_by_the_dead(record)? {
                    Some(started) => started,
                    None => {
                        // Nobody knows what may be left of it. Only then: had the keeper refused a container that
                        // runs, its processes would be in this group, too.
                        Cgroup::open(&CgroupRoot::detect()?, &self.cgroup_path(record))?
                            .kill_all(9)?;
                        return Err(Error::system(what, e));
                    }
                }
            }
            Err(e) => return Err(e.into()),
        };
        let attachment = again.map(|again| self.attachment_since_start(record, keeper, again, at));
        Ok((attachment, pid, start_time, at))
    }

    /// The first process of a container, its start time, and when it began, if the keeper was killed after it had
    /// noted the start and before it could say so. Its successor knows, or has reported the end already.
    fn started_by_the_dead(&self, record: &Record) -> Result<Option<(i32, u64, i64)>> {
        if let Some(now) = self.keeper().running(&record.id)? {
            return Ok(Some((now.pid, now.start_time, now.started_at)));
        }
        let exit = self.keeper().exit_of(&record.id);
        Ok(exit
            .filter(|exit| exit.started_at > record.started_ns)
            .map(|exit| (0, 0, exit.started_at)))
    }

    /// What the keeper is to tell of it to those who want to run a process in it.
    fn known(&self, record: &Record, plan: &Plan) -> Result<Option<Known>> {
        // In this order: the name may be another by now, and whoever changes it later is seen by the keeper.
        let renames = self.keeper().renames();
        let name = record::name_of(self.db(), &record.id)?;
        if name.as_ref() != Some(&record.name) {
            return Ok(None);
        }
        Ok(Basis::known(record, plan, renames, &self.options().data_root))
    }

    /// An attachment of somebody who has been there since the run began, and can come back.
    pub(crate) fn attachment_since_start(
        &self,
        record: &Record,
        connection: keeper::client::Connection,
        (attach, journal): (Attach, Option<PathBuf>),
        began: i64,
    ) -> Attachment {
        let resume = Resume {
            keeper: self.keeper().clone(),
            attach,
            journal,
            began,
            heard: [0; 2],
            missed: VecDeque::new(),
            tries: 0,
        };
        Attachment::to_container(self, record, connection, Some(resume))
    }

    /// The root filesystem as a detached mount.
    pub(crate) fn mount_rootfs(&self, record: &Record) -> Result<OwnedFd> {
        if let Some(rootfs) = record.definition.rootfs.as_ref().filter(|r| r.writable) {
            return rustix::mount::open_tree(
                rustix::fs::CWD,
                rootfs.path.as_str(),
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
            )
            .map_err(|e| errno(format!("cannot use {} as root filesystem", rootfs.path), e));
        }
        mount_layer(&self.store().writable(&record.id)?, record)
    }

    /// The container's writable layer, if its root filesystem is one.
    fn layer_of(&self, record: &Record) -> Result<Option<WritableLayer>> {
        match record.definition.rootfs.as_ref().is_some_and(|rootfs| rootfs.writable) {
            true => Ok(None),
            false => Ok(Some(self.store().writable(&record.id)?)),
        }
    }

    /// Below the root of each hierarchy, without a slash in front.
    pub(crate) fn cgroup_path(&self, record: &Record) -> String {
        let parent = record.definition.host.cgroup_parent.trim_matches('/');
        let parent = if parent.is_empty() { CGROUP_PARENT } else { parent };
        format!("{parent}/{}", record.id)
    }

    /// Whether anything is in the container's cgroup, be it known to run or not.
    pub(crate) fn has_processes(&self, record: &Record) -> bool {
        let pids = || Cgroup::open(&CgroupRoot::detect()?, &self.cgroup_path(record))?.pids();
        pids().is_ok_and(|pids| !pids.is_empty())
    }

    /// Whether the container's specification is so new that the keeper may not have looked at the start
    /// yet that it was written for.
    pub(crate) fn was_written_lately(&self, record: &Record) -> bool {
        const LATELY: std::time::Duration = std::time::Duration::from_millis(500);
        let directory = self.store().container_directory(&record.id).join("config.json");
        let written = std::fs::metadata(directory).and_then(|m| m.modified());
        written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LATELY))
    }

    pub(crate) fn log_of(&self, record: &Record) -> Result<Log> {
        Ok(match record.definition.host.log_config.r#type.as_str() {
            "none" => Log::None,
            "passthrough" => Log::Passthrough,
            _ => Log::Journal {
                path: self.journal_path(record),
                bound: crate::logs::bound(&record.definition.host.log_config)?,
            },
        })
    }

    /// The container's journal.
    pub(crate) fn journal_path(&self, record: &Record) -> PathBuf {
        self.store().container_directory(&record.id).join("journal")
    }
}

/// What a starter asks of the streams; a person who waits for a `--rm` container owns it, and a
/// build its steps.
pub(crate) fn attach_of(record: &Record, wanted: AttachOptions, starter: Starter) -> Attach {
    Attach {
        id: record.id.clone(),
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        owner: starter == Starter::Person
            && (record.definition.host.auto_remove || record.definition.builder.is_some()),
    }
}

/// Where a container's output is kept, if it is.
pub(crate) fn journal_of(log: &Log) -> Option<PathBuf> {
    match log {
        Log::Journal { path, .. } => Some(path.clone()),
        Log::None | Log::Passthrough => None,
    }
}

/// Rows and columns, unless unknown.
pub(crate) fn terminal_size(size: [u32; 2]) -> Option<(u16, u16)> {
    let [rows, cols] = size.map(|n| u16::try_from(n).unwrap_or(0));
    (rows > 0 && cols > 0).then_some((rows, cols))
}
