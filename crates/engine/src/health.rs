//! Health checks: what they are and how their results change a container's health.

use crate::clock;
use crate::types::{Health, HealthLog, Healthcheck};

const SECOND: i64 = 1_000_000_000;
/// Results kept.
const KEPT: usize = 5;
/// Bytes of a check's output kept.
pub(crate) const OUTPUT: usize = 4096;

/// Whether there is a check to run.
pub(crate) fn is_on(check: &Healthcheck) -> bool {
    check.test.as_deref().and_then(<[_]>::first).is_some_and(|kind| kind != "NONE")
}

/// Health at the start.
pub(crate) fn starting() -> Health {
    Health { status: "starting".into(), failing_streak: 0, log: Vec::new() }
}

/// A check's times with their defaults, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    pub(crate) start_period: i64,
    pub(crate) start_interval: i64,
    pub(crate) retries: u32,
}

impl Times {
    pub(crate) fn of(check: &Healthcheck) -> Self {
        let or = |value: i64, default: i64| if value > 0 { value } else { default };
        Self {
            interval: or(check.interval, 30 * SECOND),
            timeout: or(check.timeout, 30 * SECOND),
            start_period: check.start_period.max(0),
            start_interval: or(check.start_interval, 5 * SECOND),
            retries: u32::try_from(or(check.retries, 3)).unwrap_or(u32::MAX),
        }
    }

    /// When the next check is due, given when the container started and when the last
    /// check ended.
    pub(crate) fn next(&self, started: i64, last: Option<i64>, health: &Health) -> i64 {
        let from = last.unwrap_or(started);
        let in_start =
            health.status == "starting" && from < started.saturating_add(self.start_period);
        from.saturating_add(if in_start { self.start_interval } else { self.interval })
    }
}

/// The command of a check.
pub(crate) fn command(check: &Healthcheck, shell: &[String]) -> Vec<String> {
    match check.test.as_deref().unwrap_or_default() {
        [kind, rest @ ..] if kind == "CMD-SHELL" => {
            let mut argv: Vec<String> =
                if shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { shell.to_vec() };
            argv.extend(rest.first().cloned());
            argv
        }
        [_, rest @ ..] => rest.to_vec(),
        [] => Vec::new(),
    }
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) began: i64,
    pub(crate) ended: i64,
    /// 0 healthy; anything else not; -1 timed out or could not run.
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// Takes an outcome in; true if the status changed.
pub(crate) fn apply(health: &mut Health, outcome: &Outcome, times: &Times, started: i64) -> bool {
    let before = health.status.clone();
    health.log.push(HealthLog {
        start: clock::rfc3339(outcome.began),
        end: clock::rfc3339(outcome.ended),
        exit_code: outcome.code,
        output: outcome.output.clone(),
    });
    let surplus = health.log.len().saturating_sub(KEPT);
    health.log.drain(..surplus);
    if outcome.code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".into();
    } else {
        // Failures of a start period that has not ended do not count.
        let in_start = health.status == "starting"
            && outcome.began.saturating_sub(started) < times.start_period;
        if !in_start {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= times.retries {
                health.status = "unhealthy".into();
            }
        }
    }
    health.status != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str]) -> Healthcheck {
        Healthcheck {
            test: Some(words.iter().map(|s| (*s).into()).collect()),
            retries: 2,
            start_period: 10,
            ..Healthcheck::default()
        }
    }

    #[test]
    fn failures_count_after_the_start_period() {
        let times = Times::of(&check(&["CMD", "x"]));
        let mut health = starting();
        let outcome = |began, code| Outcome { began, ended: began, code, output: String::new() };
        assert!(!apply(&mut health, &outcome(5, 1), &times, 0));
        assert_eq!(health.failing_streak, 0);
        assert!(!apply(&mut health, &outcome(11, 1), &times, 0));
        assert!(apply(&mut health, &outcome(12, 1), &times, 0));
        assert_eq!(health.status, "unhealthy");
        assert!(apply(&mut health, &outcome(13, 0), &times, 0));
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        for n in 0..9 {
            apply(&mut health, &outcome(20 + n, 0), &times, 0);
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn commands_are_read() {
        assert!(!is_on(&check(&["NONE"])) && !is_on(&Healthcheck::default()));
        assert_eq!(command(&check(&["CMD-SHELL", "exit 1"]), &[]), ["/bin/sh", "-c", "exit 1"]);
        assert_eq!(command(&check(&["CMD", "a", "b"]), &[]), ["a", "b"]);
    }
}
