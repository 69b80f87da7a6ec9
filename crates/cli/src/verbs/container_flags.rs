//! The options that `run` and `create` share, and the request they make.

use std::collections::BTreeMap;

use engine::types::{
    Config, CreateRequest, DeviceMapping, Empty, EndpointIpam, EndpointSettings, Healthcheck,
    HostConfig, LogConfig, Mount, NetworkingConfig, Rootfs, ThrottleDevice, Ulimit, WeightDevice,
};

use crate::failure::Failure;
use crate::values::device::{
    parse_cgroup_rule, parse_device, parse_throttle_bps, parse_throttle_iops, parse_weight_device,
};
use crate::values::duration::parse_duration;
use crate::values::env::{Lookup, check_env, check_label, environment, labels, pairs};
use crate::values::mount::{Volume, absolute, parse_mount, parse_tmpfs, parse_volume};
use crate::values::number::{parse_bool, parse_cpus, parse_int, parse_u16, parse_u64};
use crate::values::opts::{
    check_mac, check_namespace, parse_attach, parse_dns_search, parse_extra_host, parse_ip,
    parse_link, parse_restart, parse_sysctl, parse_ulimit,
};
use crate::values::port::{Bindings, parse_expose, parse_publish};
use crate::values::size::{parse_size, parse_swap};

/// The options that `run` and `create` share.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerFlags {
    /// Add a line to the container's hosts file (host:ip)
    #[arg(long, value_name = "list", value_parser = parse_extra_host)]
    add_host: Vec<String>,
    /// Note for the OCI runtime (name=value)
    #[arg(long, value_name = "map")]
    annotation: Vec<String>,
    /// Join STDIN, STDOUT or STDERR
    #[arg(long, short = 'a', value_name = "list", value_parser = parse_attach)]
    pub(crate) attach: Vec<String>,
    /// Share of block I/O, 10 to 1000; 0 is the default
    #[arg(long, value_name = "uint16", value_parser = parse_u16)]
    blkio_weight: Option<u16>,
    /// Share of block I/O of one device (path:weight)
    #[arg(long, value_name = "list", value_parser = parse_weight_device)]
    blkio_weight_device: Vec<WeightDevice>,
    /// Add a capability
    #[arg(long, value_name = "list")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "list")]
    cap_drop: Vec<String>,
    /// Make the container's cgroup below this one
    #[arg(long, value_name = "string")]
    cgroup_parent: Option<String>,
    /// Cgroup namespace: host or private
    #[arg(long, value_name = "string")]
    cgroupns: Option<String>,
    /// Write the container's id to this file
    #[arg(long, value_name = "string")]
    pub(crate) cidfile: Option<String>,
    /// Windows only
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_count: Option<i64>,
    /// Windows only
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_percent: Option<i64>,
    /// Length of a CPU period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_period: Option<i64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_quota: Option<i64>,
    /// Length of a real-time period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_rt_period: Option<i64>,
    /// Real-time CPU time per period in microseconds
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_rt_runtime: Option<i64>,
    /// Share of CPU time, relative to other containers
    #[arg(long, short = 'c', value_name = "int", value_parser = parse_int)]
    cpu_shares: Option<i64>,
    /// How many CPUs at the most
    #[arg(long, value_name = "decimal", value_parser = parse_cpus)]
    cpus: Option<i64>,
    /// CPUs to run on (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_mems: Option<String>,
    /// Keys that leave the container running and come back (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "string")]
    pub(crate) detach_keys: Option<String>,
    /// Give it a device of the host (host[:container][:rwm])
    #[arg(long, value_name = "list", value_parser = parse_device)]
    device: Vec<DeviceMapping>,
    /// Allow devices by number (c 1:3 rwm)
    #[arg(long, value_name = "list", value_parser = parse_cgroup_rule)]
    device_cgroup_rule: Vec<String>,
    /// Bytes a second to read from a device (path:rate)
    #[arg(long, value_name = "list", value_parser = parse_throttle_bps)]
    device_read_bps: Vec<ThrottleDevice>,
    /// Reads a second from a device (path:rate)
    #[arg(long, value_name = "list", value_parser = parse_throttle_iops)]
    device_read_iops: Vec<ThrottleDevice>,
    /// Bytes a second to write to a device (path:rate)
    #[arg(long, value_name = "list", value_parser = parse_throttle_bps)]
    device_write_bps: Vec<ThrottleDevice>,
    /// Writes a second to a device (path:rate)
    #[arg(long, value_name = "list", value_parser = parse_throttle_iops)]
    device_write_iops: Vec<ThrottleDevice>,
    /// Accepted for old scripts; signatures are not checked
    #[arg(long, default_value = "true")]
    disable_content_trust: bool,
    /// Name server
    #[arg(long, value_name = "list", value_parser = parse_ip)]
    dns: Vec<String>,
    /// Option of the resolver
    #[arg(long, visible_alias = "dns-opt", value_name = "list")]
    dns_option: Vec<String>,
    /// Domain to search names in
    #[arg(long, value_name = "list", value_parser = parse_dns_search)]
    dns_search: Vec<String>,
    /// NIS domain name
    #[arg(long, value_name = "string")]
    domainname: Option<String>,
    /// Program instead of the image's entry point
    #[arg(long, value_name = "string")]
    entrypoint: Option<String>,
    /// Set a variable (NAME=value; a bare NAME takes the value it has here)
    #[arg(long, short = 'e', value_name = "list", value_parser = check_env)]
    env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Say that it listens on a port or a range of ports
    #[arg(long, value_name = "list")]
    expose: Vec<String>,
    /// Refused: no GPU can be given yet; use --device
    #[arg(long, value_name = "gpu-request")]
    gpus: Option<String>,
    /// Group to join besides its own
    #[arg(long, value_name = "list")]
    group_add: Vec<String>,
    /// Command that checks its health
    #[arg(long, value_name = "string")]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "duration", value_parser = parse_duration)]
    health_interval: Option<i64>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "int", value_parser = parse_int)]
    health_retries: Option<i64>,
    /// Time between two checks while it starts
    #[arg(long, value_name = "duration", value_parser = parse_duration)]
    health_start_interval: Option<i64>,
    /// Time in which failures do not count
    #[arg(long, value_name = "duration", value_parser = parse_duration)]
    health_start_period: Option<i64>,
    /// Time one check may take
    #[arg(long, value_name = "duration", value_parser = parse_duration)]
    health_timeout: Option<i64>,
    /// Host name
    #[arg(long, short = 'h', value_name = "string")]
    hostname: Option<String>,
    /// Run a small init that passes signals on and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    init: Option<bool>,
    /// Keep STDIN open even if nobody is attached
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Windows only
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    io_maxbandwidth: Option<i64>,
    /// Windows only
    #[arg(long, value_name = "uint", value_parser = parse_u64)]
    io_maxiops: Option<u64>,
    /// IPv4 address in its network
    #[arg(long, value_name = "string")]
    ip: Option<String>,
    /// IPv6 address in its network
    #[arg(long, value_name = "string")]
    ip6: Option<String>,
    /// IPC namespace: private, shareable, host, none or container:NAME
    #[arg(long, value_name = "string")]
    ipc: Option<String>,
    /// Windows only; "default" is accepted
    #[arg(long, value_name = "string")]
    isolation: Option<String>,
    /// Refused: the kernel has no such limit any more
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    kernel_memory: Option<i64>,
    /// Set a label (name=value)
    #[arg(long, short = 'l', value_name = "list", value_parser = check_label)]
    label: Vec<String>,
    /// Set the labels of a file
    #[arg(long, value_name = "list")]
    label_file: Vec<String>,
    /// Link to another container (name:alias)
    #[arg(long, value_name = "list", value_parser = parse_link)]
    link: Vec<String>,
    /// Link-local address in its network
    #[arg(long, value_name = "list", value_parser = parse_ip)]
    link_local_ip: Vec<String>,
    /// Where its output goes: json-file, local, none or passthrough
    #[arg(long, value_name = "string")]
    log_driver: Option<String>,
    /// Option of the log driver (max-size=10m)
    #[arg(long, value_name = "list")]
    log_opt: Vec<String>,
    /// MAC address
    #[arg(long, value_name = "string")]
    mac_address: Option<String>,
    /// Memory at the most
    #[arg(long, short = 'm', value_name = "bytes", value_parser = parse_size)]
    memory: Option<i64>,
    /// Memory it keeps when the host runs short
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    memory_reservation: Option<i64>,
    /// Memory and swap together at the most; -1 is any amount of swap
    #[arg(long, value_name = "bytes", value_parser = parse_swap)]
    memory_swap: Option<i64>,
    /// How soon memory is swapped out, 0 to 100
    #[arg(long, value_name = "int", value_parser = parse_int)]
    memory_swappiness: Option<i64>,
    /// Mount something (type=bind,source=…,target=…)
    #[arg(long, value_name = "mount", value_parser = parse_mount)]
    mount: Vec<Mount>,
    /// Name of the container
    #[arg(long, value_name = "string")]
    name: Option<String>,
    /// Network to connect to
    #[arg(long, visible_alias = "net", value_name = "network")]
    network: Vec<String>,
    /// Name other containers of its network find it by
    #[arg(long, visible_alias = "net-alias", value_name = "list")]
    network_alias: Vec<String>,
    /// Do without the health check of the image
    #[arg(long)]
    no_healthcheck: bool,
    /// Do not kill it when memory runs out
    #[arg(long)]
    oom_kill_disable: bool,
    /// How readily it is killed when memory runs out, -1000 to 1000
    #[arg(long, value_name = "int", value_parser = parse_int)]
    oom_score_adj: Option<i64>,
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "string")]
    pid: Option<String>,
    /// Processes and threads at the most; -1 is any number
    #[arg(long, value_name = "int", value_parser = parse_int)]
    pids_limit: Option<i64>,
    /// Take the image for this platform (os/arch[/variant])
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// All capabilities and devices, nothing hidden
    #[arg(long)]
    privileged: bool,
    /// Publish a port ([[ip:]host:]container[/protocol])
    #[arg(long, short = 'p', value_name = "list")]
    publish: Vec<String>,
    /// Publish every exposed port on one that is free
    #[arg(long, short = 'P')]
    publish_all: bool,
    /// Get the image first: always, missing or never
    #[arg(long, value_name = "string", default_value = "missing")]
    pub(crate) pull: String,
    /// Say nothing of getting the image
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Mount the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// What to do when it exits: no, on-failure[:n], always, unless-stopped
    #[arg(long, value_name = "string", default_value = "no")]
    restart: String,
    /// Remove the container and its anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Directory to use as root filesystem, in place of an image
    #[arg(long, value_name = "dir")]
    pub(crate) rootfs: Option<String>,
    /// Write into the directory of --rootfs itself
    #[arg(long)]
    rootfs_rw: bool,
    /// OCI runtime by name or path
    #[arg(long, value_name = "string")]
    runtime: Option<String>,
    /// Security option (seccomp=FILE, no-new-privileges, apparmor=…, label=…)
    #[arg(long, value_name = "list")]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    shm_size: Option<i64>,
    /// Signal that asks it to stop
    #[arg(long, value_name = "string")]
    stop_signal: Option<String>,
    /// Seconds to stop before it is killed
    #[arg(long, value_name = "int", value_parser = parse_int)]
    stop_timeout: Option<i64>,
    /// Option of the storage driver
    #[arg(long, value_name = "list")]
    storage_opt: Vec<String>,
    /// Set a kernel parameter that has a namespace (name=value)
    #[arg(long, value_name = "map", value_parser = parse_sysctl)]
    sysctl: Vec<String>,
    /// Mount a tmpfs (path[:options])
    #[arg(long, value_name = "list", value_parser = parse_tmpfs)]
    tmpfs: Vec<(String, String)>,
    /// Give it a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Resource limit (name=soft[:hard])
    #[arg(long, value_name = "ulimit", value_parser = parse_ulimit)]
    ulimit: Vec<Ulimit>,
    /// Refused: this engine has no API socket yet
    #[arg(long)]
    use_api_socket: bool,
    /// User and group, names or numbers (user[:group])
    #[arg(long, short = 'u', value_name = "string")]
    user: Option<String>,
    /// User namespace: host
    #[arg(long, value_name = "string")]
    userns: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "string")]
    uts: Option<String>,
    /// Mount a directory or a volume ([source:]target[:options])
    #[arg(long, short = 'v', value_name = "list")]
    volume: Vec<String>,
    /// Driver of volumes that this makes
    #[arg(long, value_name = "string")]
    volume_driver: Option<String>,
    /// Mount what another container mounts (name[:ro])
    #[arg(long, value_name = "list")]
    volumes_from: Vec<String>,
    /// Working directory
    #[arg(long, short = 'w', value_name = "string")]
    workdir: Option<String>,
}

fn fail(message: impl Into<String>) -> Failure {
    Failure::new(125, message)
}

fn map_or_none(given: &[String]) -> Option<BTreeMap<String, String>> {
    (!given.is_empty()).then(|| pairs(given))
}

fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

impl ContainerFlags {
    /// The request these options and arguments make; `lookup` knows the caller's environment.
    pub(crate) fn request(
        self,
        args: &[String],
        lookup: Lookup<'_>,
    ) -> Result<CreateRequest, Failure> {
        self.refuse()?;
        let (image, cmd) = self.split(args)?;
        let config = self.config(image, cmd, lookup)?;
        let mut host_config = self.host_config()?;
        let mut config = config;
        for text in &self.volume {
            match parse_volume(text).map_err(fail)? {
                Volume::Anonymous(path) => {
                    config.volumes.get_or_insert_default().insert(path, Empty {});
                }
                Volume::Bind(spec) => {
                    host_config.binds.get_or_insert_default().push(spec);
                }
            }
        }
        let mut bindings = Bindings::new();
        for text in &self.publish {
            parse_publish(text, &mut bindings).map_err(fail)?;
        }
        let mut exposed: BTreeMap<String, Empty> = BTreeMap::new();
        exposed.extend(bindings.keys().map(|k| (k.clone(), Empty {})));
        for text in &self.expose {
            let ports = parse_expose(text).map_err(fail)?;
            exposed.extend(ports.into_iter().map(|p| (p, Empty {})));
        }
        host_config.port_bindings = bindings;
        config.exposed_ports = (!exposed.is_empty()).then_some(exposed);
        let rootfs = match &self.rootfs {
            Some(path) => {
                let path = absolute(path).ok_or_else(|| {
                    fail(format!("--rootfs {path}: the working directory can't be read; give an absolute path"))
                })?;
                Some(Rootfs { path, writable: self.rootfs_rw })
            }
            None => None,
        };
        let (mode, networking_config) = self.networks()?;
        host_config.network_mode = mode;
        Ok(CreateRequest {
            name: self.name,
            platform: self.platform,
            config,
            host_config,
            networking_config,
            rootfs,
            runtime: None,
        })
    }

    /// Options that name what this engine or this system has not.
    fn refuse(&self) -> Result<(), Failure> {
        let windows = [
            ("--cpu-count", self.cpu_count.is_some_and(|n| n != 0)),
            ("--cpu-percent", self.cpu_percent.is_some_and(|n| n != 0)),
            ("--io-maxbandwidth", self.io_maxbandwidth.is_some_and(|n| n != 0)),
            ("--io-maxiops", self.io_maxiops.is_some_and(|n| n != 0)),
        ];
        if let Some((name, _)) = windows.iter().find(|(_, given)| *given) {
            return Err(fail(format!("{name} is for Windows containers only; leave it out")));
        }
        if let Some(isolation) = &self.isolation
            && !matches!(isolation.as_str(), "" | "default")
        {
            return Err(fail(format!(
                "--isolation {isolation:?} is for Windows containers only; Linux knows \"default\""
            )));
        }
        if self.kernel_memory.is_some_and(|n| n != 0) {
            return Err(fail(
                "--kernel-memory: the kernel has no such limit any more; use --memory",
            ));
        }
        if self.gpus.is_some() {
            return Err(fail(
                "--gpus: this engine can't give GPUs to containers yet; pass the device nodes with --device",
            ));
        }
        if self.use_api_socket {
            return Err(fail("--use-api-socket: this engine has no API socket yet"));
        }
        if !self.disable_content_trust {
            return Err(fail(
                "--disable-content-trust=false: signatures are not checked by this engine; leave the option out",
            ));
        }
        match self.pull.as_str() {
            "always" | "missing" | "never" | "" => {}
            other => {
                return Err(fail(format!(
                    "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
                )));
            }
        }
        for (text, six) in [(&self.ip, false), (&self.ip6, true)] {
            let Some(text) = text else { continue };
            match text.parse::<std::net::IpAddr>() {
                Ok(ip) if ip.is_ipv6() == six => {}
                _ => {
                    let kind = if six { "IPv6" } else { "IPv4" };
                    return Err(fail(format!("invalid {kind} address: {text}")));
                }
            }
        }
        if let Some(mac) = &self.mac_address {
            check_mac(mac).map_err(fail)?;
        }
        if self.rootfs_rw && self.rootfs.is_none() {
            return Err(fail("--rootfs-rw says how --rootfs is used; give --rootfs DIR too"));
        }
        Ok(())
    }

    /// Image and command; with `--rootfs` all arguments are the command.
    fn split(&self, args: &[String]) -> Result<(String, Option<Vec<String>>), Failure> {
        if self.rootfs.is_some() {
            if args.is_empty() && self.entrypoint.as_deref().unwrap_or_default().is_empty() {
                return Err(fail(
                    "with --rootfs the command must be given: run --rootfs DIR -- COMMAND",
                ));
            }
            return Ok((String::new(), list(args.to_vec())));
        }
        let (image, cmd) = args.split_first().ok_or_else(|| fail("an image must be named"))?;
        Ok((image.clone(), list(cmd.to_vec())))
    }

    fn config(
        &self,
        image: String,
        cmd: Option<Vec<String>>,
        lookup: Lookup<'_>,
    ) -> Result<Config, Failure> {
        let asked = |name: &str| self.attach.iter().any(|a| a == name);
        let none = self.attach.is_empty();
        let entrypoint = self.entrypoint.as_ref().map(|e| vec![e.clone()]);
        Ok(Config {
            hostname: self.hostname.clone().unwrap_or_default(),
            domainname: self.domainname.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            attach_stdin: asked("stdin") || none && self.interactive,
            attach_stdout: asked("stdout") || none,
            attach_stderr: asked("stderr") || none,
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && (none || asked("stdin")),
            env: list(environment(&self.env_file, &self.env, lookup).map_err(fail)?),
            cmd,
            healthcheck: self.health()?,
            image,
            working_dir: self.workdir.clone().unwrap_or_default(),
            entrypoint,
            mac_address: self.mac_address.clone().filter(|m| !m.is_empty()),
            labels: labels(&self.label_file, &self.label).map_err(fail)?,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            ..Config::default()
        })
    }

    fn health(&self) -> Result<Option<Healthcheck>, Failure> {
        let times = [
            ("--health-interval", self.health_interval),
            ("--health-timeout", self.health_timeout),
            ("--health-start-period", self.health_start_period),
            ("--health-start-interval", self.health_start_interval),
        ];
        let any = self.health_cmd.is_some()
            || self.health_retries.is_some()
            || times.iter().any(|(_, t)| t.is_some());
        if self.no_healthcheck {
            if any {
                return Err(fail("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(Healthcheck { test: Some(vec!["NONE".into()]), ..Default::default() }));
        }
        if !any {
            return Ok(None);
        }
        if let Some((name, _)) = times.iter().find(|(_, t)| t.is_some_and(|t| t < 0)) {
            return Err(fail(format!("{name} cannot be negative")));
        }
        if self.health_retries.is_some_and(|n| n < 0) {
            return Err(fail("--health-retries cannot be negative"));
        }
        let test = self
            .health_cmd
            .as_ref()
            .filter(|c| !c.is_empty())
            .map(|c| vec!["CMD-SHELL".to_owned(), c.clone()]);
        Ok(Some(Healthcheck {
            test,
            interval: self.health_interval.unwrap_or(0),
            timeout: self.health_timeout.unwrap_or(0),
            start_period: self.health_start_period.unwrap_or(0),
            start_interval: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
        }))
    }

    fn host_config(&self) -> Result<HostConfig, Failure> {
        let restart_policy = parse_restart(&self.restart).map_err(fail)?;
        if self.rm && restart_policy.name != "no" {
            return Err(fail("conflicting options: cannot specify both --restart and --rm"));
        }
        self.check_namespaces()?;
        let swappiness = self.memory_swappiness.filter(|n| *n != -1);
        if let Some(n) = swappiness.filter(|n| !(0..=100).contains(n)) {
            return Err(fail(format!(
                "invalid value: {n}. Valid memory swappiness range is 0-100"
            )));
        }
        if self.log_driver.as_deref() == Some("none") && !self.log_opt.is_empty() {
            return Err(fail("invalid logging opts for driver none"));
        }
        let storage_opt = match self.storage_opt.iter().find(|o| !o.contains('=')) {
            Some(_) => return Err(fail("invalid storage option")),
            None => map_or_none(&self.storage_opt),
        };
        let (security_opt, system_paths) = security(&self.security_opt)?;
        let open = |wanted: bool| wanted.then(Vec::new);
        Ok(HostConfig {
            container_id_file: self.cidfile.clone().unwrap_or_default(),
            log_config: LogConfig {
                r#type: self.log_driver.clone().unwrap_or_default(),
                config: pairs(&self.log_opt),
            },
            restart_policy,
            auto_remove: self.rm,
            volume_driver: self.volume_driver.clone().unwrap_or_default(),
            volumes_from: list(self.volumes_from.clone()),
            console_size: [0, 0],
            annotations: map_or_none(&self.annotation),
            cap_add: list(self.cap_add.clone()),
            cap_drop: list(self.cap_drop.clone()),
            cgroupns_mode: self.cgroupns.clone().unwrap_or_default(),
            dns: list(self.dns.clone()),
            dns_options: list(self.dns_option.clone()),
            dns_search: list(self.dns_search.clone()),
            extra_hosts: list(self.add_host.clone()),
            group_add: list(self.group_add.clone()),
            ipc_mode: self.ipc.clone().unwrap_or_default(),
            links: list(self.link.clone()),
            oom_score_adj: self.oom_score_adj.unwrap_or(0),
            pid_mode: self.pid.clone().unwrap_or_default(),
            privileged: self.privileged,
            publish_all_ports: self.publish_all,
            readonly_rootfs: self.read_only,
            security_opt: list(security_opt),
            storage_opt,
            tmpfs: (!self.tmpfs.is_empty()).then(|| self.tmpfs.iter().cloned().collect()),
            uts_mode: self.uts.clone().unwrap_or_default(),
            userns_mode: self.userns.clone().unwrap_or_default(),
            shm_size: self.shm_size.unwrap_or(0),
            sysctls: map_or_none(&self.sysctl),
            runtime: self.runtime.clone().unwrap_or_default(),
            cpu_shares: self.cpu_shares.unwrap_or(0),
            memory: self.memory.unwrap_or(0),
            nano_cpus: self.cpus.unwrap_or(0),
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            blkio_weight: self.blkio_weight.unwrap_or(0),
            blkio_weight_device: list(self.blkio_weight_device.clone()),
            blkio_device_read_bps: list(self.device_read_bps.clone()),
            blkio_device_write_bps: list(self.device_write_bps.clone()),
            blkio_device_read_iops: list(self.device_read_iops.clone()),
            blkio_device_write_iops: list(self.device_write_iops.clone()),
            cpu_period: self.cpu_period.unwrap_or(0),
            cpu_quota: self.cpu_quota.unwrap_or(0),
            cpu_realtime_period: self.cpu_rt_period.unwrap_or(0),
            cpu_realtime_runtime: self.cpu_rt_runtime.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            devices: list(self.device.clone()),
            device_cgroup_rules: list(self.device_cgroup_rule.clone()),
            memory_reservation: self.memory_reservation.unwrap_or(0),
            memory_swap: self.memory_swap.unwrap_or(0),
            memory_swappiness: swappiness,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            init: self.init,
            pids_limit: self.pids_limit,
            ulimits: list(self.ulimit.clone()),
            mounts: list(self.mount.clone()),
            masked_paths: open(system_paths),
            readonly_paths: open(system_paths),
            ..HostConfig::default()
        })
    }

    fn check_namespaces(&self) -> Result<(), Failure> {
        let text = |o: &Option<String>| o.clone().unwrap_or_default();
        check_namespace(&text(&self.pid), &["host"], true, "--pid: invalid PID mode")
            .map_err(fail)?;
        check_namespace(&text(&self.uts), &["host"], false, "--uts: invalid UTS mode")
            .map_err(fail)?;
        check_namespace(&text(&self.userns), &["host"], false, "--userns: invalid USER mode")
            .map_err(fail)?;
        check_namespace(
            &text(&self.cgroupns),
            &["host", "private"],
            false,
            "--cgroupns: invalid CGROUP mode",
        )
        .map_err(fail)?;
        check_namespace(
            &text(&self.ipc),
            &["private", "shareable", "host", "none"],
            true,
            "--ipc: invalid IPC mode",
        )
        .map_err(fail)
    }

    /// The first network and all of them with what is asked for; `default` when none is given.
    fn networks(&self) -> Result<(String, NetworkingConfig), Failure> {
        let mut all = self
            .network
            .iter()
            .map(|text| crate::values::network::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        if all.is_empty() {
            all.push(("default".to_owned(), EndpointSettings::default()));
        }
        let several = all.len() > 1;
        for (name, _) in &all {
            if several
                && (matches!(name.as_str(), "host" | "none") || name.starts_with("container:"))
            {
                return Err(fail(
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
                ));
            }
        }
        let Some((mode, first)) = all.first_mut() else {
            return Ok(Default::default());
        };
        let mode = mode.clone();
        self.options_of_first(&mode, first)?;
        let mut config = NetworkingConfig::default();
        for (name, settings) in all {
            let plain = settings == EndpointSettings::default();
            let joins =
                !matches!(name.as_str(), "host" | "none") && !name.starts_with("container:");
            if !joins && !plain {
                return Err(fail(format!(
                    "conflicting options: network {name} has no addresses and names of its own"
                )));
            }
            if joins && config.endpoints_config.insert(name.clone(), settings).is_some() {
                return Err(fail(format!("network {name} is specified multiple times")));
            }
        }
        Ok((mode, config))
    }

    /// `--ip` and its kin are about the first network.
    fn options_of_first(&self, mode: &str, first: &mut EndpointSettings) -> Result<(), Failure> {
        let twice = |option: &str, field: &str| {
            fail(format!(
                "conflicting options: cannot specify both --{option} and per-network {field}"
            ))
        };
        if !self.network_alias.is_empty() {
            if first.aliases.is_some() {
                return Err(twice("network-alias", "alias"));
            }
            first.aliases = Some(self.network_alias.clone());
        }
        let links_here = !self.link.is_empty() && !matches!(mode, "default" | "bridge");
        if links_here && first.links.is_some() {
            return Err(twice("link", "links"));
        }
        let mut ipam = first.ipam_config.clone().unwrap_or_default();
        for (given, field, option) in
            [(&self.ip, &mut ipam.ipv4_address, "ip"), (&self.ip6, &mut ipam.ipv6_address, "ip6")]
        {
            let Some(text) = given else { continue };
            if !field.is_empty() {
                return Err(twice(option, "address"));
            }
            field.clone_from(text);
        }
        if !self.link_local_ip.is_empty() {
            ipam.link_local_ips.clone_from(&self.link_local_ip);
        }
        if ipam != EndpointIpam::default() {
            first.ipam_config = Some(ipam);
        }
        Ok(())
    }
}

/// `--security-opt`: profiles are read here, since the file is the caller's.
fn security(given: &[String]) -> Result<(Vec<String>, bool), Failure> {
    let mut kept = Vec::new();
    let mut system_paths = false;
    for text in given {
        if text == "systempaths=unconfined" {
            system_paths = true;
            continue;
        }
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        let Some((name, value)) = pair else {
            if text != "no-new-privileges" {
                return Err(fail(format!("Invalid --security-opt: {text:?}")));
            }
            kept.push(text.clone());
            continue;
        };
        if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
            kept.push(format!("{name}={value}"));
            continue;
        }
        let json = std::fs::read_to_string(value)
            .map_err(|e| fail(format!("opening seccomp profile ({value}) failed: {e}")))?;
        let parsed: serde_json::Value = serde_json::from_str(&json).map_err(|e| {
            fail(format!("compacting json for seccomp profile ({value}) failed: {e}"))
        })?;
        kept.push(format!("seccomp={parsed}"));
    }
    Ok((kept, system_paths))
}

/// Writes `--cidfile`; it must not exist before.
pub(crate) struct IdFile {
    path: Option<String>,
    written: bool,
}

impl IdFile {
    /// Makes the file, empty.
    pub(crate) fn reserve(path: Option<&str>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|p| !p.is_empty()) else {
            return Ok(Self { path: None, written: false });
        };
        match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => Ok(Self { path: Some(path.to_owned()), written: false }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(fail(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ))),
            Err(e) => Err(fail(format!("failed to create the container ID file {path}: {e}"))),
        }
    }

    /// Writes the id.
    pub(crate) fn write(&mut self, id: &str) -> Result<(), Failure> {
        if let Some(path) = &self.path {
            std::fs::write(path, id)
                .map_err(|e| fail(format!("failed to write the container ID file {path}: {e}")))?;
        }
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if let (Some(path), false) = (&self.path, self.written) {
            let _ = std::fs::remove_file(path);
        }
    }
}
