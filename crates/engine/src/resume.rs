//! Joining a container again after the keeper has died under an attached client.
//!
//! The successor holds the same pipes and terminals, so the connection can be made anew. What the
//! container wrote meanwhile is in its journal: a client that has been there since the start of the
//! run knows how many bytes it has heard, and takes what follows them. What it had sent to the dead
//! keeper's ear, and was not passed on yet, is lost.

use std::collections::VecDeque;
use std::path::PathBuf;

use keeper::client::{Client, Connection};
use keeper::journal::{Reader, Record as Entry, Stream};
use keeper::protocol::{Attach, Message, Request};

use crate::attachment::Frame;
use crate::error::Result;

/// What is needed to come back.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) keeper: Client,
    pub(crate) attach: Attach,
    /// Where its output is kept, if it is.
    pub(crate) journal: Option<PathBuf>,
    /// When the run began, nanoseconds since 1970.
    pub(crate) began: i64,
    /// Bytes of standard output and standard error that were heard.
    pub(crate) heard: [u64; 2],
    /// Frames that were missed, in order.
    pub(crate) missed: VecDeque<Frame>,
    /// Times it came back since it heard anything.
    pub(crate) tries: u32,
}

impl Resume {
    /// Counts what was heard.
    pub(crate) fn count(&mut self, frame: &Frame) {
        let [out, err] = &mut self.heard;
        match frame {
            Frame::Stdout(bytes) => *out += bytes.len() as u64,
            Frame::Stderr(bytes) => *err += bytes.len() as u64,
            Frame::Exit(_) | Frame::Closed => {}
        }
    }

    /// Connects again and collects what was missed; `None`: the container has ended, and all of
    /// its output is in `missed`.
    pub(crate) fn again(&mut self) -> Result<Option<Connection>> {
        let mut connection = self.keeper.connect()?;
        let request = Request::Attach(self.attach.clone());
        match connection.ask(request, Vec::new()) {
            Ok(Message::Attached { at }) => {
                self.collect(at)?;
                Ok(Some(connection))
            }
            Ok(_) => Err(keeper::Error::Version.into()),
            Err(keeper::Error::Failed { not_found: true, .. }) => {
                self.collect(i64::MAX)?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Takes from the journal what the run wrote until a time and was not heard.
    fn collect(&mut self, until: i64) -> Result<()> {
        let Some(path) = &self.journal else { return Ok(()) };
        let failed = |e: std::io::Error| {
            crate::Error::system(format!("cannot read the journal {}", path.display()), e)
        };
        let mut reader = Reader::open(path).map_err(failed)?;
        let mut run = Run::new(self.began, self.heard);
        while let Some(entry) = reader.next_record().map_err(failed)? {
            if entry.time_ns > until || !run.take(entry) {
                break;
            }
        }
        self.missed.extend(run.missed());
        Ok(())
    }
}

/// The records of one run, sorted into heard and missed.
struct Run {
    began: i64,
    skip: [u64; 2],
    heard: [u64; 2],
    found: VecDeque<Frame>,
    /// The run's own beginning was seen; without it, as after a rotation, bytes can't be counted.
    whole: bool,
}

impl Run {
    fn new(began: i64, heard: [u64; 2]) -> Self {
        Self { began, skip: heard, heard, found: VecDeque::new(), whole: false }
    }

    /// False once the run is over.
    fn take(&mut self, entry: Entry) -> bool {
        let [out, err] = &mut self.skip;
        let skip = match entry.stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
            Stream::Event => {
                self.whole |= entry.time_ns == self.began;
                if crate::logs::is_end(&entry) {
                    if entry.time_ns >= self.began {
                        return false;
                    }
                    // All of it was an earlier run's.
                    self.found.clear();
                    self.skip = self.heard;
                }
                return true;
            }
        };
        let known = usize::try_from(*skip).unwrap_or(usize::MAX).min(entry.bytes.len());
        *skip -= known as u64;
        let rest = entry.bytes.get(known..).unwrap_or_default();
        if !rest.is_empty() {
            let rest = rest.to_vec();
            self.found.push_back(match entry.stream {
                Stream::Stderr => Frame::Stderr(rest),
                _ => Frame::Stdout(rest),
            });
        }
        true
    }

    fn missed(self) -> VecDeque<Frame> {
        if self.whole { self.found } else { VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time_ns: i64, stream: Stream, text: &str) -> Entry {
        Entry { time_ns, stream, bytes: text.into() }
    }

    const DIE: &str = r#"{"action":"die","exitCode":0}"#;
    const START: &str = r#"{"action":"start"}"#;

    fn missed(entries: &[(i64, Stream, &str)], heard: [u64; 2]) -> Vec<Frame> {
        let mut run = Run::new(10, heard);
        for (time, stream, text) in entries {
            if !run.take(entry(*time, *stream, text)) {
                break;
            }
        }
        run.missed().into()
    }

    #[test]
    fn what_was_heard_is_not_told_again() {
        use Stream::{Event, Stderr, Stdout};
        let journal = [
            (1, Event, START),
            (2, Stdout, "an earlier run\n"),
            (3, Event, DIE),
            // Written before the keeper knew that it runs.
            (9, Stdout, "one\n"),
            (10, Event, START),
            (11, Stderr, "bad\n"),
            (12, Stdout, "two\n"),
            (13, Event, DIE),
            (20, Stdout, "a later run\n"),
        ];
        let out = |text: &str| Frame::Stdout(text.into());
        let err = |text: &str| Frame::Stderr(text.into());
        assert_eq!(missed(&journal, [0, 0]), [out("one\n"), err("bad\n"), out("two\n")]);
        assert_eq!(missed(&journal, [5, 0]), [err("bad\n"), out("wo\n")]);
        assert_eq!(missed(&journal, [8, 4]), []);
        assert_eq!(missed(&journal[5..], [0, 0]), [], "its beginning was rotated away");
    }
}
