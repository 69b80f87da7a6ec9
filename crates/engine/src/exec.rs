//! `exec`: a further process in a running container.

use std::os::fd::{AsFd, OwnedFd};

use keeper::protocol::{Exec, Message, Request, Role};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::attachment::Attachment;
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::names;
use crate::record::{Record, State};
use crate::spec;
use crate::start::terminal_size;
use crate::types::ExecConfig;
use crate::user;

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

    pub(crate) fn exec_as(
        &self,
        name: &str,
        exec_id: String,
        config: ExecConfig,
        detach: bool,
    ) -> Result<ExecSession> {
        let record = self.ready_for_exec(name)?;
        let argv = config.cmd.clone().unwrap_or_default();
        if argv.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let mut fds = Vec::new();
        let (mut stdin, mut stdout, mut stderr) = (None, None, None);
        if !config.tty {
            let theirs_in = if config.attach_stdin && !detach {
                let (read, write) = pipe()?;
                stdin = Some(write);
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
            let theirs_out = output(config.attach_stdout, &mut stdout)?;
            let theirs_err = output(config.attach_stderr, &mut stderr)?;
            fds = vec![
                (Role::Stdio(0), theirs_in),
                (Role::Stdio(1), theirs_out),
                (Role::Stdio(2), theirs_err),
            ];
        }
        let plan = self.exec_plan(&record, &config, argv.clone())?;
        let note = |action: &str, more: &[(&str, String)]| {
            self.store()
                .db()
                .transaction(|tx| events::note_container(tx, clock::now(), action, &record, more))
        };
        let words = argv.join(" ");
        let mut connection = self.keeper().connect()?;
        let request = Request::Exec(Box::new(Exec {
            id: record.id.clone(),
            exec_id: exec_id.clone(),
            plan,
            tty: config.tty,
            size: config.console_size.and_then(terminal_size),
        }));
        let Message::Started { pid, notes, .. } = connection.ask(request, fds)? else {
            return Err(keeper::Error::Version.into());
        };
        notes.iter().for_each(|note| self.debug(note));
        note(&format!("exec_start: {words}"), &[("execID", exec_id.clone())])?;
        let attachment = if detach {
            None
        } else if config.tty {
            let master = connection
                .fds
                .pop()
                .ok_or_else(|| Error::system("exec", "no terminal came back"))?;
            let input = master
                .try_clone()
                .map_err(|e| Error::system("cannot copy the terminal's descriptor", e))?;
            Some(Attachment::to_exec(connection, Some(input), Some(master), None, true)?)
        } else {
            Some(Attachment::to_exec(connection, stdin, stdout, stderr, false)?)
        };
        Ok(ExecSession { attachment, id: exec_id, pid })
    }

    fn exec_plan(
        &self,
        record: &Record,
        config: &ExecConfig,
        argv: Vec<String>,
    ) -> Result<runtime::ExecPlan> {
        let mut plan = self.exec_template(record)?;
        let host = &record.definition.host;
        let pidfd = record.identity().open().map_err(|_| {
            Error::new(ErrorKind::Conflict, format!("container {} is not running", record.id))
        })?;
        let root = rustix::fs::open(
            format!("/proc/{}/root", record.pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::system("cannot open the container's root", std::io::Error::from(e)))?;
        let user =
            if config.user.is_empty() { &record.definition.config.user } else { &config.user };
        let groups = host.group_add.as_deref().unwrap_or_default();
        let identity = user::identify(root.as_fd(), user, groups)?;
        drop(pidfd);
        let capabilities = if config.privileged {
            runtime::capabilities::names().collect()
        } else {
            spec::capabilities(host)?
        };
        let base = &plan.process;
        let mut env: Vec<String> = base.env.clone();
        env.retain(|e| !e.starts_with("HOME=") || identity_home_given(record));
        let given = config.env.clone().unwrap_or_default();
        for entry in &given {
            let key = entry.split('=').next().unwrap_or("");
            env.retain(|e| e.split('=').next() != Some(key));
        }
        if config.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        env.extend(given.into_iter().filter(|e| e.contains('=')));
        if !env.iter().any(|e| e.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        let cwd = match config.working_dir.as_str() {
            "" => base.cwd.to_string_lossy().into_owned(),
            dir if dir.starts_with('/') => dir.to_owned(),
            dir => {
                return Err(Error::invalid(format!(
                    "the working directory '{dir}' is invalid, it needs to be an absolute path"
                )));
            }
        };
        let process = serde_json::json!({
            "terminal": config.tty,
            "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
            "args": argv,
            "env": env,
            "cwd": cwd,
            "capabilities": spec::capability_sets(&capabilities, identity.uid),
            "noNewPrivileges": base.no_new_privileges,
            "oomScoreAdj": host.oom_score_adj,
        });
        let process = serde_json::from_value(process)
            .map_err(|e| Error::system("the process is not valid", e))?;
        let mut process = runtime::plan::Process::from_spec(&process)?;
        process.rlimits = plan.process.rlimits.clone();
        process.apparmor_profile.clone_from(&plan.process.apparmor_profile);
        process.selinux_label.clone_from(&plan.process.selinux_label);
        if config.privileged {
            plan.seccomp = None;
        }
        plan.process = process;
        Ok(plan)
    }
}

/// The container was made with a HOME of its own, which execs keep.
fn identity_home_given(record: &Record) -> bool {
    record.definition.config.env.iter().flatten().any(|e| e.starts_with("HOME="))
}
