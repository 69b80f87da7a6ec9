//! The keeper's event loop.
//!
//! `connections` has the clients, `images`, `starts`, `streams`, `ends` and `execs` what is
//! done for containers. Everything is one `Keeper`, for there is one thread.

mod connections;
mod ends;
mod execs;
mod images;
mod names;
mod starts;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::launch::{Descriptors, Launching, Progress};
use runtime::trace::Recorder;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use sys::clone::Side;

use crate::container::{
    Container, ExecProcess, Input, Output, Record, open_pipe, pipe_path, remove_pipes, set_size,
    streams,
};
use crate::journal::{Stream, Writer};
use crate::mover::{KEYS, Moved, Mover};
use crate::protocol::{
    Adopt, Attach, CgroupRef, Envelope, Exec, ExecReport, Exit, Found, HEAD, Kind, Known, Log,
    Message, Request, Role, Running, Start, VERSION, encode, head, recv_some, send_some,
    take_frame,
};
use crate::shelf;
use crate::standby::{self, Standby, Table, Turn};
use images::ImageMount;

/// How long the keeper stays after its last container: long enough that a loop of short
/// runs does not start one each time.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes waiting for an attached client that make us stop reading its container, if the
/// client started it and so stands for the container's own output.
const PATIENCE: usize = 1 << 20;
/// Bytes waiting for any other client that make us let go of it.
const IMPATIENCE: usize = 8 << 20;
/// Bytes of standard input we hold for a container before we stop reading its client.
const INPUT_QUEUE: usize = 1 << 18;

/// Journals that are open at the same time. Of the others the next output opens them.
const JOURNALS: usize = 256;

/// Ends of `--rm` containers after which the trash is emptied although more are running.
const SWEEP: u32 = 64;
/// Starts and ends of containers, and ends of execs, after which a steward looks how long the database's log has become.
/// Each writes some 8 to 24 KiB, and the log is moved into the database when it has 4 MiB.
const WRITTEN: u32 = 256;

/// What an epoll event is about.
#[derive(Debug, Clone)]
enum Source {
    Listener,
    Standby,
    Connection,
    Output(String, Stream),
    Input(String),
    Ended(String),
    Report(String),
    ExecEnded,
    ExecReport(u64),
    Names,
}

/// A client.
struct Connection {
    socket: OwnedFd,
    incoming: Vec<u8>,
    fds: Vec<OwnedFd>,
    outgoing: VecDeque<u8>,
    role: ConnectionRole,
    /// What epoll watches now.
    interest: EventFlags,
    /// Close once everything is sent.
    closing: bool,
    /// Streams made for a container that is to be adopted: its id, and our ends of
    /// output, error output and input.
    prepared: Option<(String, [Option<OwnedFd>; 3])>,
}

#[derive(Debug, Clone)]
enum ConnectionRole {
    New,
    Attached(Attach),
    Waiting(String),
    Exec(u64),
    Subscriber,
}

/// The process's entry: standard input is the listening socket.
///
/// Returns when there is nothing left to keep.
pub fn main(run_root: &Path, program: &Path, steward_args: Vec<String>) -> io::Result<()> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    daemonize()?;
    shelf::raise_limit().map_err(io::Error::other)?;
    for dir in ["running", "exits", "io"] {
        std::fs::create_dir_all(run_root.join(dir))?;
    }
    let mut table = Table::new();
    table.insert("listen".into(), listener);
    let note = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(run_root.join("keeper.note"))?;
    let mover = Mover::new(note)?;
    for (key, fd) in KEYS.iter().zip(mover.parts()) {
        table.insert((*key).to_owned(), fd.try_clone_to_owned()?);
    }
    drop(mover);
    become_standby(table, run_root, program, steward_args)
}

/// Lives as standby, and as keeper when its turn comes.
fn become_standby(
    table: Table,
    run_root: &Path,
    program: &Path,
    steward_args: Vec<String>,
) -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let _ = rustix::thread::set_name(c"wherry-standby");
    match standby::live(table, None, run_root)? {
        Turn::Leave => Ok(()),
        Turn::Keeper(table, standby) => {
            Keeper::take_over(table, standby, run_root, program, steward_args)?.run()
        }
    }
}

/// Cuts every tie to who started us.
fn daemonize() -> io::Result<()> {
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

struct Keeper {
    epoll: OwnedFd,
    listener: OwnedFd,
    run_root: PathBuf,
    program: PathBuf,
    steward_args: Vec<String>,
    standby: Standby,
    mover: Mover,
    cgroups: CgroupRoot,
    sources: HashMap<u64, Source>,
    next_token: u64,
    connections: HashMap<u64, Connection>,
    containers: HashMap<String, Container>,
    /// Containers whose journals were opened, and have not been closed for it yet; the latest last.
    journals: VecDeque<String>,
    /// Those whose process has ended but can't be asked how, yet.
    undecided: BTreeSet<String>,
    execs: HashMap<u64, ExecProcess>,
    /// Ids of the containers that are found by name.
    ids: HashMap<String, String>,
    /// Mounts of images by chain ID, for the containers that run on them.
    images: HashMap<String, ImageMount>,
    /// Cgroups that still had processes when we tried to remove them.
    emptying: Vec<(Cgroup, Instant)>,
    steward: Option<std::process::Child>,
    steward_wanted: bool,
    /// The name server of containers' networks, whether it should run, and when it may be started.
    names: Option<names::NameServer>,
    names_wanted: bool,
    names_due: Option<Instant>,
    /// Containers of `--rm` that have ended since a steward last emptied the trash.
    unswept: u32,
    /// Execs were reported since a steward was last started; somebody else may have read that.
    unread_reports: bool,
    /// How often something was started or has ended since a steward was last started.
    written: u32,
    idle_since: Option<Instant>,
}

impl Keeper {
    /// Takes over what a predecessor left: its descriptors in `table`, its notes in the
    /// run root. At the first start there is nothing but the listening socket.
    fn take_over(
        mut table: Table,
        standby: Standby,
        run_root: &Path,
        program: &Path,
        steward_args: Vec<String>,
    ) -> io::Result<Self> {
        let _ = rustix::thread::set_name(c"wherry-keeper");
        let mut take = |key: &str| {
            table.remove(key).ok_or_else(|| io::Error::other(format!("no descriptor {key}")))
        };
        let listener = take("listen")?;
        let [into, out, tee_into, tee_out, note] = KEYS;
        let mover = Mover::from_parts(
            take(into)?,
            take(out)?,
            take(tee_into)?,
            take(tee_out)?,
            File::from(take(note)?),
        )?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        let mut keeper = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listener,
            run_root: run_root.to_owned(),
            program: program.to_owned(),
            steward_args,
            standby,
            mover,
            cgroups: CgroupRoot::detect().map_err(io::Error::other)?,
            sources: HashMap::new(),
            next_token: 0,
            connections: HashMap::new(),
            containers: HashMap::new(),
            journals: VecDeque::new(),
            undecided: BTreeSet::new(),
            execs: HashMap::new(),
            ids: HashMap::new(),
            images: HashMap::new(),
            emptying: Vec::new(),
            steward: None,
            steward_wanted: false,
            names: None,
            names_wanted: false,
            names_due: None,
            unswept: 0,
            unread_reports: false,
            written: 0,
            idle_since: Some(Instant::now()),
        };
        let listener = keeper.listener.try_clone()?;
        keeper.watch(Source::Listener, listener.as_fd(), EventFlags::IN)?;
        keeper.watch_standby()?;
        keeper.adopt(&mut table)?;
        keeper.inherit_names();
        Ok(keeper)
    }

    fn watch_standby(&mut self) -> io::Result<()> {
        let token = self.token(Source::Standby);
        epoll::add(&self.epoll, self.standby.fd(), EventData::new_u64(token), EventFlags::IN)?;
        Ok(())
    }

    fn token(&mut self, source: Source) -> u64 {
        self.next_token += 1;
        self.sources.insert(self.next_token, source);
        self.next_token
    }

    fn watch(&mut self, source: Source, fd: BorrowedFd<'_>, flags: EventFlags) -> io::Result<u64> {
        let token = self.token(source);
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?;
        Ok(token)
    }

    /// Writes a line to `keeper.log` in the run root, the place for what nobody asked.
    fn complain(&self, line: &str) {
        use std::io::Write as _;
        let path = self.run_root.join("keeper.log");
        let small = std::fs::metadata(&path).is_ok_and(|m| m.len() < 1 << 20);
        let file =
            File::options().create(true).append(small).write(true).truncate(!small).open(&path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{} {line}", jiff::Timestamp::now());
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let event: &epoll::Event = event;
                let token = event.data.u64();
                let flags = event.flags;
                let Some(source) = self.sources.get(&token).cloned() else { continue };
                if let Err(e) = self.handle(token, source.clone(), flags) {
                    self.complain(&format!("{source:?}: {e}"));
                }
            }
            self.housekeeping();
            if self.may_leave() {
                if self.unswept == 0 && !self.unread_reports {
                    return self.leave();
                }
                self.spawn_steward();
            }
        }
    }

    fn timeout(&self) -> Option<rustix::time::Timespec> {
        let soon = |d: Duration| rustix::time::Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        };
        if !self.emptying.is_empty() || !self.undecided.is_empty() {
            return Some(soon(Duration::from_millis(5)));
        }
        if self.steward.is_some() {
            return Some(soon(Duration::from_secs(1)));
        }
        let leaves = self.idle_since.map(|since| LINGER.saturating_sub(since.elapsed()));
        let names = self.names_due();
        let next = leaves.into_iter().chain(names).min()?;
        Some(soon(next + Duration::from_millis(1)))
    }

    fn handle(&mut self, token: u64, source: Source, flags: EventFlags) -> io::Result<()> {
        match source {
            Source::Listener => self.accept(),
            Source::Standby => self.hear_standby(),
            Source::Connection => {
                self.connection_event(token, flags);
                Ok(())
            }
            Source::Output(id, stream) => self.output(&id, stream),
            Source::Input(id) => {
                self.feed(&id);
                Ok(())
            }
            Source::Ended(id) => {
                self.ended(&id);
                Ok(())
            }
            Source::Report(id) => self.report(&id),
            // Housekeeping sees what became of it.
            Source::Names => Ok(()),
            Source::ExecEnded => self.exec_ended(token, None),
            Source::ExecReport(exec) => self.exec_report(exec),
        }
    }

    fn housekeeping(&mut self) {
        self.emptying.retain(|(cgroup, since)| {
            cgroup.try_remove().is_err() && since.elapsed() < Duration::from_secs(30)
        });
        let undecided: Vec<String> = self.undecided.iter().cloned().collect();
        for id in undecided {
            self.ended(&id);
        }
        if let Some(steward) = &mut self.steward
            && !matches!(steward.try_wait(), Ok(None))
        {
            self.steward = None;
            // It may have left a moment before something new came up.
            self.steward_wanted |= self.containers.values().any(|c| c.record.steward_now);
        }
        if self.steward_wanted && self.steward.is_none() {
            self.spawn_steward();
        }
        self.keep_names();
        let busy = !self.containers.is_empty()
            || !self.connections.is_empty()
            || !self.emptying.is_empty();
        if busy {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Something was started or has ended, which was written to the database's log; a steward keeps that short.
    fn note_writing(&mut self) {
        self.written += 1;
        self.steward_wanted |= self.written >= WRITTEN;
    }

    /// Starts the engine process that does what must be done at an end.
    fn spawn_steward(&mut self) {
        self.steward_wanted = false;
        self.unswept = 0;
        self.unread_reports = false;
        self.written = 0;
        let spawned = std::process::Command::new(&self.program)
            .args(&self.steward_args)
            .env_clear()
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => {
                shelf::set_limit_back(&child);
                self.steward = Some(child);
            }
            Err(e) => self.complain(&format!("cannot start {}: {e}", self.program.display())),
        }
    }

    fn may_leave(&self) -> bool {
        self.containers.is_empty()
            && self.connections.is_empty()
            && self.steward.is_none()
            && self.names.is_none()
            && self.names_due.is_none()
            && self.idle_since.is_some_and(|since| since.elapsed() >= LINGER)
    }

    /// Closes the door, and leaves unless somebody was in it.
    fn leave(mut self) -> io::Result<()> {
        let path = self.run_root.join("keeper.sock");
        let closed = self.run_root.join(format!("keeper.sock.{}", std::process::id()));
        // Renaming keeps the socket: whoever connected a moment before is in its queue.
        if std::fs::rename(&path, &closed).is_ok() {
            self.accept()?;
            if !self.connections.is_empty() && std::fs::hard_link(&closed, &path).is_ok() {
                let _ = std::fs::remove_file(&closed);
                self.idle_since = None;
                return self.run();
            }
            let _ = std::fs::remove_file(&closed);
            if !self.connections.is_empty() {
                // Another keeper has taken the name meanwhile; serve these, then go.
                self.idle_since = None;
                return self.run();
            }
        }
        self.standby.quit();
        Ok(())
    }
}

enum How {
    Code(i32),
    StillRunning,
    NotOurs,
    Unknown,
}

/// What of a child's reports wakes us.
fn report_flags(launching: &Launching) -> EventFlags {
    if launching.is_heard_at_once() { EventFlags::IN } else { EventFlags::RDHUP }
}

/// How a process has ended: by waiting for it if it is our child, else by asking the
/// kernel (6.15 and newer).
fn how_ended(pidfd: &OwnedFd) -> How {
    match sys::pidfd::wait(pidfd.as_fd(), false) {
        Ok(Some(exit)) => How::Code(exit.shell_code().into()),
        Ok(None) => How::StillRunning,
        Err(_) => match sys::pidfd::exit_of_reaped(pidfd.as_fd()) {
            Ok(Some(exit)) => How::Code(exit.shell_code().into()),
            Ok(None) => How::NotOurs,
            // An older kernel: only its parent hears how it ended. If that is the
            // standby, it says so; when the pid is gone it was init.
            Err(_) if sys::pidfd::send_signal(pidfd.as_fd(), 0).is_ok() => How::NotOurs,
            Err(_) => How::Unknown,
        },
    }
}

/// When a process began, clock ticks after boot; 0 if it is gone.
fn start_time_of(pid: i32) -> u64 {
    runtime::state::ProcessIdentity::of(pid).map_or(0, |identity| identity.start_time)
}

/// A pidfd of the process, if it is still the same one.
fn open_same_process(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = sys::clone::pidfd_open(pid).ok()?;
    (start_time_of(pid) == start_time).then_some(pidfd)
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}
