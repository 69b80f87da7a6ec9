//! Execs that are made first and started later, as the HTTP API has it.
//!
//! An instance is a file in the run root, `execs/CONTAINER/ID.json`, so that any process can start it, and look
//! after it when its maker is gone. The keeper leaves the exit code beside it, in `ID.exit`. They go with
//! their container.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{ExecSession, Made};
use crate::exec_events::Note;
use crate::names;
use crate::start::terminal_size;
use crate::types::{ExecConfig, ExecInspect, ExecProcessConfig};

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    container: String,
    config: ExecConfig,
    /// 0 until it is started.
    pid: i32,
}

impl Engine {
    fn execs_of(&self, container: &str) -> PathBuf {
        self.run_root().join("execs").join(container)
    }

    fn write_exec(&self, id: &str, instance: &Instance) -> Result<()> {
        let failed = |e: io::Error| Error::system(format!("cannot keep exec {id}"), e);
        let directory = self.execs_of(&instance.container);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let bytes = serde_json::to_vec(instance).map_err(|e| failed(e.into()))?;
        // Who reads it at the same time sees the old or the new.
        let new = directory.join(format!("{id}.new"));
        std::fs::write(&new, bytes).map_err(failed)?;
        std::fs::rename(&new, directory.join(format!("{id}.json"))).map_err(failed)
    }

    fn find_exec(&self, id: &str) -> Result<Instance> {
        let missing = || Error::new(ErrorKind::NotFound, format!("No such exec instance: {id}"));
        // It becomes part of a path.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let all = std::fs::read_dir(self.run_root().join("execs")).map_err(|_| missing())?;
        for entry in all.flatten() {
            match std::fs::read(entry.path().join(format!("{id}.json"))) {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes)
                        .map_err(|e| Error::system(format!("exec {id} is damaged"), e));
                }
                Err(_) => continue,
            }
        }
        Err(missing())
    }

    /// Makes an exec that [`Engine::start_exec`] will start; its id.
    ///
    /// # Errors
    /// As [`Engine::exec`].
    pub fn create_exec(&self, name: &str, config: ExecConfig) -> Result<String> {
        let record = self.ready_for_exec(name)?;
        if config.cmd.as_deref().and_then(<[_]>::first).is_none_or(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = names::new_id()?;
        let note = Note::new(&record, &config);
        let instance = Instance { container: record.id, config, pid: 0 };
        self.write_exec(&id, &instance)?;
        self.store().db().transaction(|tx| note.created(tx, &id, clock::now()))?;
        Ok(id)
    }

    /// Whether a program can be run in a container now.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it does not run or is paused.
    pub fn check_exec(&self, name: &str) -> Result<()> {
        self.ready_for_exec(name).map(drop)
    }

    /// Starts an exec once. `size` is the terminal's, rows and columns.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it was started before; and as [`Engine::exec`].
    pub fn start_exec(
        &self,
        id: &str,
        detach: bool,
        size: Option<[u32; 2]>,
    ) -> Result<ExecSession> {
        let mut instance = self.find_exec(id)?;
        if instance.pid != 0 {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("Error: Exec command {id} is already running"),
            ));
        }
        let mut config = instance.config.clone();
        if size.and_then(terminal_size).is_some() {
            config.console_size = size;
        }
        let session =
            match self.exec_as(&instance.container, id.to_owned(), Made::Before, config, detach) {
                Ok(session) => session,
                Err(error) => {
                    let code = error.run_exit_code();
                    if matches!(
                        error.kind,
                        ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable
                    ) {
                        // It is over before it began: that is how it ended. The error itself says more.
                        let exit = self.execs_of(&instance.container).join(format!("{id}.exit"));
                        let _ = std::fs::write(exit, code.to_string());
                    }
                    return Err(error);
                }
            };
        instance.pid = session.pid;
        self.write_exec(id, &instance)?;
        Ok(session)
    }

    /// What is known of an exec.
    pub fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        let Instance { container, config, pid } = self.find_exec(id)?;
        let exit = std::fs::read_to_string(self.execs_of(&container).join(format!("{id}.exit")));
        let exit_code = exit.ok().and_then(|text| text.trim().parse().ok());
        let mut words = config.cmd.unwrap_or_default().into_iter();
        Ok(ExecInspect {
            id: id.to_owned(),
            running: pid != 0 && exit_code.is_none() && self.exec_lives(&container),
            exit_code,
            process_config: ExecProcessConfig {
                tty: config.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: config.privileged,
                user: config.user,
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: false,
            container_id: container,
            detach_keys: config.detach_keys,
            pid,
        })
    }

    /// Nothing in a container outlives it.
    fn exec_lives(&self, container: &str) -> bool {
        self.current(container).is_ok_and(|record| record.state.is_live())
    }

    /// The container goes, and its execs with it.
    pub(crate) fn forget_execs(&self, container: &str) -> io::Result<()> {
        match std::fs::remove_dir_all(self.execs_of(container)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
