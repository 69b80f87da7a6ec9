//! What the verbs act on: the engine of this machine, or one elsewhere, with the same methods.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use ::registry::{Credential, Credentials};
use engine::types::{
    ContainerInspect, ContainerSummary, CreateRequest, Created, DiffEntry, DiskUsage,
    EndpointSettings, Event, HistoryEntry, ImageDelete, ImageInspect, ImageSummary, ImagesPruned,
    Info, Network, NetworkCreate, Pruned, Stats, Top, UpdateRequest, VersionInfo, Volume,
};
use engine::{
    ArchiveFormat, AttachOptions, CommitOptions, Engine, EventOptions, Filters, Frame,
    ImportOptions, ListOptions, LogLine, LogOptions, PathStat, Progress, PullOptions, PushOptions,
    RemoveOptions, Result, Transfer, WaitCondition,
};
use remote::Remote;

use crate::context::Context;

/// An engine, here or elsewhere.
pub(crate) enum Door {
    /// Of this machine; no connection, no process between.
    Local(Box<Engine>),
    /// Asked over the Docker Engine API.
    Remote(Rc<Remote>),
}

/// Streams of a container or an exec.
#[derive(Debug)]
pub(crate) enum Attachment {
    Local(engine::Attachment),
    Remote(remote::Attachment),
}

/// Methods that both have, argument by argument.
macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl Door {
            $(
                $(#[$doc])*
                pub(crate) fn $name(&self, $($arg: $type),*) -> Result<$answer> {
                    match self {
                        Self::Local(engine) => engine.$name($($arg),*),
                        Self::Remote(remote) => remote.$name($($arg),*),
                    }
                }
            )*
        }
    };
}

both! {
    fn list(options: ListOptions) -> Vec<ContainerSummary>;
    fn inspect(name: &str, size: bool) -> ContainerInspect;
    fn create(request: CreateRequest) -> Created;
    fn stop(name: &str, signal: Option<&str>, timeout: Option<i64>) -> ();
    fn restart(name: &str, signal: Option<&str>, timeout: Option<i64>) -> ();
    fn kill(name: &str, signal: &str) -> ();
    fn pause(name: &str) -> ();
    fn unpause(name: &str) -> ();
    fn wait(name: &str, condition: WaitCondition) -> i32;
    fn rename(name: &str, new: &str) -> ();
    fn update(name: &str, request: UpdateRequest) -> Vec<String>;
    fn remove(name: &str, options: RemoveOptions) -> ();
    fn prune_containers(filters: &Filters) -> Pruned;
    fn stats(name: &str, previous: Option<&Stats>) -> Stats;
    fn top(name: &str, args: &[String]) -> Top;
    fn diff(name: &str) -> Vec<DiffEntry>;
    fn export(name: &str, out: &mut dyn Write) -> ();
    fn commit(name: &str, options: CommitOptions) -> String;
    fn logs(name: &str, options: LogOptions, sink: &mut dyn FnMut(LogLine) -> bool) -> ();
    fn stat_path(name: &str, path: &str) -> PathStat;
    fn copy_from(name: &str, path: &str, out: &mut dyn Write) -> PathStat;
    fn copy_to(name: &str, path: &str, tar: &mut dyn Read, keep: bool, owner: bool) -> ();
    fn info() -> Info;
    fn disk_usage() -> DiskUsage;
    fn events(options: EventOptions, sink: &mut dyn FnMut(Event) -> bool) -> ();
    fn images(all: bool, filters: &Filters) -> Vec<ImageSummary>;
    fn inspect_image(name: &str) -> ImageInspect;
    fn has_image(name: &str, platform: Option<&str>) -> bool;
    fn history(name: &str) -> Vec<HistoryEntry>;
    fn tag(source: &str, target: &str) -> ();
    fn remove_image(name: &str, force: bool, no_prune: bool) -> Vec<ImageDelete>;
    fn prune_images(all: bool, filters: &Filters, keep: Option<u64>) -> ImagesPruned;
    fn save(names: &[String], format: ArchiveFormat, out: &mut dyn Write) -> ();
    fn create_network(request: &NetworkCreate) -> (String, Vec<String>);
    fn networks(filters: &Filters) -> Vec<Network>;
    fn inspect_network(name: &str) -> Network;
    fn remove_network(name: &str) -> ();
    fn connect_network(network: &str, container: &str, settings: &EndpointSettings) -> ();
    fn disconnect_network(network: &str, container: &str, force: bool) -> ();
    fn prune_networks(filters: &Filters) -> Pruned;
    fn create_volume(
        name: Option<&str>,
        driver: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>
    ) -> Volume;
    fn volumes(filters: &Filters) -> Vec<Volume>;
    fn inspect_volume(name: &str) -> Volume;
    fn remove_volume(name: &str, force: bool) -> ();
    fn prune_volumes(all: bool, filters: &Filters) -> Pruned;
}

impl Door {
    /// What it is, and what it speaks.
    pub(crate) fn version(&self) -> Result<VersionInfo> {
        match self {
            Self::Local(_) => Ok(engine::info::version()),
            Self::Remote(remote) => remote.version(),
        }
    }

    pub(crate) fn start(
        &self,
        name: &str,
        attach: Option<AttachOptions>,
    ) -> Result<Option<Attachment>> {
        Ok(match self {
            Self::Local(engine) => engine.start(name, attach)?.map(Attachment::Local),
            Self::Remote(remote) => remote.start(name, attach)?.map(Attachment::Remote),
        })
    }

    pub(crate) fn attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> {
        Ok(match self {
            Self::Local(engine) => Attachment::Local(engine.attach(name, options)?),
            Self::Remote(remote) => Attachment::Remote(remote.attach(name, options)?),
        })
    }

    pub(crate) fn load(
        &self,
        archive: &mut dyn Read,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(String, Vec<String>)>> {
        match self {
            Self::Local(engine) => engine.load(archive, progress),
            Self::Remote(remote) => remote.load(archive),
        }
    }

    pub(crate) fn load_file(
        &self,
        archive: &std::fs::File,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(String, Vec<String>)>> {
        match self {
            Self::Local(engine) => engine.load_file(archive, progress),
            Self::Remote(remote) => remote.load(&mut &*archive),
        }
    }

    pub(crate) fn import(
        &self,
        tar: &mut dyn Read,
        options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        match self {
            Self::Local(engine) => engine.import(tar, options, progress),
            Self::Remote(remote) => remote.import(tar, options),
        }
    }

    /// See [`engine::Engine::import_url`]; an engine elsewhere fetches it itself.
    pub(crate) fn import_url(
        &self,
        context: &Context,
        url: &str,
        options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<String> {
        Ok(match self {
            Self::Local(engine) => {
                let client = crate::registries::client(context, false)?;
                engine.import_url(&client, url, options, progress)?
            }
            Self::Remote(remote) => remote.import_url(url, &options)?,
        })
    }

    pub(crate) fn import_file(
        &self,
        tar: &std::fs::File,
        options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        match self {
            Self::Local(engine) => engine.import_file(tar, options, progress),
            Self::Remote(remote) => remote.import(&mut &*tar, options),
        }
    }

    /// Fetches images; the whole names of what came, where they are known.
    pub(crate) fn pull(
        &self,
        context: &Context,
        options: &PullOptions,
        progress: &mut dyn Transfer,
    ) -> anyhow::Result<Vec<oci::Reference>> {
        match self {
            Self::Local(engine) => {
                let client = crate::registries::client(context, false)?;
                let pulled = engine.pull(&client, options, progress)?;
                Ok(pulled.into_iter().map(|one| one.reference).collect())
            }
            Self::Remote(remote) => {
                let auth = auth_for(&options.reference)?;
                remote.pull(auth.as_ref(), options, progress)?;
                Ok(vec![options.reference.parse::<oci::Reference>()?.or_latest()])
            }
        }
    }

    /// Sends images.
    pub(crate) fn push(
        &self,
        context: &Context,
        options: &PushOptions,
        progress: &mut dyn Transfer,
    ) -> anyhow::Result<()> {
        match self {
            Self::Local(engine) => {
                let client = crate::registries::client(context, false)?;
                Ok(engine.push(&client, options, progress)?)
            }
            Self::Remote(remote) => {
                let auth = auth_for(&options.reference)?;
                Ok(remote.push(auth.as_ref(), options, progress)?)
            }
        }
    }
}

/// What this person's files know for the registry of an image; the other engine has no login of theirs.
pub(crate) fn auth_for(name: &str) -> anyhow::Result<Option<remote::Auth>> {
    let reference: oci::Reference = name.parse()?;
    let key = match reference.domain() {
        "docker.io" => ::registry::DOCKER_HUB_KEY.to_owned(),
        other => other.to_owned(),
    };
    let found = crate::registries::docker_config()?.get(&key)?;
    Ok(found.map(|credential| match credential {
        Credential::Password { username, password } => {
            remote::Auth { username, password, serveraddress: key, ..Default::default() }
        }
        Credential::Identity(token) => {
            remote::Auth { identitytoken: token, serveraddress: key, ..Default::default() }
        }
    }))
}

impl Attachment {
    /// See [`engine::Attachment::fd`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(own) => own.fd(),
            Self::Remote(other) => other.fd(),
        }
    }

    /// See [`engine::Attachment::stdin_fd`].
    pub(crate) fn stdin_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Local(own) => own.stdin_fd(),
            Self::Remote(other) => other.stdin_fd(),
        }
    }

    /// See [`engine::Attachment::read`].
    pub(crate) fn read(&mut self) -> Result<Option<Frame>> {
        match self {
            Self::Local(own) => own.read(),
            Self::Remote(other) => other.read(),
        }
    }

    /// See [`engine::Attachment::write_stdin`].
    pub(crate) fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Local(own) => own.write_stdin(bytes),
            Self::Remote(other) => other.write_stdin(bytes),
        }
    }

    /// See [`engine::Attachment::close_stdin`].
    pub(crate) fn close_stdin(&mut self) -> Result<()> {
        match self {
            Self::Local(own) => own.close_stdin(),
            Self::Remote(other) => other.close_stdin(),
        }
    }

    /// See [`engine::Attachment::resize`].
    pub(crate) fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        match self {
            Self::Local(own) => own.resize(rows, cols),
            Self::Remote(other) => other.resize(rows, cols),
        }
    }
}
