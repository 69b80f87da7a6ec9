//! Progress of long work: a bar on a terminal, nothing elsewhere, where a failure must be
//! the one line on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{clean, human};

/// Draws on standard error.
pub(crate) struct Bar {
    terminal: bool,
    quiet: bool,
    current: String,
    drawn: Option<Instant>,
    open: bool,
}

impl Bar {
    /// A bar; `quiet` shows nothing.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, quiet, current: String::new(), drawn: None, open: false }
    }

    /// Ends the line that is being drawn.
    pub(crate) fn finish(&mut self) {
        if self.open {
            let _ = writeln!(std::io::stderr().lock());
            self.open = false;
        }
    }
}

/// One line of a bar.
fn line(what: &str, done: u64, total: Option<u64>) -> String {
    let size = |n: u64| human::size(i64::try_from(n).unwrap_or(i64::MAX));
    match total {
        Some(total) if total > 0 => {
            let width = 40u64;
            let filled = u128::from(done.min(total)) * u128::from(width) / u128::from(total);
            let filled = usize::try_from(filled).unwrap_or(0);
            let rest = 40usize.saturating_sub(filled);
            format!(
                "{what} [{}>{}] {}/{}",
                "=".repeat(filled),
                " ".repeat(rest),
                size(done),
                size(total)
            )
        }
        _ if done > 0 => format!("{what} {}", size(done)),
        _ => what.to_owned(),
    }
}

impl engine::Progress for Bar {
    fn step(&mut self, what: &str, done: u64, total: Option<u64>) {
        if self.quiet || !self.terminal {
            return;
        }
        let fresh = self.current != what;
        let finished = total.is_some_and(|t| done >= t);
        let recent = self.drawn.is_some_and(|at| at.elapsed() < Duration::from_millis(80));
        if recent && !fresh && !finished {
            return;
        }
        if fresh {
            self.finish();
            what.clone_into(&mut self.current);
        }
        let text = line(what, done, total);
        let _ = write!(std::io::stderr().lock(), "\r\x1b[2K{}", clean::text(&text));
        let _ = std::io::stderr().flush();
        self.open = true;
        self.drawn = Some(Instant::now());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bars_never_overflow() {
        assert!(super::line("load", 20, Some(10)).contains('>'));
        assert_eq!(super::line("load", 0, None), "load");
        assert!(super::line("load", u64::MAX, Some(u64::MAX)).ends_with("EB"));
    }
}
