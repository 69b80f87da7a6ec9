//! The engine: one data root, one run root, and everything that can be asked of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keeper::client::Client;
use runtime::trace::Recorder;
use rusqlite::Connection;
use store::Store;

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::types::Config;

/// How to open an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Images, containers, volumes and the state database; survives a reboot.
    pub data_root: PathBuf,
    /// Sockets and what runs now; worthless after a reboot.
    pub run_root: PathBuf,
    /// The engine's own program, which the keeper and the steward are started from.
    pub program: PathBuf,
    /// The configuration.
    pub settings: Settings,
    /// Told what is worth knowing when something is looked for: what was left out or done another
    /// way because the host does not allow it.
    pub debug: Option<fn(&str)>,
    /// Notes the phases of what is done.
    pub trace: Recorder,
}

/// One engine. Opening it is cheap; a program with several threads opens one in each.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    store: Store,
    keeper: Client,
    network: std::cell::OnceCell<net::endpoint::Host>,
}

/// Filter name to accepted values; `filters` of the Docker API.
pub type Filters = BTreeMap<String, Vec<String>>;

/// What `list` shows.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Those that do not run, too.
    pub all: bool,
    /// So many of the youngest, running or not.
    pub limit: Option<usize>,
    /// With sizes, which takes time.
    pub size: bool,
    /// See `list::FILTERS`.
    pub filters: Filters,
}

/// Which streams to take part in.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// Write to standard input.
    pub stdin: bool,
    /// Hear standard output.
    pub stdout: bool,
    /// Hear standard error.
    pub stderr: bool,
    /// Hear first what the journal has.
    pub logs: bool,
}

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes, too.
    pub volumes: bool,
}

/// Which part of the journal `logs` gives.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on until the container ends.
    pub follow: bool,
    /// Not before; ns since 1970.
    pub since: Option<i64>,
    /// Not after; ns since 1970.
    pub until: Option<i64>,
    /// The last so many lines.
    pub tail: Option<u64>,
}

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of the journal.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// When it was written; ns since 1970.
    pub time: i64,
    /// Where it came from.
    pub stream: StreamKind,
    /// Its bytes, the newline included unless it is a part of a line.
    pub bytes: Vec<u8>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it does not run; at once if it does not.
    NotRunning,
    /// Its next end, even if it does not run now.
    NextExit,
    /// That it is gone.
    Removed,
}

/// How to commit a container to an image.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Name of the image.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub message: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// What the image's configuration is to say; the rest is the container's.
    pub config: Option<Config>,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Not before; ns since 1970. `None`: only new ones.
    pub since: Option<i64>,
    /// Not after; ns since 1970. `None`: for ever.
    pub until: Option<i64>,
    /// See `events::FILTERS`.
    pub filters: Filters,
}

/// How to import a root filesystem.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the image.
    pub reference: Option<String>,
    /// Remark in its history.
    pub message: String,
    /// `os/arch[/variant]`; this host's if absent.
    pub platform: Option<String>,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
}

/// Form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `docker save`.
    Docker,
    /// OCI image layout.
    OciLayout,
}

/// What `cp` must know of a path.
#[derive(Debug, Clone)]
pub struct PathStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    /// ns since 1970.
    pub mtime: i64,
    /// Where a symbolic link points.
    pub link_target: String,
}

/// Reports of long work; the command line draws bars from it.
pub trait Progress {
    /// `done` of `total` bytes (or steps) of `what`.
    fn step(&mut self, what: &str, done: u64, total: Option<u64>) {
        let _ = (what, done, total);
    }
}

/// Nobody is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}

impl Engine {
    /// Opens the engine, making its folders at the first use.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let form = options.settings.storage.choice();
        let opening = store::OpenOptions { form, ..store::OpenOptions::default() };
        let phase = options.trace.phase("open the database");
        let store = Store::open(&options.data_root, opening)?;
        drop(phase);
        let run = &options.run_root;
        if !run.join("exits").is_dir() {
            for dir in ["running", "exits", "io"] {
                std::fs::create_dir_all(run.join(dir)).map_err(|e| {
                    Error::system(format!("cannot make the run root {}", run.display()), e)
                })?;
            }
        }
        let keeper = keeper_of(&options);
        Ok(Self { options, store, keeper, network: std::cell::OnceCell::new() })
    }

    /// Where images, containers and volumes are.
    pub fn data_root(&self) -> &Path {
        self.store.root()
    }

    /// Where sockets and what runs now are.
    pub fn run_root(&self) -> &Path {
        &self.options.run_root
    }

    /// The engine's own program.
    pub(crate) fn program(&self) -> &Path {
        &self.options.program
    }

    /// The same engine once more, for another thread.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn another(&self) -> Result<Self> {
        Self::open(self.options.clone())
    }

    /// How it was opened.
    pub(crate) fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The configuration in force.
    pub fn settings(&self) -> &Settings {
        &self.options.settings
    }

    /// Who notes phases.
    pub(crate) fn trace(&self) -> &Recorder {
        &self.options.trace
    }

    /// Says something at debug level.
    pub(crate) fn debug(&self, text: &str) {
        if let Some(debug) = self.options.debug {
            debug(text);
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn db(&self) -> &Connection {
        self.store.db().connection()
    }

    /// The host's network namespace: the caller's.
    ///
    /// Its sockets are closed at the process's end only: closing one may wait until the kernel has
    /// done away with what was taken out of the rules, whoever did that.
    pub(crate) fn network_host(&self) -> Result<&net::endpoint::Host> {
        if let Some(host) = self.network.get() {
            return Ok(host);
        }
        let settings = self.settings();
        let host = net::endpoint::Host::open(&settings.network_tag())?
            .respecting_input(settings.publish_respects_input);
        Ok(self.network.get_or_init(|| host))
    }

    pub(crate) fn keeper(&self) -> &Client {
        &self.keeper
    }
}

/// How the keeper of an engine is reached.
pub(crate) fn keeper_of(options: &EngineOptions) -> Client {
    Client {
        run_root: options.run_root.clone(),
        program: options.program.clone(),
        keeper_args: helper_args(options, "__keeper"),
    }
}

/// Arguments that make the engine's program one of its helpers (`__keeper`,
/// `__steward`) of this engine.
pub fn helper_args(options: &EngineOptions, verb: &str) -> Vec<String> {
    let text = |path: &Path| {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
    };
    vec![verb.to_owned(), text(&options.data_root), text(&options.run_root), text(&options.program)]
}
