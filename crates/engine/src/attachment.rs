//! Streams of a container or an exec, as a client sees them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keeper::client::{Connection, Received};
use keeper::protocol::{Attach, Message, Request};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::engine::{AttachOptions, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Record, State};
use crate::resume::Resume;

/// What an attached client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of standard output, or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// The process has ended with this exit code.
    Exit(i32),
    /// The connection is gone, the process perhaps not.
    Closed,
}

/// A live connection to streams. Poll [`Attachment::fd`] for reading, then call
/// [`Attachment::read`] until it returns `None`.
#[derive(Debug)]
pub struct Attachment {
    kind: Kind,
    /// Who can change the size of the terminal.
    resizer: Option<(keeper::client::Client, String)>,
}

#[derive(Debug)]
enum Kind {
    Container(Box<ContainerStreams>),
    Exec(Box<ExecStreams>),
}

/// A container's streams come through the keeper.
#[derive(Debug)]
struct ContainerStreams {
    connection: Connection,
    /// How to come back if the keeper dies; for who has been there since the start.
    resume: Option<Resume>,
}

/// An exec's streams come straight from its process, past the keeper.
#[derive(Debug)]
struct ExecStreams {
    epoll: OwnedFd,
    connection: Connection,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    master: bool,
    exit: Option<i32>,
    told: bool,
}

impl Attachment {
    pub(crate) fn to_container(
        engine: &Engine,
        record: &Record,
        connection: Connection,
        resume: Option<Resume>,
    ) -> Self {
        Self {
            kind: Kind::Container(Box::new(ContainerStreams { connection, resume })),
            resizer: Some((engine.keeper().clone(), record.id.clone())),
        }
    }

    pub(crate) fn to_exec(
        connection: Connection,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
        master: bool,
    ) -> Result<Self> {
        let failed = |e: Errno| Error::system("cannot watch the streams", io::Error::from(e));
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let add = |fd: BorrowedFd<'_>| {
            epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN).map_err(failed)
        };
        add(connection.fd())?;
        for fd in [&stdout, &stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(failed)?;
            add(fd.as_fd())?;
        }
        Ok(Self {
            kind: Kind::Exec(Box::new(ExecStreams {
                epoll,
                connection,
                stdout,
                stderr,
                stdin,
                master,
                exit: None,
                told: false,
            })),
            resizer: None,
        })
    }

    /// Readable when [`Attachment::read`] has something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Container(streams) => streams.connection.fd(),
            Kind::Exec(streams) => streams.epoll.as_fd(),
        }
    }

    /// Writable when [`Attachment::write_stdin`] takes up to 4096 bytes without waiting;
    /// `None` when nobody reads standard input.
    pub fn stdin_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Container(streams) => Some(streams.connection.fd()),
            Kind::Exec(streams) => streams.stdin.as_ref().map(AsFd::as_fd),
        }
    }

    /// The next piece, without waiting; `None`: nothing more for now.
    pub fn read(&mut self) -> Result<Option<Frame>> {
        match &mut self.kind {
            Kind::Container(streams) => streams.read(),
            Kind::Exec(streams) => streams.read(),
        }
    }

    /// Writes to standard input; waits while the process does not read.
    pub fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Container(streams) => streams.write(bytes),
            Kind::Exec(streams) => streams.write(bytes),
        }
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Container(streams) => streams.write(&[]),
            Kind::Exec(streams) => {
                if !streams.master {
                    streams.stdin = None;
                }
                Ok(())
            }
        }
    }

    /// Changes the size of the terminal.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        if let Kind::Exec(streams) = &self.kind {
            if let Some(master) = streams.stdin.as_ref().filter(|_| streams.master) {
                let size = rustix::termios::Winsize {
                    ws_row: rows,
                    ws_col: cols,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                rustix::termios::tcsetwinsize(master, size)
                    .map_err(|e| Error::system("cannot resize", io::Error::from(e)))?;
            }
            return Ok(());
        }
        match &self.resizer {
            Some((keeper, id)) => resize(keeper, id, rows, cols),
            None => Ok(()),
        }
    }
}

fn resize(keeper: &keeper::client::Client, id: &str, rows: u16, cols: u16) -> Result<()> {
    let Some(mut connection) = keeper.connect_existing()? else { return Ok(()) };
    connection.ask(Request::Resize { id: id.to_owned(), rows, cols }, Vec::new())?;
    Ok(())
}

impl ContainerStreams {
    fn read(&mut self) -> Result<Option<Frame>> {
        loop {
            let missed = self.resume.as_mut().and_then(|resume| resume.missed.pop_front());
            let frame = match missed {
                Some(frame) => frame,
                None => match self.connection.receive(false)? {
                    None => return Ok(None),
                    Some(Received::Stdout(bytes)) => Frame::Stdout(bytes),
                    Some(Received::Stderr(bytes)) => Frame::Stderr(bytes),
                    Some(Received::Message(Message::Exited(exit))) => Frame::Exit(exit.code),
                    Some(Received::Message(_)) => continue,
                    Some(Received::End) => {
                        if self.come_back() {
                            continue;
                        }
                        Frame::Closed
                    }
                },
            };
            if let Some(resume) = &mut self.resume {
                resume.tries = 0;
                resume.count(&frame);
            }
            return Ok(Some(frame));
        }
    }

    /// After the keeper's death; false when there is nothing to come back to or to be told.
    fn come_back(&mut self) -> bool {
        let Some(resume) = &mut self.resume else { return false };
        // Whoever hangs up on us again and again, without a word, means it.
        resume.tries += 1;
        if resume.tries > 16 {
            return false;
        }
        match resume.again() {
            Ok(Some(connection)) => {
                self.connection = connection;
                true
            }
            // The connection stays at its end, and leads here again once all is told.
            Ok(None) => !resume.missed.is_empty(),
            // The successor may have died as well.
            Err(_) => true,
        }
    }

    /// What a dead keeper does not take is lost; the end of the connection is for `read`.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.connection.stdin(bytes) {
            Err(_) if self.resume.is_some() => Ok(()),
            done => Ok(done?),
        }
    }
}

impl ExecStreams {
    fn read(&mut self) -> Result<Option<Frame>> {
        if self.told {
            return Ok(None);
        }
        if let Some(bytes) = Self::take(&self.epoll, &mut self.stdout)? {
            return Ok(Some(Frame::Stdout(bytes)));
        }
        if let Some(bytes) = Self::take(&self.epoll, &mut self.stderr)? {
            return Ok(Some(Frame::Stderr(bytes)));
        }
        if self.exit.is_none() {
            match self.connection.receive(false)? {
                Some(Received::Message(Message::Exited(exit))) => self.exit = Some(exit.code),
                Some(Received::End) => {
                    self.told = true;
                    return Ok(Some(Frame::Closed));
                }
                _ => return Ok(None),
            }
            // What it wrote before it ended is in the pipes by now.
            if let Some(frame) = self.rest()? {
                return Ok(Some(frame));
            }
        }
        match self.exit {
            Some(code) => {
                self.told = true;
                Ok(Some(Frame::Exit(code)))
            }
            None => Ok(None),
        }
    }

    fn rest(&mut self) -> Result<Option<Frame>> {
        if let Some(bytes) = Self::take(&self.epoll, &mut self.stdout)? {
            return Ok(Some(Frame::Stdout(bytes)));
        }
        Ok(Self::take(&self.epoll, &mut self.stderr)?.map(Frame::Stderr))
    }

    /// What a stream has now; at its end it is closed.
    fn take(epoll: &OwnedFd, stream: &mut Option<OwnedFd>) -> Result<Option<Vec<u8>>> {
        let Some(fd) = stream else { return Ok(None) };
        let mut bytes = vec![0; 32 * 1024];
        loop {
            match rustix::io::read(&*fd, &mut bytes) {
                Ok(0) | Err(Errno::IO) => {
                    let _ = epoll::delete(epoll, &*fd);
                    *stream = None;
                    return Ok(None);
                }
                Ok(n) => {
                    bytes.truncate(n);
                    return Ok(Some(bytes));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::system("cannot read the output", io::Error::from(e))),
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(fd) = &self.stdin else { return Ok(()) };
            match rustix::io::write(fd, bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    keeper::protocol::wait_for(fd.as_fd(), rustix::event::PollFlags::OUT)
                        .map_err(|e| Error::system("cannot write to the process", e))?
                }
                // It does not want any more.
                Err(Errno::PIPE | Errno::IO) => self.stdin = None,
                Err(e) => {
                    return Err(Error::system("cannot write to the process", io::Error::from(e)));
                }
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Changes the size of a running container's terminal.
    pub fn resize(&self, name: &str, rows: u16, cols: u16) -> Result<()> {
        let record = self.current(name)?;
        if !record.state.is_live() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("container {} is not running", record.id),
            ));
        }
        if !record.definition.config.tty {
            // There is nothing to be resized, which is no mistake, as in Docker.
            return Ok(());
        }
        resize(self.keeper(), &record.id, rows, cols)
    }

    /// Takes part in the streams of a running container.
    pub fn attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> {
        let record = self.current(name)?;
        match record.state {
            State::Running => {}
            State::Paused => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "container {} is paused, unpause the container before attach",
                        record.name
                    ),
                ));
            }
            State::Restarting => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "container {} is restarting, wait until the container is running",
                        record.name
                    ),
                ));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("container {} is not running", record.name),
                ));
            }
        }
        let mut connection = self.keeper().connect()?;
        let request = Request::Attach(Attach {
            id: record.id.clone(),
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            owner: false,
        });
        connection.ask(request, Vec::new())?;
        Ok(Attachment::to_container(self, &record, connection, None))
    }
}
