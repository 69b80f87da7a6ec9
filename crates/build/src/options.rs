//! What is to be built, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::elsewhere::{Export, Place};
use crate::lock::{LockFile, Taken};
use crate::services::Service;
use crate::stop::Stop;

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// In the context, at this path.
    InContext(String),
    /// Given as text; the name is for messages.
    Text {
        /// What it is called.
        name: String,
        /// What it says.
        text: String,
        /// The text of a `.dockerignore` that belongs to it alone.
        ignore: Option<String>,
    },
}

/// Where the files are that `COPY` and `ADD` take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// A directory of the host; it is read where it is.
    Directory(PathBuf),
    /// There are none: `build - < Dockerfile`.
    Empty,
}

/// How somebody looks at the files of a step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debug {
    /// There is a terminal.
    pub terminal: bool,
}

/// What steps may ask for that gives them power over the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allow {
    /// `RUN --network=host`
    pub network_host: bool,
    /// `RUN --security=insecure`
    pub security_insecure: bool,
}

/// What is to be built, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Dockerfile.
    pub file: File,
    /// The files.
    pub context: Context,
    /// `--build-context`: directories by name; a value `docker-image://NAME` is an image, one that
    /// [`crate::remote::is_remote`] knows is fetched.
    pub named_contexts: BTreeMap<String, String>,
    /// Names of the image.
    pub tags: Vec<String>,
    /// The stage that is wanted; the last one if absent.
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `--platform`: `os/arch[/variant]`; this host's if absent.
    pub platform: Option<String>,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Stages for which nothing is taken from the cache.
    pub no_cache_filter: Vec<String>,
    /// Base images are fetched even if they are here.
    pub pull: bool,
    /// Network of steps: `default`, `none`, `host` or a network's name.
    pub network: Option<String>,
    /// Lines for `/etc/hosts` of steps: `name:address`.
    pub add_hosts: Vec<String>,
    /// Bytes of `/dev/shm` of steps; 0 is the default.
    pub shm_size: i64,
    /// Most memory of a step in bytes; 0 is no limit.
    pub memory: i64,
    /// Memory and swap together; 0 is the default.
    pub memory_swap: i64,
    /// Shares of a step's processors against others; 0 is the default.
    pub cpu_shares: i64,
    /// Length of the period in which processor time is counted, µs; 0 is the default.
    pub cpu_period: i64,
    /// Processor time of a step in it, µs; 0 is no limit.
    pub cpu_quota: i64,
    /// Processors that steps may use, as `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes that steps may use.
    pub cpuset_mems: String,
    /// Security options of steps, as of containers.
    pub security_opt: Vec<String>,
    /// Parent of the steps' cgroups.
    pub cgroup_parent: String,
    /// Limits of steps' processes.
    pub ulimits: Vec<engine::types::Ulimit>,
    /// No time in the image is later than this, seconds since 1970; taken from the inputs if absent.
    pub source_date_epoch: Option<i64>,
    /// An image is made; without it only the files.
    pub image: bool,
    /// `--cache-from`: results of other builds, taken where there are none here.
    pub cache_from: Vec<Place>,
    /// `--cache-to`: where the results go for other builds.
    pub cache_to: Vec<Export>,
    /// `--lock`: what comes from elsewhere is recorded, or must be what was recorded.
    pub lock: Option<LockFile>,
    /// What the context is, if it is from elsewhere, for the lock file.
    pub taken: Option<Taken>,
    /// `--allow`: what a `RUN` must not ask for without being allowed to.
    pub allow: Allow,
    /// Ends the build when it is set.
    pub stop: Stop,
    /// `--debug-on-failure`: somebody looks at the files of a step that failed, see [`crate::Progress::enter`].
    pub debug: Option<Debug>,
    /// `--service`: what every step with a network may reach.
    pub services: Vec<Service>,
    /// What is above the base becomes one layer.
    pub squash: bool,
    /// Stages that are done at the same time at the most.
    pub jobs: usize,
    /// `--secret`: files by ID.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// `--ssh`: sockets of agents by ID.
    pub agents: BTreeMap<String, PathBuf>,
}

impl Options {
    /// Builds what this Dockerfile says with these files, and nothing special.
    pub fn new(file: File, context: Context) -> Self {
        Self {
            file,
            context,
            named_contexts: BTreeMap::new(),
            tags: Vec::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: false,
            network: None,
            add_hosts: Vec::new(),
            shm_size: 0,
            memory: 0,
            memory_swap: 0,
            cpu_shares: 0,
            cpu_period: 0,
            cpu_quota: 0,
            cpuset_cpus: String::new(),
            cpuset_mems: String::new(),
            security_opt: Vec::new(),
            cgroup_parent: String::new(),
            ulimits: Vec::new(),
            source_date_epoch: None,
            image: true,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            lock: None,
            taken: None,
            allow: Allow::default(),
            stop: Stop::default(),
            debug: None,
            services: Vec::new(),
            squash: false,
            jobs: 1,
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
        }
    }
}
