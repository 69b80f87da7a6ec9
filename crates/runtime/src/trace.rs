//! What a start is made of: phases with their times, noted by every process that takes part.
//!
//! Who wants to know makes a [`Recorder`] that is on and gives it to what it calls; all others have one
//! that is off, which does not even look at the clock. A process that was asked for its phases hands
//! them back with its answer. The clock is the monotonic one, which all processes of a host share.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// One phase of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What is done.
    pub name: Cow<'static, str>,
    /// Whose phase it is: `caller`, `keeper`, `child`.
    pub side: Cow<'static, str>,
    /// The process, as it is numbered in the PID namespace where the trace is read.
    pub pid: i32,
    /// When it began; nanoseconds of the monotonic clock.
    pub begin: u64,
    /// How long it took, in nanoseconds.
    pub length: u64,
}

/// Notes phases, or, switched off, does nothing. Copies note into the same list.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    side: &'static str,
    pid: i32,
    phases: Mutex<Vec<Phase>>,
}

/// A phase under way; it is over when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Running<'a> {
    recorder: &'a Recorder,
    name: &'static str,
    begin: u64,
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

impl Recorder {
    /// One that notes the phases of this process.
    pub fn on(side: &'static str) -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self(Some(Arc::new(Inner { side, pid, phases: Mutex::new(Vec::new()) })))
    }

    /// On or off, as somebody asked.
    pub fn when(asked: bool, side: &'static str) -> Self {
        if asked { Self::on(side) } else { Self::default() }
    }

    /// Whether anything is noted.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a phase.
    pub fn phase(&self, name: &'static str) -> Running<'_> {
        Running { recorder: self, name, begin: if self.is_on() { now() } else { 0 } }
    }

    /// Takes phases over from another process. What it could not know of itself is its number: a new
    /// PID namespace tells it another.
    pub fn add(&self, phases: Vec<Phase>) {
        if let Some(inner) = &self.0 {
            inner.phases.lock().unwrap_or_else(PoisonError::into_inner).extend(phases);
        }
    }

    /// All that was noted, in the order of the ends; the list is empty afterwards.
    pub fn take(&self) -> Vec<Phase> {
        let Some(inner) = &self.0 else { return Vec::new() };
        std::mem::take(&mut *inner.phases.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(inner) = &self.recorder.0 else { return };
        let phase = Phase {
            name: Cow::Borrowed(self.name),
            side: Cow::Borrowed(inner.side),
            pid: inner.pid,
            begin: self.begin,
            length: now().saturating_sub(self.begin),
        };
        inner.phases.lock().unwrap_or_else(PoisonError::into_inner).push(phase);
    }
}

/// As a list of complete events of Chrome's trace format, for `chrome://tracing`, Perfetto and the like.
/// Times are microseconds and begin with the first phase.
pub fn chrome(mut phases: Vec<Phase>) -> String {
    phases.sort_by_key(|phase| (phase.begin, std::cmp::Reverse(phase.length)));
    let first = phases.first().map_or(0, |phase| phase.begin);
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let micro = |ns: u64| format!("{}.{:03}", ns / 1000, ns % 1000);
    let mut text = String::from("[");
    for (n, phase) in phases.iter().enumerate() {
        let _ = write!(
            text,
            "{}\n{{\"name\":{},\"cat\":{},\"ph\":\"X\",\"ts\":{},\"dur\":{},\"pid\":{pid},\"tid\":{pid}}}",
            if n == 0 { "" } else { "," },
            quote(&phase.name),
            quote(&phase.side),
            micro(phase.begin.saturating_sub(first)),
            micro(phase.length),
            pid = phase.pid,
        );
    }
    text.push_str("\n]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_noted_unless_asked() {
        let off = Recorder::default();
        drop(off.phase("a"));
        assert!(!off.is_on() && off.take().is_empty());
        let on = Recorder::on("caller");
        {
            let _outer = on.phase("outer");
            drop(on.clone().phase("inner"));
        }
        let phases = on.take();
        let names: Vec<_> = phases.iter().map(|phase| phase.name.as_ref()).collect();
        assert_eq!(names, ["inner", "outer"]);
        assert!(on.take().is_empty());
    }

    #[test]
    fn a_trace_is_a_list_of_complete_events() {
        assert_eq!(chrome(Vec::new()), "[\n]\n");
        let phase = |name: &'static str, begin, length| Phase {
            name: name.into(),
            side: "keeper".into(),
            pid: 7,
            begin,
            length,
        };
        let text = chrome(vec![phase("\"later\"", 4_000, 1_500), phase("first", 1_000, 9_001)]);
        let events: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!([
            {"name": "first", "cat": "keeper", "ph": "X", "ts": 0.0, "dur": 9.001, "pid": 7, "tid": 7},
            {"name": "\"later\"", "cat": "keeper", "ph": "X", "ts": 3.0, "dur": 1.5, "pid": 7, "tid": 7},
        ]);
        assert_eq!(events, expected);
    }
}
