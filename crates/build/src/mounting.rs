//! What a step's container gets besides its files: mounts, secrets, agents, scripts.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use engine::types::{BindOptions, Mount as HostMount, TmpfsOptions};
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::agent::Relay;
use crate::error::{Error, Result, io};
use crate::job::Job;
use crate::key::Key;
use crate::language::dockerignore::Ignore;
use crate::language::flags::{Mount, MountKind, Sharing};
use crate::place::{Placing, Target};
use crate::plan::{Origin, origin};
use crate::progress::Event;
use crate::running::What;
use crate::stage::Stage;
use crate::tree::open_in;
use crate::upload::private_directory;

/// Where scripts of here-documents are in a step.
pub(crate) const SCRIPTS: &str = "/dev/pipes";

/// What a step's container gets besides its files.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) mounts: Vec<HostMount>,
    pub(crate) environment: Vec<String>,
    /// Paths that are mounted over, whose places go again if they were not there before.
    pub(crate) places: Vec<String>,
    /// Locks of caches that are ours alone.
    locks: Vec<std::fs::File>,
    /// Sockets of agents.
    relays: Vec<Relay>,
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
    /// A mount with its variables replaced; what it reads becomes part of the key.
    pub(crate) fn resolve(&mut self, stage: &Stage, mount: &Mount, key: &mut Key) -> Result<Mount> {
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
        if mount.kind == MountKind::Cache {
            self.mounts.insert(cache_id(&mount));
        }
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
        let [_, steps] = self.engine.build_directories();
        let path = private_directory(&steps)?;
        extras.scratch.push(Scratch(path.clone()));
        Ok(path)
    }

    pub(crate) fn extras(&mut self, stage: &Stage, what: &What) -> Result<Extras> {
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
        let caches = self.caches(&what.mounts, &mut extras)?;
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
                    let Some(path) = caches.get(&cache_id(mount)) else { continue };
                    extras.places.push(target.clone());
                    extras.mounts.push(bind(path, &target, mount.read_only == Some(true)));
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

    /// The directories of a step's caches by their names, made at their first use and locked as they are shared.
    ///
    /// All steps take the locks of several in the same order, so that no two wait for each other; and a cache that is
    /// mounted twice is locked once, as strictly as either asks.
    fn caches(
        &mut self,
        mounts: &[Mount],
        extras: &mut Extras,
    ) -> Result<BTreeMap<String, PathBuf>> {
        let mut wanted: BTreeMap<String, (&Mount, Sharing)> = BTreeMap::new();
        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Cache) {
            let (_, sharing) = wanted.entry(cache_id(mount)).or_insert((mount, mount.sharing));
            *sharing = (*sharing).max(mount.sharing);
        }
        let mut paths = BTreeMap::new();
        for (id, (mount, sharing)) in wanted {
            let path = self.cache(mount, &id, sharing, extras)?;
            paths.insert(id, path);
        }
        Ok(paths)
    }

    fn cache(
        &mut self,
        mount: &Mount,
        id: &str,
        sharing: Sharing,
        extras: &mut Extras,
    ) -> Result<PathBuf> {
        let name = oci::Digest::sha256(id).hex();
        let parent = crate::cache::mounts_directory(self.engine);
        let what = || format!("preparing the cache {id}");
        for number in 0..1000 {
            let path = match number {
                0 => parent.join(&name),
                n => parent.join(format!("{name}-{n}")),
            };
            let lock = loop {
                let lock = make_cache(&path, id, mount).map_err(io(what))?;
                if !self.lock(&lock, sharing, id)? {
                    break None;
                }
                // Somebody may have removed it between the two.
                use std::os::unix::fs::MetadataExt;
                let ours = lock.metadata().map(|m| (m.dev(), m.ino())).map_err(io(what))?;
                let there = std::fs::metadata(path.join("lock")).map(|m| (m.dev(), m.ino()));
                if there.is_ok_and(|there| there == ours) {
                    break Some(lock);
                }
            };
            let Some(lock) = lock else { continue };
            // When it was last used, for who cleans up.
            let _ = lock.set_modified(std::time::SystemTime::now());
            extras.locks.push(lock);
            let data = path.join("data");
            self.fill(mount, id, &path)?;
            return Ok(data);
        }
        Err(Error::Invalid(format!("the cache {id} is used by too many steps at once")))
    }

    /// Takes the lock of a cache; false if a private one is taken already.
    fn lock(&self, file: &std::fs::File, sharing: Sharing, id: &str) -> Result<bool> {
        use rustix::fs::{FlockOperation as Op, flock};
        let operation = match sharing {
            Sharing::Shared => Op::NonBlockingLockShared,
            Sharing::Locked | Sharing::Private => Op::NonBlockingLockExclusive,
        };
        loop {
            match flock(file, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) if sharing == Sharing::Private => return Ok(false),
                // Nothing tells when it is free that could be waited for together with the build's end.
                Err(Errno::WOULDBLOCK) => {
                    self.stop.check()?;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(io(|| format!("locking the cache {id}"))(error)),
            }
        }
    }

    /// Fills a new cache with what one of elsewhere has, or with what the mount names.
    fn fill(&mut self, mount: &Mount, id: &str, path: &Path) -> Result<()> {
        let data = path.join("data");
        let empty = || std::fs::read_dir(&data).is_ok_and(|mut list| list.next().is_none());
        if !empty() || (mount.from.is_none() && self.imported.is_empty()) {
            return Ok(());
        }
        // One of those that share it.
        let what = || format!("filling the cache {id}");
        let mut options = std::fs::File::options();
        let lock = options.create(true).append(true).open(path.join("fill")).map_err(io(what))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(io(what))?;
        if !empty() {
            return Ok(());
        }
        for imported in self.imported {
            let _deaf = self.stop.deaf();
            match imported.fill(self.client, id, &data) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    self.progress.event(Event::Warning(error.to_string()));
                    std::fs::remove_dir_all(&data).map_err(io(what))?;
                    make_cache(path, id, mount).map_err(io(what))?;
                }
            }
        }
        match &mount.from {
            Some(from) => self.seed(mount, from, &data),
            None => Ok(()),
        }
    }

    fn seed(&mut self, mount: &Mount, from: &str, data: &Path) -> Result<()> {
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
        let number = extras.relays.len();
        let target = mount.target.clone();
        let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
        // The first one is the one that programs find.
        if number == 0 {
            extras.environment.push(format!("SSH_AUTH_SOCK={target}"));
        }
        let path = self.scratch(extras)?.join("agent");
        let (mode, uid, gid) = (mount.mode.unwrap_or(0o600), mount.uid, mount.gid);
        let relay = Relay::new(&path, socket, mode, uid.unwrap_or(0), gid.unwrap_or(0))?;
        extras.relays.push(relay);
        extras.mounts.push(bind(&path, &target, false));
        extras.places.push(target);
        Ok(())
    }

    /// The places for mounts that a step's files do not have, each with the topmost directory that will
    /// be made for it.
    pub(crate) fn missing_places(&self, id: &str, places: &[String]) -> Result<Vec<String>> {
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
    pub(crate) fn remove_places(&self, id: &str, missing: &[String]) -> Result<()> {
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

/// What a cache is known by.
pub(crate) fn cache_id(mount: &Mount) -> String {
    mount.id.clone().or_else(|| mount.target.clone()).unwrap_or_default()
}

/// Makes the directory of a cache if it is not there; its lock.
fn make_cache(path: &Path, id: &str, mount: &Mount) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let data = path.join("data");
    if !data.is_dir() {
        std::fs::create_dir_all(&data)?;
        let mode = mount.mode.unwrap_or(0o755);
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode))?;
        chown(&data, mount.uid.or(Some(0)), mount.gid.or(Some(0)))?;
        std::fs::write(path.join("id"), id)?;
    }
    std::fs::File::options().create(true).append(true).open(path.join("lock"))
}

fn no_context() -> Error {
    Error::Invalid("a bind mount needs a context, and this build has none".into())
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
