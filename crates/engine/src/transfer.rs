//! What moving images to and from registries has in common: reports, and several layers at once.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, Result};

/// One report, in the form of the Docker API's progress stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// What happens: `Downloading`, `Pull complete`.
    pub status: String,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<Detail>,
    /// The layer, or the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// Bytes that are done.
    pub current: u64,
    /// Of so many.
    pub total: u64,
}

impl Message {
    /// A line of its own.
    pub fn line(status: impl Into<String>) -> Self {
        Self { status: status.into(), progress_detail: None, id: None }
    }

    /// About a layer or a tag.
    pub fn of(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { status: status.into(), progress_detail: None, id: Some(id.into()) }
    }

    /// Bytes of a layer.
    pub fn bytes(id: impl Into<String>, status: &str, current: u64, total: u64) -> Self {
        let progress_detail = Some(Detail { current, total });
        Self { status: status.to_owned(), progress_detail, id: Some(id.into()) }
    }
}

/// Hears reports.
pub trait Transfer {
    /// One report.
    fn report(&mut self, message: Message);
}

/// Nobody hears.
impl Transfer for () {
    fn report(&mut self, _: Message) {}
}

/// How often bytes are reported.
const EVERY: Duration = Duration::from_millis(50);

/// Reports bytes as they pass, and ends the reading when the whole transfer was given up.
pub(crate) struct Meter<'a> {
    pub(crate) send: &'a Sender<Message>,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) id: &'a str,
    pub(crate) status: &'static str,
    pub(crate) total: u64,
    pub(crate) done: u64,
    pub(crate) told: Option<Instant>,
}

impl Meter<'_> {
    pub(crate) fn say(&self, status: &str) {
        // Nobody listening is no reason to stop.
        let _ = self.send.send(Message::of(self.id, status));
    }

    /// So many bytes are done.
    pub(crate) fn at(&mut self, done: u64) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        self.done = done;
        if done >= self.total || self.told.is_none_or(|at| at.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            let _ = self.send.send(Message::bytes(self.id, self.status, done, self.total));
        }
        Ok(())
    }
}

/// A reader that tells a meter.
pub(crate) struct Metered<'m, 'a, R> {
    pub(crate) inner: R,
    pub(crate) meter: &'m mut Meter<'a>,
}

impl<R: Read> Read for Metered<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 {
            return Ok(0);
        }
        self.meter.at(self.meter.done.saturating_add(n as u64))?;
        Ok(n)
    }
}

/// Does `work` for each item on a few threads, and passes reports on from them. The first error ends all
/// of them.
pub(crate) fn parallel<T: Sync, W: Send>(
    items: &[T],
    threads: usize,
    progress: &mut dyn Transfer,
    set_up: impl Fn() -> Result<W> + Sync,
    work: impl Fn(&mut W, &T, &Sender<Message>, &AtomicBool) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (send, receive): (Sender<Message>, Receiver<Message>) = channel();
    let (fail, failed) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            let (send, fail) = (send.clone(), fail.clone());
            let (next, stop, set_up, work) = (&next, &stop, &set_up, &work);
            scope.spawn(move || {
                let all = || -> Result<()> {
                    let mut own = set_up()?;
                    while !stop.load(Ordering::Relaxed) {
                        let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            break;
                        };
                        work(&mut own, item, &send, stop)?;
                    }
                    Ok(())
                };
                if let Err(error) = all() {
                    stop.store(true, Ordering::Relaxed);
                    let _ = fail.send(error);
                }
            });
        }
        drop(send);
        drop(fail);
        for message in receive {
            progress.report(message);
        }
    });
    // The first one to fail is the reason; the others only stopped.
    match failed.try_recv() {
        Ok(error) => Err(error),
        Err(_) => Ok(()),
    }
}

/// Takes a registry's error out of an I/O error again.
pub(crate) fn from_io(what: &str, error: io::Error) -> Error {
    match error.downcast::<registry::Error>() {
        Ok(own) => own.into(),
        Err(other) => Error::system(what, other),
    }
}
