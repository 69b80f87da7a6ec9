//! A build on a terminal: what is done on one line each, and below it the steps that run, with their times and
//! the end of their output.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use build::Event;

use crate::output::clean;

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(100);
/// Lines of a step's output that are shown while it runs.
const TAIL: usize = 6;

/// Draws as long as it is there.
pub(super) struct Live {
    view: Arc<Mutex<View>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    pub(super) fn new() -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let (stop, stopped) = channel();
        let theirs = Arc::clone(&view);
        let spawned = std::thread::Builder::new().name("view".into()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                draw(&theirs);
            }
            draw(&theirs);
        });
        // Without it there is less to see.
        Self { view, stop: Some(stop), thread: spawned.ok() }
    }

    pub(super) fn event(&self, event: Event) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).event(event);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).running.clear();
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(view: &Mutex<View>) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let size = size.map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
    let (rows, columns) =
        size.filter(|(rows, columns)| *rows > 1 && *columns > 1).unwrap_or((24, 80));
    let text = view.lock().unwrap_or_else(PoisonError::into_inner).text(rows, columns);
    if !text.is_empty() {
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

/// A step that runs.
struct Running {
    title: String,
    began: Instant,
    tail: VecDeque<String>,
    /// The line that has not ended.
    open: Vec<u8>,
}

impl Running {
    fn line(&mut self, text: &str) {
        self.tail.push_back(shown(text));
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        /// No line on a terminal is longer.
        const LONGEST: usize = 8 << 10;
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open.len() > LONGEST {
                let line = std::mem::take(&mut self.open);
                self.line(&String::from_utf8_lossy(&line));
            }
        }
    }
}

/// A line as it is on a terminal: what a carriage return is followed by lies over what was before it.
fn shown(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    clean::text(&text.replace('\t', "    ")).into_owned()
}

/// As much of a line as there are columns. Characters of East Asian scripts take two.
fn cut(text: &str, columns: usize) -> String {
    let mut used = 0usize;
    let fits = |c: &char| {
        used = used.saturating_add(if *c >= '\u{1100}' { 2 } else { 1 });
        used < columns
    };
    text.chars().take_while(fits).collect()
}

#[derive(Default)]
struct View {
    /// Lines that are to be written once and stay.
    finished: Vec<String>,
    running: BTreeMap<usize, Running>,
    /// Lines at the end of the screen that are drawn anew.
    drawn: usize,
}

impl View {
    fn event(&mut self, event: Event) {
        match event {
            Event::Begin { step, title } => {
                let title = shown(&title);
                let began = Instant::now();
                let running = Running { title, began, tail: VecDeque::new(), open: Vec::new() };
                self.running.insert(step, running);
            }
            Event::Cached { step } => self.end(step, "CACHED"),
            Event::Done { step, took } => self.end(step, &format!("{:.1}s", took.as_secs_f64())),
            Event::Failed { step, .. } => self.end(step, "ERROR"),
            Event::Output { step, bytes, .. } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.output(&bytes);
                }
            }
            Event::Fetch { step, message } => {
                if let Some(running) = self.running.get_mut(&step) {
                    let id = message.id.unwrap_or_default();
                    running.line(&format!("{id} {}", message.status));
                }
            }
            Event::Warning(text) => self.finished.push(format!("WARNING: {}", clean::text(&text))),
        }
    }

    fn end(&mut self, step: usize, how: &str) {
        if let Some(running) = self.running.remove(&step) {
            self.finished.push(format!("{how:>8}  {}", running.title));
        }
    }

    /// What brings the screen up to date.
    fn text(&mut self, rows: usize, columns: usize) -> String {
        if self.finished.is_empty() && self.running.is_empty() && self.drawn == 0 {
            return String::new();
        }
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A\r\x1b[J", self.drawn);
        }
        for line in self.finished.drain(..) {
            text.push_str(&line);
            text.push('\n');
        }
        let room = rows.saturating_sub(1);
        let tails = room.checked_div(self.running.len()).unwrap_or(0).saturating_sub(1).min(TAIL);
        self.drawn = 0;
        for running in self.running.values().take(room) {
            let seconds = format!("{:.1}s", running.began.elapsed().as_secs_f64());
            let title = cut(&format!("{seconds:>8}  {}", running.title), columns);
            text.push_str(&title);
            text.push('\n');
            self.drawn = self.drawn.saturating_add(1);
            let open = Some(shown(&String::from_utf8_lossy(&running.open)));
            let open = open.filter(|line| !line.is_empty());
            let lines: Vec<&String> = running.tail.iter().chain(&open).collect();
            for line in lines.iter().skip(lines.len().saturating_sub(tails)) {
                text.push_str(&cut(&format!("          | {line}"), columns));
                text.push('\n');
                self.drawn = self.drawn.saturating_add(1);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(step: usize, title: &str) -> Event {
        Event::Begin { step, title: title.into() }
    }

    fn output(step: usize, text: &str) -> Event {
        let at = Duration::ZERO;
        Event::Output { step, error: false, bytes: text.into(), at }
    }

    #[test]
    fn what_runs_is_drawn_anew_and_what_is_done_stays() {
        let mut view = View::default();
        assert_eq!(view.text(24, 80), "");
        view.event(begin(1, "one"));
        view.event(begin(2, "two"));
        view.event(output(2, "a\nb\x1b[2J\n10%\r20%"));
        let first = view.text(24, 80);
        assert!(first.contains("  one\n") && first.contains("| b\\u{1b}[2J\n"), "{first}");
        assert!(first.ends_with("| 20%\n") && !first.contains("10%"), "{first}");
        view.event(Event::Cached { step: 1 });
        let second = view.text(24, 80);
        assert!(second.starts_with("\x1b[5A\r\x1b[J  CACHED  one\n"), "{second:?}");
        view.event(Event::Failed { step: 2, took: Duration::ZERO });
        assert_eq!(view.text(24, 80), "\x1b[4A\r\x1b[J   ERROR  two\n");
        assert_eq!(view.text(24, 80), "");
    }

    #[test]
    fn it_is_never_larger_than_the_screen() {
        let mut view = View::default();
        for step in 0..40 {
            view.event(begin(step, &"x".repeat(500)));
            view.event(output(step, &"長い\n".repeat(20)));
        }
        for rows in 2..50 {
            let text = view.text(rows, 20);
            let body = text.rsplit("\x1b[J").next().unwrap();
            assert!(body.lines().count() < rows, "{rows}");
            assert!(body.lines().all(|line| line.chars().count() < 20));
        }
    }
}
