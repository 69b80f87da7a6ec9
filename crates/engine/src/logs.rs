//! `logs`: a container's journal, read back.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keeper::journal::{Bound, Reader, Record as Entry, Stream};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::engine::{Engine, LogLine, LogOptions, StreamKind};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{ContainerInspect, LogConfig};

/// Reads a size such as `10m`; bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..)?;
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    // Negative and absurd sizes saturate to 0 and the largest.
    (number > 0.0).then_some((number * factor as f64) as u64)
}

/// The bound of a journal, from the log options.
pub(crate) fn bound(config: &LogConfig) -> Result<Bound> {
    let mut bound = Bound::default();
    let driver = config.r#type.as_str();
    let mut files_given = false;
    let mut size_given = false;
    for (key, value) in &config.config {
        let invalid = |what: &str| {
            Error::invalid(format!("invalid log opt {key}={value} for {driver} log driver: {what}"))
        };
        match key.as_str() {
            "max-size" if value == "-1" => (bound.max_size, size_given) = (0, true),
            "max-size" => {
                bound.max_size = size(value).ok_or_else(|| invalid("give a size such as 10m"))?;
                size_given = true;
            }
            "max-file" => {
                bound.max_files = value
                    .parse()
                    .ok()
                    .filter(|n| *n >= 1)
                    .ok_or_else(|| invalid("give a number of files, at least 1"))?;
                files_given = true;
            }
            // Accepted as Docker does; they change nothing in a journal.
            "compress" | "mode" | "max-buffer-size" | "labels" | "labels-regex" | "env"
            | "env-regex" | "tag" => {}
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{key}' for {driver} log driver"
                )));
            }
        }
    }
    if size_given && !files_given {
        bound.max_files = if driver == "local" { 5 } else { 1 };
    }
    Ok(bound)
}

/// Reads a container's journal, and what is added to it. Poll [`LogReader::fd`], then call
/// [`LogReader::read`] until [`LogReader::state`] says that there is no more for now.
#[derive(Debug)]
pub struct LogReader {
    options: LogOptions,
    /// The container's id.
    id: String,
    /// A run that ended before we began does not end our following.
    began: i64,
    path: std::path::PathBuf,
    reader: Reader,
    watch: Option<OwnedFd>,
    /// The last lines so far, until the first look has come to the end.
    tail: Option<Tail>,
    state: LogState,
    /// No more will be written than is there.
    ended: bool,
}

/// Where a [`LogReader`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// There is more to read at once.
    More,
    /// All was read that is there for now.
    Waiting,
    /// Nothing more will come.
    Ended,
}

/// The last so many lines.
#[derive(Debug)]
struct Tail {
    most: u64,
    kept: VecDeque<LogLine>,
    lines: u64,
}

impl Tail {
    fn push(&mut self, line: LogLine) {
        let whole = |line: &LogLine| line.bytes.last() == Some(&b'\n');
        self.lines += u64::from(whole(&line));
        self.kept.push_back(line);
        let open = self.kept.back().is_some_and(|last| !whole(last));
        while self.lines + u64::from(open) > self.most {
            let Some(first) = self.kept.pop_front() else { break };
            self.lines -= u64::from(whole(&first));
        }
        if self.most == 0 {
            self.kept.clear();
        }
    }
}

/// Lines that one reading gives at the most.
const BATCH: usize = 1000;

impl LogReader {
    /// Readable when something may have been added; `None` where nothing is followed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Where it is.
    pub fn state(&self) -> LogState {
        self.state
    }

    /// The next lines, without waiting.
    pub fn read(&mut self, engine: &Engine) -> Result<Vec<LogLine>> {
        let path = self.path.clone();
        let failed =
            |e: io::Error| Error::system(format!("cannot read the journal {}", path.display()), e);
        if let Some(watch) = &self.watch {
            drain(watch);
            // A journal whose keeper was killed for good gets no last word. Looked for before the
            // journal is read, so that what was written until then is read.
            if self.state == LogState::Waiting
                && engine
                    .current(&self.id)
                    .is_ok_and(|now| !now.state.is_live() || now.started_ns != self.began)
            {
                self.ended = true;
            }
        }
        let mut lines = Vec::new();
        let mut full = false;
        while let Some(entry) = self.reader.next_record().map_err(failed)? {
            if entry.stream == Stream::Event {
                self.ended |= is_end(&entry) && entry.time_ns >= self.began;
                continue;
            }
            if self.options.until.is_some_and(|until| entry.time_ns > until) {
                self.ended = true;
                break;
            }
            let wanted = match entry.stream {
                Stream::Stdout => self.options.stdout,
                Stream::Stderr => self.options.stderr,
                Stream::Event => false,
            };
            if !wanted || self.options.since.is_some_and(|since| entry.time_ns < since) {
                continue;
            }
            let stream = match entry.stream {
                Stream::Stderr => StreamKind::Stderr,
                _ => StreamKind::Stdout,
            };
            let line = LogLine { time: entry.time_ns, stream, bytes: entry.bytes };
            match &mut self.tail {
                Some(tail) => tail.push(line),
                None => lines.push(line),
            }
            if lines.len() >= BATCH {
                full = true;
                break;
            }
        }
        if !full && let Some(tail) = self.tail.take() {
            lines.extend(tail.kept);
        }
        let over = self.options.until.is_some_and(|until| crate::clock::now() > until);
        self.state = if full {
            LogState::More
        } else if self.ended || over || self.watch.is_none() {
            LogState::Ended
        } else {
            LogState::Waiting
        };
        Ok(lines)
    }
}

impl Engine {
    /// A reader of a container's journal.
    ///
    /// # Errors
    /// `Unsupported` where the log driver keeps nothing.
    pub fn log_reader(&self, name: &str, options: LogOptions) -> Result<LogReader> {
        let record = self.current(name)?;
        let driver = record.definition.host.log_config.r#type.as_str();
        if matches!(driver, "none" | "passthrough") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "configured logging driver does not support reading: {driver} keeps no logs"
                ),
            ));
        }
        let path = self.journal_path(&record);
        let failed =
            |e: io::Error| Error::system(format!("cannot read the journal {}", path.display()), e);
        // Watched before it is read, so that nothing falls between.
        let watch = if options.follow && record.state.is_live() {
            Some(follow(&path).map_err(failed)?)
        } else {
            None
        };
        let reader = Reader::open(&path).map_err(failed)?;
        let tail = options.tail.map(|most| Tail { most, kept: VecDeque::new(), lines: 0 });
        Ok(LogReader {
            options,
            id: record.id,
            began: record.started_ns,
            path,
            reader,
            watch,
            tail,
            state: LogState::More,
            ended: false,
        })
    }

    /// Calls `sink` for each line of the journal; it returns false to stop. With
    /// `follow`, waits for more until the container ends.
    pub fn logs(
        &self,
        name: &str,
        options: LogOptions,
        sink: &mut dyn FnMut(LogLine) -> bool,
    ) -> Result<()> {
        let mut reader = self.log_reader(name, options)?;
        loop {
            for line in reader.read(self)? {
                if !sink(line) {
                    return Ok(());
                }
            }
            match (reader.state(), &reader.watch) {
                (LogState::More, _) => {}
                (LogState::Waiting, Some(watch)) => wait(watch).map_err(|e| {
                    Error::system(format!("cannot wait for the journal of {name}"), e)
                })?,
                _ => return Ok(()),
            }
        }
    }
}

/// How lines of the journal are shown.
#[derive(Debug, Default)]
pub struct LogShape {
    /// With the time in front.
    pub timestamps: bool,
    /// With this in front; see [`ContainerInspect::log_details`].
    pub details: Option<String>,
    /// The last piece of each output was part of a line: the next one goes on with it.
    open: (bool, bool),
}

impl LogShape {
    /// Nothing was shown yet.
    pub fn new(timestamps: bool, details: Option<String>) -> Self {
        Self { timestamps, details, open: (false, false) }
    }

    /// A piece as it is shown: only where a line begins is anything put in front.
    pub fn show(&mut self, line: &LogLine) -> Vec<u8> {
        let mut text = Vec::with_capacity(line.bytes.len().saturating_add(40));
        let open = match line.stream {
            StreamKind::Stdout => &mut self.open.0,
            StreamKind::Stderr => &mut self.open.1,
        };
        let begins = !std::mem::replace(open, !line.bytes.ends_with(b"\n"));
        if begins && self.timestamps {
            text.extend_from_slice(crate::clock::rfc3339_fixed(line.time).as_bytes());
            text.push(b' ');
        }
        if begins && let Some(details) = &self.details {
            text.extend_from_slice(details.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&line.bytes);
        text
    }
}

impl ContainerInspect {
    /// What `logs --details` puts before each line: the labels and variables that the log options name,
    /// as `a=b,c=d`.
    pub fn log_details(&self) -> String {
        let options = &self.host_config.log_config.config;
        let names = |key: &str| -> Vec<String> {
            options
                .get(key)
                .map(|v| v.split(',').map(ToOwned::to_owned).collect())
                .unwrap_or_default()
        };
        let mut all = BTreeMap::new();
        for name in names("labels") {
            if let Some(value) = self.config.labels.get(&name) {
                all.insert(name, value.clone());
            }
        }
        let wanted = names("env");
        for entry in self.config.env.iter().flatten() {
            if let Some((name, value)) = entry.split_once('=')
                && wanted.iter().any(|w| w == name)
            {
                all.insert(name.to_owned(), value.to_owned());
            }
        }
        all.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
    }
}

pub(crate) fn is_end(entry: &Entry) -> bool {
    #[derive(serde::Deserialize)]
    struct Action {
        action: String,
    }
    serde_json::from_slice::<Action>(&entry.bytes).is_ok_and(|a| a.action == "die")
}

fn follow(path: &std::path::Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let dir = path.parent().unwrap_or(path);
    let events = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVE
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, dir, events)?;
    Ok(fd)
}

/// Waits for a change, at most a second.
fn wait(fd: &OwnedFd) -> io::Result<()> {
    let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut ready = [PollFd::new(fd, PollFlags::IN)];
    match rustix::event::poll(&mut ready, Some(&second)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

/// Empties the queue: what has changed is read from the journal.
fn drain(fd: &OwnedFd) {
    let mut buffer = [0u8; 4096];
    while matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> LogConfig {
        LogConfig {
            r#type: "json-file".into(),
            config: pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        }
    }

    #[test]
    fn bounds_are_read() {
        assert_eq!(bound(&config(&[])).unwrap(), Bound::default());
        let b = bound(&config(&[("max-size", "1.5k"), ("max-file", "2")])).unwrap();
        assert_eq!(b, Bound { max_size: 1536, max_files: 2 });
        for bad in [("max-size", "x"), ("max-size", "0"), ("max-file", "0"), ("bogus", "1")] {
            assert!(bound(&config(&[bad])).is_err(), "{bad:?}");
        }
    }
}
