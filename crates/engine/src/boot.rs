//! The host has started: containers run again that are to run whenever the host does.

use crate::engine::Engine;
use crate::error::Result;
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
                    && record.exit_code != 0
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
                // Somebody else was faster.
                Err(e) if e.kind == crate::error::ErrorKind::NotModified => {}
                Err(e) => booted.failed.push((name, e)),
            }
        }
        Ok(booted)
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
