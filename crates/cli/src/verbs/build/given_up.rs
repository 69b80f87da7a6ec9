//! Ctrl-C during a build: it ends at once and leaves nothing but its cache.
//!
//! What listens ends by itself: a command and its services, copying, git. What does not (a server that says nothing, an
//! archive on standard input) is not waited for; a thread that waits for signals removes what the build has begun, and ends
//! the process.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use build::Stop;
use engine::Engine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::GIVEN_UP;
use crate::context::{self, Context};
use crate::failure::Failure;

/// What asks us to end: SIGINT, SIGTERM, SIGHUP.
const SIGNALS: [i32; 3] = [2, 15, 1];
/// How long what listens is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// From now on the signals that end a process end the build. To be called before there are other threads.
pub(super) fn watch(context: &Context) -> anyhow::Result<Stop> {
    let options = context.engine_options()?;
    let line = context.error_line(&super::shown(build::Error::GivenUp));
    let stop = Stop::with_descriptor()?;
    // What `nohup` wants not to be heard is not heard.
    let wanted: Vec<i32> =
        SIGNALS.into_iter().filter(|signal| !sys::signal::is_ignored(*signal)).collect();
    let signals = sys::signal::block_and_watch(&wanted)
        .map_err(|e| Failure::new(1, format!("watching for signals: {e}")))?;
    let theirs = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while !came(&signals, None) {}
        theirs.set();
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !theirs.is_deaf() {
            // A second one is of somebody who does not want to wait.
            if came(&signals, Some(Duration::from_millis(20))) {
                break;
            }
        }
        let left = Engine::open(options).and_then(|engine| engine.abandon_steps());
        if let Err(error) = left {
            context::note(&format!("WARNING: {error}"));
        }
        context::note(&line);
        std::process::exit(GIVEN_UP.into());
    })?;
    Ok(stop)
}

/// Waits for a signal, so long at the most.
fn came(signals: &OwnedFd, patience: Option<Duration>) -> bool {
    let timeout = patience.map(|patience| Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    });
    let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], timeout.as_ref());
    matches!(sys::signal::next(signals.as_fd()), Ok(Some(_)))
}
