//! What a build reports while it goes on.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::error::Error;

/// Something that happened. A `step` is a number that counts from 1 over the whole build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    Begin {
        /// Its number.
        step: usize,
        /// `[build 2/5] RUN make`
        title: String,
    },
    /// Its result was there already.
    Cached {
        /// Its number.
        step: usize,
    },
    /// It was done.
    Done {
        /// Its number.
        step: usize,
        /// How long it took.
        took: Duration,
    },
    /// It failed; the build ends.
    Failed {
        /// Its number.
        step: usize,
        /// How long it took.
        took: Duration,
    },
    /// Its command wrote something.
    Output {
        /// Its number.
        step: usize,
        /// To standard error.
        error: bool,
        /// What.
        bytes: Vec<u8>,
        /// Since it began.
        at: Duration,
    },
    /// A base image is fetched.
    Fetch {
        /// Its number.
        step: usize,
        /// What the registry says.
        message: engine::Message,
    },
    /// Something people should know.
    Warning(String),
}

/// Hears what happens.
pub trait Progress {
    /// Something happened.
    fn event(&mut self, event: Event);

    /// A command runs now. Who can be asked to give the build up gives a descriptor that becomes readable then.
    fn begin_command(&mut self) -> Option<OwnedFd> {
        None
    }

    /// A command has failed, and somebody wants to see why: the container with this ID has a shell upon the files as the
    /// command left them, with its mounts and its environment, and is to be started. It is removed afterwards.
    fn enter(&mut self, engine: &engine::Engine, id: &str, failure: &Error) {
        let _ = (engine, id, failure);
    }

    /// The command has ended, and its container is gone.
    fn end_command(&mut self) {}
}

impl Progress for () {
    fn event(&mut self, _: Event) {}
}

impl<F: FnMut(Event)> Progress for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}
