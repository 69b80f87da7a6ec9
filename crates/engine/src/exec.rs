//! `exec`: a further process in a running container.

use std::os::fd::OwnedFd;

use keeper::client::Connection;
use keeper::protocol::{Exec, Message, Request, Role};
use runtime::state::ProcessIdentity;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::attachment::Attachment;
use crate::clock;
use crate::engine::{Engine, EngineOptions, keeper_of};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{self, Subject};
use crate::exec_basis::Basis;
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
        self.exec_as(name, names::new_id()?, config, detach)
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

    /// As [`Engine::exec`], but the database is opened while the keeper is at work: what the process is made from
    /// the keeper knows, as a rule. For commands, which have not opened anything yet.
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
        let asked = ask(connection, basis, &first, names::new_id()?, &config, detach)?;
        Self::open(options)?.hear(asked)
    }

    pub(crate) fn exec_as(
        &self,
        name: &str,
        exec_id: String,
        config: ExecConfig,
        detach: bool,
    ) -> Result<ExecSession> {
        let record = self.ready_for_exec(name)?;
        let basis = Basis::new(&record, &self.plan_of(&record)?)?;
        let connection = self.keeper().connect()?;
        self.hear(ask(connection, basis, &record.identity(), exec_id, &config, detach)?)
    }

    /// Waits until it runs, or has failed.
    fn hear(&self, asked: Asked) -> Result<ExecSession> {
        let Asked { mut connection, basis, id, words, detach, tty, streams } = asked;
        let Message::Started { pid, notes, .. } = connection.answer()? else {
            return Err(keeper::Error::Version.into());
        };
        notes.iter().for_each(|note| self.debug(note));
        let subject = Subject {
            id: &basis.id,
            name: &basis.name,
            image: &basis.image,
            labels: &basis.labels,
        };
        if !basis.step {
            let (action, more) = (format!("exec_start: {words}"), [("execID", id.clone())]);
            self.store().db().transaction(|tx| {
                events::note_subject(tx, clock::now(), &action, subject, &more)
            })?;
        }
        let attachment = if detach {
            None
        } else if tty {
            let master = connection
                .fds
                .pop()
                .ok_or_else(|| Error::system("exec", "no terminal came back"))?;
            let input = master
                .try_clone()
                .map_err(|e| Error::system("cannot copy the terminal's descriptor", e))?;
            Some(Attachment::to_exec(connection, Some(input), Some(master), None, true)?)
        } else {
            let [stdin, stdout, stderr] = streams;
            Some(Attachment::to_exec(connection, stdin, stdout, stderr, false)?)
        };
        Ok(ExecSession { attachment, id, pid })
    }
}

/// An exec that the keeper was asked for.
struct Asked {
    connection: Connection,
    basis: Basis,
    id: String,
    words: String,
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
    let request = Request::Exec(Box::new(Exec {
        id: basis.id.clone(),
        exec_id: id.clone(),
        plan: basis.plan(first, config)?,
        tty: config.tty,
        size: config.console_size.and_then(terminal_size),
    }));
    connection.request(request, fds)?;
    let words = argv.join(" ");
    Ok(Asked { connection, basis, id, words, detach, tty: config.tty, streams })
}
