//! `exec`: a further process in a running container.

use std::os::fd::OwnedFd;

use keeper::client::Connection;
use keeper::protocol::{Exec, Message, Request, Role};
use runtime::state::ProcessIdentity;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::attachment::Attachment;
use crate::engine::{Engine, EngineOptions, keeper_of};
use crate::error::{Error, ErrorKind, Result};
use crate::exec_basis::Basis;
use crate::exec_events::Note;
use crate::names;
use crate::record::{Record, State};
use crate::start::terminal_size;
use crate::types::ExecConfig;

/// A process started by `exec`.
#[derive(Debug)]
pub struct ExecSession {
    /// Its streams, unless it was started detached.
    pub attachment: Option<Attachment>,
    /// Its id.
    pub id: String,
    /// Its pid on the host.
    pub pid: i32,
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|e| Error::system("cannot make a pipe", std::io::Error::from(e)))
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::system("cannot open /dev/null", std::io::Error::from(e)))
}

impl Engine {
    /// Runs a program in a running container. `detach`: nobody listens.
    ///
    /// # Errors
    /// `Conflict` if the container does not run or is paused; `CommandNotFound` and
    /// `CommandNotExecutable` if the program can't be run.
    pub fn exec(&self, name: &str, config: ExecConfig, detach: bool) -> Result<ExecSession> {
        self.exec_as(name, names::new_id()?, Made::Now, config, detach)
    }

    /// The container, if a program can be run in it.
    pub(crate) fn ready_for_exec(&self, name: &str) -> Result<Record> {
        let record = self.current(name)?;
        match record.state {
            State::Running => Ok(record),
            State::Paused => Err(Error::new(
                ErrorKind::Conflict,
                format!("container {} is paused, unpause the container before exec", record.name),
            )),
            _ => Err(Error::new(
                ErrorKind::Conflict,
                format!("container {} is not running", record.id),
            )),
        }
    }

    /// As [`Engine::exec`], but without the database: what the process is made from the keeper knows, as a rule, and
    /// it reports what the events are to say. For commands, which have not opened anything yet.
    ///
    /// # Errors
    /// As [`Engine::exec`] and [`Engine::open`].
    pub fn open_and_exec(
        options: EngineOptions,
        name: &str,
        config: ExecConfig,
        detach: bool,
    ) -> Result<ExecSession> {
        let Some((connection, basis, first)) = find_running(&options, name) else {
            return Self::open(options)?.exec(name, config, detach);
        };
        let id = names::new_id()?;
        let heard = hear(ask(connection, basis, &first, id, Made::Now, &config, detach)?)?;
        let debug = options.debug;
        heard.finish(debug, |begun, id| Self::open(options)?.note_begun(begun, id))
    }

    pub(crate) fn exec_as(
        &self,
        name: &str,
        exec_id: String,
        made: Made,
        config: ExecConfig,
        detach: bool,
    ) -> Result<ExecSession> {
        let record = self.ready_for_exec(name)?;
        let basis = Basis::new(&record, &self.plan_of(&record)?)?;
        let connection = self.keeper().connect()?;
        let first = record.identity();
        let heard = hear(ask(connection, basis, &first, exec_id, made, &config, detach)?)?;
        heard.finish(self.options().debug, |begun, id| self.note_begun(begun, id))
    }

    /// Of an exec that the keeper could not report.
    fn note_begun(&self, begun: &Begun, id: &str) -> Result<()> {
        self.store().db().transaction(|tx| begun.note.begun(tx, id, begun.at))
    }
}

/// When an exec was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// By who starts it.
    Now,
    /// By [`Engine::create_exec`], which has said so.
    Before,
}

/// What the keeper has answered.
struct Heard {
    session: ExecSession,
    /// Things a person may want to know.
    notes: Vec<String>,
    /// What the keeper has not reported, and somebody is to be told.
    unreported: Option<Begun>,
}

impl Heard {
    /// Passes the notes on, and has written down what is to be; `write_down` gets the exec's id, too.
    fn finish(
        self,
        debug: Option<fn(&str)>,
        write_down: impl FnOnce(&Begun, &str) -> Result<()>,
    ) -> Result<ExecSession> {
        if let Some(debug) = debug {
            self.notes.iter().for_each(|note| debug(note));
        }
        if let Some(begun) = &self.unreported {
            write_down(begun, &self.session.id)?;
        }
        Ok(self.session)
    }
}

struct Begun {
    note: Note,
    at: i64,
}

/// Waits until it runs, or has failed.
fn hear(asked: Asked) -> Result<Heard> {
    let Asked { mut connection, id, note, detach, tty, streams } = asked;
    let Message::Started { pid, notes, at, reported, .. } = connection.answer()? else {
        return Err(keeper::Error::Version.into());
    };
    let attachment = if detach {
        None
    } else if tty {
        let master =
            connection.fds.pop().ok_or_else(|| Error::system("exec", "no terminal came back"))?;
        let input = master
            .try_clone()
            .map_err(|e| Error::system("cannot copy the terminal's descriptor", e))?;
        Some(Attachment::to_exec(connection, Some(input), Some(master), None, true)?)
    } else {
        let [stdin, stdout, stderr] = streams;
        Some(Attachment::to_exec(connection, stdin, stdout, stderr, false)?)
    };
    let unreported = note.filter(|_| !reported).map(|note| Begun { note, at });
    Ok(Heard { session: ExecSession { attachment, id, pid }, notes, unreported })
}

/// An exec that the keeper was asked for.
struct Asked {
    connection: Connection,
    id: String,
    /// For the events; of steps of a build nobody is told.
    note: Option<Note>,
    detach: bool,
    tty: bool,
    /// Our ends.
    streams: [Option<OwnedFd>; 3],
}

/// The running container of this name, if the keeper knows it well enough.
fn find_running(
    options: &EngineOptions,
    name: &str,
) -> Option<(Connection, Basis, ProcessIdentity)> {
    let mut connection = keeper_of(options).connect_existing().ok()??;
    let data_root = std::path::absolute(&options.data_root).ok()?;
    let request = Request::Find { name: name.to_owned(), data_root };
    let Ok(Message::Found { container: Some(found) }) = connection.ask(request, Vec::new()) else {
        return None;
    };
    let basis = Basis::from_known(&found.facts, &options.data_root.join("cache"))?;
    Some((connection, basis, ProcessIdentity { pid: found.pid, start_time: found.start_time }))
}

/// Asks the keeper for a process in the container whose first process is `first`.
fn ask(
    mut connection: Connection,
    basis: Basis,
    first: &ProcessIdentity,
    id: String,
    made: Made,
    config: &ExecConfig,
    detach: bool,
) -> Result<Asked> {
    let argv = config.cmd.as_deref().unwrap_or_default();
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    let mut fds = Vec::new();
    let mut streams = [None, None, None];
    if !config.tty {
        let [stdin, stdout, stderr] = &mut streams;
        let theirs_in = if config.attach_stdin && !detach {
            let (read, write) = pipe()?;
            *stdin = Some(write);
            read
        } else {
            null()?
        };
        let output = |wanted: bool, ours: &mut Option<OwnedFd>| -> Result<OwnedFd> {
            if !wanted || detach {
                return null();
            }
            let (read, write) = pipe()?;
            *ours = Some(read);
            Ok(write)
        };
        let theirs_out = output(config.attach_stdout, stdout)?;
        let theirs_err = output(config.attach_stderr, stderr)?;
        fds = vec![
            (Role::Stdio(0), theirs_in),
            (Role::Stdio(1), theirs_out),
            (Role::Stdio(2), theirs_err),
        ];
    }
    let plan = basis.plan(first, config)?;
    let container = basis.id.clone();
    let note = (!basis.step).then(|| Note::of(basis, made, config));
    let request = Request::Exec(Box::new(Exec {
        id: container,
        exec_id: id.clone(),
        plan,
        tty: config.tty,
        size: config.console_size.and_then(terminal_size),
        note: note.as_ref().and_then(Note::for_keeper),
    }));
    connection.request(request, fds)?;
    Ok(Asked { connection, id, note, detach, tty: config.tty, streams })
}
