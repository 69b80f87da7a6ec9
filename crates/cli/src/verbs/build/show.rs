//! What a build does, for people and programs, on standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::fd::OwnedFd;

use build::{Event, Stop};
use engine::AttachOptions;

use super::live::Live;
use crate::context;
use crate::door::Attachment;
use crate::failure::Failure;
use crate::output::clean;
use crate::stream::Join;

/// Shows what happens, on standard error.
pub(super) struct Show {
    json: bool,
    quiet: bool,
    /// On a terminal.
    live: Option<Live>,
    /// The line that each step has begun.
    open: BTreeMap<usize, Vec<u8>>,
    /// Layers that were reported as fetched.
    fetched: Vec<String>,
    /// Readable when the build is to end.
    stop: Stop,
}

impl Show {
    pub(super) fn new(progress: &str, quiet: bool, stop: Stop) -> Result<Self, Failure> {
        if !["auto", "plain", "json", "quiet", "tty"].contains(&progress) {
            return Err(Failure::new(
                1,
                format!(
                    "invalid progress mode {progress:?}: it is auto, tty, plain, json or quiet"
                ),
            ));
        }
        let quiet = quiet || progress == "quiet";
        let terminal = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let live = match progress {
            "tty" => true,
            "auto" => terminal && !quiet,
            _ => false,
        };
        Ok(Self {
            json: progress == "json",
            quiet,
            live: live.then(Live::new),
            open: BTreeMap::new(),
            fetched: Vec::new(),
            stop,
        })
    }

    fn line(&self, text: &str) {
        context::note(text);
    }

    fn output(&mut self, step: usize, bytes: &[u8], at: f64) {
        let mut done = Vec::new();
        let open = self.open.entry(step).or_default();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || open.len() > 64 << 10 {
                done.push(std::mem::take(open));
            }
        }
        for line in done {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.line(&format!(
                "#{step} {at:.3} {}",
                clean::text(line.trim_end_matches(['\n', '\r']))
            ));
        }
    }

    fn close(&mut self, step: usize) {
        if let Some(rest) = self.open.remove(&step).filter(|rest| !rest.is_empty()) {
            let text = String::from_utf8_lossy(&rest).into_owned();
            self.line(&format!("#{step} {}", clean::text(&text)));
        }
    }

    fn plain(&mut self, event: Event) {
        match event {
            Event::Begin { step, title } => {
                if step > 1 {
                    self.line("");
                }
                self.line(&format!("#{step} {title}"));
            }
            Event::Cached { step } => self.line(&format!("#{step} CACHED")),
            Event::Done { step, took } => {
                self.close(step);
                self.line(&format!("#{step} DONE {:.1}s", took.as_secs_f64()));
            }
            Event::Failed { step, took } => {
                self.close(step);
                self.line(&format!("#{step} ERROR after {:.1}s", took.as_secs_f64()));
            }
            Event::Output { step, bytes, at, .. } => self.output(step, &bytes, at.as_secs_f64()),
            Event::Fetch { step, message } => {
                let id = message.id.unwrap_or_default();
                let line = format!("{id} {}", message.status);
                // Each layer once for each thing that happens to it.
                if !self.fetched.contains(&line) {
                    self.line(&format!("#{step} {}", line.trim()));
                    self.fetched.push(line);
                }
            }
            Event::Warning(text) => self.line(&format!("WARNING: {text}")),
        }
    }

    pub(super) fn end(&mut self, built: &build::Built, tags: &[String]) {
        // What it has drawn stays, and is followed by the rest.
        self.live = None;
        if self.quiet || self.json {
            return;
        }
        self.line("");
        let steps = if built.done == 1 { "step" } else { "steps" };
        self.line(&format!("{} {steps} done, {} from the cache", built.done, built.cached));
        let Some(image) = &built.image else { return };
        self.line(&format!("image {}", image.id));
        for tag in tags {
            self.line(&format!("named {tag}"));
        }
    }
}

fn as_json(event: Event) -> serde_json::Value {
    use serde_json::json;
    match event {
        Event::Begin { step, title } => json!({"step": step, "status": "begin", "title": title}),
        Event::Cached { step } => json!({"step": step, "status": "cached"}),
        Event::Done { step, took } => {
            json!({"step": step, "status": "done", "seconds": took.as_secs_f64()})
        }
        Event::Failed { step, took } => {
            json!({"step": step, "status": "failed", "seconds": took.as_secs_f64()})
        }
        Event::Output { step, error, bytes, at } => json!({
            "step": step,
            "status": "output",
            "stream": if error { "stderr" } else { "stdout" },
            "text": String::from_utf8_lossy(&bytes),
            "seconds": at.as_secs_f64(),
        }),
        Event::Fetch { step, message } => json!({"step": step, "status": "fetch", "pull": message}),
        Event::Warning(text) => json!({"status": "warning", "text": text}),
    }
}

impl build::Progress for Show {
    fn event(&mut self, event: Event) {
        if self.quiet {
            return;
        }
        if self.json {
            let _ = writeln!(std::io::stderr().lock(), "{}", as_json(event));
            return;
        }
        match &self.live {
            Some(live) => live.event(event),
            None => self.plain(event),
        }
    }

    fn begin_command(&mut self) -> Option<OwnedFd> {
        self.stop.fd()?.try_clone_to_owned().ok()
    }

    fn enter(&mut self, engine: &engine::Engine, id: &str, failure: &build::Error) {
        // What it has drawn stays above the shell.
        self.live = None;
        self.line(&format!(
            "{failure}\n\nA shell in the files as the command left them; the build ends with it."
        ));
        let wanted = AttachOptions { stdin: true, stdout: true, stderr: true, logs: false };
        let started = engine.start(id, Some(wanted));
        let tty = engine.inspect(id, false).is_ok_and(|container| container.config.tty);
        let joined = match started {
            Ok(Some(attachment)) => {
                let attachment = Attachment::Local(attachment);
                let join = Join { stdin: true, tty, keys: Vec::new(), proxy: None };
                crate::stream::join(attachment, join).map(drop)
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = joined {
            self.line(&format!("WARNING: no shell: {error:#}"));
        }
    }
}
