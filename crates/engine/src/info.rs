//! What this engine and its host are: `info` and `version`.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::cgroup::{CgroupRoot, Mode};

use crate::doctor::host::{self, line_of, yes};
use crate::engine::Engine;
use crate::error::Result;
use crate::settings::StorageForm;
use crate::types::{
    Commit, Component, Info, Platform, Plugins, RegistryConfig, RuntimeInfo, Swarm, VersionInfo,
};

/// Version of this engine.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Newest version of Docker's API whose shapes are spoken here.
pub const API_VERSION: &str = "1.51";
/// Oldest version of Docker's API whose shapes are spoken here.
pub const MIN_API_VERSION: &str = "1.24";

/// GOARCH's name for the architecture this is built for.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// What answers `version`; needs no engine.
pub fn version() -> VersionInfo {
    let kernel = host::kernel();
    let details = BTreeMap::from(
        [
            ("ApiVersion", API_VERSION),
            ("Arch", architecture()),
            ("KernelVersion", kernel.as_str()),
            ("MinAPIVersion", MIN_API_VERSION),
            ("Os", "linux"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    VersionInfo {
        platform: Platform { name: "Wherry".to_owned() },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_owned(),
        min_api_version: MIN_API_VERSION.to_owned(),
        git_commit: option_env!("WHERRY_GIT_COMMIT").unwrap_or_default().to_owned(),
        go_version: "none (Rust)".to_owned(),
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version: kernel,
        experimental: false,
        build_time: String::new(),
    }
}

/// Controllers of the cgroups of this host, whatever the version.
pub(crate) fn controllers(root: &CgroupRoot) -> Vec<String> {
    let mut all: Vec<String> = root
        .v1
        .iter()
        .flat_map(|h| h.controllers.iter())
        .filter(|c| !c.starts_with("name="))
        .cloned()
        .collect();
    if let Some(path) = &root.v2 {
        let text = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        all.extend(text.split_whitespace().map(ToOwned::to_owned));
        // Version 2 has these without a controller.
        if root.mode() == Mode::V2 {
            all.extend(["freezer", "devices"].map(ToOwned::to_owned));
        }
    }
    all.sort();
    all.dedup();
    all
}

impl Engine {
    /// The form in use, and why it is not a better one.
    fn form_of_layers(&self) -> String {
        match (self.store().form(), self.settings().storage) {
            (Ok(form), StorageForm::Auto) if form != store::Form::ErofsFiles => {
                format!("{} ({})", form.name(), self.store().erofs_form().1)
            }
            (Ok(form), StorageForm::Auto) => form.name().to_owned(),
            (Ok(form), _) => format!("{} (by configuration)", form.name()),
            (Err(error), _) => error.to_string(),
        }
    }

    /// What this engine and its host are.
    pub fn info(&self) -> Result<Info> {
        let (running, paused, stopped, images) = self.counts()?;
        let settings = self.settings();
        let root = CgroupRoot::detect().unwrap_or_default();
        let controllers = controllers(&root);
        let has = |name: &str| controllers.iter().any(|c| c == name);
        let mode = root.mode();
        let swap = match mode {
            Mode::V2 => has("memory"),
            _ => root
                .hierarchy("memory")
                .is_some_and(|h| h.mount_point.join("memory.memsw.limit_in_bytes").exists()),
        };
        let or = |text: &str, default: &str| {
            if text.is_empty() { default.to_owned() } else { text.to_owned() }
        };
        let mut warnings = Vec::new();
        for (there, what) in [
            (has("memory"), "No memory limit support"),
            (swap, "No swap limit support"),
            (has("cpu"), "No cpu cfs quota support"),
            (has("cpuset"), "No cpuset support"),
            (has("pids"), "No pids limit support"),
        ] {
            if !there {
                warnings.push(format!("WARNING: {what}"));
            }
        }
        let own = std::env::consts::ARCH;
        Ok(Info {
            id: host::engine_id(self.data_root()),
            containers: running.saturating_add(paused).saturating_add(stopped),
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images,
            driver: "overlay".to_owned(),
            driver_status: vec![
                ["Form of layers".to_owned(), self.form_of_layers()],
                ["Backing Filesystem".to_owned(), host::filesystem(self.data_root())],
            ],
            plugins: Plugins {
                volume: vec!["local".to_owned()],
                network: ["bridge", "host", "ipvlan", "macvlan", "null"]
                    .map(str::to_owned)
                    .to_vec(),
                authorization: None,
                log: ["json-file", "local", "none", "passthrough"].map(ToOwned::to_owned).to_vec(),
            },
            memory_limit: has("memory"),
            swap_limit: swap,
            cpu_cfs_period: has("cpu"),
            cpu_cfs_quota: has("cpu"),
            cpu_shares: has("cpu"),
            cpu_set: has("cpuset"),
            pids_limit: has("pids"),
            oom_kill_disable: mode != Mode::V2 && has("memory"),
            ipv4_forwarding: yes(Path::new("/proc/sys/net/ipv4/ip_forward")),
            debug: settings.debug,
            n_fd: std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0),
            n_goroutines: std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1),
            system_time: jiff::Timestamp::now().to_string(),
            logging_driver: or(&settings.log_driver, "json-file"),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if mode == Mode::V2 { "2" } else { "1" }.to_owned(),
            n_events_listener: 0,
            kernel_version: host::kernel(),
            operating_system: host::os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            os_version: host::os_release("VERSION_ID").unwrap_or_default(),
            os_type: "linux".to_owned(),
            architecture: own.to_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: RegistryConfig::default(),
            n_cpu: std::thread::available_parallelism().map(usize::from).unwrap_or(1),
            mem_total: line_of(Path::new("/proc/meminfo"), "MemTotal:")
                .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                .saturating_mul(1024),
            generic_resources: None,
            docker_root_dir: self.data_root().to_string_lossy().into_owned(),
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            labels: Vec::new(),
            experimental_build: false,
            server_version: VERSION.to_owned(),
            runtimes: crate::foreign::OWN
                .map(|name| {
                    let path = "wherry".to_owned();
                    (name.to_owned(), RuntimeInfo { path, args: Vec::new() })
                })
                .into_iter()
                // One that the configuration gives the name of ours is what runs.
                .chain(settings.runtimes.iter().map(|(name, r)| {
                    let path = r.path.to_string_lossy().into_owned();
                    (name.clone(), RuntimeInfo { path, args: r.args.clone() })
                }))
                .collect(),
            default_runtime: or(&settings.default_runtime, crate::foreign::OWN[0]),
            swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
            live_restore_enabled: true,
            isolation: String::new(),
            init_binary: settings
                .init_path
                .as_ref()
                .map_or_else(|| "wherry".to_owned(), |p| p.to_string_lossy().into_owned()),
            containerd_commit: Commit::default(),
            runc_commit: Commit { id: VERSION.to_owned() },
            init_commit: Commit { id: VERSION.to_owned() },
            security_options: host::security_options(),
            cdi_spec_dirs: Vec::new(),
            warnings,
        })
    }
}
