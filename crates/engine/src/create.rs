//! Making a container: a request is checked, completed from the image, and recorded.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use oci::config::ImageConfig;
use store::{Base, MountOptions, WritableOptions};

use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::mounts;
use crate::names;
use crate::record::{self, Definition, Record};
use crate::spec::{self, Security};
use crate::types::{Config, CreateRequest, Created, Empty, Healthcheck, HostConfig};

/// Programs that are an init system and want to be run as one.
const INIT_SYSTEMS: [&str; 5] =
    ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "systemd"];

/// Whether the container's first process is systemd, which needs its own tmpfs mounts, a
/// cgroup it may write, and another stop signal.
pub(crate) fn is_systemd(argv: &[String]) -> bool {
    argv.first().is_some_and(|program| INIT_SYSTEMS.contains(&program.as_str()))
}

impl Engine {
    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    /// `Invalid` for a wrong request, `NotFound` for an image that is not here,
    /// `Conflict` for a name in use. Nothing is left behind then.
    pub fn create(&self, request: CreateRequest) -> Result<Created> {
        self.create_upon(request, None)
    }

    /// As [`Engine::create`]; a build step's container lies upon layers instead of an image.
    pub(crate) fn create_upon(
        &self,
        mut request: CreateRequest,
        step: Option<crate::build::Upon>,
    ) -> Result<Created> {
        let phase = self.trace().phase("find the image, check the request");
        let builder = step.as_ref().map(|step| step.builder);
        let name = request.name.as_deref().map(names::check).transpose()?.map(str::to_owned);
        let mut warnings = Vec::new();
        let image = match &request.rootfs {
            Some(rootfs) => {
                check_rootfs(&rootfs.path)?;
                None
            }
            None if step.is_some() => None,
            None if request.config.image.is_empty() => {
                return Err(Error::invalid(
                    "no image given: name one, or a directory with --rootfs",
                ));
            }
            None => Some(self.store().image(&request.config.image)?),
        };
        if let (Some(image), Some(platform)) = (&image, &request.platform) {
            check_platform(&request.config.image, &image.config, platform)?;
        }
        if let Some(image) = &image {
            merge(&mut request.config, &image.config);
        }
        let argv = argv(&request.config)?;
        if is_systemd(&argv) && request.config.stop_signal.as_deref().unwrap_or("").is_empty() {
            request.config.stop_signal = Some("SIGRTMIN+3".into());
        }
        // Docker passes over it there, whatever it says.
        if let Some(name) = request.runtime.filter(|name| !name.is_empty())
            && request.host_config.runtime.is_empty()
        {
            if self.has_runtime(&name) {
                request.host_config.runtime = name;
            } else {
                warnings.push(format!(
                    "Runtime {name} is not known and was passed over: name it in HostConfig to have it refused"
                ));
            }
        }
        self.complete(&mut request.config, &mut request.host_config, &mut warnings)?;
        check(&request.config, &request.host_config, &mut warnings)?;
        self.check_references(&request.host_config)?;
        let endpoints =
            self.plan_endpoints(&request.config, &request.host_config, &request.networking_config)?;

        let image_volumes =
            image.iter().flat_map(|i| i.config.config.volumes.keys()).map(String::as_str);
        let mounts =
            mounts::collect(&request.config, &request.host_config, image_volumes, |name| {
                record::find(self.db(), name)
            })?;
        let id = names::new_id()?;
        let definition = Definition {
            config: request.config,
            host: request.host_config,
            rootfs: request.rootfs,
            argv,
            mounts,
            builder,
        };
        let image_id = image.as_ref().map(|i| i.id.to_string());
        let mut record = Record::new(id.clone(), image_id, definition);
        // A runtime that is not there is found out now, not at the start.
        self.foreign_runtime(&record)?;
        // A directory of the host has its own places to mount over, or is above ours.
        let (base, places) = match (&record.definition.rootfs, &image, step) {
            (Some(rootfs), _, _) => (Base::Directory(rootfs.path.clone().into()), false),
            (None, Some(image), _) => (Base::Image(image.id), true),
            (None, None, Some(step)) => (Base::Layers(step.layers), step.runs),
            (None, None, None) => {
                return Err(Error::invalid("neither an image nor a directory"));
            }
        };
        drop(phase);
        let base = (&base, places);
        let done = self.create_parts(&mut record, base, name.as_deref(), &endpoints);
        if let Err(e) = done {
            self.discard_parts(&record);
            return Err(e);
        }
        Ok(Created { id, warnings })
    }

    /// What a new container needs on disk and in the database.
    fn create_parts(
        &self,
        record: &mut Record,
        (base, places): (&Base, bool),
        name: Option<&str>,
        endpoints: &[store::network::Endpoint],
    ) -> Result<()> {
        let volatile = record.definition.host.auto_remove || record.definition.builder.is_some();
        let phase = self.trace().phase("make the writable layer and volumes");
        let layer = self.store().create_writable(
            &record.id,
            base,
            WritableOptions { volatile, base: places },
        )?;
        let fresh = self.create_volumes(record)?;
        if !fresh.is_empty() && record.definition.rootfs.is_none() {
            let root = layer.mount(MountOptions { read_only: true, volatile: true })?;
            for (volume, path) in &fresh {
                self.store().volume_seed(volume, root.as_fd(), path.as_bytes())?;
            }
        }
        drop(phase);
        let _phase = self.trace().phase("insert the record");
        for attempt in 0..8 {
            record.name = match name {
                Some(name) => name.to_owned(),
                None => names::made_up(attempt)?,
            };
            let inserted = self.store().db().transaction(|tx| {
                record::insert(tx, record)?;
                Self::insert_endpoints(tx, &record.id, endpoints)?;
                if let Some(image) = &record.image_id {
                    store::Store::note_use(tx, image)?;
                }
                events::note_container(tx, clock::now(), "create", record, &[])
            });
            match inserted {
                Err(e) if name.is_none() && e.kind == ErrorKind::Conflict => {}
                other => return other,
            }
        }
        Err(Error::system("cannot make up a name", "too many are taken: give one with --name"))
    }

    /// Takes back what `create_parts` made; goes on after an error.
    fn discard_parts(&self, record: &Record) {
        let _ = self.store().remove_container_directory(&record.id);
        for mount in record.definition.mounts.iter().filter(|m| m.anonymous) {
            if !mount.mount.source.is_empty() {
                let _ = self.store().volume_remove(&mount.mount.source, true);
            }
        }
    }

    /// Makes the volumes of a container that do not exist; which of them, with their
    /// destinations, are to be seeded from the image.
    fn create_volumes(&self, record: &mut Record) -> Result<Vec<(String, String)>> {
        let mut fresh = Vec::new();
        for planned in &mut record.definition.mounts {
            if planned.mount.r#type != "volume" {
                continue;
            }
            let options = planned.mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.clone().unwrap_or_default();
            let named = !planned.mount.source.is_empty();
            let volume = self.store().volume_create(
                named.then_some(planned.mount.source.as_str()),
                &store::VolumeOptions {
                    driver: driver.name,
                    options: driver.options,
                    labels: options.labels,
                },
            )?;
            if !options.no_copy {
                fresh.push((volume.name.clone(), planned.mount.target.clone()));
            }
            planned.point.source = volume.mountpoint.to_string_lossy().into_owned();
            planned.point.name.clone_from(&volume.name);
            planned.mount.source = volume.name;
        }
        Ok(fresh)
    }

    /// Fills in what the configuration of the engine decides.
    fn complete(
        &self,
        config: &mut Config,
        host: &mut HostConfig,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let settings = self.settings();
        if host.log_config.r#type.is_empty() {
            host.log_config.r#type = if settings.log_driver.is_empty() {
                "json-file".into()
            } else {
                settings.log_driver.clone()
            };
            for (key, value) in &settings.log_opts {
                host.log_config.config.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        if host.cgroup_parent.is_empty() {
            host.cgroup_parent.clone_from(&settings.cgroup_parent);
        }
        if host.restart_policy.name.is_empty() {
            host.restart_policy.name = "no".into();
        }
        match host.network_mode.as_str() {
            "" | "default" => host.network_mode = crate::network::DEFAULT.into(),
            _ => {}
        }
        if config.network_disabled == Some(true) {
            host.network_mode = "none".into();
        }
        let published = !host.port_bindings.is_empty() || host.publish_all_ports;
        if published && host.network_mode.starts_with("container:") {
            return Err(Error::invalid(
                "conflicting options: port publishing and the container type network mode",
            ));
        }
        if published && host.network_mode == "host" {
            warnings.push("Published ports are discarded when using host network mode".into());
        }
        // What is published is exposed.
        for port in host.port_bindings.keys() {
            let exposed = config.exposed_ports.get_or_insert_with(BTreeMap::new);
            exposed.insert(port.clone(), Empty {});
        }
        crate::network::check_ports(&host.port_bindings, warnings)?;
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "private".into();
        }
        if host.cgroupns_mode.is_empty() {
            host.cgroupns_mode = "private".into();
        }
        if host.shm_size == 0 {
            host.shm_size = if settings.shm_size > 0 { settings.shm_size } else { 64 << 20 };
        }
        if host.privileged {
            host.masked_paths.get_or_insert_with(Vec::new);
            host.readonly_paths.get_or_insert_with(Vec::new);
        } else {
            let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            if !Security::parse(host.security_opt.as_deref().unwrap_or_default())?.unconfined_paths
            {
                host.masked_paths.get_or_insert_with(|| list(&spec::MASKED_PATHS));
                host.readonly_paths.get_or_insert_with(|| list(&spec::READONLY_PATHS));
            }
        }
        if host.runtime.is_empty() {
            host.runtime = match settings.default_runtime.as_str() {
                "" => crate::foreign::OWN[0].to_owned(),
                name => name.to_owned(),
            };
        }
        Ok(())
    }

    /// Containers that modes name must exist; they are stored by their ids.
    fn check_references(&self, host: &HostConfig) -> Result<()> {
        for mode in [&host.network_mode, &host.pid_mode, &host.ipc_mode] {
            if let Some(name) = mode.strip_prefix("container:") {
                record::find(self.db(), name)?;
            }
        }
        Ok(())
    }
}

fn check_rootfs(path: &str) -> Result<()> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("--rootfs {path}: give an absolute path")));
    }
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(format!("--rootfs {path}: not a directory"))),
        Err(e) => Err(Error::invalid(format!("--rootfs {path}: {e}"))),
    }
}

pub(crate) fn check_platform(name: &str, config: &ImageConfig, platform: &str) -> Result<()> {
    let mut parts = platform.split('/');
    let (os, arch, variant) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let arch = arch.map(|a| match a {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    });
    let fits = os.eq_ignore_ascii_case(&config.os)
        && arch.is_none_or(|a| a.eq_ignore_ascii_case(&config.architecture))
        && variant.is_none_or(|v| config.variant.is_empty() || v == config.variant);
    if fits {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!(
            "image with reference {name} was found but does not provide the specified platform \
             ({platform}): it is for {}/{}",
            config.os, config.architecture
        ),
    ))
}

/// Completes a request from the image, as Docker does.
pub(crate) fn merge(config: &mut Config, image: &ImageConfig) {
    let from = &image.config;
    if config.user.is_empty() {
        config.user.clone_from(&from.user);
    }
    if !from.exposed_ports.is_empty() {
        let ports = config.exposed_ports.get_or_insert_with(BTreeMap::new);
        for port in from.exposed_ports.keys() {
            ports.insert(port.clone(), Empty {});
        }
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    let given = config.env.take().unwrap_or_default();
    let inherited = from.env.iter().filter(|e| !given.iter().any(|g| name(g) == name(e)));
    config.env = Some(inherited.cloned().chain(given.clone()).collect());
    for (key, value) in &from.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let no_entrypoint = config.entrypoint.as_ref().is_none_or(Vec::is_empty);
    if no_entrypoint {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&from.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&from.entrypoint);
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&from.working_dir);
    }
    if config.stop_signal.as_deref().unwrap_or("").is_empty() && !from.stop_signal.is_empty() {
        config.stop_signal = Some(from.stop_signal.clone());
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = from.stop_timeout;
    }
    if config.shell.is_none() && !from.shell.is_empty() {
        config.shell = Some(from.shell.clone());
    }
    if config.on_build.is_none() && !from.on_build.is_empty() {
        config.on_build = Some(from.on_build.clone());
    }
    if let Some(check) = &from.healthcheck {
        let c = config.healthcheck.get_or_insert_with(Healthcheck::default);
        if c.test.as_ref().is_none_or(Vec::is_empty) {
            c.test = Some(check.test.clone());
        }
        for (value, default) in [
            (&mut c.interval, check.interval),
            (&mut c.timeout, check.timeout),
            (&mut c.start_period, check.start_period),
            (&mut c.start_interval, check.start_interval),
            (&mut c.retries, check.retries),
        ] {
            if *value == 0 {
                *value = default;
            }
        }
    }
}

/// Entry point and command together.
fn argv(config: &Config) -> Result<Vec<String>> {
    let mut argv: Vec<String> = config.entrypoint.clone().unwrap_or_default();
    // A single empty word clears the image's entry point.
    if argv.iter().all(String::is_empty) {
        argv.clear();
    }
    argv.extend(config.cmd.iter().flatten().cloned());
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid(
            "no command specified: the image has none, give one after its name",
        ));
    }
    if argv.iter().chain(config.env.iter().flatten()).any(|word| word.contains('\0')) {
        return Err(Error::invalid("the command and the environment must not have NUL bytes"));
    }
    Ok(argv)
}

/// Checks what can be wrong with a request before anything is made.
pub(crate) fn check(config: &Config, host: &HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    let invalid = |message: String| Err(Error::invalid(message));
    if config.hostname.len() > 63 {
        return invalid(format!("invalid hostname {:?}: longer than 63 bytes", config.hostname));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return invalid(format!("invalid environment variable: {entry}"));
        }
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|s| !s.is_empty()) {
        crate::signals::parse(signal)?;
    }
    if let Some(check) = &config.healthcheck {
        check_health(check)?;
    }
    check_policy(host)?;
    check_limits(host, warnings)?;
    let mode = |what: &str, mode: &str, plain: &[&str]| {
        if plain.contains(&mode) || mode.strip_prefix("container:").is_some_and(|n| !n.is_empty()) {
            Ok(())
        } else {
            Err(Error::invalid(format!("--{what}: invalid {} mode: {mode}", what.to_uppercase())))
        }
    };
    mode("pid", &host.pid_mode, &["", "host", "private"])?;
    mode("ipc", &host.ipc_mode, &["", "none", "host", "private", "shareable"])?;
    if !matches!(host.uts_mode.as_str(), "" | "host" | "private") {
        return invalid(format!("--uts: invalid UTS mode: {}", host.uts_mode));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return invalid(format!(
            "--userns: invalid USER mode: {}: only host is known",
            host.userns_mode
        ));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return invalid(format!("--cgroupns: invalid CGROUP mode: {}", host.cgroupns_mode));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode".into());
    }
    if host.device_requests.as_ref().is_some_and(|r| !r.is_empty()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "could not select device driver: GPU requests are not supported; give the nodes with --device",
        ));
    }
    if host.storage_opt.as_ref().is_some_and(|o| !o.is_empty()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if host.links.as_ref().is_some_and(|l| !l.is_empty()) {
        if host.network_mode == "host" {
            return invalid(
                "conflicting options: host type networking can't be used with links. This would \
                 result in undefined behavior"
                    .into(),
            );
        }
        if host.network_mode.starts_with("container:") {
            return invalid(
                "conflicting options: container type network can't be used with links. This would \
                 result in undefined behavior"
                    .into(),
            );
        }
    }
    if host.network_mode.starts_with("container:") && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the network mode".into());
    }
    if host.network_mode.starts_with("container:") {
        let taken = [(&host.dns, "dns"), (&host.extra_hosts, "custom host-to-IP mapping")];
        if let Some((_, what)) =
            taken.iter().find(|(list, _)| list.as_ref().is_some_and(|l| !l.is_empty()))
        {
            return invalid(format!("conflicting options: {what} and the network mode"));
        }
    }
    if !matches!(
        host.log_config.r#type.as_str(),
        "json-file" | "local" | "none" | "passthrough" | "journald-file"
    ) {
        return invalid(format!(
            "logger: no log driver named '{}' is registered",
            host.log_config.r#type
        ));
    }
    crate::logs::bound(&host.log_config)?;
    let options = host.security_opt.as_deref().unwrap_or_default();
    Security::parse(options)?;
    spec::capabilities(host)?;
    spec::resources(host)?;
    spec::check_sysctls(host)?;
    for u in host.ulimits.iter().flatten() {
        if runtime::rlimit::number(&format!("RLIMIT_{}", u.name.to_ascii_uppercase())).is_err() {
            return invalid(format!("invalid ulimit type: {}", u.name));
        }
        if u.hard >= 0 && (u.soft > u.hard || u.soft < 0) {
            return invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                u.soft, u.hard
            ));
        }
    }
    Ok(())
}

fn check_health(check: &Healthcheck) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than one millisecond"
            )));
        }
    }
    if check.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    match check.test.as_deref().unwrap_or_default() {
        [] => Ok(()),
        [kind, rest @ ..] => match kind.as_str() {
            "NONE" => Ok(()),
            "CMD" | "CMD-SHELL" if !rest.is_empty() => Ok(()),
            _ => Err(Error::invalid(format!(
                "Unknown healthcheck type \"{kind}\" (expected NONE, CMD with words or CMD-SHELL)"
            ))),
        },
    }
}

pub(crate) fn check_policy(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" => {
            if policy.maximum_retry_count != 0 {
                return Err(Error::invalid(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure'",
                ));
            }
        }
        "on-failure" => {}
        other => {
            return Err(Error::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

/// Checks limits against each other and the host.
pub(crate) fn check_limits(host: &HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    let invalid = |message: &str| Err(Error::invalid(message));
    if host.memory != 0 && host.memory < 6 << 20 {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if host.memory_reservation != 0 && host.memory_reservation < 6 << 20 {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory < host.memory_reservation {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if host.nano_cpus != 0 && (host.cpu_period != 0 || host.cpu_quota != 0) {
        return invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set.",
        );
    }
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota != 0 && host.cpu_quota != -1 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.cpu_shares < 0 {
        return invalid("CPU shares must not be negative");
    }
    for (what, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !list.is_empty() && runtime::cgroup::parse_cpu_list(list).is_none() {
            return Err(Error::invalid(format!("Invalid value {list} for cpuset {what}")));
        }
    }
    if let Some(asked) = runtime::cgroup::parse_cpu_list(&host.cpuset_cpus)
        && !host.cpuset_cpus.is_empty()
    {
        let here = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let here = runtime::cgroup::parse_cpu_list(here.trim()).unwrap_or_default();
        if !here.is_empty() && asked.iter().any(|cpu| !here.contains(cpu)) {
            return Err(Error::invalid(format!(
                "Requested CPUs are not available - requested {}, available: {}",
                host.cpuset_cpus,
                std::fs::read_to_string("/sys/devices/system/cpu/online")
                    .unwrap_or_default()
                    .trim()
            )));
        }
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can \
             result in the system running out of resources."
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|s| (*s).to_owned()).collect())
    }

    fn image() -> ImageConfig {
        let mut image = ImageConfig::default();
        image.config.entrypoint = words(&["/entry"]);
        image.config.cmd = words(&["a"]);
        image.config.env = words(&["A=1", "B=2"]).unwrap_or_default();
        image
    }

    #[test]
    fn an_entry_point_of_ones_own_drops_the_images_command() {
        let cases = [
            (None, None, vec!["/entry", "a"]),
            (None, words(&["b"]), vec!["/entry", "b"]),
            (words(&["/mine"]), None, vec!["/mine"]),
            (words(&[""]), words(&["b"]), vec!["b"]),
        ];
        for (entrypoint, cmd, want) in cases {
            let mut config = Config { entrypoint, cmd, ..Config::default() };
            merge(&mut config, &image());
            assert_eq!(argv(&config).unwrap(), want);
        }
        assert!(argv(&Config::default()).is_err());
    }

    #[test]
    fn the_environment_is_the_images_with_ones_own_on_top() {
        let mut config = Config { env: words(&["B=3", "C=4"]), ..Config::default() };
        merge(&mut config, &image());
        assert_eq!(config.env, words(&["A=1", "B=3", "C=4"]));
    }

    #[test]
    fn limits_are_checked() {
        let bad = [
            HostConfig { memory: 1, ..HostConfig::default() },
            HostConfig { memory: 10 << 20, memory_swap: 8 << 20, ..HostConfig::default() },
            HostConfig { memory_swap: 8 << 20, ..HostConfig::default() },
            HostConfig { nano_cpus: 1, cpu_quota: 5000, ..HostConfig::default() },
            HostConfig { nano_cpus: i64::MAX, ..HostConfig::default() },
            HostConfig { blkio_weight: 5, ..HostConfig::default() },
            HostConfig { oom_score_adj: 2000, ..HostConfig::default() },
            HostConfig { cpuset_cpus: "x".into(), ..HostConfig::default() },
            HostConfig { cpuset_cpus: "9999".into(), ..HostConfig::default() },
        ];
        for host in bad {
            assert!(check_limits(&host, &mut Vec::new()).is_err(), "{host:?}");
        }
    }
}
