//! The verbs that change what a container is doing.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use keeper::protocol::{Message, Request};
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::state::ProcessIdentity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::clock;
use crate::create::{check_limits, check_policy};
use crate::engine::{Engine, Filters, RemoveOptions, WaitCondition};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::names;
use crate::record::{self, Record, State};
use crate::signals;
use crate::spec;
use crate::types::{Pruned, UpdateRequest};

/// Seconds between the stop signal and SIGKILL unless told otherwise.
const STOP_TIMEOUT: i64 = 10;

fn not_running(record: &Record) -> Error {
    Error::new(ErrorKind::Conflict, format!("container {} is not running", record.id))
}

impl Record {
    pub(crate) fn identity(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, start_time: self.start_time }
    }

    pub(crate) fn open_cgroup(&self) -> Result<Cgroup> {
        let path = self.run.cgroup.as_deref().unwrap_or_default();
        if path.is_empty() {
            return Err(not_running(self));
        }
        Ok(Cgroup::open(&CgroupRoot::detect()?, path)?)
    }
}

/// Waits until a process has ended; false when the time is over.
fn wait_for_end(pidfd: &OwnedFd, timeout: Option<Duration>) -> Result<bool> {
    let deadline = timeout.map(|t| Instant::now() + t);
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.map(|l| rustix::time::Timespec {
            tv_sec: i64::try_from(l.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: l.subsec_nanos().into(),
        });
        let mut poll = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut poll, left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::system("poll", std::io::Error::from(e))),
        }
    }
}

/// A container on its way to its end; nothing, if it was there before.
#[derive(Debug)]
pub(crate) struct Stopping(Option<Told>);

#[derive(Debug)]
struct Told {
    pidfd: OwnedFd,
    /// The signal reached it.
    heard: bool,
    since: Instant,
    /// How long it may take; `None`: for ever.
    patience: Option<Duration>,
}

impl Engine {
    /// Stops a container: its stop signal, then, after `timeout` seconds, SIGKILL.
    ///
    /// `timeout`: `Some(-1)` waits for ever, `None` takes the container's own. One that
    /// does not run is left as it is (`NotModified`).
    pub fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let record = self.current(name)?;
        self.mark_stopped_by_hand(&record)?;
        if !record.state.is_live() {
            return Err(Error::new(
                ErrorKind::NotModified,
                format!("container {} is already stopped", record.name),
            ));
        }
        self.stop_record(&record, signal, timeout)
    }

    fn mark_stopped_by_hand(&self, record: &Record) -> Result<()> {
        self.store().db().transaction(|tx| -> Result<()> {
            let Some(mut record) = record::by_id(tx, &record.id)? else { return Ok(()) };
            record.run.stopped_by_hand = true;
            record.run.restart_at = None;
            if record.state == State::Restarting {
                record.state = State::Exited;
            }
            record::update(tx, &record)
        })
    }

    fn stop_record(
        &self,
        record: &Record,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let stopping = self.begin_stop(record, signal, timeout)?;
        self.finish_stop(record, stopping)
    }

    /// Tells a container's process to end.
    pub(crate) fn begin_stop(
        &self,
        record: &Record,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<Stopping> {
        let config = &record.definition.config;
        let signal = signal
            .or(config.stop_signal.as_deref())
            .filter(|s| !s.is_empty())
            .map_or(Ok(15), signals::parse)?;
        let timeout = timeout.or(config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        let Ok(pidfd) = record.identity().open() else { return Ok(Stopping(None)) };
        if record.state == State::Paused {
            record.open_cgroup()?.thaw()?;
        }
        self.note_of(record, "kill", &[("signal", signal.to_string())])?;
        let sent = sys::pidfd::send_signal(pidfd.as_fd(), signal);
        let patience = (timeout >= 0).then(|| Duration::from_secs(timeout.unsigned_abs()));
        let since = Instant::now();
        Ok(Stopping(Some(Told { pidfd, heard: sent.is_ok(), since, patience })))
    }

    /// Waits until it has ended, and makes it end when its time is over.
    pub(crate) fn finish_stop(&self, record: &Record, stopping: Stopping) -> Result<()> {
        // It had ended already; its report is what is left to take in.
        let Some(told) = stopping.0 else { return self.await_end(record) };
        let left = told.patience.map(|patience| patience.saturating_sub(told.since.elapsed()));
        if told.heard && !wait_for_end(&told.pidfd, left)? {
            self.note_of(record, "kill", &[("signal", "9".into())])?;
            self.kill_everything(record, &told.pidfd)?;
        }
        self.await_end(record)?;
        self.note_of(record, "stop", &[])
    }

    fn note_of(&self, record: &Record, action: &str, more: &[(&str, String)]) -> Result<()> {
        self.store()
            .db()
            .transaction(|tx| events::note_container(tx, clock::now(), action, record, more))
    }

    /// SIGKILL, and whoever else is in the cgroup if that does not end it.
    fn kill_everything(&self, record: &Record, pidfd: &OwnedFd) -> Result<()> {
        let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
        if !wait_for_end(pidfd, Some(Duration::from_secs(10)))? {
            if let Ok(cgroup) = record.open_cgroup() {
                let _ = cgroup.thaw();
                let _ = cgroup.kill_all(9);
            }
            if !wait_for_end(pidfd, Some(Duration::from_secs(10)))? {
                return Err(Error::system(
                    format!("container {} can't be killed", record.name),
                    "its process does not end after SIGKILL; it may hang in the kernel, waiting for a device",
                ));
            }
        }
        Ok(())
    }

    /// Waits until the keeper has reported the end of this run, and takes it in.
    pub(crate) fn await_end(&self, record: &Record) -> Result<()> {
        /// Keepers that may be killed while we wait; each has a successor, which is asked again.
        const KEEPERS: usize = 16;
        let mut deaths = 0;
        while self.keeper().exit_of(&record.id).is_none()
            && let Some(mut connection) = self.keeper().connect_to_last()?
        {
            let asked = connection.ask(Request::Wait { id: record.id.clone() }, Vec::new());
            match asked.and_then(|_| connection.answer()) {
                Ok(_) | Err(keeper::Error::Failed { not_found: true, .. }) => break,
                Err(keeper::Error::Broken(_)) if deaths < KEEPERS => deaths += 1,
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(exit) = self.keeper().exit_of(&record.id) {
            return self.take_in(&exit);
        }
        // Another process took the report in, or nobody could write one.
        match record::by_id(self.db(), &record.id)? {
            Some(now) if now.state.is_live() && now.started_ns == record.started_ns => {
                self.lost(&now)
            }
            _ => Ok(()),
        }
    }

    /// Stops a container if it runs, and starts it.
    pub fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let record = self.current(name)?;
        if record.definition.host.auto_remove && record.state.is_live() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "container {} is removed when it stops (--rm) and can't be restarted",
                    record.name
                ),
            ));
        }
        if record.state.is_live() {
            self.mark_stopped_by_hand(&record)?;
            self.stop_record(&record, signal, timeout)?;
        }
        match self.start(&record.id, None) {
            Ok(_) => {}
            Err(e) if e.kind == ErrorKind::NotModified => {}
            Err(e) => return Err(e),
        }
        self.store()
            .db()
            .transaction(|tx| events::note_container(tx, clock::now(), "restart", &record, &[]))
    }

    /// Sends a signal, SIGKILL unless another is named.
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let number = if signal.is_empty() { 9 } else { signals::parse(signal)? };
        let record = self.current(name).map_err(|e| Error {
            message: format!("cannot kill container: {name}: {}", e.message),
            ..e
        })?;
        if !record.state.is_live() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("cannot kill container: {name}: container {} is not running", record.id),
            ));
        }
        if number == 9 {
            self.mark_stopped_by_hand(&record)?;
        }
        let pidfd = record.identity().open().map_err(|_| not_running(&record))?;
        sys::pidfd::send_signal(pidfd.as_fd(), number).map_err(|e| {
            Error::system(format!("cannot kill container {name}"), std::io::Error::from(e))
        })?;
        if number == 9 && record.state == State::Paused {
            record.open_cgroup()?.thaw()?;
        }
        self.store().db().transaction(|tx| {
            let more = [("signal", number.to_string())];
            events::note_container(tx, clock::now(), "kill", &record, &more)
        })?;
        if number == 9 {
            wait_for_end(&pidfd, Some(Duration::from_secs(10)))?;
            self.await_end(&record)?;
        }
        Ok(())
    }

    /// Freezes all processes of a container.
    pub fn pause(&self, name: &str) -> Result<()> {
        let record = self.current(name)?;
        match record.state {
            State::Running => {}
            State::Paused => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("container {} is already paused", record.id),
                ));
            }
            _ => return Err(not_running(&record)),
        }
        record.open_cgroup()?.freeze()?;
        self.set_paused(&record, State::Paused, "pause")
    }

    /// Lets them go on.
    pub fn unpause(&self, name: &str) -> Result<()> {
        let record = self.current(name)?;
        if record.state != State::Paused {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("container {} is not paused", record.id),
            ));
        }
        record.open_cgroup()?.thaw()?;
        self.set_paused(&record, State::Running, "unpause")
    }

    fn set_paused(&self, record: &Record, state: State, action: &str) -> Result<()> {
        self.store().db().transaction(|tx| -> Result<()> {
            let Some(mut now) = record::by_id(tx, &record.id)? else { return Ok(()) };
            if !now.state.is_live() {
                return Ok(());
            }
            now.state = state;
            record::update(tx, &now)?;
            events::note_container(tx, clock::now(), action, &now, &[])
        })
    }

    /// Waits; the exit code of the last run.
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<i32> {
        let mut record = self.current(name)?;
        let run = record.started_ns;
        let mut code = record.exit_code;
        let mut watch = None;
        loop {
            match condition {
                WaitCondition::NotRunning
                    if !record.state.is_live() && record.state != State::Restarting =>
                {
                    return Ok(record.exit_code);
                }
                WaitCondition::NextExit
                    if !record.state.is_live()
                        && (record.started_ns != run
                            || record.finished_ns > run && watch.is_some()) =>
                {
                    return Ok(record.exit_code);
                }
                _ => {}
            }
            let mut heard = false;
            if record.state.is_live() {
                if let Some(exit) = self.wait_for_exit(&record)? {
                    (code, heard) = (exit, true);
                }
            } else {
                // Made before the second look, so that nothing falls between.
                match &mut watch {
                    None => watch = Some(crate::watch::Watch::new(self)?),
                    Some(watch) => watch.wait(Some(Duration::from_secs(5)))?,
                }
            }
            record = match self.current(&record.id) {
                Ok(record) => record,
                // Removed: that is what was waited for, or the end of it.
                Err(e) if e.kind == ErrorKind::NotFound => return Ok(code),
                Err(e) => return Err(e),
            };
            // One whose policy starts it again has ended all the same.
            if heard && condition == WaitCondition::NotRunning {
                return Ok(code);
            }
            if watch.is_none() && !record.state.is_live() {
                watch = Some(crate::watch::Watch::new(self)?);
            }
        }
    }

    /// Waits for the end of a running container; its exit code if the keeper said it.
    fn wait_for_exit(&self, record: &Record) -> Result<Option<i32>> {
        let Some(mut connection) = self.keeper().connect_existing()? else {
            self.keeper().list()?;
            return Ok(None);
        };
        match connection.ask(Request::Wait { id: record.id.clone() }, Vec::new()) {
            Ok(_) => {}
            Err(keeper::Error::Failed { not_found: true, .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        match connection.answer() {
            Ok(Message::Exited(exit)) => Ok(Some(exit.code)),
            // The keeper was killed; its successor knows.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Gives a container another name.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        if new.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let new = names::check(new)?.to_owned();
        self.keeper().forget_name(&record::find(self.db(), name)?.id)?;
        self.store().db().transaction(|tx| -> Result<()> {
            let mut record = record::find(tx, name)?;
            if record.name == new {
                return Err(Error::invalid(
                    "Renaming a container with the same name as its current name",
                ));
            }
            record::check_name_free(tx, &new)?;
            let old = std::mem::replace(&mut record.name, new.clone());
            tx.execute("UPDATE containers SET name = ?2 WHERE id = ?1", [&record.id, &new])?;
            let more = [("oldName", format!("/{old}"))];
            events::note_container(tx, clock::now(), "rename", &record, &more)
        })
    }

    /// Changes limits and restart policy; returns warnings.
    pub fn update(&self, name: &str, request: UpdateRequest) -> Result<Vec<String>> {
        let mut record = self.current(name)?;
        let mut warnings = Vec::new();
        let host = &mut record.definition.host;
        let r = request;
        if let Some(cpus) = r.nano_cpus
            && cpus != 0
        {
            host.nano_cpus = cpus;
            (host.cpu_quota, host.cpu_period) = (0, 0);
        }
        for (to, from) in [
            (&mut host.cpu_shares, r.cpu_shares),
            (&mut host.memory, r.memory),
            (&mut host.memory_swap, r.memory_swap),
            (&mut host.memory_reservation, r.memory_reservation),
            (&mut host.cpu_period, r.cpu_period),
            (&mut host.cpu_quota, r.cpu_quota),
            (&mut host.cpu_realtime_period, r.cpu_realtime_period),
            (&mut host.cpu_realtime_runtime, r.cpu_realtime_runtime),
        ] {
            if let Some(value) = from.filter(|v| *v != 0) {
                *to = value;
            }
        }
        for (to, from) in
            [(&mut host.cpuset_cpus, r.cpuset_cpus), (&mut host.cpuset_mems, r.cpuset_mems)]
        {
            if let Some(value) = from.filter(|v| !v.is_empty()) {
                *to = value;
            }
        }
        if let Some(weight) = r.blkio_weight.filter(|w| *w != 0) {
            host.blkio_weight = weight;
        }
        if let Some(limit) = r.pids_limit.filter(|l| *l != 0) {
            host.pids_limit = Some(limit);
        }
        if let Some(policy) = r.restart_policy.filter(|p| !p.name.is_empty()) {
            host.restart_policy = policy;
        }
        check_policy(host)?;
        check_limits(host, &mut warnings)?;
        if record.state.is_live() {
            let limits = serde_json::from_value(spec::limits(&record.definition.host)?)
                .map_err(|e| Error::system("the limits are not valid", e))?;
            record.open_cgroup()?.update(&limits)?;
        }
        self.store().db().transaction(|tx| -> Result<()> {
            record::update_definition(tx, &record)?;
            events::note_container(tx, clock::now(), "update", &record, &[])
        })?;
        Ok(warnings)
    }

    /// Removes a container and everything that is only its own.
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let record = self.settled(name)?;
        if record.state == State::Restarting && !options.force {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "cannot remove container \"{name}\": container is restarting: stop the container \
                     before removal or force remove"
                ),
            ));
        }
        if record.state.is_live() {
            if !options.force {
                let (what, how) = if record.state == State::Paused {
                    ("paused", "unpause and then stop the container before removal or force remove")
                } else {
                    ("running", "stop the container before removal or force remove")
                };
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("cannot remove container \"{name}\": container is {what}: {how}"),
                ));
            }
            self.mark_stopped_by_hand(&record)?;
            if let Ok(pidfd) = record.identity().open() {
                if record.state == State::Paused
                    && let Ok(cgroup) = record.open_cgroup()
                {
                    let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
                    let _ = cgroup.thaw();
                }
                self.kill_everything(&record, &pidfd)?;
            }
            self.await_end(&record)?;
        }
        let auto = record.definition.host.auto_remove;
        self.remove_record(&record, options.volumes || auto)?;
        if !auto {
            // A run of `--rm` does not wait for this; the steward does it.
            self.store().empty_trash_now()?;
            self.store().db().checkpoint_if_large()?;
        }
        Ok(())
    }

    /// The present state of a container, once a start whose starter was killed is through: the keeper
    /// may still be at it, and would have a container that nobody knows.
    fn settled(&self, name: &str) -> Result<Record> {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let record = self.current(name)?;
            if record.state.is_live() || !self.has_processes(&record) || Instant::now() > deadline {
                return Ok(record);
            }
            self.reconcile_all()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes a container that does not run. Goes on after an error and reports all;
    /// what is gone already is no error.
    pub(crate) fn remove_record(&self, record: &Record, volumes: bool) -> Result<()> {
        let mut problems = Vec::new();
        self.remove_foreign(record, &mut problems);
        // By its name, not as the record has it: a start that was killed has made groups it never
        // wrote down.
        let path = self.cgroup_path(record);
        let removed = CgroupRoot::detect().and_then(|root| {
            let cgroup = Cgroup::open(&root, &path)?;
            if cgroup.try_remove().is_ok() {
                return Ok(());
            }
            // The keeper may have come to a start whose starter was killed only after `settled` looked:
            // with the record gone nobody would know that container. Once the groups are gone, too, a
            // start that comes later still fails.
            cgroup.kill_all(9)?;
            cgroup.remove()
        });
        if let Err(e) = removed {
            problems.push(e.to_string());
        }
        // The record goes first: a container that is half gone must not be started.
        self.store().db().transaction(|tx| -> Result<()> {
            if record::delete(tx, &record.id)? {
                events::note_container(tx, clock::now(), "destroy", record, &[])?;
            }
            Ok(())
        })?;
        self.keeper().forget_report(&record.id);
        if let Err(e) = self.forget_execs(&record.id) {
            problems.push(format!("its execs: {e}"));
        }
        if let Err(e) = self.store().remove_container_directory(&record.id) {
            problems.push(e.to_string());
        }
        if volumes {
            for mount in record.definition.mounts.iter().filter(|m| m.anonymous) {
                match self.store().volume_remove(&mount.mount.source, false) {
                    Ok(())
                    | Err(store::Error::NoSuchVolume(_) | store::Error::VolumeInUse { .. }) => {}
                    Err(e) => problems.push(e.to_string()),
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::system(
            format!("container {} is removed, but something of it is left", record.name),
            problems.join("; "),
        ))
    }

    /// Removes all containers that do not run.
    pub fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        crate::list::check_filters(filters, &["until", "label", "label!"])?;
        self.reconcile_all()?;
        let mut pruned = Pruned::default();
        for record in record::all(self.db())? {
            let idle = matches!(record.state, State::Created | State::Exited | State::Dead);
            if record.definition.builder.is_some_and(|builder| builder.alive()) {
                continue;
            }
            if !idle
                || !crate::list::prune_matches(
                    filters,
                    record.created_ns,
                    &record.definition.config.labels,
                )?
            {
                continue;
            }
            let size = self.store().writable(&record.id).and_then(|l| l.size()).unwrap_or(0);
            self.remove_record(&record, false)?;
            pruned.deleted.push(record.id);
            pruned.space_reclaimed += size;
        }
        self.remove_nobodys()?;
        self.store().empty_trash_now()?;
        if !pruned.deleted.is_empty() {
            self.note_prune("container", pruned.space_reclaimed)?;
        }
        Ok(pruned)
    }

    /// Removes what `create` has left where it was killed before it could write the container down, and
    /// the cgroups of engines that are gone with their data. In the first minute somebody may only be
    /// slow.
    fn remove_nobodys(&self) -> Result<()> {
        const SLOW: Duration = Duration::from_secs(60);
        for id in self.store().container_directories(SLOW)? {
            if record::by_id(self.db(), &id)?.is_none() {
                self.store().remove_container_directory(&id)?;
            }
        }
        let is_id = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        Cgroup::sweep(&CgroupRoot::detect()?, crate::start::CGROUP_PARENT, SLOW, is_id);
        Ok(())
    }

    pub(crate) fn note_prune(&self, kind: &str, reclaimed: u64) -> Result<()> {
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
        self.store()
            .db()
            .transaction(|tx| events::note(tx, clock::now(), kind, "prune", "", &attributes))
    }
}
