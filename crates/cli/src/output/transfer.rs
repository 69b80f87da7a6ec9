//! Progress of images on their way: a line per layer that is drawn again on a terminal, plain lines
//! elsewhere, JSON on request.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use engine::{Message, Transfer};

use super::{clean, human};
use crate::failure::Failure;

/// How to show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Lines that are drawn again.
    Bars,
    /// A line for each change.
    Plain,
    /// A JSON object for each report.
    Json,
    /// Nothing.
    Quiet,
}

impl Style {
    /// From `--progress` and `--quiet`; `terminal` says whether the output is one.
    pub(crate) fn of(given: Option<&str>, quiet: bool, terminal: bool) -> Result<Self, Failure> {
        match given {
            _ if quiet => Ok(Self::Quiet),
            None | Some("" | "auto") if terminal => Ok(Self::Bars),
            None | Some("" | "auto" | "plain") => Ok(Self::Plain),
            Some("tty") => Ok(Self::Bars),
            Some("json" | "rawjson") => Ok(Self::Json),
            Some("quiet" | "none") => Ok(Self::Quiet),
            Some(other) => Err(Failure::new(
                1,
                format!("--progress {other:?}: known are auto, plain, tty, json and quiet"),
            )),
        }
    }
}

/// A layer's line.
struct Line {
    text: String,
    /// Bytes, and when they were counted: the last few, for the rate.
    seen: Vec<(Instant, u64)>,
    status: String,
    drawn: Option<Instant>,
}

/// Shows reports on standard output or standard error.
pub(crate) struct Show {
    style: Style,
    to_stderr: bool,
    lines: Vec<Line>,
    by_id: HashMap<String, usize>,
}

impl Show {
    /// On standard output.
    pub(crate) fn stdout(progress: Option<&str>, quiet: bool) -> Result<Self, Failure> {
        let style = Style::of(progress, quiet, std::io::stdout().is_terminal())?;
        Ok(Self { style, to_stderr: false, lines: vec![], by_id: HashMap::new() })
    }

    /// On standard error, where standard output is for something else.
    pub(crate) fn stderr(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let style = match (quiet, terminal) {
            (true, _) => Style::Quiet,
            (_, true) => Style::Bars,
            _ => Style::Plain,
        };
        Self { style, to_stderr: true, lines: vec![], by_id: HashMap::new() }
    }

    /// It is JSON, so that nothing else may be printed.
    pub(crate) fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    fn write(&self, text: &str) {
        // A reader that has gone does not stop the transfer.
        if self.to_stderr {
            let mut err = std::io::stderr().lock();
            let _ = err.write_all(text.as_bytes());
            let _ = err.flush();
        } else {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text.as_bytes());
            let _ = out.flush();
        }
    }

    fn bars(&mut self, message: &Message) {
        let Some(id) = &message.id else {
            let text = clean::text(&message.status).into_owned();
            self.write(&format!("{text}\n"));
            // What follows has lines of its own.
            self.lines.clear();
            self.by_id.clear();
            return;
        };
        let at = match self.by_id.get(id) {
            Some(at) => *at,
            None => {
                self.lines.push(Line {
                    text: String::new(),
                    seen: Vec::new(),
                    status: String::new(),
                    drawn: None,
                });
                let at = self.lines.len().saturating_sub(1);
                self.by_id.insert(id.clone(), at);
                self.write("\n");
                at
            }
        };
        let up = self.lines.len().saturating_sub(at);
        let Some(line) = self.lines.get_mut(at) else { return };
        let now = Instant::now();
        if line.status != message.status {
            line.status.clone_from(&message.status);
            line.seen.clear();
            line.drawn = None;
        }
        let text = match &message.progress_detail {
            None => format!("{id}: {}", message.status),
            Some(detail) => {
                line.seen.push((now, detail.current));
                if line.seen.len() > 100 {
                    line.seen.remove(0);
                }
                let rate = rate(&line.seen);
                format!("{id}: {} {}", message.status, bar(detail.current, detail.total, rate))
            }
        };
        let recent = line.drawn.is_some_and(|at| at.elapsed() < Duration::from_millis(80));
        let whole = message.progress_detail.is_none_or(|d| d.current >= d.total);
        if recent && !whole || line.text == text {
            return;
        }
        line.drawn = Some(now);
        line.text.clone_from(&text);
        let width = crate::app::width().saturating_sub(1);
        let text: String = clean::text(&text).chars().take(width).collect();
        self.write(&format!("\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B"));
    }
}

/// Bytes in a second, over the last reports.
fn rate(seen: &[(Instant, u64)]) -> Option<u64> {
    let (first, last) = (seen.first()?, seen.last()?);
    let time = last.0.duration_since(first.0).as_secs_f64();
    let bytes = last.1.checked_sub(first.1)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate to look at")]
    (time > 0.2).then(|| (bytes as f64 / time) as u64)
}

/// `[=====>     ]  5MB/10MB  2MB/s  3s`
fn bar(current: u64, total: u64, rate: Option<u64>) -> String {
    let size = |n: u64| human::size(i64::try_from(n).unwrap_or(i64::MAX));
    if total == 0 {
        return size(current);
    }
    const WIDTH: u64 = 30;
    let filled = u128::from(current.min(total)) * u128::from(WIDTH) / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or(0);
    let rest = 30usize.saturating_sub(filled);
    let mut text =
        format!("[{}>{}]  {}/{}", "=".repeat(filled), " ".repeat(rest), size(current), size(total));
    if let Some(rate) = rate.filter(|rate| *rate > 0) {
        let left = total.saturating_sub(current) / rate;
        text.push_str(&format!("  {}/s  {}", size(rate), time(left)));
    }
    text
}

fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

impl Transfer for Show {
    fn report(&mut self, message: Message) {
        match self.style {
            Style::Quiet => {}
            Style::Json => {
                if let Ok(text) = serde_json::to_string(&message) {
                    self.write(&format!("{text}\n"));
                }
            }
            Style::Bars => self.bars(&message),
            Style::Plain if message.progress_detail.is_some() => {}
            Style::Plain => {
                let text = match &message.id {
                    Some(id) => format!("{id}: {}\n", message.status),
                    None => format!("{}\n", message.status),
                };
                self.write(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_say_how_long() {
        assert_eq!(
            bar(5_000_000, 10_000_000, Some(2_500_000)),
            "[===============>               ]  5MB/10MB  2.5MB/s  2s"
        );
        assert!(bar(u64::MAX, 1, None).contains(">]"));
        assert_eq!(bar(7, 0, None), "7B");
        assert_eq!(time(3_725), "1h02m");
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        assert_eq!(rate(&[(start, 0), (later, 4_000)]), Some(2_000));
        assert_eq!(rate(&[(start, 0)]), None);
    }

    #[test]
    fn styles() {
        assert_eq!(Style::of(None, false, true).unwrap(), Style::Bars);
        assert_eq!(Style::of(None, false, false).unwrap(), Style::Plain);
        assert_eq!(Style::of(Some("json"), false, true).unwrap(), Style::Json);
        assert!(Style::of(Some("x"), false, true).is_err());
    }
}
