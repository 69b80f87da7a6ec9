//! Brings the database in line with what has happened.
//!
//! No daemon writes down when a container ends: the keeper leaves a report in the run
//! root, and whichever process of the engine comes next takes it in. Every step is
//! idempotent, and several processes may do it at once.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use keeper::protocol::{Exit, Running};
use rusqlite::Transaction;

use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events;
use crate::record::{self, Live, Record, State};
use crate::steward;

/// Identifies this boot of the host.
pub(crate) fn boot_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    })
    .clone()
}

/// Writes the end of a run into a record and notes its event; false if this run's end
/// was written before.
pub(crate) fn apply_exit(tx: &Transaction<'_>, record: &mut Record, exit: &Exit) -> Result<bool> {
    if !record.state.is_live() || record.started_ns > exit.started_at {
        return Ok(false);
    }
    record.state = State::Exited;
    record.pid = 0;
    record.start_time = 0;
    record.finished_ns = exit.at;
    record.exit_code = exit.code;
    record.oom_killed = exit.oom_killed;
    if exit.unknown {
        record.error =
            "nobody could tell how it ended: the processes that watched it were killed".into();
    }
    if let Some(health) = &mut record.run.health {
        health.status = "unhealthy".into();
    }
    // Seen as waiting for its restart from this moment on. After a boot nobody would wait.
    if !exit.unknown && steward::wants_restart(record) {
        steward::schedule_restart(record);
    }
    record::update(tx, record)?;
    if exit.oom_killed {
        events::note_container(tx, exit.at, "oom", record, &[])?;
    }
    let seconds = (exit.at - record.started_ns).max(0) / 1_000_000_000;
    let more = [("exitCode", exit.code.to_string()), ("execDuration", seconds.to_string())];
    events::note_container(tx, exit.at, "die", record, &more)?;
    Ok(true)
}

pub(crate) fn cannot_read_reports(e: std::io::Error) -> Error {
    Error::system("cannot read the keeper's reports", e)
}

/// What came of [`Engine::compare`].
pub(crate) struct Compared {
    /// What the keeper has, by id.
    pub(crate) running: HashMap<String, Running>,
    /// What was read before is not true any more.
    pub(crate) changed: bool,
}

impl Engine {
    /// Takes in the reports of ended containers, and of execs.
    ///
    /// Costs one look into an almost always empty directory. Containers with `--rm` whose
    /// end this is are removed.
    pub fn reconcile(&self) -> Result<()> {
        let reports = self.keeper().reports().map_err(cannot_read_reports)?;
        if !reports.execs.is_empty() {
            self.take_in_execs()?;
        }
        for exit in reports.exits {
            self.take_in(&exit)?;
        }
        Ok(())
    }

    /// Takes in one report.
    pub(crate) fn take_in(&self, exit: &Exit) -> Result<()> {
        let mut remove = None;
        self.store().db().transaction(|tx| -> Result<()> {
            let Some(mut record) = record::by_id(tx, &exit.id)? else { return Ok(()) };
            let idle = matches!(record.state, State::Created | State::Exited | State::Restarting);
            if idle && record.started_ns < exit.started_at {
                // Who started it was killed before it could write that down, or is about to.
                record.state = State::Running;
                record.started_ns = exit.started_at;
                events::note_container(tx, exit.started_at, "start", &record, &[])?;
            }
            if apply_exit(tx, &mut record, exit)? {
                self.release_networks(tx, &record, exit.at)?;
            }
            if record.definition.host.auto_remove && !record.state.is_live() {
                remove = Some(record);
            }
            Ok(())
        })?;
        if let Some(record) = remove {
            self.remove_record(&record, true)?;
        }
        self.keeper().forget_report(&exit.id);
        Ok(())
    }

    /// As [`Engine::reconcile`], and checks every container stored as running against
    /// the keeper. For verbs that show or change many containers.
    pub(crate) fn reconcile_all(&self) -> Result<HashMap<String, Running>> {
        self.reconcile()?;
        Ok(self.compare(&record::live(self.db())?)?.running)
    }

    /// Compares what is stored as running with what the keeper has.
    pub(crate) fn compare<'a>(&self, live: impl IntoIterator<Item = &'a Live>) -> Result<Compared> {
        let mut changed = false;
        let live: HashMap<&str, &Live> =
            live.into_iter().map(|live| (live.id.as_str(), live)).collect();
        let nothing_runs = live.is_empty();
        let running: HashMap<String, Running> =
            self.keeper().list()?.into_iter().map(|r| (r.id.clone(), r)).collect();
        if nothing_runs && running.is_empty() {
            self.release_stale()?;
            return Ok(Compared { running, changed });
        }
        for record in live.values() {
            if !running.contains_key(&record.id) {
                changed = true;
                // It may have ended between our two looks; then a report is there by now.
                match self.keeper().exit_of(&record.id) {
                    Some(exit) => self.take_in(&exit)?,
                    None => self.lost_run(record)?,
                }
            }
        }
        for (id, now) in &running {
            if live.contains_key(id.as_str()) {
                continue;
            }
            changed = true;
            let known = self.store().db().transaction(|tx| -> Result<bool> {
                let Some(mut record) = record::by_id(tx, id)? else { return Ok(false) };
                if record.state.is_live() || record.started_ns >= now.started_at {
                    return Ok(true);
                }
                record.state = State::Running;
                record.pid = now.pid;
                record.start_time = now.start_time;
                record.boot_id = boot_id();
                record.started_ns = now.started_at;
                record::update(tx, &record)?;
                events::note_container(tx, now.started_at, "start", &record, &[])?;
                Ok(true)
            })?;
            if !known {
                // Removed while a start of it was still under way: nobody else will end it.
                let identity =
                    runtime::state::ProcessIdentity { pid: now.pid, start_time: now.start_time };
                if let Ok(pidfd) = identity.open() {
                    let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
                }
            }
        }
        self.release_stale()?;
        Ok(Compared { running, changed })
    }

    /// A container that is stored as running but that nobody holds: the host was
    /// rebooted, or every process that knew of it was killed.
    pub(crate) fn lost(&self, record: &Record) -> Result<()> {
        self.lost_run(&Live::of(record))
    }

    fn lost_run(&self, record: &Live) -> Result<()> {
        let identity =
            runtime::state::ProcessIdentity { pid: record.pid, start_time: record.start_time };
        if record.boot_id == boot_id() && identity.alive() {
            return Ok(());
        }
        self.take_in(&Exit {
            id: record.id.clone(),
            code: 255,
            at: clock::now(),
            oom_killed: false,
            unknown: true,
            started_at: record.started_ns,
        })
    }

    /// The whole id of a container that is named by id, part of it, or name.
    pub fn id_of(&self, name: &str) -> Result<String> {
        Ok(record::find(self.db(), name)?.id)
    }

    /// The present state of one container: finds it, and if it is stored as running,
    /// makes sure that it is.
    pub(crate) fn current(&self, name: &str) -> Result<Record> {
        let record = record::find(self.db(), name)?;
        if !record.state.is_live() {
            // A start that nobody wrote down leaves its traces with the keeper.
            if let Some(exit) = self.keeper().exit_of(&record.id) {
                self.take_in(&exit)?;
                return record::find(self.db(), &record.id);
            }
            return Ok(record);
        }
        if let Some(exit) = self.keeper().exit_of(&record.id) {
            self.take_in(&exit)?;
            return record::find(self.db(), &record.id);
        }
        if record.boot_id == boot_id() && record.identity().alive() {
            return Ok(record);
        }
        // The keeper may be about to write its report; asking it waits for that.
        let running = self.keeper().running(&record.id)?;
        match self.keeper().exit_of(&record.id) {
            Some(exit) => self.take_in(&exit)?,
            None if running.is_some() => return Ok(record),
            None => self.lost(&record)?,
        }
        record::find(self.db(), &record.id)
    }
}
