//! What every verb gets: the program's name, the global options, the settings, the engine.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context as _;
use engine::settings::Settings;
use engine::trace::Recorder;
use engine::types::ExecConfig;
use engine::{Engine, EngineOptions};
use remote::Remote;

use crate::door::{Attachment, Door};
use crate::output::clean;
use crate::target::{self, Target};

/// Options that come before the verb.
#[derive(Debug, Clone, Default)]
pub(crate) struct Globals {
    /// `--data-root`
    pub(crate) data_root: Option<PathBuf>,
    /// `--run-root`
    pub(crate) run_root: Option<PathBuf>,
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// `--debug`
    pub(crate) debug: bool,
    /// `--log-level`
    pub(crate) log_level: Option<String>,
    /// `--host`
    pub(crate) host: Option<String>,
    /// `--context`
    pub(crate) context: Option<String>,
    /// `--tls`
    pub(crate) tls: bool,
    /// `--tlsverify`
    pub(crate) tlsverify: Option<bool>,
    /// `--tlscacert`
    pub(crate) tlscacert: Option<PathBuf>,
    /// `--tlscert`
    pub(crate) tlscert: Option<PathBuf>,
    /// `--tlskey`
    pub(crate) tlskey: Option<PathBuf>,
    /// `--trace`
    pub(crate) trace: Option<PathBuf>,
}

/// Opens an engine, here or elsewhere.
#[derive(Debug)]
pub(crate) enum Opener {
    Local(Box<EngineOptions>),
    Remote(Box<Target>),
}

impl Opener {
    pub(crate) fn open(&self) -> engine::Result<Door> {
        Ok(match self {
            Self::Local(options) => Door::Local(Box::new(Engine::open((**options).clone())?)),
            Self::Remote(target) => Door::Remote(remote(target)),
        })
    }

    /// The streams, unless it runs detached. The engine of this machine is opened while the process is made.
    pub(crate) fn exec(
        &self,
        name: &str,
        config: ExecConfig,
        detach: bool,
    ) -> engine::Result<Option<Attachment>> {
        match self {
            Self::Local(options) => {
                let session = Engine::open_and_exec((**options).clone(), name, config, detach)?;
                Ok(session.attachment.map(Attachment::Local))
            }
            Self::Remote(target) => {
                Ok(remote(target).exec(name, config, detach)?.map(Attachment::Remote))
            }
        }
    }
}

fn remote(target: &Target) -> Rc<Remote> {
    Rc::new(Remote::new(target.host.clone(), target.tls.clone()))
}

/// What every verb gets.
pub(crate) struct Context {
    /// `wherry` or `docker`.
    pub(crate) program: String,
    /// The verb as it was typed: `ps`, `container ls`.
    pub(crate) spelled: String,
    /// Options before the verb.
    pub(crate) globals: Globals,
    /// Notes phases with `--trace`.
    pub(crate) trace: Recorder,
    settings: OnceCell<Settings>,
}

impl Context {
    /// For a program of this name.
    pub(crate) fn new(program: String, globals: Globals) -> Self {
        let (spelled, trace) = (String::new(), Recorder::default());
        Self { program, spelled, globals, trace, settings: OnceCell::new() }
    }

    /// Called as `docker`.
    pub(crate) fn is_docker(&self) -> bool {
        self.program == "docker"
    }

    /// The settings: file, environment and flags.
    pub(crate) fn settings(&self) -> anyhow::Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let environment = environment();
        let flags = engine::settings::Flags {
            config: self.globals.config.clone(),
            data_root: self.globals.data_root.clone(),
            run_root: self.globals.run_root.clone(),
            debug: self.globals.debug.then_some(true),
            log_level: self.globals.log_level.clone(),
        };
        let settings = Settings::load(&environment, &flags)?;
        Ok(self.settings.get_or_init(|| settings))
    }

    /// Opens the engine that is meant: this machine's, or one elsewhere.
    pub(crate) fn engine(&self) -> anyhow::Result<Door> {
        Ok(self.opener()?.open()?)
    }

    /// What opens it, for threads that each need one of their own.
    pub(crate) fn opener(&self) -> anyhow::Result<Opener> {
        Ok(match target::of(&self.globals)? {
            None => Opener::Local(Box::new(self.engine_options()?)),
            Some(target) => Opener::Remote(Box::new(target)),
        })
    }

    /// Opens the engine of this machine, for what the Docker API does not know.
    pub(crate) fn local(&self) -> anyhow::Result<Engine> {
        if let Some(target) = target::of(&self.globals)? {
            return Err(crate::failure::Failure::new(
                1,
                format!(
                    "{} is for the engine of this machine, and {} is another: run it there",
                    self.spelled, target.host
                ),
            )
            .into());
        }
        Ok(Engine::open(self.engine_options()?)?)
    }

    /// How the engine is opened.
    pub(crate) fn engine_options(&self) -> anyhow::Result<EngineOptions> {
        let settings = self.settings()?.clone();
        let program = std::env::current_exe()
            .context("the path of this program is unknown; is /proc mounted?")?;
        let debug: fn(&str) = |text| note(&format!("debug: {text}"));
        let debug = (settings.debug || settings.log_level == "debug").then_some(debug);
        Ok(EngineOptions {
            data_root: settings.data_root.clone(),
            run_root: settings.run_root.clone(),
            program,
            settings,
            debug,
            trace: self.trace.clone(),
        })
    }

    /// One line on standard error for a failure that does not end the command.
    pub(crate) fn complain(&self, error: &anyhow::Error) {
        let line = self.error_line(error);
        note(&line);
    }

    /// Docker's second line for verbs that go on after a failure, when called by its name.
    pub(crate) fn sum_up(&self, what: &str, names: &[&str]) {
        if self.is_docker() && !names.is_empty() {
            note(&format!("Error: failed to {what} {}", names.join(", ")));
        }
    }

    /// The one line a failure gets.
    pub(crate) fn error_line(&self, error: &anyhow::Error) -> String {
        // An error of the engine says all in its own line; its sources would repeat it.
        let (is_engine, text) = match error.downcast_ref::<engine::Error>() {
            Some(own) => (true, own.to_string()),
            None => (false, format!("{error:#}")),
        };
        if !self.is_docker() {
            return format!("{}: {text}", self.program);
        }
        let from = if is_engine { "Error response from daemon: " } else { "" };
        let starts = ["run", "container run"];
        if starts.contains(&self.spelled.as_str()) {
            format!("docker: {from}{text}")
        } else {
            format!("{from}{text}")
        }
    }
}

/// The variables of the environment that settings look at.
pub(crate) fn environment() -> BTreeMap<String, OsString> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("WHERRY_"))
        .collect()
}

/// One line on standard error; nothing is done about a closed one.
pub(crate) fn note(line: &str) {
    let mut err = std::io::stderr().lock();
    let text = if err.is_terminal() { clean::text(line) } else { line.into() };
    let _ = writeln!(err, "{text}");
}

/// Standard output, buffered.
pub(crate) fn out() -> std::io::BufWriter<std::io::StdoutLock<'static>> {
    std::io::BufWriter::with_capacity(32 * 1024, std::io::stdout().lock())
}

/// Prints text that may hold names from outside.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let stdout = std::io::stdout();
    let text = if stdout.is_terminal() { clean::text(text) } else { text.into() };
    let mut out = stdout.lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `print` and a newline.
pub(crate) fn println(text: &str) -> std::io::Result<()> {
    print(&format!("{text}\n"))
}
