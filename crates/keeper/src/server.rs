//! The keeper's event loop.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::launch::{Descriptors, Progress};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use sys::clone::Side;

use crate::container::{
    Container, ExecProcess, Input, Output, Record, open_pipe, pipe_path, set_size, streams,
};
use crate::journal::{Stream, Writer};
use crate::mover::{KEYS, Moved, Mover};
use crate::protocol::{
    Adopt, Attach, CgroupRef, Envelope, Exec, Exit, HEAD, Kind, Log, Message, Request, Role,
    Running, Start, VERSION, encode, head, recv_some, send_some, take_frame,
};
use crate::standby::{self, Standby, Table, Turn};

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

/// Ends of `--rm` containers after which the trash is emptied although more are running.
const SWEEP: u32 = 64;

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
    match standby::live(table, None)? {
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
    execs: HashMap<u64, ExecProcess>,
    /// Cgroups that still had processes when we tried to remove them.
    emptying: Vec<(Cgroup, Instant)>,
    steward: Option<std::process::Child>,
    steward_wanted: bool,
    /// Containers of `--rm` that have ended since a steward last emptied the trash.
    unswept: u32,
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
            execs: HashMap::new(),
            emptying: Vec::new(),
            steward: None,
            steward_wanted: false,
            unswept: 0,
            idle_since: Some(Instant::now()),
        };
        let listener = keeper.listener.try_clone()?;
        keeper.watch(Source::Listener, listener.as_fd(), EventFlags::IN)?;
        keeper.watch_standby()?;
        keeper.adopt(&mut table)?;
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

    /// Containers that run already, from the notes in `running/`.
    fn adopt(&mut self, table: &mut Table) -> io::Result<()> {
        let running = self.run_root.join("running");
        let mut finished = Vec::new();
        for entry in std::fs::read_dir(&running)? {
            let path = entry?.path();
            let record: Record = match std::fs::read(&path)
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
            {
                Ok(record) => record,
                Err(_) => {
                    // A note torn by a death while it was written: its container never
                    // ran its program, because the note comes first.
                    let _ = std::fs::remove_file(&path);
                    continue;
                }
            };
            let id = record.id.clone();
            match self.adopt_one(record, table) {
                Ok(true) => {}
                Ok(false) => finished.push(id),
                Err(e) => self.complain(&format!("cannot take over container {id}: {e}")),
            }
        }
        // The batch that was under way belongs before anything else of its container.
        if let Some(unfinished) = self.mover.unfinished()? {
            let journal = self.containers.get_mut(&unfinished.id).and_then(|c| c.journal.as_mut());
            let done = match journal {
                Some(journal) => self.mover.finish(&unfinished, now(), journal),
                None => self.mover.forget(),
            };
            if let Err(e) = done {
                self.complain(&format!("journal of {}: {e}", unfinished.id));
            }
        }
        for id in finished {
            self.ended(&id);
        }
        for key in table.keys() {
            self.complain(&format!("descriptor {key} belongs to no container"));
        }
        table.clear();
        Ok(())
    }

    /// Takes over one container; false if it has ended meanwhile.
    fn adopt_one(&mut self, record: Record, table: &mut Table) -> io::Result<bool> {
        let id = record.id.clone();
        let mut take = |what: &str| table.remove(&format!("{id}/{what}"));
        let (held_pidfd, master) = (take("pidfd"), take("master"));
        let (out, err, stdin) = (take("stdout"), take("stderr"), take("stdin"));
        let pidfd = match held_pidfd {
            Some(pidfd) => Some(pidfd),
            None => open_same_process(record.pid, record.start_time),
        };
        let Some(pidfd) = pidfd else {
            // Nobody held it and it is gone: all that can be said is that it has ended.
            let exit = Exit {
                id: id.clone(),
                code: 255,
                at: now(),
                oom_killed: false,
                unknown: true,
                started_at: record.started_at,
            };
            self.report_exit(&exit)?;
            self.remove_traces(&id);
            return Ok(true);
        };
        let io_dir = self.run_root.join("io");
        let open = |held: Option<OwnedFd>, which| match held {
            Some(fd) => Some(fd),
            None => open_pipe(&pipe_path(&io_dir, &id, which)).ok(),
        };
        let journal = match &record.log {
            Log::Journal { path, bound } => Some(Writer::open(path, *bound)?),
            _ => None,
        };
        let tty = record.tty;
        let piped = !tty && !matches!(record.log, Log::Passthrough);
        let (out, err) = if piped { (open(out, "out"), open(err, "err")) } else { (None, None) };
        let pidfd_token = self.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
        let mut container = Container {
            record,
            pidfd,
            pidfd_token,
            launching: None,
            starter: None,
            outputs: Vec::new(),
            master: None,
            input: None,
            journal,
            lost: 0,
            attached: Vec::new(),
            waiting: Vec::new(),
            owner: None,
            size: None,
            ended: false,
        };
        if let Some(master) = master {
            self.set_master(&mut container, master)?;
        }
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if let Some(fd) = fd {
                self.add_output(&mut container, fd, stream)?;
            }
        }
        if let Some(fd) = stdin {
            self.add_input(&mut container, fd)?;
        }
        self.steward_wanted |= container.record.steward_now;
        self.containers.insert(id, container);
        Ok(true)
    }

    fn add_output(&mut self, c: &mut Container, fd: OwnedFd, stream: Stream) -> io::Result<()> {
        let source = Source::Output(c.record.id.clone(), stream);
        let token = self.watch(source, fd.as_fd(), EventFlags::IN)?;
        c.outputs.push(Output { fd, token, stream, watched: true });
        Ok(())
    }

    fn add_input(&mut self, c: &mut Container, fd: OwnedFd) -> io::Result<()> {
        let token = self.token(Source::Input(c.record.id.clone()));
        c.input = Some(Input { fd, token, queue: VecDeque::new(), close: false, watched: false });
        Ok(())
    }

    /// A terminal's master is output, input and the place where its size is set.
    fn set_master(&mut self, c: &mut Container, master: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some((rows, cols)) = c.size {
            let _ = set_size(master.as_fd(), rows, cols);
        }
        self.add_output(c, master.try_clone()?, Stream::Stdout)?;
        self.add_input(c, master.try_clone()?)?;
        c.master = Some(master);
        Ok(())
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
                if self.unswept == 0 {
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
        if !self.emptying.is_empty() || self.containers.values().any(|c| c.ended) {
            return Some(soon(Duration::from_millis(5)));
        }
        if self.steward.is_some() {
            return Some(soon(Duration::from_secs(1)));
        }
        let since = self.idle_since?;
        Some(soon(LINGER.saturating_sub(since.elapsed()) + Duration::from_millis(1)))
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
            Source::ExecEnded => self.exec_ended(token, None),
            Source::ExecReport(exec) => self.exec_report(exec),
        }
    }

    // --- connections -----------------------------------------------------------------

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(e) => return Err(e.into()),
            };
            let token = self.watch(Source::Connection, socket.as_fd(), EventFlags::IN)?;
            self.connections.insert(
                token,
                Connection {
                    socket,
                    incoming: Vec::new(),
                    fds: Vec::new(),
                    outgoing: VecDeque::new(),
                    role: ConnectionRole::New,
                    interest: EventFlags::IN,
                    closing: false,
                    prepared: None,
                },
            );
        }
    }

    fn connection_event(&mut self, token: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(token);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            match recv_some(
                connection.socket.as_fd(),
                &mut connection.incoming,
                &mut connection.fds,
            ) {
                Ok(0) => return self.hang_up(token),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.hang_up(token),
            }
            self.read_frames(token);
        }
    }

    fn read_frames(&mut self, token: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            let frame = match take_frame(&mut connection.incoming) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => return self.hang_up(token),
            };
            match frame {
                (Kind::Stdin, bytes) => {
                    let ConnectionRole::Attached(attach) = &connection.role else { continue };
                    if attach.stdin {
                        let id = attach.id.clone();
                        self.stdin_from(&id, token, &bytes);
                    }
                }
                (Kind::Message, body) => {
                    let fds = std::mem::take(&mut connection.fds);
                    match serde_json::from_slice::<Envelope>(&body) {
                        Ok(envelope) if envelope.version == VERSION => {
                            self.request(token, envelope, fds);
                        }
                        Ok(envelope) => self.fail(
                            token,
                            125,
                            format!(
                                "the keeper speaks version {VERSION} of its protocol, not {}",
                                envelope.version
                            ),
                        ),
                        Err(e) => self.fail(
                            token,
                            125,
                            format!("the keeper was asked in a way it does not know: {e}"),
                        ),
                    }
                }
                _ => return self.hang_up(token),
            }
        }
    }

    fn hang_up(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        self.sources.remove(&token);
        if let Some((id, _)) = &connection.prepared {
            self.remove_traces(id);
        }
        match connection.role {
            ConnectionRole::Attached(attach) => {
                if let Some(c) = self.containers.get_mut(&attach.id) {
                    c.attached.retain(|t| *t != token);
                    if c.starter == Some(token) {
                        c.starter = None;
                    }
                    if c.owner == Some(token) {
                        c.owner = None;
                    }
                    if attach.stdin && c.record.stdin_once && !c.record.tty {
                        self.close_input(&attach.id);
                    }
                    self.unpause_output(&attach.id);
                }
            }
            ConnectionRole::Waiting(id) => {
                if let Some(c) = self.containers.get_mut(&id) {
                    c.waiting.retain(|t| *t != token);
                    if c.starter == Some(token) {
                        c.starter = None;
                    }
                    if c.owner == Some(token) {
                        c.owner = None;
                    }
                }
            }
            ConnectionRole::Exec(exec) => {
                if let Some(exec) = self.execs.get_mut(&exec) {
                    exec.client = None;
                }
            }
            ConnectionRole::New | ConnectionRole::Subscriber => {}
        }
    }

    fn send(&mut self, token: u64, message: &Message) {
        let frame = encode(message);
        self.send_bytes(token, &[&frame]);
    }

    fn send_bytes(&mut self, token: u64, parts: &[&[u8]]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        for part in parts {
            connection.outgoing.extend(*part);
        }
        self.flush(token);
    }

    /// Sends a message whose descriptor must go with its first byte.
    fn send_with(&mut self, token: u64, message: &Message, fd: BorrowedFd<'_>) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let frame = encode(message);
        if connection.outgoing.is_empty()
            && let Ok(sent) = send_some(connection.socket.as_fd(), &frame, &[fd])
        {
            connection.outgoing.extend(frame.get(sent..).unwrap_or_default());
            self.flush(token);
        } else {
            self.hang_up(token);
        }
    }

    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        while !connection.outgoing.is_empty() {
            let (front, _) = connection.outgoing.as_slices();
            match send_some(connection.socket.as_fd(), front, &[]) {
                Ok(sent) => drop(connection.outgoing.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.hang_up(token),
            }
        }
        if connection.outgoing.is_empty() && connection.closing {
            return self.hang_up(token);
        }
        let waiting = connection.outgoing.len();
        self.set_interest(token);
        let Some(connection) = self.connections.get(&token) else { return };
        if let ConnectionRole::Attached(attach) = &connection.role {
            let id = attach.id.clone();
            let owner = self.containers.get(&id).is_some_and(|c| c.owner == Some(token));
            if waiting < PATIENCE / 2 {
                self.unpause_output(&id);
            } else if !owner && waiting > IMPATIENCE {
                self.hang_up(token);
            }
        }
    }

    /// Watches a connection for what we want of it now.
    fn set_interest(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else { return };
        let mut want = EventFlags::IN;
        if let ConnectionRole::Attached(attach) = &connection.role
            && let Some(c) = self.containers.get(&attach.id)
            && c.input.as_ref().is_some_and(|i| i.queue.len() > INPUT_QUEUE)
        {
            want = EventFlags::empty();
        }
        if !connection.outgoing.is_empty() {
            want |= EventFlags::OUT;
        }
        if want != connection.interest {
            let _ = epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(token), want);
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.interest = want;
            }
        }
    }

    /// Sends the last message of a connection.
    fn finish(&mut self, token: u64, message: &Message) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.closing = true;
        }
        self.send(token, message);
    }

    fn fail(&mut self, token: u64, code: u8, message: String) {
        self.finish(token, &Message::Failed { code, not_found: false, message });
    }

    fn not_running(&mut self, token: u64, id: &str) {
        let message = format!("container {id} is not running");
        self.finish(token, &Message::Failed { code: 125, not_found: true, message });
    }

    // --- requests --------------------------------------------------------------------

    fn request(&mut self, token: u64, envelope: Envelope, fds: Vec<OwnedFd>) {
        if fds.len() != envelope.fds.len() {
            return self.fail(
                token,
                125,
                format!("{} descriptors came for {} roles", fds.len(), envelope.fds.len()),
            );
        }
        let fds = envelope.fds.into_iter().zip(fds).collect();
        match envelope.request {
            Request::Start(start) => {
                if let Err((code, message)) = self.start(token, *start, fds) {
                    self.fail(token, code, message);
                }
            }
            Request::Exec(exec) => {
                if let Err((code, message)) = self.exec(token, *exec, fds) {
                    self.fail(token, code, message);
                }
            }
            Request::Streams { id, open_stdin, quiet } => {
                if let Err(e) = self.make_streams(token, id, open_stdin, quiet) {
                    self.fail(token, 125, format!("cannot make the container's streams: {e}"));
                }
            }
            Request::Adopt(adopt) => {
                if let Err(e) = self.adopt_foreign(token, *adopt, fds) {
                    self.fail(token, 125, format!("cannot take the container over: {e}"));
                }
            }
            Request::Attach(attach) => {
                let Some(c) = self.containers.get_mut(&attach.id) else {
                    return self.not_running(token, &attach.id);
                };
                c.attached.push(token);
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Attached(attach);
                }
                self.send(token, &Message::Attached);
            }
            Request::Wait { id } => {
                let Some(c) = self.containers.get_mut(&id) else {
                    return self.not_running(token, &id);
                };
                c.waiting.push(token);
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Waiting(id);
                }
                self.send(token, &Message::Attached);
            }
            Request::Resize { id, rows, cols } => {
                let master =
                    self.containers.get(&id).and_then(|c| c.master.as_ref()).or_else(|| {
                        self.execs.values().find(|e| e.id == id).and_then(|e| e.master.as_ref())
                    });
                match master.map(|master| set_size(master.as_fd(), rows, cols)) {
                    Some(Ok(())) => self.finish(token, &Message::Done),
                    Some(Err(e)) => self.fail(token, 125, format!("cannot resize: {e}")),
                    None => self.not_running(token, &id),
                }
            }
            Request::List => {
                let containers = self.list();
                self.finish(token, &Message::Running { containers });
            }
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Subscriber;
                }
                self.send(token, &Message::Attached);
            }
            Request::Status => {
                let message = Message::Status {
                    pid: rustix::process::getpid().as_raw_nonzero().get(),
                    standby: self.standby.pid,
                    containers: self.containers.len(),
                };
                self.finish(token, &message);
            }
        }
    }

    fn list(&self) -> Vec<Running> {
        let mut execs: HashMap<&str, BTreeMap<String, i32>> = HashMap::new();
        for exec in self.execs.values() {
            execs.entry(&exec.container).or_default().insert(exec.id.clone(), exec.pid);
        }
        self.containers
            .values()
            .filter(|c| c.launching.is_none())
            .map(|c| Running {
                id: c.record.id.clone(),
                pid: c.record.pid,
                start_time: c.record.start_time,
                started_at: c.record.started_at,
                execs: execs.remove(c.record.id.as_str()).unwrap_or_default(),
            })
            .collect()
    }

    fn start(
        &mut self,
        token: u64,
        start: Start,
        fds: Vec<(Role, OwnedFd)>,
    ) -> Result<(), (u8, String)> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| (125, format!("{what}: {e}"))
        };
        if self.containers.contains_key(&start.id) {
            return Err((125, format!("container {} is running already", start.id)));
        }
        let mut descriptors = Descriptors::default();
        let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
        for (role, fd) in fds {
            match role {
                Role::Rootfs => descriptors.rootfs = Some(fd),
                Role::Mount(n) => {
                    descriptors.mounts.insert(n, fd);
                }
                Role::Namespace(kind) => {
                    descriptors.namespaces.insert(kind, fd);
                }
                Role::Stdio(n) => {
                    if let Some(place) = stdio.get_mut(usize::from(n)) {
                        *place = Some(fd);
                    }
                }
                Role::Console | Role::Process => {}
            }
        }
        let io_dir = self.run_root.join("io");
        let (mut out, mut err, mut input) = (None, None, None);
        if !start.tty {
            if start.log == Log::Passthrough {
                let [Some(i), Some(o), Some(e)] = stdio else {
                    return Err((125, "passthrough needs three descriptors".into()));
                };
                descriptors.stdio = Some([i, o, e]);
            } else {
                let quiet = start.log == Log::None && start.attach.is_none();
                let made = streams(&io_dir, &start.id, start.open_stdin, quiet)
                    .map_err(system("cannot make the container's streams"))?;
                descriptors.stdio = Some(made.theirs);
                (out, err, input) = (made.out, made.err, made.input);
            }
        }
        let journal = match &start.log {
            Log::Journal { path, bound } => {
                Some(Writer::open(path, *bound).map_err(system("cannot open the journal"))?)
            }
            _ => None,
        };
        let cgroup = self.cgroup(start.cgroup.as_ref());
        let launching = runtime::launch::launch(&start.plan, cgroup.as_ref(), descriptors)
            .map_err(|e| {
                let failed = (e.exit_code(), e.to_string());
                for which in ["out", "err"] {
                    let _ = std::fs::remove_file(pipe_path(&io_dir, &start.id, which));
                }
                failed
            })?;
        let id = start.id.clone();
        let pidfd = launching.pidfd.try_clone().map_err(system("pidfd"))?;
        let start_time = start_time_of(launching.pid);
        let record = Record {
            id: id.clone(),
            pid: launching.pid,
            start_time,
            started_at: now(),
            cgroup: start.cgroup,
            tty: start.tty,
            stdin_once: start.stdin_once,
            log: start.log,
            steward_at_exit: start.steward_at_exit,
            steward_now: start.steward_now,
        };
        let report = launching.report_fd().try_clone_to_owned().map_err(system("report socket"))?;
        let watch = |keeper: &mut Self| -> io::Result<(u64, u64)> {
            let ended = keeper.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
            let report =
                keeper.watch(Source::Report(id.clone()), report.as_fd(), EventFlags::IN)?;
            Ok((ended, report))
        };
        let (pidfd_token, report_token) = watch(self).map_err(system("epoll"))?;
        drop(report);
        let mut container = Container {
            record,
            pidfd,
            pidfd_token,
            launching: Some((launching, report_token)),
            starter: Some(token),
            outputs: Vec::new(),
            master: None,
            input: None,
            journal,
            lost: 0,
            attached: Vec::new(),
            waiting: Vec::new(),
            owner: start.owner.then_some(token),
            size: start.size,
            ended: false,
        };
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if let Some(fd) = fd {
                self.add_output(&mut container, fd, stream).map_err(system("epoll"))?;
            }
        }
        if let Some(fd) = input {
            self.add_input(&mut container, fd).map_err(system("epoll"))?;
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = match start.attach {
                Some(attach) => {
                    container.attached.push(token);
                    ConnectionRole::Attached(Attach { id: id.clone(), ..attach })
                }
                None => ConnectionRole::Waiting(id.clone()),
            };
        }
        self.idle_since = None;
        self.containers.insert(id.clone(), container);
        // The child may have reported before we watched.
        if let Err(e) = self.report(&id) {
            self.complain(&format!("report of {id}: {e}"));
        }
        Ok(())
    }

    /// Makes the streams for a container that another runtime will start.
    fn make_streams(&mut self, token: u64, id: String, input: bool, quiet: bool) -> io::Result<()> {
        if self.containers.contains_key(&id) {
            return Err(io::Error::other(format!("container {id} is running already")));
        }
        let made = streams(&self.run_root.join("io"), &id, input, quiet)?;
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        connection.prepared = Some((id, [made.out, made.err, made.input]));
        let fds = made.theirs.each_ref().map(|fd| fd.as_fd());
        let frame = encode(&Message::Streams);
        match send_some(connection.socket.as_fd(), &frame, &fds) {
            Ok(sent) if sent == frame.len() => Ok(()),
            Ok(_) => Err(io::Error::other("the connection took only a part")),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes over a container whose process another runtime has made.
    fn adopt_foreign(
        &mut self,
        token: u64,
        adopt: Adopt,
        fds: Vec<(Role, OwnedFd)>,
    ) -> io::Result<()> {
        let (mut pidfd, mut master) = (None, None);
        for (role, fd) in fds {
            match role {
                Role::Process => pidfd = Some(fd),
                Role::Console => master = Some(fd),
                _ => {}
            }
        }
        let pidfd = pidfd.ok_or_else(|| io::Error::other("no pidfd came"))?;
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        let (_, [out, err, input]) = connection.prepared.take().unwrap_or_default();
        let id = adopt.id.clone();
        let journal = match &adopt.log {
            Log::Journal { path, bound } => Some(Writer::open(path, *bound)?),
            _ => None,
        };
        let pidfd_token = self.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
        let mut container = Container {
            record: Record {
                id: id.clone(),
                pid: adopt.pid,
                start_time: adopt.start_time,
                started_at: now(),
                cgroup: adopt.cgroup,
                tty: adopt.tty,
                stdin_once: adopt.stdin_once,
                log: adopt.log,
                steward_at_exit: adopt.steward_at_exit,
                steward_now: adopt.steward_now,
            },
            pidfd,
            pidfd_token,
            launching: None,
            starter: Some(token),
            outputs: Vec::new(),
            master: None,
            input: None,
            journal,
            lost: 0,
            attached: Vec::new(),
            waiting: Vec::new(),
            owner: adopt.owner.then_some(token),
            size: adopt.size,
            ended: false,
        };
        if let Some(master) = master {
            self.set_master(&mut container, master)?;
        }
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if let Some(fd) = fd {
                self.add_output(&mut container, fd, stream)?;
            }
        }
        if let Some(fd) = input {
            self.add_input(&mut container, fd)?;
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = match adopt.attach {
                Some(attach) => {
                    container.attached.push(token);
                    ConnectionRole::Attached(Attach { id: id.clone(), ..attach })
                }
                None => ConnectionRole::Waiting(id.clone()),
            };
        }
        self.idle_since = None;
        self.containers.insert(id.clone(), container);
        self.started(&id, Vec::new())
    }

    /// Hears what a starting container's child has to say.
    fn report(&mut self, id: &str) -> io::Result<()> {
        loop {
            let Some(c) = self.containers.get_mut(id) else { return Ok(()) };
            let Some((launching, token)) = c.launching.as_mut() else { return Ok(()) };
            let token = *token;
            match launching.on_report() {
                Ok(Progress::Pending) => return Ok(()),
                Ok(Progress::Console(master)) => {
                    let Some(mut c) = self.containers.remove(id) else { return Ok(()) };
                    let set = self.set_master(&mut c, master);
                    self.containers.insert(id.to_owned(), c);
                    set?;
                }
                Ok(Progress::Ready) => {
                    let notes = std::mem::take(&mut launching.notes);
                    self.sources.remove(&token);
                    c.launching = None;
                    return self.started(id, notes);
                }
                Err(e) => {
                    self.sources.remove(&token);
                    c.launching = None;
                    let starter = c.starter.take();
                    let failed = (e.exit_code(), e.to_string());
                    self.abandon(id);
                    if let Some(starter) = starter {
                        self.fail(starter, failed.0, failed.1);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The program runs.
    fn started(&mut self, id: &str, notes: Vec<String>) -> io::Result<()> {
        let Some(c) = self.containers.get_mut(id) else { return Ok(()) };
        c.record.started_at = now();
        let record = serde_json::to_vec(&c.record)?;
        std::fs::write(self.run_root.join("running").join(id), record)?;
        if let Some(journal) = &mut c.journal {
            let _ = journal.event(c.record.started_at, r#"{"action":"start"}"#);
        }
        let (keys, fds) = c.to_hold();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        self.standby.hold(&keys, &fds);
        self.steward_wanted |= c.record.steward_now;
        let message = Message::Started {
            pid: c.record.pid,
            start_time: c.record.start_time,
            at: c.record.started_at,
            notes,
        };
        if let Some(starter) = c.starter.take() {
            let stays = c.attached.contains(&starter) || c.owner == Some(starter);
            if stays {
                self.send(starter, &message);
            } else {
                self.finish(starter, &message);
            }
        }
        self.notify(id, "start");
        Ok(())
    }

    /// Takes back a start that failed.
    fn abandon(&mut self, id: &str) {
        let Some(c) = self.containers.remove(id) else { return };
        let _ = sys::pidfd::send_signal(c.pidfd.as_fd(), 9);
        let _ = sys::pidfd::wait(c.pidfd.as_fd(), true);
        self.forget(&c);
        if let Some(cgroup) = self.cgroup(c.record.cgroup.as_ref()) {
            self.emptying.push((cgroup, Instant::now()));
        }
    }

    /// Opens a cgroup; only while it is needed, for it takes a descriptor for each
    /// hierarchy of the host.
    fn cgroup(&self, cgroup: Option<&CgroupRef>) -> Option<Cgroup> {
        Cgroup::open(&self.cgroups, &cgroup?.path).ok()
    }

    /// Stops watching what belonged to a container.
    fn forget(&mut self, c: &Container) {
        let id = &c.record.id;
        self.sources.remove(&c.pidfd_token);
        let _ = epoll::delete(&self.epoll, &c.pidfd);
        for output in &c.outputs {
            self.sources.remove(&output.token);
            let _ = epoll::delete(&self.epoll, &output.fd);
        }
        if let Some(input) = &c.input {
            self.sources.remove(&input.token);
            let _ = epoll::delete(&self.epoll, &input.fd);
        }
        self.standby.drop_prefix(&format!("{id}/"));
        self.remove_traces(id);
    }

    fn remove_traces(&self, id: &str) {
        let _ = std::fs::remove_file(self.run_root.join("running").join(id));
        for which in ["out", "err"] {
            let _ = std::fs::remove_file(pipe_path(&self.run_root.join("io"), id, which));
        }
    }

    fn notify(&mut self, id: &str, action: &str) {
        let subscribers: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| matches!(c.role, ConnectionRole::Subscriber))
            .map(|(token, _)| *token)
            .collect();
        for token in subscribers {
            self.send(token, &Message::Notice { id: id.into(), action: action.into() });
        }
    }

    // --- streams ---------------------------------------------------------------------

    fn output(&mut self, id: &str, stream: Stream) -> io::Result<()> {
        match self.move_batch(id, stream)? {
            Moved::Some | Moved::Empty => {}
            Moved::End => {
                if let Some(c) = self.containers.get_mut(id)
                    && let Some(at) = c.outputs.iter().position(|o| o.stream == stream)
                {
                    let output = c.outputs.remove(at);
                    self.sources.remove(&output.token);
                    let _ = epoll::delete(&self.epoll, &output.fd);
                }
            }
        }
        Ok(())
    }

    /// Moves one batch to the journal and to those attached.
    fn move_batch(&mut self, id: &str, stream: Stream) -> io::Result<Moved> {
        let Some(c) = self.containers.get_mut(id) else { return Ok(Moved::End) };
        let Some(output) = c.outputs.iter().find(|o| o.stream == stream) else {
            return Ok(Moved::End);
        };
        let moved = match &mut c.journal {
            Some(journal) => {
                let (moved, written) =
                    self.mover.batch(output.fd.as_fd(), id, stream, now(), journal)?;
                match written {
                    Ok(()) if c.lost > 0 && moved == Moved::Some => {
                        let note = format!(r#"{{"action":"lost","bytes":{}}}"#, c.lost);
                        if journal.event(now(), &note).is_ok() {
                            c.lost = 0;
                        }
                    }
                    Ok(()) => {}
                    Err(e) => {
                        if c.lost == 0 {
                            let line = format!("journal of {id}: {e}; output is dropped");
                            c.lost += self.mover.bytes().len() as u64;
                            self.complain(&line);
                        } else {
                            c.lost += self.mover.bytes().len() as u64;
                        }
                    }
                }
                moved
            }
            None => self.mover.read(output.fd.as_fd())?,
        };
        if moved == Moved::Some {
            self.pass_on(id, stream);
        }
        Ok(moved)
    }

    /// Gives the last batch to those attached.
    fn pass_on(&mut self, id: &str, stream: Stream) {
        let Some(c) = self.containers.get(id) else { return };
        if c.attached.is_empty() {
            return;
        }
        let kind = if stream == Stream::Stderr { Kind::Stderr } else { Kind::Stdout };
        let bytes = self.mover.bytes();
        let frame_head: [u8; HEAD] = head(kind, bytes.len());
        let mut slow = false;
        let mut ready = Vec::new();
        for token in &c.attached {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            let ConnectionRole::Attached(attach) = &connection.role else { continue };
            let wanted = if kind == Kind::Stderr { attach.stderr } else { attach.stdout };
            if !wanted {
                continue;
            }
            connection.outgoing.extend(frame_head);
            connection.outgoing.extend(bytes);
            ready.push(*token);
        }
        for token in ready {
            self.flush(token);
            if let Some(connection) = self.connections.get(&token) {
                let owner = self.containers.get(id).is_some_and(|c| c.owner == Some(token));
                slow |= owner && connection.outgoing.len() > PATIENCE;
            }
        }
        if slow {
            self.pause_output(id);
        }
    }

    fn pause_output(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        for output in c.outputs.iter_mut().filter(|o| o.watched) {
            let data = EventData::new_u64(output.token);
            let _ = epoll::modify(&self.epoll, &output.fd, data, EventFlags::empty());
            output.watched = false;
        }
    }

    fn unpause_output(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        for output in c.outputs.iter_mut().filter(|o| !o.watched) {
            let data = EventData::new_u64(output.token);
            let _ = epoll::modify(&self.epoll, &output.fd, data, EventFlags::IN);
            output.watched = true;
        }
    }

    fn stdin_from(&mut self, id: &str, token: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            // A terminal has no end of input; its reader types ctrl-d.
            if self.containers.get(id).is_some_and(|c| !c.record.tty) {
                self.close_input(id);
            }
            return;
        }
        if let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) {
            input.queue.extend(bytes);
        }
        self.feed(id);
        self.set_interest(token);
    }

    /// Writes what waits to the container.
    fn feed(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        let Some(input) = c.input.as_mut() else { return };
        let mut broken = false;
        while !input.queue.is_empty() {
            let (front, _) = input.queue.as_slices();
            match rustix::io::write(&input.fd, front) {
                Ok(n) => drop(input.queue.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken || (input.queue.is_empty() && input.close) {
            let token = input.token;
            if input.watched {
                let _ = epoll::delete(&self.epoll, &input.fd);
            }
            c.input = None;
            self.sources.remove(&token);
            self.standby.drop_prefix(&format!("{id}/stdin"));
        } else {
            let waiting = !input.queue.is_empty();
            if waiting != input.watched {
                let data = EventData::new_u64(input.token);
                let changed = if waiting {
                    epoll::add(&self.epoll, &input.fd, data, EventFlags::OUT)
                } else {
                    epoll::delete(&self.epoll, &input.fd)
                };
                if changed.is_ok() {
                    input.watched = waiting;
                }
            }
        }
        let attached = self.containers.get(id).map(|c| c.attached.clone()).unwrap_or_default();
        for token in attached {
            self.set_interest(token);
        }
    }

    fn close_input(&mut self, id: &str) {
        if let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) {
            input.close = true;
            self.feed(id);
        }
    }

    // --- ends ------------------------------------------------------------------------

    /// A container's first process has ended; finds out how, and tells everybody.
    fn ended(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        if c.launching.is_some() {
            // The launch hears of it and says why.
            return;
        }
        let how = how_ended(&c.pidfd);
        match how {
            How::Code(code) => self.finish_container(id, code, false),
            How::StillRunning => {}
            How::NotOurs | How::Unknown => {
                // Somebody else's child: the standby's, or init's. It must be reaped
                // before the kernel tells us how it ended; an older kernel tells us
                // nothing, but the standby's word may be on its way.
                if !c.ended {
                    c.ended = true;
                    let _ = epoll::modify(
                        &self.epoll,
                        &c.pidfd,
                        EventData::new_u64(c.pidfd_token),
                        EventFlags::empty(),
                    );
                }
                if matches!(how, How::Unknown) {
                    self.standby.ask_last(c.record.pid);
                } else {
                    self.standby.ask(c.record.pid);
                }
            }
        }
    }

    fn finish_container(&mut self, id: &str, code: i32, unknown: bool) {
        // All processes of a PID namespace are gone when its first one is; what they
        // wrote is in the pipes. With the host's PID namespace others may go on writing:
        // then what is there now is the end.
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..1024 {
                if !matches!(self.move_batch(id, stream), Ok(Moved::Some)) {
                    break;
                }
            }
        }
        let Some(mut c) = self.containers.remove(id) else { return };
        let cgroup = self.cgroup(c.record.cgroup.as_ref());
        let oom_killed = cgroup.as_ref().is_some_and(Cgroup::oom_killed);
        let exit = Exit {
            id: id.to_owned(),
            code,
            at: now(),
            oom_killed,
            unknown,
            started_at: c.record.started_at,
        };
        if let Some(journal) = &mut c.journal {
            let _ = journal.event(exit.at, &format!(r#"{{"action":"die","exitCode":{code}}}"#));
        }
        if let Err(e) = self.report_exit(&exit) {
            self.complain(&format!("exit of {id}: {e}"));
        }
        self.forget(&c);
        let owned = c.owner.is_some_and(|token| self.connections.contains_key(&token));
        let message = Message::Exited(exit);
        let mut told = c.attached.clone();
        told.extend(&c.waiting);
        told.extend(c.owner);
        told.sort_unstable();
        told.dedup();
        for token in told {
            self.finish(token, &message);
        }
        self.notify(id, "die");
        if c.record.steward_at_exit {
            // Whoever removes it only renames its files into the trash, so that a short
            // run does not wait for the disk; a steward deletes them now and then.
            self.unswept += 1;
            self.steward_wanted |= !owned || self.unswept >= SWEEP;
        }
        if let Some(cgroup) = cgroup {
            if cgroup.pids().is_ok_and(|p| !p.is_empty()) {
                let _ = cgroup.kill_all(9);
            }
            self.emptying.push((cgroup, Instant::now()));
        }
    }

    /// Leaves the news where any process of the engine finds it.
    fn report_exit(&self, exit: &Exit) -> io::Result<()> {
        let dir = self.run_root.join("exits");
        let temporary = self.run_root.join(format!("io/{}.exit", exit.id));
        std::fs::write(&temporary, serde_json::to_vec(exit)?)?;
        std::fs::rename(temporary, dir.join(&exit.id))
    }

    fn hear_standby(&mut self) -> io::Result<()> {
        let Some(ended) = self.standby.hear() else { return self.new_standby() };
        for (pid, code) in ended {
            let id =
                self.containers.values().find(|c| c.record.pid == pid).map(|c| c.record.id.clone());
            let Some(code) = code else {
                // The standby has no news of it. If the kernel has none either, its exit
                // code is lost.
                if let Some(id) = id
                    && let Some(c) = self.containers.get(&id)
                    && c.launching.is_none()
                    && matches!(how_ended(&c.pidfd), How::Unknown)
                {
                    self.finish_container(&id, 255, true);
                }
                continue;
            };
            if let Some(id) = id {
                self.finish_container(&id, code, false);
            } else if let Some(token) =
                self.execs.iter().find(|(_, e)| e.pid == pid).map(|(token, _)| *token)
            {
                self.exec_ended(token, Some(code))?;
            }
        }
        Ok(())
    }

    /// The standby has died: forks another, which holds copies of all we hold.
    fn new_standby(&mut self) -> io::Result<()> {
        let (ours, theirs) = standby::pair()?;
        match sys::clone::fork()? {
            Side::Parent { pid, .. } => {
                drop(theirs);
                let _ = epoll::delete(&self.epoll, self.standby.fd());
                self.standby = Standby::new(ours, pid);
                self.watch_standby()
            }
            Side::Child => {
                drop(ours);
                let outcome = self.live_as_standby(theirs);
                std::process::exit(i32::from(outcome.is_err()));
            }
        }
    }

    /// In a freshly forked child: keeps the descriptors, drops the rest.
    fn live_as_standby(&mut self, socket: OwnedFd) -> io::Result<()> {
        let mut table = Table::new();
        table.insert("listen".into(), self.listener.try_clone()?);
        for (key, fd) in KEYS.iter().zip(self.mover.parts()) {
            table.insert((*key).to_owned(), fd.try_clone_to_owned()?);
        }
        for c in self.containers.values() {
            let (keys, fds) = c.to_hold();
            for (key, fd) in keys.into_iter().zip(fds) {
                table.insert(key, fd.try_clone_to_owned()?);
            }
        }
        self.connections.clear();
        self.containers.clear();
        self.execs.clear();
        self.sources.clear();
        // The copy of the epoll descriptor must not keep events alive.
        self.epoll = epoll::create(CreateFlags::CLOEXEC)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = rustix::thread::set_name(c"wherry-standby");
        let (run_root, program) = (self.run_root.clone(), self.program.clone());
        let steward_args = self.steward_args.clone();
        match standby::live(table, Some(socket))? {
            Turn::Leave => Ok(()),
            Turn::Keeper(table, standby) => {
                Keeper::take_over(table, standby, &run_root, &program, steward_args)?.run()
            }
        }
    }

    // --- exec ------------------------------------------------------------------------

    fn exec(
        &mut self,
        token: u64,
        exec: Exec,
        fds: Vec<(Role, OwnedFd)>,
    ) -> Result<(), (u8, String)> {
        let Some(c) = self.containers.get(&exec.id).filter(|c| c.launching.is_none()) else {
            self.not_running(token, &exec.id);
            return Ok(());
        };
        let mut descriptors = Descriptors::default();
        if !exec.tty {
            let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
            for (role, fd) in fds {
                if let Role::Stdio(n) = role
                    && let Some(place) = stdio.get_mut(usize::from(n))
                {
                    *place = Some(fd);
                }
            }
            let [Some(i), Some(o), Some(e)] = stdio else {
                return Err((125, "exec needs three descriptors".into()));
            };
            descriptors.stdio = Some([i, o, e]);
        }
        let launching = runtime::launch::exec(
            &exec.plan,
            c.pidfd.as_fd(),
            self.cgroup(c.record.cgroup.as_ref()).as_ref(),
            descriptors,
        )
        .map_err(|e| (e.exit_code(), e.to_string()))?;
        let watch = |keeper: &mut Self| -> io::Result<(u64, u64, OwnedFd)> {
            let pidfd = launching.pidfd.try_clone()?;
            let ended = keeper.watch(Source::ExecEnded, pidfd.as_fd(), EventFlags::IN)?;
            let source = Source::ExecReport(ended);
            let report = keeper.watch(source, launching.report_fd(), EventFlags::IN)?;
            Ok((ended, report, pidfd))
        };
        let (ended, report, pidfd) = watch(self).map_err(|e| (125, format!("epoll: {e}")))?;
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = ConnectionRole::Exec(ended);
        }
        self.execs.insert(
            ended,
            ExecProcess {
                id: exec.exec_id,
                container: exec.id,
                pid: launching.pid,
                pidfd,
                launching: Some((launching, report)),
                master: None,
                client: Some(token),
                size: exec.size,
            },
        );
        self.exec_report(ended).map_err(|e| (125, e.to_string()))
    }

    fn exec_report(&mut self, exec_token: u64) -> io::Result<()> {
        loop {
            let Some(exec) = self.execs.get_mut(&exec_token) else { return Ok(()) };
            let Some((launching, report)) = exec.launching.as_mut() else { return Ok(()) };
            let report = *report;
            match launching.on_report() {
                Ok(Progress::Pending) => return Ok(()),
                Ok(Progress::Console(master)) => {
                    if let Some((rows, cols)) = exec.size {
                        let _ = set_size(master.as_fd(), rows, cols);
                    }
                    exec.master = Some(master);
                }
                Ok(Progress::Ready) => {
                    let notes = std::mem::take(&mut launching.notes);
                    self.sources.remove(&report);
                    exec.launching = None;
                    let message = Message::Started {
                        pid: exec.pid,
                        start_time: start_time_of(exec.pid),
                        at: now(),
                        notes,
                    };
                    let master = exec.master.as_ref().map(|m| m.try_clone()).transpose()?;
                    if let Some(client) = exec.client {
                        match &master {
                            Some(master) => self.send_with(client, &message, master.as_fd()),
                            None => self.send(client, &message),
                        }
                    }
                    return Ok(());
                }
                Err(e) => {
                    self.sources.remove(&report);
                    exec.launching = None;
                    let client = exec.client.take();
                    let failed = (e.exit_code(), e.to_string());
                    if let Some(exec) = self.execs.remove(&exec_token) {
                        self.sources.remove(&exec_token);
                        let _ = epoll::delete(&self.epoll, &exec.pidfd);
                        let _ = sys::pidfd::send_signal(exec.pidfd.as_fd(), 9);
                        let _ = sys::pidfd::wait(exec.pidfd.as_fd(), true);
                    }
                    if let Some(client) = client {
                        self.fail(client, failed.0, failed.1);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn exec_ended(&mut self, token: u64, known: Option<i32>) -> io::Result<()> {
        let Some(exec) = self.execs.get(&token) else { return Ok(()) };
        if exec.launching.is_some() {
            return Ok(());
        }
        let code = match known.map_or_else(|| how_ended(&exec.pidfd), How::Code) {
            How::Code(code) => code,
            How::StillRunning => return Ok(()),
            How::NotOurs | How::Unknown => 255,
        };
        let Some(exec) = self.execs.remove(&token) else { return Ok(()) };
        self.sources.remove(&token);
        let _ = epoll::delete(&self.epoll, &exec.pidfd);
        if let Some(client) = exec.client {
            let exit = Exit {
                id: exec.id,
                code,
                at: now(),
                oom_killed: false,
                unknown: false,
                started_at: 0,
            };
            self.finish(client, &Message::Exited(exit));
        }
        Ok(())
    }

    // --- the rest --------------------------------------------------------------------

    fn housekeeping(&mut self) {
        self.emptying.retain(|(cgroup, since)| {
            cgroup.try_remove().is_err() && since.elapsed() < Duration::from_secs(30)
        });
        let ended: Vec<String> =
            self.containers.values().filter(|c| c.ended).map(|c| c.record.id.clone()).collect();
        for id in ended {
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
        let busy = !self.containers.is_empty()
            || !self.connections.is_empty()
            || !self.emptying.is_empty();
        if busy {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Starts the engine process that does what must be done at an end.
    fn spawn_steward(&mut self) {
        self.steward_wanted = false;
        self.unswept = 0;
        let spawned = std::process::Command::new(&self.program)
            .args(&self.steward_args)
            .env_clear()
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => self.steward = Some(child),
            Err(e) => self.complain(&format!("cannot start {}: {e}", self.program.display())),
        }
    }

    fn may_leave(&self) -> bool {
        self.containers.is_empty()
            && self.connections.is_empty()
            && self.steward.is_none()
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
