//! Containers and execs.

use std::io::{Read, Write};
use std::rc::Rc;

use base64::Engine as _;
use engine::types::{
    ContainerInspect, ContainerSummary, CreateRequest, Created, DiffEntry, DiskUsage, Event,
    ExecConfig, ExecInspect, Info, Pruned, Stats, Top, UpdateRequest, VersionInfo,
};
use engine::{
    AttachOptions, CommitOptions, Error, ErrorKind, EventOptions, Filters, ListOptions, PathStat,
    RemoveOptions, Result, WaitCondition,
};
use serde::Deserialize;

use crate::attachment::{Attachment, Ending};
use crate::http::{Body, Payload};
use crate::remote::{Query, Remote, part, payload};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Waited {
    status_code: i64,
    error: Option<WaitError>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WaitError {
    message: String,
}

/// The header of answers about a path: base64 of JSON.
#[derive(Deserialize)]
struct Stat {
    name: String,
    size: i64,
    mode: u32,
    mtime: String,
    #[serde(default, rename = "linkTarget")]
    link_target: String,
}

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "tcp")];

/// Go's bits for what a file is, as `st_mode` has them.
fn unix_mode(go: u32) -> u32 {
    let on = |bit: u32| go & (1 << bit) != 0;
    let kind = match () {
        () if on(31) => 0o040_000,
        () if on(27) => 0o120_000,
        () if on(26) && on(21) => 0o020_000,
        () if on(26) => 0o060_000,
        () if on(25) => 0o010_000,
        () if on(24) => 0o140_000,
        () => 0o100_000,
    };
    let bit = |bit: u32, mode: u32| if on(bit) { mode } else { 0 };
    kind | go & 0o777 | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000)
}

/// A program that can't be run is told by words alone; the exit code follows from them.
fn start_error(mut error: Error) -> Error {
    let has = |words: &[&str]| words.iter().any(|w| error.message.contains(w));
    if matches!(error.kind, ErrorKind::Invalid | ErrorKind::System | ErrorKind::NotFound) {
        if has(&["executable file not found", "no such file or directory"]) {
            error.kind = ErrorKind::CommandNotFound;
        } else if has(&["permission denied", "is a directory", "exec format error"]) {
            error.kind = ErrorKind::CommandNotExecutable;
        }
    }
    error
}

fn container(name: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", part(name))
}

impl Remote {
    /// See [`engine::info::version`].
    pub fn version(&self) -> Result<VersionInfo> {
        self.get("/version", Query::new())
    }

    /// See [`engine::Engine::info`].
    pub fn info(&self) -> Result<Info> {
        self.get("/info", Query::new())
    }

    /// See [`engine::Engine::disk_usage`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.get("/system/df", Query::new())
    }

    /// See [`engine::Engine::events`].
    pub fn events(&self, options: EventOptions, sink: &mut dyn FnMut(Event) -> bool) -> Result<()> {
        let time = |ns: Option<i64>| ns.map(seconds);
        let query = Query::new()
            .option("since", time(options.since).as_deref())
            .option("until", time(options.until).as_deref())
            .filters(&options.filters);
        let (_, body) = self.ask("GET", "/events", query, &[], Payload::Nothing)?;
        self.lines(body, &mut |event| Ok(sink(event)))
    }

    /// See [`engine::Engine::list`].
    pub fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let query = Query::new()
            .flag("all", options.all)
            .option("limit", options.limit.map(|n| n.to_string()).as_deref())
            .flag("size", options.size)
            .filters(&options.filters);
        self.get("/containers/json", query)
    }

    /// See [`engine::Engine::inspect`].
    pub fn inspect(&self, name: &str, size: bool) -> Result<ContainerInspect> {
        self.get(&container(name, "/json"), Query::new().flag("size", size))
    }

    /// See [`engine::Engine::create`].
    pub fn create(&self, request: CreateRequest) -> Result<Created> {
        if request.rootfs.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "--rootfs names a directory of this host, and the engine is at {}",
                    self.host()
                ),
            ));
        }
        let query = Query::new()
            .option("name", request.name.as_deref())
            .option("platform", request.platform.as_deref());
        self.post("/containers/create", query, &request)
    }

    /// Waits on a connection of its own; the answer comes at the end.
    fn waiting(&self, id: &str, condition: &str) -> Result<Body> {
        let query = Query::new().text("condition", condition);
        let path = container(id, "/wait");
        Ok(self.ask_apart("POST", &path, query, &[], Payload::Nothing)?.1)
    }

    fn ending(body: Body) -> Ending {
        Box::new(move || {
            let mut text = String::new();
            let mut body = body;
            // Without an answer the code is asked for in another way.
            if body.by_ref().take(1 << 20).read_to_string(&mut text).is_err() {
                return Ok(None);
            }
            let Ok(waited) = serde_json::from_str::<Waited>(&text) else { return Ok(None) };
            match waited.error.filter(|e| !e.message.is_empty()) {
                Some(error) => Err(Error::new(ErrorKind::System, error.message)),
                None => Ok(i32::try_from(waited.status_code).ok()),
            }
        })
    }

    fn attached(
        self: &Rc<Self>,
        id: &str,
        tty: bool,
        options: AttachOptions,
        ending: Option<Ending>,
    ) -> Result<Attachment> {
        let query = Query::new()
            .text("stream", "1")
            .flag("stdin", options.stdin)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("logs", options.logs);
        let path = container(id, "/attach");
        let (_, body) = self.ask_apart("POST", &path, query, &UPGRADE, Payload::Nothing)?;
        let (remote, path) = (self.clone(), container(id, "/resize"));
        let resizer = move |rows, cols| remote.resize(&path, rows, cols);
        Attachment::new(body, tty, ending, Box::new(resizer))
    }

    fn resize(&self, path: &str, rows: u16, cols: u16) -> Result<()> {
        let query = Query::new().text("h", &rows.to_string()).text("w", &cols.to_string());
        self.done("POST", path, query)
    }

    /// See [`engine::Engine::start`].
    pub fn start(
        self: &Rc<Self>,
        name: &str,
        attach: Option<AttachOptions>,
    ) -> Result<Option<Attachment>> {
        let mut attachment = None;
        if let Some(options) = attach {
            let found = self.inspect(name, false)?;
            // Told of before the start, so that nothing is missed.
            let condition = if found.host_config.auto_remove { "removed" } else { "next-exit" };
            if found.state.running {
                return Err(Error::new(
                    ErrorKind::NotModified,
                    format!("container {name} is already running"),
                ));
            }
            let ending = Self::ending(self.waiting(&found.id, condition)?);
            attachment = Some(self.attached(&found.id, found.config.tty, options, Some(ending))?);
        }
        self.done("POST", &container(name, "/start"), Query::new()).map_err(start_error)?;
        Ok(attachment)
    }

    /// See [`engine::Engine::attach`].
    pub fn attach(self: &Rc<Self>, name: &str, options: AttachOptions) -> Result<Attachment> {
        let found = self.inspect(name, false)?;
        let ending = Self::ending(self.waiting(&found.id, "next-exit")?);
        self.attached(&found.id, found.config.tty, options, Some(ending))
    }

    /// See [`engine::Engine::exec`]; `None` where it was started detached.
    pub fn exec(
        self: &Rc<Self>,
        name: &str,
        config: ExecConfig,
        detach: bool,
    ) -> Result<Option<Attachment>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Made {
            id: String,
        }
        let made: Made = self.post(&container(name, "/exec"), Query::new(), &config)?;
        let path = format!("/exec/{}/start", part(&made.id));
        let mut how = serde_json::json!({"Detach": detach, "Tty": config.tty});
        if let (Some(size), Some(fields)) = (config.console_size, how.as_object_mut())
            && config.tty
            && self.version_number()? >= 42
        {
            fields.insert("ConsoleSize".into(), serde_json::json!(size));
        }
        if detach {
            let (_, body) =
                self.ask("POST", &path, Query::new(), &[], payload(&how)?).map_err(start_error)?;
            self.keep(body);
            return Ok(None);
        }
        let (_, body) = self
            .ask_apart("POST", &path, Query::new(), &UPGRADE, payload(&how)?)
            .map_err(start_error)?;
        let (remote, id) = (self.clone(), made.id.clone());
        let ending: Ending = Box::new(move || {
            let found: ExecInspect =
                remote.get(&format!("/exec/{}/json", part(&id)), Query::new())?;
            Ok(found.exit_code)
        });
        let (remote, path) = (self.clone(), format!("/exec/{}/resize", part(&made.id)));
        let resizer = move |rows, cols| remote.resize(&path, rows, cols);
        Attachment::new(body, config.tty, Some(ending), Box::new(resizer)).map(Some)
    }

    /// See [`engine::Engine::stop`].
    pub fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        self.ended_by(name, "/stop", signal, timeout)
    }

    /// See [`engine::Engine::restart`].
    pub fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        self.ended_by(name, "/restart", signal, timeout)
    }

    fn ended_by(
        &self,
        name: &str,
        verb: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let query = Query::new()
            .option("t", timeout.map(|t| t.to_string()).as_deref())
            .option("signal", signal);
        self.done("POST", &container(name, verb), query)
    }

    /// See [`engine::Engine::kill`].
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let query = Query::new().option("signal", Some(signal));
        self.done("POST", &container(name, "/kill"), query)
    }

    /// See [`engine::Engine::pause`].
    pub fn pause(&self, name: &str) -> Result<()> {
        self.done("POST", &container(name, "/pause"), Query::new())
    }

    /// See [`engine::Engine::unpause`].
    pub fn unpause(&self, name: &str) -> Result<()> {
        self.done("POST", &container(name, "/unpause"), Query::new())
    }

    /// See [`engine::Engine::wait`].
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<i32> {
        let condition = match condition {
            WaitCondition::NotRunning => "not-running",
            WaitCondition::NextExit => "next-exit",
            WaitCondition::Removed => "removed",
        };
        let waited: Waited = self.read_json(self.waiting(name, condition)?)?;
        Ok(i32::try_from(waited.status_code).unwrap_or(255))
    }

    /// See [`engine::Engine::rename`].
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        self.done("POST", &container(name, "/rename"), Query::new().text("name", new))
    }

    /// See [`engine::Engine::update`].
    pub fn update(&self, name: &str, request: UpdateRequest) -> Result<Vec<String>> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Updated {
            warnings: Vec<String>,
        }
        let updated: Updated = self.post(&container(name, "/update"), Query::new(), &request)?;
        Ok(updated.warnings)
    }

    /// See [`engine::Engine::remove`].
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let query = Query::new().flag("force", options.force).flag("v", options.volumes);
        match self.done("DELETE", &container(name, ""), query) {
            // The engine does it already, as it was told with `--rm`.
            Err(e) if e.message.contains("is already in progress") => {
                Err(Error::new(ErrorKind::NotFound, e.message))
            }
            other => other,
        }
    }

    /// See [`engine::Engine::prune_containers`].
    pub fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Gone {
            containers_deleted: Vec<String>,
            space_reclaimed: u64,
        }
        let query = Query::new().filters(filters);
        let gone: Gone = self.json("POST", "/containers/prune", query, Payload::Nothing)?;
        Ok(Pruned { deleted: gone.containers_deleted, space_reclaimed: gone.space_reclaimed })
    }

    /// See [`engine::Engine::stats`].
    pub fn stats(&self, name: &str, previous: Option<&Stats>) -> Result<Stats> {
        let query = Query::new().text("stream", "0").text("one-shot", "1");
        let mut stats: Stats = self.get(&container(name, "/stats"), query)?;
        if let Some(previous) = previous {
            stats.preread.clone_from(&previous.read);
            stats.precpu_stats = previous.cpu_stats.clone();
        }
        Ok(stats)
    }

    /// See [`engine::Engine::top`].
    pub fn top(&self, name: &str, args: &[String]) -> Result<Top> {
        let query = Query::new().option("ps_args", Some(&args.join(" ")));
        self.get(&container(name, "/top"), query)
    }

    /// See [`engine::Engine::diff`].
    pub fn diff(&self, name: &str) -> Result<Vec<DiffEntry>> {
        let changes: Option<Vec<DiffEntry>> =
            self.get(&container(name, "/changes"), Query::new())?;
        Ok(changes.unwrap_or_default())
    }

    /// See [`engine::Engine::export`].
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let path = container(name, "/export");
        let (_, body) = self.ask("GET", &path, Query::new(), &[], Payload::Nothing)?;
        self.copy_body(body, out)
    }

    /// See [`engine::Engine::commit`].
    pub fn commit(&self, name: &str, options: CommitOptions) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Committed {
            id: String,
        }
        let (repo, tag) =
            crate::images::split_tag(options.reference.as_deref().unwrap_or_default());
        let mut query = Query::new()
            .text("container", name)
            .option("repo", Some(repo))
            .option("tag", tag)
            .option("author", Some(&options.author))
            .option("comment", Some(&options.message));
        if !options.pause {
            query = query.text("pause", "0");
        }
        for change in &options.changes {
            query = query.text("changes", change);
        }
        let committed: Committed = self.post("/commit", query, &options.config)?;
        Ok(committed.id)
    }

    /// See [`engine::Engine::stat_path`].
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let query = Query::new().text("path", path);
        let at = container(name, "/archive");
        let (head, body) = self.ask("HEAD", &at, query, &[], Payload::Nothing).map_err(|e| {
            // An answer to HEAD has no words.
            match e.kind {
                ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    format!("Could not find the file {path} in container {name}"),
                ),
                _ => e,
            }
        })?;
        self.keep(body);
        stat_of(head.header("x-docker-container-path-stat"))
    }

    /// See [`engine::Engine::copy_from`].
    pub fn copy_from(&self, name: &str, path: &str, out: &mut dyn Write) -> Result<PathStat> {
        let query = Query::new().text("path", path);
        let at = container(name, "/archive");
        let (head, body) = self.ask("GET", &at, query, &[], Payload::Nothing)?;
        let stat = stat_of(head.header("x-docker-container-path-stat"))?;
        self.copy_body(body, out)?;
        Ok(stat)
    }

    /// See [`engine::Engine::copy_to`].
    pub fn copy_to(
        &self,
        name: &str,
        path: &str,
        tar: &mut dyn Read,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()> {
        let query = Query::new()
            .text("path", path)
            .flag("noOverwriteDirNonDir", no_overwrite_dir_non_dir)
            .flag("copyUIDGID", copy_uid_gid);
        let at = container(name, "/archive");
        let (_, body) = self.ask("PUT", &at, query, &[], Payload::Tar(tar))?;
        self.keep(body);
        Ok(())
    }
}

fn stat_of(header: Option<&str>) -> Result<PathStat> {
    let wrong = || Error::system("the engine's answer", "it does not say what the path is");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(header.unwrap_or_default())
        .map_err(|_| wrong())?;
    let stat: Stat = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let mtime = stat.mtime.parse::<jiff::Timestamp>().map(|t| t.as_nanosecond()).unwrap_or(0);
    Ok(PathStat {
        name: stat.name,
        size: u64::try_from(stat.size).unwrap_or(0),
        mode: unix_mode(stat.mode),
        mtime: i64::try_from(mtime).unwrap_or(0),
        link_target: stat.link_target,
    })
}

/// Nanoseconds as the API has times: seconds with a fraction.
pub(crate) fn seconds(ns: i64) -> String {
    format!("{}.{:09}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times() {
        assert_eq!(unix_mode(0o644), 0o100_644);
        assert_eq!(unix_mode(0x8010_01ff), 0o041_777);
        assert_eq!(unix_mode(0x0800_01ff), 0o120_777);
        assert_eq!(unix_mode(0x0080_01ed), 0o104_755);
        assert_eq!(seconds(1_500_000_000), "1.500000000");
    }
}
