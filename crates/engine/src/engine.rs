use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::types::*;

#[derive(Debug, Clone)]
pub struct EngineOptions {
    pub data_root: PathBuf, pub run_root: PathBuf,
    /// Path of the engine's own binary, for the keeper.
    pub program: PathBuf,
    pub settings: crate::settings::Settings,
}
pub struct Engine {}

/// `name` → accepted values; as in Docker's `filters` parameter.
pub type Filters = BTreeMap<String, Vec<String>>;

#[derive(Debug, Clone, Default)]
pub struct ListOptions { pub all: bool, pub limit: Option<usize>, pub size: bool, pub filters: Filters }
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions { pub stdin: bool, pub stdout: bool, pub stderr: bool, /** replay the journal first */ pub logs: bool }
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions { pub force: bool, pub volumes: bool }
#[derive(Debug, Clone, Default)]
pub struct LogOptions { pub stdout: bool, pub stderr: bool, pub follow: bool, /** ns since 1970 */ pub since: Option<i64>, pub until: Option<i64>, /** last n lines */ pub tail: Option<u64> }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind { Stdout, Stderr }
#[derive(Debug, Clone)]
pub struct LogLine { /** ns since 1970 */ pub time: i64, pub stream: StreamKind, /** bytes incl. the newline unless the line is partial */ pub bytes: Vec<u8> }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition { NotRunning, NextExit, Removed }
#[derive(Debug, Clone, Default)]
pub struct CommitOptions { pub reference: Option<String>, pub author: String, pub message: String, pub pause: bool, /** Dockerfile instructions */ pub changes: Vec<String> }
#[derive(Debug, Clone, Default)]
pub struct EventOptions { /** ns */ pub since: Option<i64>, pub until: Option<i64>, pub filters: Filters }
#[derive(Debug, Clone, Default)]
pub struct ImportOptions { pub reference: Option<String>, pub message: String, pub platform: Option<String>, pub changes: Vec<String> }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat { Docker, OciLayout }
/// Result of `stat` for `cp`.
#[derive(Debug, Clone)]
pub struct PathStat { pub name: String, pub size: u64, /** st_mode */ pub mode: u32, pub mtime: i64, pub link_target: String }

/// What an attached client exchanges with a container or an exec.
pub enum Frame { Stdout(Vec<u8>), Stderr(Vec<u8>), /** the process ended */ Exit(i32), /** the keeper detached us */ Closed }
/// A live connection to a container's streams. Poll `fd()` for reading, then call `read()`.
pub struct Attachment {}
impl Attachment {
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> { todo!() }
    /// Next frame that is complete; `None`: nothing more for now (non-blocking).
    pub fn read(&mut self) -> Result<Option<Frame>> { todo!() }
    /// Blocks until written (bounded by the container reading it).
    pub fn write_stdin(&mut self, _bytes: &[u8]) -> Result<()> { todo!() }
    pub fn close_stdin(&mut self) -> Result<()> { todo!() }
    pub fn resize(&mut self, _rows: u16, _cols: u16) -> Result<()> { todo!() }
}
/// A process started by `exec`.
pub struct ExecSession { /** for streams, when anything was attached or a terminal asked for */ pub attachment: Option<Attachment>, pub id: String, pub pid: i32 }

/// Reports of long work; the command line draws bars from it.
pub trait Progress { fn step(&mut self, _what: &str, _done: u64, _total: Option<u64>) {} }
pub struct NoProgress; impl Progress for NoProgress {}

#[allow(unused_variables)]
impl Engine {
    pub fn open(options: EngineOptions) -> Result<Engine> { todo!() }
    // --- containers -------------------------------------------------
    pub fn create(&self, request: CreateRequest) -> Result<Created> { todo!() }
    /// With `attach`, the connection is made before the program runs, so nothing is missed.
    pub fn start(&self, name: &str, attach: Option<AttachOptions>) -> Result<Option<Attachment>> { todo!() }
    pub fn attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> { todo!() }
    /// `timeout`: seconds, `Some(-1)` waits for ever, `None` takes the container's.
    pub fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> { todo!() }
    pub fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> { todo!() }
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> { todo!() }
    pub fn pause(&self, name: &str) -> Result<()> { todo!() }
    pub fn unpause(&self, name: &str) -> Result<()> { todo!() }
    /// Blocks; exit code.
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<i32> { todo!() }
    pub fn rename(&self, name: &str, new: &str) -> Result<()> { todo!() }
    /// Returns warnings.
    pub fn update(&self, name: &str, request: UpdateRequest) -> Result<Vec<String>> { todo!() }
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> { todo!() }
    pub fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> { todo!() }
    pub fn inspect(&self, name: &str, size: bool) -> Result<ContainerInspect> { todo!() }
    /// Calls `sink` for each line; `sink` returns false to stop. Blocks while following.
    pub fn logs(&self, name: &str, options: LogOptions, sink: &mut dyn FnMut(LogLine) -> bool) -> Result<()> { todo!() }
    pub fn exec(&self, name: &str, config: ExecConfig, detach: bool) -> Result<ExecSession> { todo!() }
    /// `args` are ps(1)'s; empty is `-ef`.
    pub fn top(&self, name: &str, args: &[String]) -> Result<Top> { todo!() }
    /// One reading; `previous` fills `precpu_stats` and `preread`.
    pub fn stats(&self, name: &str, previous: Option<&Stats>) -> Result<Stats> { todo!() }
    pub fn diff(&self, name: &str) -> Result<Vec<DiffEntry>> { todo!() }
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<()> { todo!() }
    pub fn commit(&self, name: &str, options: CommitOptions) -> Result<String> { todo!() }
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> { todo!() }
    /// A tar whose first entry is the path's last name (or its content for `…/.`).
    pub fn copy_from(&self, name: &str, path: &str, out: &mut dyn Write) -> Result<PathStat> { todo!() }
    /// Unpacks a tar below `path`, which must be a directory.
    pub fn copy_to(&self, name: &str, path: &str, tar: &mut dyn Read, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool) -> Result<()> { todo!() }
    pub fn prune_containers(&self, filters: &Filters) -> Result<Pruned> { todo!() }
    /// Past events, then (until `until`, or for ever) new ones. `sink` returns false to stop.
    pub fn events(&self, options: EventOptions, sink: &mut dyn FnMut(Event) -> bool) -> Result<()> { todo!() }
    // --- images -----------------------------------------------------
    pub fn images(&self, all: bool, filters: &Filters) -> Result<Vec<ImageSummary>> { todo!() }
    pub fn inspect_image(&self, name: &str) -> Result<ImageInspect> { todo!() }
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> { todo!() }
    pub fn import(&self, tar: &mut dyn Read, options: ImportOptions, progress: &mut dyn Progress) -> Result<String> { todo!() }
    /// Ids and names loaded: `(id, names)`.
    pub fn load(&self, archive: &mut dyn Read, progress: &mut dyn Progress) -> Result<Vec<(String, Vec<String>)>> { todo!() }
    pub fn save(&self, names: &[String], format: ArchiveFormat, out: &mut dyn Write) -> Result<()> { todo!() }
    pub fn tag(&self, source: &str, target: &str) -> Result<()> { todo!() }
    pub fn remove_image(&self, name: &str, force: bool, no_prune: bool) -> Result<Vec<ImageDelete>> { todo!() }
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<ImagesPruned> { todo!() }
    // --- volumes ----------------------------------------------------
    pub fn create_volume(&self, name: Option<&str>, driver: &str, options: BTreeMap<String, String>, labels: BTreeMap<String, String>) -> Result<Volume> { todo!() }
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<Volume>> { todo!() }
    pub fn inspect_volume(&self, name: &str) -> Result<Volume> { todo!() }
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> { todo!() }
    /// `all`: named ones too.
    pub fn prune_volumes(&self, all: bool, filters: &Filters) -> Result<Pruned> { todo!() }
    // --- system -----------------------------------------------------
    pub fn disk_usage(&self) -> Result<DiskUsage> { todo!() }
    pub fn data_root(&self) -> &Path { todo!() }
    /// Counts for `info`: (running, paused, stopped, images).
    pub fn counts(&self) -> Result<(usize, usize, usize, usize)> { todo!() }
}
fn _unused(_: OwnedFd) {}
