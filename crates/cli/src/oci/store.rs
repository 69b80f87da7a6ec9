//! Containers on disk: `ROOT/ID/state.json`, and `ROOT/ID/gate`, a FIFO that exists until the
//! program is started.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::LinuxResources;
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::hooks::Hook;
use runtime::plan::Plan;
use runtime::state::{ProcessIdentity, State, Status};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::Global;

/// What is remembered of a container.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// Its ID.
    pub(super) id: String,
    /// When it was created, RFC 3339.
    pub(super) created: String,
    /// Who created it.
    pub(super) owner: u32,
    /// Its first process; absent until there is one.
    pub(super) process: Option<ProcessIdentity>,
    /// Its path in the cgroup hierarchies.
    pub(super) cgroup: String,
    /// What it was started with.
    pub(super) plan: Plan,
    /// Limits in force.
    pub(super) resources: Option<LinuxResources>,
    /// Hooks to run after the start.
    pub(super) poststart: Vec<Hook>,
    /// Hooks to run after the end.
    pub(super) poststop: Vec<Hook>,
}

/// A container's directory.
pub(super) struct Container {
    pub(super) directory: PathBuf,
    pub(super) record: Record,
}

/// Names become paths; so only harmless characters.
fn check_id(id: &str) -> Result<()> {
    let valid = !id.is_empty()
        && id.len() <= 1024
        && id != "."
        && id != ".."
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
    if !valid {
        bail!("invalid container ID \"{id}\": letters, digits and _+-. are allowed");
    }
    Ok(())
}

impl Container {
    /// Fails early, and with the right words, when the ID is taken or is none.
    pub(super) fn check_free(global: &Global, id: &str) -> Result<()> {
        check_id(id)?;
        if global.root.join(id).exists() {
            bail!("container with ID \"{id}\" already exists; delete it first");
        }
        Ok(())
    }

    /// Takes the ID; fails when it is taken.
    pub(super) fn reserve(global: &Global, record: Record) -> Result<Container> {
        check_id(&record.id)?;
        let directory = global.root.join(&record.id);
        std::fs::create_dir_all(&global.root)
            .with_context(|| format!("create {}", global.root.display()))?;
        match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o711)) {
            Ok(()) => {}
            Err(sys::Errno::EXIST) => {
                bail!("container with ID \"{}\" already exists; delete it first", record.id)
            }
            Err(errno) => {
                return Err(errno).with_context(|| format!("create {}", directory.display()));
            }
        }
        let container = Container { directory, record };
        container.save()?;
        Ok(container)
    }

    pub(super) fn load(global: &Global, id: &str) -> Result<Container> {
        check_id(id)?;
        let directory = global.root.join(id);
        let path = directory.join("state.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(anyhow!(NotExist(id.to_owned())));
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let record = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; delete --force removes it", path.display()))?;
        Ok(Container { directory, record })
    }

    /// Writes the state so that a reader sees the old or the new one.
    pub(super) fn save(&self) -> Result<()> {
        let path = self.directory.join("state.json");
        write_atomically(&path, &serde_json::to_vec(&self.record)?)
    }

    pub(super) fn gate_path(&self) -> PathBuf {
        self.directory.join("gate")
    }

    /// Makes the gate. The child keeps a writing end, too, so that it never sees an end of file.
    pub(super) fn make_gate(&self) -> Result<OwnedFd> {
        let path = self.gate_path();
        let what = || format!("create {}", path.display());
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), 0).with_context(what)?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).with_context(what)
    }

    /// Opens the gate; false when nobody waits there any more.
    pub(super) fn open_gate(&self) -> Result<bool> {
        let path = self.gate_path();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(sys::Errno::NOENT | sys::Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(errno).with_context(|| format!("open {}", path.display())),
        };
        // Removed first: who finds it gone must not wait for a second start.
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        rustix::io::write(&fd, b"s").context("start the container")?;
        Ok(true)
    }

    pub(super) fn status(&self) -> Status {
        let Some(process) = &self.record.process else { return Status::Creating };
        if !process.alive() {
            return Status::Stopped;
        }
        if self.gate_path().exists() {
            return Status::Created;
        }
        match self.cgroup() {
            Ok(cgroup) if cgroup.frozen() => Status::Paused,
            _ => Status::Running,
        }
    }

    pub(super) fn cgroup(&self) -> Result<Cgroup> {
        Ok(Cgroup::open(&CgroupRoot::detect()?, &self.record.cgroup)?)
    }

    pub(super) fn state(&self, status: Status) -> State {
        let plan = &self.record.plan;
        let alive = !matches!(status, Status::Stopped);
        State {
            oci_version: plan.oci_version.clone(),
            id: self.record.id.clone(),
            status,
            pid: self.record.process.filter(|_| alive).map(|process| process.pid),
            bundle: plan.bundle.clone(),
            annotations: plan.annotations.clone(),
        }
    }

    /// A descriptor for the first process; an error when it has ended.
    pub(super) fn process(&self) -> Result<OwnedFd> {
        let process = self.record.process.filter(ProcessIdentity::alive);
        let process = process.with_context(|| {
            format!("container \"{}\" is not running: container not running", self.record.id)
        })?;
        Ok(process.open()?)
    }

    /// Removes all that is left of a container whose first process has ended or shall end now.
    /// Goes on after an error and reports the first.
    pub(super) fn destroy(&self, global: &Global) -> Result<()> {
        let mut problems = Vec::new();
        if let Some(process) = &self.record.process
            && process.alive()
            && let Ok(pidfd) = process.open()
        {
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), 9);
            if let Ok(cgroup) = self.cgroup()
                && cgroup.frozen()
            {
                let _ = cgroup.thaw();
            }
            wait_end(&pidfd, std::time::Duration::from_secs(10));
            if process.alive() {
                problems.push(anyhow!("process {} does not end", process.pid));
            }
        }
        match self.cgroup() {
            Ok(cgroup) => {
                let result = cgroup.kill_all(9).and_then(|()| cgroup.remove());
                problems.extend(result.err().map(anyhow::Error::from));
            }
            Err(error) => problems.push(error),
        }
        let state = self.state(Status::Stopped);
        for error in runtime::hooks::run_all("poststop", &self.record.poststop, &state) {
            // The specification: log and go on.
            global.log("warning", &error.to_string());
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            problems.push(anyhow!(error).context(format!("remove {}", self.directory.display())));
        }
        match problems.into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(problem),
        }
    }
}

/// Waits until a process has ended, at most `limit`.
pub(super) fn wait_end(pidfd: &OwnedFd, limit: std::time::Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = std::time::Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Err(sys::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// There is no such container. Callers look for these words.
#[derive(Debug)]
pub(super) struct NotExist(pub(super) String);

impl std::fmt::Display for NotExist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "container \"{}\" does not exist: container does not exist", self.0)
    }
}

impl std::error::Error for NotExist {}

/// Writes a file under another name and renames it.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let result = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| format!("write {}", path.display()))
}
