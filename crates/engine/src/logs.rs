//! `logs`: a container's journal, read back.

use std::collections::VecDeque;
use std::io;

use keeper::journal::{Bound, Reader, Record as Entry, Stream};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::engine::{Engine, LogLine, LogOptions, StreamKind};
use crate::error::{Error, ErrorKind, Result};
use crate::types::LogConfig;

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

impl Engine {
    /// Calls `sink` for each line of the journal; it returns false to stop. With
    /// `follow`, waits for more until the container ends.
    pub fn logs(
        &self,
        name: &str,
        options: LogOptions,
        sink: &mut dyn FnMut(LogLine) -> bool,
    ) -> Result<()> {
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
        let mut reader = Reader::open(&path).map_err(failed)?;
        let wanted = |entry: &Entry| {
            let stream = match entry.stream {
                Stream::Stdout => options.stdout,
                Stream::Stderr => options.stderr,
                Stream::Event => false,
            };
            stream && options.since.is_none_or(|since| entry.time_ns >= since)
        };
        let late = |entry: &Entry| options.until.is_some_and(|until| entry.time_ns > until);
        let line = |entry: Entry| LogLine {
            time: entry.time_ns,
            stream: if entry.stream == Stream::Stderr {
                StreamKind::Stderr
            } else {
                StreamKind::Stdout
            },
            bytes: entry.bytes,
        };
        // A run that ended before we began does not end our following.
        let began = record.started_ns;
        let mut ended = false;
        let mut tail: Option<VecDeque<LogLine>> = options.tail.map(|_| VecDeque::new());
        let mut lines = 0u64;
        loop {
            while let Some(entry) = reader.next_record().map_err(failed)? {
                if entry.stream == Stream::Event {
                    ended |= is_end(&entry) && entry.time_ns >= began;
                    continue;
                }
                if late(&entry) {
                    ended = true;
                    break;
                }
                if !wanted(&entry) {
                    continue;
                }
                let line = line(entry);
                match (&mut tail, options.tail) {
                    (Some(kept), Some(most)) => {
                        lines += u64::from(line.bytes.last() == Some(&b'\n'));
                        kept.push_back(line);
                        let open = kept.back().is_some_and(|l| l.bytes.last() != Some(&b'\n'));
                        while lines + u64::from(open) > most {
                            let Some(first) = kept.pop_front() else { break };
                            lines -= u64::from(first.bytes.last() == Some(&b'\n'));
                        }
                        if most == 0 {
                            kept.clear();
                        }
                    }
                    _ => {
                        if !sink(line) {
                            return Ok(());
                        }
                    }
                }
            }
            for line in tail.take().into_iter().flatten() {
                if !sink(line) {
                    return Ok(());
                }
            }
            let Some(watch) = &watch else { return Ok(()) };
            if ended {
                return Ok(());
            }
            if options.until.is_some_and(|until| crate::clock::now() > until) {
                return Ok(());
            }
            wait(watch).map_err(failed)?;
            // A journal whose keeper was killed for good gets no last word.
            if self.current(&record.id).is_ok_and(|r| !r.state.is_live() || r.started_ns != began) {
                ended = true;
            }
        }
    }
}

pub(crate) fn is_end(entry: &Entry) -> bool {
    #[derive(serde::Deserialize)]
    struct Action {
        action: String,
    }
    serde_json::from_slice::<Action>(&entry.bytes).is_ok_and(|a| a.action == "die")
}

fn follow(path: &std::path::Path) -> io::Result<std::os::fd::OwnedFd> {
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
fn wait(fd: &std::os::fd::OwnedFd) -> io::Result<()> {
    let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut ready = [PollFd::new(fd, PollFlags::IN)];
    match rustix::event::poll(&mut ready, Some(&second)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut buffer = [0u8; 4096];
    while matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n > 0) {}
    Ok(())
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
