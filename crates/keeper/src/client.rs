//! The other side of the keeper's socket: what engine processes use.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Error;
use crate::protocol::{
    EXEC_REPORT, ExecReport, Exit, Kind, Message, Request, Role, Running, head, recv_some,
    send_all, send_request, take_frame,
};

/// A byte for each container that was renamed, in the run root.
const RENAMES: &str = "renames";

/// Where the keeper is, and how to start one.
#[derive(Debug, Clone)]
pub struct Client {
    /// The engine's run root; must exist.
    pub run_root: PathBuf,
    /// The engine's own program.
    pub program: PathBuf,
    /// Arguments that make it a keeper.
    pub keeper_args: Vec<String>,
}

/// Bytes of the file that renaming a container makes longer; see [`crate::protocol::Known`].
pub(crate) fn renames(run_root: &Path) -> u64 {
    std::fs::metadata(run_root.join(RENAMES)).map_or(0, |m| m.len())
}

impl Client {
    /// How many containers were renamed; see [`crate::protocol::Known`].
    pub fn renames(&self) -> u64 {
        renames(&self.run_root)
    }

    /// A container is about to be given another name: from now on the keeper does not know it by its old one.
    pub fn forget_name(&self, id: &str) -> Result<(), Error> {
        let path = self.run_root.join(RENAMES);
        let file = std::fs::File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(b"."))
            .map_err(|source| Error::Renames { path, source })?;
        if let Some(mut keeper) = self.connect_existing()? {
            keeper.ask(Request::Forget { id: id.to_owned() }, Vec::new())?;
        }
        Ok(())
    }

    fn socket_path(&self) -> PathBuf {
        self.run_root.join("keeper.sock")
    }

    fn connect_error(&self, source: impl Into<io::Error>) -> Error {
        Error::Connect { path: self.socket_path(), source: source.into() }
    }

    /// Connects if a keeper is there; `None` where none runs.
    pub fn connect_existing(&self) -> Result<Option<Connection>, Error> {
        match self.try_connect() {
            Ok(socket) => Ok(Some(Connection::new(socket))),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(e) => Err(self.connect_error(e)),
        }
    }

    /// Connects, starting a keeper if none runs.
    pub fn connect(&self) -> Result<Connection, Error> {
        if let Some(connection) = self.connect_existing()? {
            return Ok(connection);
        }
        // One starts it, the others wait for that one.
        let lock = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.run_root.join("keeper.lock"))
            .map_err(|e| self.connect_error(e))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| self.connect_error(e))?;
        for _ in 0..16 {
            if let Some(connection) = self.connect_existing()? {
                return Ok(connection);
            }
            self.spawn()?;
        }
        Err(self.connect_error(io::Error::other("it leaves as soon as it has started")))
    }

    fn try_connect(&self) -> Result<OwnedFd, Errno> {
        let socket = unix_socket()?;
        with_short_path(&self.socket_path(), |path| {
            rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
        })?;
        Ok(socket)
    }

    /// Binds the socket and starts a keeper that finds it as its standard input. Who
    /// connects before it listens waits in the socket's queue.
    fn spawn(&self) -> Result<(), Error> {
        let path = self.socket_path();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.connect_error(e)),
            _ => {}
        }
        let bind = || -> Result<OwnedFd, Errno> {
            let socket = unix_socket()?;
            with_short_path(&path, |path| rustix::net::bind(&socket, &SocketAddrUnix::new(path)?))?;
            rustix::net::listen(&socket, 4096)?;
            Ok(socket)
        };
        let socket = bind().map_err(|e| self.connect_error(e))?;
        let mut child = std::process::Command::new(&self.program)
            .args(&self.keeper_args)
            .env_clear()
            .stdin(socket)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .current_dir("/")
            .spawn()
            .map_err(|e| self.connect_error(e))?;
        // It is nobody's child once we are gone; a longer-lived caller must not be left
        // with a zombie, but waiting here would take as long as the keeper lives.
        if let Ok(Some(status)) = child.try_wait() {
            return Err(self.connect_error(io::Error::other(format!("it ended with {status}"))));
        }
        Ok(())
    }

    /// What runs. Without a keeper, nothing does, unless it was killed: then starting one
    /// makes it take over what is left.
    pub fn list(&self) -> Result<Vec<Running>, Error> {
        self.ask_for(None)
    }

    /// What runs of one container.
    pub fn running(&self, id: &str) -> Result<Option<Running>, Error> {
        Ok(self.ask_for(Some(id.to_owned()))?.into_iter().find(|running| running.id == id))
    }

    /// Connects if a keeper is there, or was and has left something to take over; `None` where nothing runs.
    pub fn connect_to_last(&self) -> Result<Option<Connection>, Error> {
        match self.connect_existing()? {
            None if self.leftovers() => self.connect().map(Some),
            there => Ok(there),
        }
    }

    fn ask_for(&self, id: Option<String>) -> Result<Vec<Running>, Error> {
        let Some(mut connection) = self.connect_to_last()? else { return Ok(Vec::new()) };
        match connection.ask(Request::List { id }, Vec::new())? {
            Message::Running { containers } => Ok(containers),
            _ => Err(Error::Version),
        }
    }

    /// Whether a dead keeper left notes on running containers.
    pub fn leftovers(&self) -> bool {
        std::fs::read_dir(self.run_root.join("running"))
            .is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Reports that no process has taken in yet.
    pub fn reports(&self) -> io::Result<Reports> {
        let (execs, ends) = self.report_files()?;
        let exits = ends.iter().filter_map(|path| read(path)).collect();
        Ok(Reports { exits, execs: in_turn(&execs) })
    }

    /// Those of execs among them, the oldest first.
    pub fn exec_reports(&self) -> io::Result<Vec<ExecReport>> {
        Ok(in_turn(&self.report_files()?.0))
    }

    /// The files of reports: of execs, and of containers' ends.
    fn report_files(&self) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let mut files = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(exits(&self.run_root)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(EXEC_REPORT.as_bytes()) {
                files.0.push(entry.path());
            } else {
                files.1.push(entry.path());
            }
        }
        Ok(files)
    }

    /// The report of one container's end.
    pub fn exit_of(&self, id: &str) -> Option<Exit> {
        read(&exits(&self.run_root).join(id))
    }

    /// Drops a report, once its content is kept elsewhere: of a container's end by its id, or of an exec by
    /// [`ExecReport::file_name`].
    pub fn forget_report(&self, name: &str) {
        let _ = std::fs::remove_file(exits(&self.run_root).join(name));
    }
}

/// What the keeper has left to be taken in.
#[derive(Debug, Default)]
pub struct Reports {
    /// Of containers' ends.
    pub exits: Vec<Exit>,
    /// Of execs, the oldest first.
    pub execs: Vec<ExecReport>,
}

/// Where reports are.
pub(crate) fn exits(run_root: &Path) -> PathBuf {
    run_root.join("exits")
}

/// The reports in these files, the oldest first.
fn in_turn(files: &[PathBuf]) -> Vec<ExecReport> {
    let mut reports: Vec<ExecReport> = files.iter().filter_map(|path| read(path)).collect();
    reports.sort_by_key(|report| report.at);
    reports
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Addresses of Unix sockets hold 107 bytes; a longer path is named through a descriptor
/// of its directory.
fn with_short_path<T>(
    path: &Path,
    with: impl FnOnce(&Path) -> Result<T, Errno>,
) -> Result<T, Errno> {
    if path.as_os_str().len() <= 100 {
        return with(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NAMETOOLONG);
    };
    let dir = rustix::fs::open(
        parent,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    use std::os::fd::AsRawFd as _;
    with(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}

/// What came over a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// Bytes of standard output.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// A message.
    Message(Message),
    /// The keeper closed the connection, or died.
    End,
}

/// A connection to the keeper.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    incoming: Vec<u8>,
    /// Descriptors that came and were not taken yet.
    pub fds: Vec<OwnedFd>,
    ended: bool,
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Vec::new(), fds: Vec::new(), ended: false }
    }

    /// To poll for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a request with its descriptors.
    pub fn request(&mut self, request: Request, fds: Vec<(Role, OwnedFd)>) -> Result<(), Error> {
        Ok(send_request(&self.socket, request, fds)?)
    }

    /// Sends a request and waits for its first answer.
    pub fn ask(&mut self, request: Request, fds: Vec<(Role, OwnedFd)>) -> Result<Message, Error> {
        self.request(request, fds)?;
        self.answer()
    }

    /// Waits for a message; an answer that says no is an error.
    pub fn answer(&mut self) -> Result<Message, Error> {
        loop {
            match self.receive(true)? {
                Some(Received::Message(Message::Failed { code, not_found, message })) => {
                    return Err(Error::Failed { code, not_found, message });
                }
                Some(Received::Message(message)) => return Ok(message),
                Some(Received::End) => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Some(Received::Stdout(_) | Received::Stderr(_)) | None => {}
            }
        }
    }

    /// The next frame. Without `wait`, `None` when none is complete yet.
    pub fn receive(&mut self, wait: bool) -> Result<Option<Received>, Error> {
        loop {
            match take_frame(&mut self.incoming).map_err(|_| Error::Version)? {
                Some((Kind::Stdout, bytes)) => return Ok(Some(Received::Stdout(bytes))),
                Some((Kind::Stderr, bytes)) => return Ok(Some(Received::Stderr(bytes))),
                Some((Kind::Message, body)) => {
                    let message = serde_json::from_slice(&body).map_err(|_| Error::Version)?;
                    return Ok(Some(Received::Message(message)));
                }
                Some((Kind::Stdin, _)) => return Err(Error::Version),
                None => {}
            }
            if self.ended {
                return Ok(Some(Received::End));
            }
            if !wait {
                let mut ready =
                    [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
                let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
                match rustix::event::poll(&mut ready, Some(&now)) {
                    Ok(0) => return Ok(None),
                    Ok(_) => {}
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(io::Error::from(e).into()),
                }
            }
            match recv_some(self.socket.as_fd(), &mut self.incoming, &mut self.fds) {
                Ok(0) | Err(Errno::CONNRESET) => self.ended = true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    /// Writes to the container's standard input; an empty slice closes it.
    pub fn stdin(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(send_all(self.socket.as_fd(), &head(Kind::Stdin, 0), &[])?);
        }
        for part in bytes.chunks(64 * 1024) {
            let mut frame = head(Kind::Stdin, part.len()).to_vec();
            frame.extend_from_slice(part);
            send_all(self.socket.as_fd(), &frame, &[])?;
        }
        Ok(())
    }
}
