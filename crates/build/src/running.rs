//! `RUN`: a command in a container upon the stage's layers.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use engine::types::{BindOptions, Config, HostConfig, Mount as HostMount, TmpfsOptions};
use engine::{AttachOptions, Frame, WaitCondition};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::job::Job;
use crate::key::Key;
use crate::language::dockerignore::Ignore;
use crate::language::flags::{Mount, MountKind, Sharing};
use crate::language::instruction::{Command, Run, Step};
use crate::language::problem::Problem;
use crate::language::statement::heredoc;
use crate::place::{Placing, Target};
use crate::plan::{Origin, origin};
use crate::progress::Event;
use crate::stage::Stage;
use crate::tree::open_in;

/// Lines of a failed command that are shown again.
const TAIL: usize = 20;

/// Where scripts of here-documents are in a step.
const SCRIPTS: &str = "/dev/pipes";

/// What a step's container gets besides its files.
#[derive(Default)]
struct Extras {
    mounts: Vec<HostMount>,
    environment: Vec<String>,
    /// Paths that are mounted over, whose places go again if they were not there before.
    places: Vec<String>,
    /// Locks of caches that are ours alone.
    locks: Vec<std::fs::File>,
    /// Directories of the host that end with the step.
    scratch: Vec<Scratch>,
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is found below the run root and means nothing after a reboot.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Job<'_> {
    pub(crate) fn run(
        &mut self,
        stage: &mut Stage,
        run: &Run,
        step: &Step,
        title: String,
    ) -> Result<()> {
        self.begin(title);
        let plan = self.plan;
        let (argv, script) = command(stage, run)?;
        let arguments = stage.scope.for_run();
        let said = match (&run.command, arguments.len()) {
            (Command::Exec(argv), 0) => format!("RUN {}", argv.join(" ")),
            (_, 0) => format!("RUN {}", argv.join(" ")),
            (_, n) => format!("RUN |{n} {} {}", arguments.join(" "), argv.join(" ")),
        };
        let mut environment = stage.scope.environment.clone();
        environment.extend(arguments);
        let network = match run.network.as_deref() {
            Some("none") => "none".to_owned(),
            Some("host") => "host".to_owned(),
            _ => match self.options.network.as_deref() {
                None | Some("") => "default".to_owned(),
                Some(network) => network.to_owned(),
            },
        };
        let insecure = run.security.as_deref() == Some("insecure");
        let mut key = Key::new("run");
        key.layers(&stage.layers)
            .list(&argv)
            .list(&environment)
            .put(&stage.image.config.user)
            .put(&stage.image.config.working_dir)
            .put(&network)
            .put([u8::from(insecure)])
            .list(&self.options.add_hosts)
            .put(script.as_deref().unwrap_or_default());
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            mounts.push(self.resolve(stage, mount, &mut key)?);
        }
        let epoch = self.epoch(stage, 0);
        environment.extend(stage.scope.proxies(&plan.globals));
        let what = What { argv, script, environment, network, insecure, mounts };
        self.layer(stage, key, &step.text, epoch, |job, stage| {
            job.execute(stage, &what, step, epoch)
        })?;
        let epoch = self.epoch(stage, 0);
        stage.history(said, epoch, false);
        Ok(())
    }

    /// A mount with its variables replaced; what it reads becomes part of the key.
    fn resolve(&mut self, stage: &Stage, mount: &Mount, key: &mut Key) -> Result<Mount> {
        let plan = self.plan;
        let escape = plan.file.directives.escape;
        let word = |text: &Option<String>| {
            text.as_deref()
                .map(|text| stage.scope.word(&plan.globals, text, escape))
                .transpose()
                .map_err(Error::Invalid)
        };
        let mut mount = mount.clone();
        mount.source = word(&mount.source)?;
        mount.target = word(&mount.target)?.map(|target| stage.absolute(&target));
        mount.id = word(&mount.id)?;
        key.put(format!("{mount:?}"));
        if mount.kind == MountKind::Bind {
            let (tree, borrowed) = match self.mount_origin(stage, &mount)? {
                Some(origin) => (self.tree_of(&origin)?, false),
                None => (self.context.take().ok_or_else(no_context)?, true),
            };
            let source = mount.source.clone().unwrap_or_else(|| "/".to_owned());
            let digest = tree
                .find(&source, &Ignore::default())
                .and_then(|sources| tree.digest(&sources, &mut self.known));
            if borrowed {
                self.context = Some(tree);
            }
            key.digest(digest?);
        }
        Ok(mount)
    }

    fn mount_origin(&self, stage: &Stage, mount: &Mount) -> Result<Option<Origin>> {
        let from = mount.from.as_deref();
        from.map(|from| origin(&self.plan.file, from, stage.index, self.options))
            .transpose()
            .map_err(Error::Invalid)
    }

    /// A directory of the host for this step alone.
    fn scratch(&self, extras: &mut Extras) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        // A server has many builds under way.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = self.engine.run_root().join("build");
        let path = parent.join(format!("{pid}-{number}"));
        let make = || -> std::io::Result<()> {
            std::fs::create_dir_all(&parent)?;
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            std::fs::DirBuilder::new().mode(0o700).create(&path)
        };
        make().map_err(io(|| format!("making {}", path.display())))?;
        extras.scratch.push(Scratch(path.clone()));
        Ok(path)
    }

    fn extras(&mut self, stage: &Stage, what: &What) -> Result<Extras> {
        use std::os::unix::fs::PermissionsExt;
        let mut extras = Extras::default();
        if let Some(script) = &what.script {
            let path = self.scratch(&mut extras)?.join("script");
            let write = || -> std::io::Result<()> {
                std::fs::write(&path, script)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            };
            write().map_err(io(|| format!("writing {}", path.display())))?;
            extras.mounts.push(bind(&path, &format!("{SCRIPTS}/script"), true));
        }
        for mount in &what.mounts {
            let target = mount.target.clone().unwrap_or_default();
            match mount.kind {
                MountKind::Tmpfs => {
                    extras.places.push(target.clone());
                    extras.mounts.push(HostMount {
                        r#type: "tmpfs".into(),
                        target,
                        tmpfs_options: Some(TmpfsOptions {
                            size_bytes: i64::try_from(mount.size.unwrap_or(0)).unwrap_or(0),
                            ..TmpfsOptions::default()
                        }),
                        ..HostMount::default()
                    });
                }
                MountKind::Bind => {
                    let path = self.scratch(&mut extras)?.join("files");
                    let file = self.materialize(stage, mount, &path)?;
                    let path = if file { path.join("file") } else { path };
                    extras.places.push(target.clone());
                    extras.mounts.push(bind(&path, &target, mount.read_only != Some(false)));
                }
                MountKind::Cache => {
                    let path = self.cache(mount, &target, &mut extras)?;
                    extras.places.push(target.clone());
                    extras.mounts.push(bind(&path, &target, mount.read_only == Some(true)));
                }
                MountKind::Secret => self.secret(mount, &mut extras)?,
                MountKind::Ssh => self.agent(mount, &mut extras)?,
            }
        }
        Ok(extras)
    }

    /// Copies what a bind mount shows, so that what is written to it is dropped and nothing of the host's is
    /// changed. True for one file.
    fn materialize(
        &mut self,
        stage: &Stage,
        mount: &Mount,
        path: &std::path::Path,
    ) -> Result<bool> {
        let (tree, borrowed) = match self.mount_origin(stage, mount)? {
            Some(origin) => (self.tree_of(&origin)?, false),
            None => (self.context.take().ok_or_else(no_context)?, true),
        };
        let copy = || -> Result<bool> {
            std::fs::create_dir(path).map_err(io(|| format!("making {}", path.display())))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
                .map_err(io(|| format!("opening {}", path.display())))?;
            let source = mount.source.as_deref().unwrap_or("/");
            let mut sources = tree.find(source, &Ignore::default())?;
            let file = sources.first().is_some_and(|source| !source.is_directory());
            if file && let Some(source) = sources.first_mut() {
                source.name = b"file".to_vec();
            }
            Target::new(root, Placing::default()).copy(&tree, &sources, b"", true)?;
            Ok(file)
        };
        let copied = copy();
        if borrowed {
            self.context = Some(tree);
        }
        copied
    }

    /// The directory of a cache, made at its first use.
    fn cache(&mut self, mount: &Mount, target: &str, extras: &mut Extras) -> Result<PathBuf> {
        use std::os::unix::fs::{PermissionsExt, chown};
        let id = mount.id.clone().unwrap_or_else(|| target.to_owned());
        let name = oci::Digest::sha256(&id).hex();
        let parent = self.engine.data_root().join("cache/mounts");
        let make = |path: &PathBuf| -> std::io::Result<std::fs::File> {
            let data = path.join("data");
            if !data.is_dir() {
                std::fs::create_dir_all(&data)?;
                let mode = mount.mode.unwrap_or(0o755);
                std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode))?;
                chown(&data, mount.uid.or(Some(0)), mount.gid.or(Some(0)))?;
                std::fs::write(path.join("id"), &id)?;
            }
            std::fs::File::options().create(true).append(true).open(path.join("lock"))
        };
        let flock = |file: &std::fs::File, exclusive: bool, wait: bool| {
            use rustix::fs::FlockOperation as Op;
            let operation = match (exclusive, wait) {
                (true, true) => Op::LockExclusive,
                (true, false) => Op::NonBlockingLockExclusive,
                (false, _) => Op::LockShared,
            };
            rustix::fs::flock(file, operation)
        };
        for number in 0..1000 {
            let path = match number {
                0 => parent.join(&name),
                n => parent.join(format!("{name}-{n}")),
            };
            let what = || format!("preparing the cache {id}");
            let lock = make(&path).map_err(io(what))?;
            let taken = match mount.sharing {
                Sharing::Shared => flock(&lock, false, true),
                Sharing::Locked => flock(&lock, true, true),
                Sharing::Private => flock(&lock, true, false),
            };
            match taken {
                Ok(()) => {
                    // When it was last used, for who cleans up.
                    let _ = lock.set_modified(std::time::SystemTime::now());
                    extras.locks.push(lock);
                    let data = path.join("data");
                    if let Some(from) = &mount.from {
                        self.seed(mount, from, &data)?;
                    }
                    return Ok(data);
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(io(what)(error)),
            }
        }
        Err(Error::Invalid(format!("the cache {id} is used by too many steps at once")))
    }

    /// Fills a new cache.
    fn seed(&mut self, mount: &Mount, from: &str, data: &std::path::Path) -> Result<()> {
        let empty = std::fs::read_dir(data).is_ok_and(|mut list| list.next().is_none());
        if !empty {
            return Ok(());
        }
        let last = self.plan.file.stages.len();
        let origin = origin(&self.plan.file, from, last, self.options).map_err(Error::Invalid)?;
        let tree = self.tree_of(&origin)?;
        let sources = tree.find(mount.source.as_deref().unwrap_or("/"), &Ignore::default())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(data, flags, rustix::fs::Mode::empty())
            .map_err(io(|| format!("opening {}", data.display())))?;
        Target::new(root, Placing::default()).copy(&tree, &sources, b"", true)
    }

    fn secret(&mut self, mount: &Mount, extras: &mut Extras) -> Result<()> {
        use std::os::unix::fs::{PermissionsExt, chown};
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let id = mount.id.clone().or_else(|| mount.source.clone());
        let id = id.or_else(|| mount.target.as_deref().map(last)).unwrap_or_default();
        let Some(content) = self.options.secrets.get(&id) else {
            if mount.required {
                return Err(Error::Invalid(format!(
                    "secret {id}: not found; give it with --secret id={id},src=FILE"
                )));
            }
            return Ok(());
        };
        if let Some(name) = &mount.env {
            extras.environment.push(format!("{name}={}", String::from_utf8_lossy(content)));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let content = content.clone();
        let path = self.scratch(extras)?.join("secret");
        let write = || -> std::io::Result<()> {
            std::fs::write(&path, &content)?;
            let mode = mount.mode.unwrap_or(0o400);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            chown(&path, mount.uid.or(Some(0)), mount.gid.or(Some(0)))
        };
        write().map_err(io(|| format!("writing the secret {id} for the step")))?;
        let target = mount.target.clone().unwrap_or_else(|| format!("/run/secrets/{id}"));
        extras.mounts.push(bind(&path, &target, true));
        extras.places.push(target);
        Ok(())
    }

    /// The socket of an agent, which the step talks to as if it were here.
    fn agent(&self, mount: &Mount, extras: &mut Extras) -> Result<()> {
        let id = mount.id.clone().unwrap_or_else(|| "default".into());
        let Some(socket) = self.options.agents.get(&id) else {
            if mount.required {
                return Err(Error::Invalid(format!(
                    "ssh agent {id}: not found; give its socket with --ssh {id}[=SOCKET]"
                )));
            }
            return Ok(());
        };
        let number = extras.mounts.len();
        let target = mount.target.clone();
        let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
        // The first one is the one that programs find.
        if !extras.environment.iter().any(|text| text.starts_with("SSH_AUTH_SOCK=")) {
            extras.environment.push(format!("SSH_AUTH_SOCK={target}"));
        }
        extras.mounts.push(bind(socket, &target, true));
        extras.places.push(target);
        Ok(())
    }

    /// Runs the command and makes a layer of what it changed.
    fn execute(
        &mut self,
        stage: &Stage,
        what: &What,
        step: &Step,
        epoch: i64,
    ) -> Result<(oci::DiffId, u64)> {
        let extras = self.extras(stage, what)?;
        let list = |words: &[String]| Some(words.to_vec());
        let environment = [what.environment.as_slice(), extras.environment.as_slice()].concat();
        let options = self.options;
        let config = Config {
            hostname: "build".into(),
            user: stage.image.config.user.clone(),
            env: Some(environment),
            entrypoint: list(&what.argv),
            cmd: Some(Vec::new()),
            working_dir: stage.image.config.working_dir.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..Config::default()
        };
        let mut host = HostConfig {
            network_mode: what.network.clone(),
            privileged: what.insecure,
            mounts: Some(extras.mounts.clone()),
            extra_hosts: list(&options.add_hosts),
            shm_size: options.shm_size,
            memory: options.memory,
            memory_swap: options.memory_swap,
            cpu_shares: options.cpu_shares,
            cpu_period: options.cpu_period,
            cpu_quota: options.cpu_quota,
            cpuset_cpus: options.cpuset_cpus.clone(),
            cpuset_mems: options.cpuset_mems.clone(),
            security_opt: list(&options.security_opt),
            cgroup_parent: options.cgroup_parent.clone(),
            ulimits: Some(options.ulimits.clone()),
            ..HostConfig::default()
        };
        host.log_config.r#type = "none".into();
        let id = self.engine.create_step(&stage.layers, config, host, true)?;
        let made = (|| {
            let places = self.missing_places(&id, &extras.places)?;
            let (code, tail) = self.attend(&id)?;
            if code != 0 {
                return Err(self.command_failed(step, &what.argv, code, &tail));
            }
            self.remove_places(&id, &places)?;
            Ok(self.engine.commit_step(&id, epoch)?)
        })();
        let removed = self.engine.remove_step(&id);
        self.progress.end_command();
        let made = made?;
        removed?;
        Ok(made)
    }

    /// Starts a step's container and hears it to its end: the exit code, and its last lines.
    fn attend(&mut self, id: &str) -> Result<(i32, VecDeque<String>)> {
        let began = Instant::now();
        let wanted = AttachOptions { stdout: true, stderr: true, ..AttachOptions::default() };
        let started = self.engine.start(id, Some(wanted));
        let mut attachment = match started {
            Ok(Some(attachment)) => attachment,
            Ok(None) => return Err(Error::Invalid("a step has no output to hear".into())),
            Err(error) => {
                let code = i32::from(error.run_exit_code());
                if code == 125 {
                    return Err(error.into());
                }
                return Ok((code, VecDeque::from([error.message])));
            }
        };
        let watch = self.progress.begin_command();
        let mut tail = Tail::default();
        loop {
            match attachment.read()? {
                None => {
                    let mut fds = vec![PollFd::from_borrowed_fd(attachment.fd(), PollFlags::IN)];
                    fds.extend(watch.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
                    match poll(&mut fds, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(io(|| "waiting for output".to_owned())(error)),
                    }
                    if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                        return Err(Error::GivenUp);
                    }
                }
                Some(Frame::Exit(code)) => return Ok((code, tail.finish())),
                Some(Frame::Closed) => {
                    let code = self.engine.wait(id, WaitCondition::NotRunning)?;
                    return Ok((code, tail.finish()));
                }
                Some(frame @ (Frame::Stdout(_) | Frame::Stderr(_))) => {
                    let (error, bytes) = match frame {
                        Frame::Stderr(bytes) => (true, bytes),
                        Frame::Stdout(bytes) => (false, bytes),
                        Frame::Exit(_) | Frame::Closed => (false, Vec::new()),
                    };
                    tail.push(&bytes);
                    let (step, at) = (self.step, began.elapsed());
                    self.progress.event(Event::Output { step, error, bytes, at });
                }
            }
        }
    }

    fn command_failed(
        &self,
        step: &Step,
        argv: &[String],
        code: i32,
        tail: &VecDeque<String>,
    ) -> Error {
        let mut message = format!(
            "process {:?} did not complete successfully: exit code: {code}",
            argv.join(" ")
        );
        if !tail.is_empty() {
            message.push_str("\nits last output:");
            for line in tail {
                message.push_str("\n  ");
                message.push_str(line);
            }
        }
        let diagnostic = self.plan.file.diagnose(Problem::new(step.span, message));
        Error::Failed { diagnostic, code }
    }

    /// The places for mounts that a step's files do not have, each with the topmost directory that will
    /// be made for it.
    fn missing_places(&self, id: &str, places: &[String]) -> Result<Vec<String>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let root = self.engine.mount_step(id)?;
        let mut missing = Vec::new();
        for place in places {
            let mut path = String::new();
            for part in place.split('/').filter(|part| !part.is_empty()) {
                path.push('/');
                path.push_str(part);
                let found = open_in(&root, path.as_bytes(), OFlags::PATH, ResolveFlags::empty());
                if found.is_err() {
                    missing.push(path.clone());
                }
            }
        }
        Ok(missing)
    }

    /// Removes the places that were made for mounts, unless something is in them.
    fn remove_places(&self, id: &str, missing: &[String]) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let root = self.engine.mount_step(id)?;
        for place in missing.iter().rev() {
            let Some((above, name)) = place.rsplit_once('/') else { continue };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let Ok(parent) = open_in(&root, above.as_bytes(), flags, ResolveFlags::empty()) else {
                continue;
            };
            remove_if_empty(&parent, name)?;
        }
        Ok(())
    }
}

fn remove_if_empty(parent: &OwnedFd, name: &str) -> Result<()> {
    let what = || format!("removing the place of a mount, {name}");
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io(what)(error)),
    };
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    match rustix::fs::unlinkat(parent.as_fd(), name, flags) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
        Err(error) => Err(io(what)(error)),
    }
}

fn no_context() -> Error {
    Error::Invalid("a bind mount needs a context, and this build has none".into())
}

/// A command of which all is known.
struct What {
    argv: Vec<String>,
    script: Option<String>,
    environment: Vec<String>,
    network: String,
    insecure: bool,
    mounts: Vec<Mount>,
}

/// The command line of a `RUN`, and a script if a here-document is a program of its own.
fn command(stage: &Stage, run: &Run) -> Result<(Vec<String>, Option<String>)> {
    let text = match &run.command {
        Command::Exec(argv) => return Ok((argv.clone(), None)),
        Command::Shell(text) => text,
    };
    let shell = |text: String| {
        let mut argv = stage.shell();
        argv.push(text);
        argv
    };
    let Some(first) = run.heredocs.first() else { return Ok((shell(text.clone()), None)) };
    if heredoc(text, '\\').is_none() {
        // The shell gets them as they are.
        let mut full = text.clone();
        for document in &run.heredocs {
            full.push_str(&format!("\n{}{}", document.content, document.name));
        }
        return Ok((shell(full), None));
    }
    let content = first.text();
    if content.starts_with("#!") {
        return Ok((vec![format!("{SCRIPTS}/script")], Some(content)));
    }
    Ok((shell(content), None))
}

fn bind(source: &std::path::Path, target: &str, read_only: bool) -> HostMount {
    HostMount {
        r#type: "bind".into(),
        source: std::path::absolute(source)
            .unwrap_or_else(|_| source.to_owned())
            .to_string_lossy()
            .into_owned(),
        target: target.to_owned(),
        read_only,
        bind_options: Some(BindOptions::default()),
        ..HostMount::default()
    }
}

/// The last lines of a command's output.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.open.len() < 4096 {
                self.open.extend_from_slice(piece.get(..piece.len().min(4096)).unwrap_or(piece));
            }
            if piece.ends_with(b"\n") {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.open)).trim_end().to_owned();
        if self.lines.len() >= TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn finish(mut self) -> VecDeque<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines
    }
}
