//! The steward: an engine process that does what must be done when nobody is there.
//!
//! The keeper starts it when a container has ended that must be removed or started
//! again, while one has health checks, or when whoever a container belongs to is gone: the steps
//! of a build that was killed are ended. It holds nothing: what is to be done is in the
//! database, so it may be killed at any time, and it leaves when nothing is left to do.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use keeper::client::{Connection, Received};
use keeper::protocol::Request;
use rustix::event::{PollFd, PollFlags};

use crate::attachment::Frame;
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::health::{self, Outcome, Times};
use crate::record::{self, Record, State};
use crate::start::Starter;
use crate::types::ExecConfig;

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;
/// Pause before the first restart; doubled with each, up to the longest.
const FIRST_DELAY: i64 = 100 * MILLISECOND;
const LONGEST_DELAY: i64 = 60 * SECOND;
/// A run this long makes the next restart a first one again.
const STEADY: i64 = 10 * SECOND;

/// Whether the policy wants a container that has ended started again.
pub(crate) fn wants_restart(record: &Record) -> bool {
    if record.run.stopped_by_hand || record.run.halted || record.definition.host.auto_remove {
        return false;
    }
    let policy = &record.definition.host.restart_policy;
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            record.exit_code != 0
                && (policy.maximum_retry_count == 0 || record.restarts < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Makes a container that has ended one that waits for its restart; when that is.
pub(crate) fn schedule_restart(record: &mut Record) -> i64 {
    let steady = record.finished_ns.saturating_sub(record.started_ns) >= STEADY;
    record.run.restart_delay = if steady || record.run.restart_delay == 0 {
        FIRST_DELAY
    } else {
        record.run.restart_delay.saturating_mul(2).min(LONGEST_DELAY)
    };
    let at = clock::now().saturating_add(record.run.restart_delay);
    record.run.restart_at = Some(at);
    record.state = State::Restarting;
    at
}

/// A health check that is running.
type Checks = HashMap<String, std::thread::JoinHandle<()>>;

impl Engine {
    /// Lives as the steward until nothing is left to do.
    pub fn steward(&self) -> Result<()> {
        let mut connection = self.subscribe()?;
        let mut checks = Checks::new();
        loop {
            self.reconcile_all()?;
            // What can't be removed now is tried again by the next build.
            let _ = self.sweep_steps();
            // The files of containers that removed themselves; what can't be deleted now
            // is tried again next time, and `system df` shows it.
            let _ = self.store().empty_trash_now();
            // Where containers only start and end, no other verb has the time to.
            let _ = self.store().db().checkpoint_if_large();
            checks.retain(|_, thread| !thread.is_finished());
            let restart = self.restarts()?;
            let check = self.start_checks(&mut checks)?;
            let next = restart.into_iter().chain(check).min();
            if next.is_none() && checks.is_empty() {
                // The keeper starts another when something comes up after this look.
                return Ok(());
            }
            let wait =
                next.map_or(SECOND, |at| at.saturating_sub(clock::now())).clamp(0, 60 * SECOND);
            let wait = if checks.is_empty() { wait } else { wait.min(50 * MILLISECOND) };
            if !self.listen(&mut connection, wait)? {
                // The keeper was killed; its successor, or one we start, goes on.
                connection = self.subscribe()?;
            }
        }
    }

    fn subscribe(&self) -> Result<Connection> {
        let mut connection = self.keeper().connect()?;
        connection.ask(Request::Subscribe, Vec::new())?;
        Ok(connection)
    }

    /// Waits for news from the keeper, at most so many ns; false if it is gone.
    fn listen(&self, connection: &mut Connection, wait: i64) -> Result<bool> {
        let wait = Duration::from_nanos(wait.unsigned_abs());
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let fd = connection.fd();
        let mut ready = [PollFd::new(&fd, PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::system("poll", std::io::Error::from(e))),
        }
        loop {
            match connection.receive(false)? {
                None => return Ok(true),
                Some(Received::End) => return Ok(false),
                Some(_) => {}
            }
        }
    }

    /// Starts what is due; when the next is.
    fn restarts(&self) -> Result<Option<i64>> {
        let mut next: Option<i64> = None;
        for record in record::all(self.db())? {
            let waiting = match record.state {
                State::Restarting => true,
                State::Exited => wants_restart(&record) && !record.run.gave_up,
                _ => false,
            };
            if !waiting {
                continue;
            }
            let at = match record.run.restart_at {
                Some(at) if record.state == State::Restarting => at,
                _ => match self.plan_restart(&record)? {
                    Some(at) => at,
                    None => continue,
                },
            };
            if at > clock::now() {
                next = Some(next.map_or(at, |n| n.min(at)));
                continue;
            }
            self.restart_now(&record.id)?;
            // What became of it is seen in the next round.
            next = Some(next.map_or(clock::now(), |n| n.min(clock::now())));
        }
        Ok(next)
    }

    /// Marks a container as waiting for its restart; when that is.
    fn plan_restart(&self, record: &Record) -> Result<Option<i64>> {
        self.store().db().transaction(|tx| -> Result<Option<i64>> {
            let Some(mut now) = record::by_id(tx, &record.id)? else { return Ok(None) };
            if now.state != State::Exited || !wants_restart(&now) {
                return Ok(None);
            }
            let at = schedule_restart(&mut now);
            record::update(tx, &now)?;
            Ok(Some(at))
        })
    }

    fn restart_now(&self, id: &str) -> Result<()> {
        let Some(mut record) = record::by_id(self.db(), id)? else { return Ok(()) };
        if record.state != State::Restarting {
            return Ok(());
        }
        record.restarts = record.restarts.saturating_add(1);
        match self.start_record(&mut record, None, Starter::Steward) {
            // Somebody else was faster.
            Err(e) if e.kind != ErrorKind::NotModified => {
                // The record says why; the policy goes on as after an exit, unless the
                // container can't be started at all.
                self.store().db().transaction(|tx| -> Result<()> {
                    let Some(mut now) = record::by_id(tx, id)? else { return Ok(()) };
                    now.state = State::Exited;
                    now.restarts = record.restarts;
                    now.finished_ns = clock::now();
                    now.error.clone_from(&e.message);
                    now.run.gave_up = true;
                    record::update(tx, &now)
                })
            }
            _ => Ok(()),
        }
    }

    /// Starts the health checks that are due; when the next is.
    fn start_checks(&self, checks: &mut Checks) -> Result<Option<i64>> {
        let mut next: Option<i64> = None;
        for record in record::live_records(self.db())? {
            let Some(check) =
                record.definition.config.healthcheck.as_ref().filter(|c| health::is_on(c))
            else {
                continue;
            };
            let Some(state) = &record.run.health else { continue };
            if checks.contains_key(&record.id) {
                continue;
            }
            let last = state.log.last().and_then(|l| l.end.parse::<jiff::Timestamp>().ok());
            let last = last.and_then(|t| i64::try_from(t.as_nanosecond()).ok());
            let last = last.filter(|t| *t >= record.started_ns);
            let at = Times::of(check).next(record.started_ns, last, state);
            if at > clock::now() || record.state == State::Paused {
                let at =
                    at.max(clock::now() + if record.state == State::Paused { SECOND } else { 0 });
                next = Some(next.map_or(at, |n| n.min(at)));
                continue;
            }
            let engine = self.another()?;
            let id = record.id.clone();
            let thread = std::thread::Builder::new()
                .name("health".into())
                .spawn(move || {
                    // An engine that can't even write the result has nobody to tell.
                    let _ = engine.check_health(&record);
                })
                .map_err(|e| Error::system("cannot start a thread", e))?;
            checks.insert(id, thread);
        }
        Ok(next)
    }

    /// Runs one check and writes its result.
    fn check_health(&self, record: &Record) -> Result<()> {
        let Some(check) = &record.definition.config.healthcheck else { return Ok(()) };
        let times = Times::of(check);
        let shell = record.definition.config.shell.as_deref().unwrap_or_default();
        let command = health::command(check, shell);
        let began = clock::now();
        let (code, output) = self.run_check(record, command, times.timeout);
        let outcome = Outcome { began, ended: clock::now(), code, output };
        self.store().db().transaction(|tx| -> Result<()> {
            let Some(mut now) = record::by_id(tx, &record.id)? else { return Ok(()) };
            if !now.state.is_live() || now.started_ns != record.started_ns {
                return Ok(());
            }
            let mut state = now.run.health.take().unwrap_or_else(health::starting);
            let changed = health::apply(&mut state, &outcome, &times, now.started_ns);
            let status = state.status.clone();
            now.run.health = Some(state);
            record::update(tx, &now)?;
            if changed {
                let action = format!("health_status: {status}");
                events::note_container(tx, outcome.ended, &action, &now, &[])?;
            }
            Ok(())
        })
    }

    /// Exit code and first output of a check; -1 when it could not run or took too long.
    fn run_check(&self, record: &Record, command: Vec<String>, timeout: i64) -> (i32, String) {
        let config = ExecConfig {
            attach_stdout: true,
            attach_stderr: true,
            cmd: Some(command),
            ..ExecConfig::default()
        };
        let session = match self.exec(&record.id, config, false) {
            Ok(session) => session,
            Err(e) => return (-1, e.message),
        };
        let Some(mut streams) = session.attachment else { return (-1, String::new()) };
        let deadline = clock::now().saturating_add(timeout);
        let mut output = Vec::new();
        loop {
            let left = deadline.saturating_sub(clock::now());
            if left <= 0 {
                if let Ok(pidfd) = sys::clone::pidfd_open(session.pid) {
                    let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
                }
                let limit = Duration::from_nanos(timeout.unsigned_abs());
                return (
                    -1,
                    format!(
                        "Health check exceeded timeout ({limit:?}): {}",
                        String::from_utf8_lossy(&output)
                    ),
                );
            }
            let left = Duration::from_nanos(left.unsigned_abs());
            let wait = rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let fd = streams.fd();
            let mut ready = [PollFd::new(&fd, PollFlags::IN)];
            let _ = rustix::event::poll(&mut ready, Some(&wait));
            loop {
                match streams.read() {
                    Ok(Some(Frame::Stdout(bytes) | Frame::Stderr(bytes))) => {
                        let room = health::OUTPUT.saturating_sub(output.len());
                        output.extend_from_slice(
                            bytes.get(..room.min(bytes.len())).unwrap_or_default(),
                        );
                    }
                    Ok(Some(Frame::Exit(code))) => {
                        return (code, String::from_utf8_lossy(&output).into_owned());
                    }
                    Ok(Some(Frame::Closed)) | Err(_) => {
                        return (-1, "the check was cut off".into());
                    }
                    Ok(None) => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Definition;
    use crate::types::{HostConfig, RestartPolicy};

    fn record(policy: &str, most: u32, restarts: u32, code: i32) -> Record {
        let host = HostConfig {
            restart_policy: RestartPolicy { name: policy.into(), maximum_retry_count: most },
            ..HostConfig::default()
        };
        let definition = Definition { host, ..Definition::default() };
        Record { definition, exit_code: code, restarts, ..crate::record::tests_record("x") }
    }

    #[test]
    fn policies() {
        assert!(wants_restart(&record("always", 0, 100, 0)));
        assert!(!wants_restart(&record("no", 0, 0, 1)));
        assert!(wants_restart(&record("on-failure", 2, 1, 1)));
        assert!(!wants_restart(&record("on-failure", 2, 2, 1)));
        assert!(!wants_restart(&record("on-failure", 0, 0, 0)));
        let mut stopped = record("always", 0, 0, 1);
        stopped.run.stopped_by_hand = true;
        assert!(!wants_restart(&stopped));
    }
}
