//! The host has started: containers run again that are to run whenever the host does.

use crate::engine::Engine;
use crate::error::Result;
use crate::lifecycle::Stopping;
use crate::record::{self, Record, State};
use crate::start::Starter;

/// What became of the containers that a boot concerns.
#[derive(Debug, Default)]
pub struct Booted {
    /// Names of those that were started.
    pub started: Vec<String>,
    /// Names of those that could not be, and why.
    pub failed: Vec<(String, crate::error::Error)>,
}

/// What became of the containers that ran when the host was to end.
#[derive(Debug, Default)]
pub struct Halted {
    /// Names of those that were stopped.
    pub stopped: Vec<String>,
    /// Names of those that could not be, and why.
    pub failed: Vec<(String, crate::error::Error)>,
}

/// Whether the policy wants it to run whenever the host does.
fn wanted(record: &Record) -> bool {
    let policy = &record.definition.host.restart_policy;
    let ended = matches!(record.state, State::Exited | State::Restarting);
    ended
        && match policy.name.as_str() {
            "always" => true,
            "unless-stopped" => !record.run.stopped_by_hand,
            "on-failure" => {
                !record.run.stopped_by_hand
                    && (record.exit_code != 0 || record.run.halted)
                    && (policy.maximum_retry_count == 0
                        || record.restarts < policy.maximum_retry_count)
            }
            _ => false,
        }
}

/// Places of containers whose network or processes another one uses, behind that other one.
fn in_order(mut waiting: Vec<Record>) -> Vec<Record> {
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let needs_other = |record: &Record, others: &[Record]| {
            let host = &record.definition.host;
            [&host.network_mode, &host.pid_mode, &host.ipc_mode].into_iter().any(|mode| {
                mode.strip_prefix("container:").is_some_and(|peer| {
                    others.iter().any(|o| o.id != record.id && (o.id == peer || o.name == peer))
                })
            })
        };
        let (later, mut now): (Vec<_>, Vec<_>) =
            waiting.iter().cloned().partition(|record| needs_other(record, &waiting));
        if now.is_empty() {
            // Two that need each other can't both have been started before; their start will say so.
            ordered.extend(later);
            break;
        }
        ordered.append(&mut now);
        waiting = later;
    }
    ordered
}

impl Engine {
    /// Starts the containers whose restart policy wants them to run whenever the host does: `always`,
    /// `unless-stopped` unless a person stopped them, `on-failure` where they failed. Those that run are
    /// left alone, so that it may be done at any time.
    ///
    /// # Errors
    /// Those of the database; what can't be started is part of the answer.
    pub fn boot(&self) -> Result<Booted> {
        self.reconcile_all()?;
        let mut booted = Booted::default();
        let waiting = record::all(self.db())?.into_iter().filter(wanted).collect();
        for mut record in in_order(waiting) {
            let name = record.name.clone();
            match self.start_record(&mut record, None, Starter::Person) {
                Ok(_) => booted.started.push(name),
                // The steward was faster, which the first one started has brought.
                Err(e) if e.kind == crate::error::ErrorKind::NotModified => {
                    booted.started.push(name);
                }
                Err(e) => booted.failed.push((name, e)),
            }
        }
        Ok(booted)
    }

    /// Stops all that runs, for the host is about to end: each with its own signal and in its own time, all at
    /// once. Restart policies see in it no end: [`Engine::boot`] starts what it would have started had the host
    /// been switched off.
    ///
    /// # Errors
    /// Those of the database; what can't be stopped is part of the answer.
    pub fn halt(&self) -> Result<Halted> {
        self.reconcile_all()?;
        let mut halted = Halted::default();
        let mut stopping = Vec::new();
        for record in record::all(self.db())? {
            let name = record.name.clone();
            match self.begin_halt(&record) {
                Ok(Some(begun)) => stopping.push((record, begun)),
                Ok(None) => {}
                Err(e) => halted.failed.push((name, e)),
            }
        }
        for (record, begun) in stopping {
            match self.finish_stop(&record, begun) {
                Ok(()) => halted.stopped.push(record.name),
                Err(e) => halted.failed.push((record.name, e)),
            }
        }
        Ok(halted)
    }

    /// Marks a container, and tells its process to end if it runs.
    fn begin_halt(&self, record: &Record) -> Result<Option<Stopping>> {
        let marked = self.store().db().transaction(|tx| -> Result<bool> {
            let Some(mut record) = record::by_id(tx, &record.id)? else { return Ok(false) };
            let waits = record.state == State::Restarting;
            if !record.state.is_live() && !waits {
                return Ok(false);
            }
            record.run.halted = true;
            record.run.restart_at = None;
            if waits {
                record.state = State::Exited;
            }
            record::update(tx, &record)?;
            Ok(!waits)
        })?;
        if marked { self.begin_stop(record, None, None).map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HostConfig, RestartPolicy};

    fn record(name: &str, policy: &str, state: State, code: i32, by_hand: bool) -> Record {
        let mut record = crate::record::tests_record(name);
        record.definition.host = HostConfig {
            restart_policy: RestartPolicy { name: policy.into(), maximum_retry_count: 0 },
            ..HostConfig::default()
        };
        (record.state, record.exit_code, record.run.stopped_by_hand) = (state, code, by_hand);
        record
    }

    #[test]
    fn who_is_to_run() {
        for (policy, state, code, by_hand, expected) in [
            ("always", State::Exited, 0, true, true),
            ("always", State::Created, 0, false, false),
            ("always", State::Running, 0, false, false),
            ("unless-stopped", State::Exited, 255, false, true),
            ("unless-stopped", State::Exited, 0, true, false),
            ("on-failure", State::Exited, 255, false, true),
            ("on-failure", State::Exited, 0, false, false),
            ("no", State::Exited, 1, false, false),
        ] {
            let record = record("x", policy, state, code, by_hand);
            assert_eq!(wanted(&record), expected, "{policy} {state:?} {code} {by_hand}");
        }
    }

    #[test]
    fn who_ended_with_the_host_did_not_end() {
        for (policy, expected) in
            [("always", true), ("unless-stopped", true), ("on-failure", true), ("no", false)]
        {
            let mut record = record("x", policy, State::Exited, 0, false);
            record.run.halted = true;
            assert_eq!(wanted(&record), expected, "{policy}");
            assert!(!crate::steward::wants_restart(&record), "{policy}");
        }
    }

    #[test]
    fn who_is_needed_comes_first() {
        let mut one = record("one", "always", State::Exited, 0, false);
        one.definition.host.network_mode = "container:two".into();
        let two = record("two", "always", State::Exited, 0, false);
        let names: Vec<_> = in_order(vec![one, two]).into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["two", "one"]);
        let mut one = record("one", "always", State::Exited, 0, false);
        one.definition.host.network_mode = "container:two".into();
        let mut two = record("two", "always", State::Exited, 0, false);
        two.definition.host.network_mode = "container:one".into();
        assert_eq!(in_order(vec![one, two]).len(), 2);
    }
}
