//! A container's journal.

use std::io::Read;

use engine::{Error, LogLine, LogOptions, Result, StreamKind};

use crate::attachment::next_piece;
use crate::containers::seconds;
use crate::http::Payload;
use crate::remote::{Query, Remote, part};

/// Takes lines apart that have their time in front.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    /// The piece before did not end its line.
    open: bool,
    time: i64,
}

impl Lines {
    /// What is there of whole lines, and of a line whose time is known.
    fn take(&mut self, bytes: &[u8], stream: StreamKind, out: &mut Vec<LogLine>) {
        self.rest.extend_from_slice(bytes);
        loop {
            if !self.open {
                let Some(space) = self.rest.iter().position(|b| *b == b' ') else { return };
                let head: Vec<u8> = self.rest.drain(..=space).collect();
                let text = String::from_utf8_lossy(&head);
                let time = text.trim_end().parse::<jiff::Timestamp>();
                self.time = time
                    .ok()
                    .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
                    .unwrap_or(self.time);
                self.open = true;
            }
            if self.rest.is_empty() {
                return;
            }
            let end = self.rest.iter().position(|b| *b == b'\n');
            let length = end.map_or(self.rest.len(), |end| end.saturating_add(1));
            let bytes: Vec<u8> = self.rest.drain(..length).collect();
            self.open = end.is_none();
            out.push(LogLine { time: self.time, stream, bytes });
        }
    }
}

impl Remote {
    /// See [`engine::Engine::logs`].
    pub fn logs(
        &self,
        name: &str,
        options: LogOptions,
        sink: &mut dyn FnMut(LogLine) -> bool,
    ) -> Result<()> {
        let tty = self.inspect(name, false)?.config.tty;
        let time = |ns: Option<i64>| ns.map(seconds);
        let query = Query::new()
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("follow", options.follow)
            .text("timestamps", "1")
            .option("since", time(options.since).as_deref())
            .option("until", time(options.until).as_deref())
            .option("tail", options.tail.map(|n| n.to_string()).as_deref());
        let path = format!("/containers/{}/logs", part(name));
        let (_, mut body) = self.ask("GET", &path, query, &[], Payload::Nothing)?;
        let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
        let (mut pieces, mut found) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 32 << 10];
        loop {
            let count = body
                .read(&mut buffer)
                .map_err(|e| Error::system("the connection to the engine", e))?;
            if count == 0 {
                self.keep(body);
                return Ok(());
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            if tty {
                stdout.take(bytes, StreamKind::Stdout, &mut found);
            } else {
                pieces.extend_from_slice(bytes);
                while let Some((stream, bytes)) = next_piece(&mut pieces)? {
                    match stream {
                        2 => stderr.take(&bytes, StreamKind::Stderr, &mut found),
                        _ => stdout.take(&bytes, StreamKind::Stdout, &mut found),
                    }
                }
            }
            for line in found.drain(..) {
                if !sink(line) {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_off() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        lines.take(b"2026-01-02T03:04:05.000000007Z a b\n2026-01-0", StreamKind::Stdout, &mut out);
        lines.take(b"2T03:04:06.0Z par", StreamKind::Stdout, &mut out);
        lines.take(b"t\n", StreamKind::Stdout, &mut out);
        let shown: Vec<_> =
            out.iter().map(|l| (l.time, String::from_utf8_lossy(&l.bytes).into_owned())).collect();
        assert_eq!(
            shown,
            [
                (1_767_323_045_000_000_007, "a b\n".to_owned()),
                (1_767_323_046_000_000_000, "par".to_owned()),
                (1_767_323_046_000_000_000, "t\n".to_owned()),
            ]
        );
    }
}
