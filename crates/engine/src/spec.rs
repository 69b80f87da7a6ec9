//! From a container's record to an OCI runtime specification.
//!
//! The result is written to the container's directory as `config.json`, for people and
//! for other runtimes, and becomes a [`runtime::Plan`] for ours.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::record::{PlannedMount, Record};
use crate::types::{DeviceMapping, HostConfig, ThrottleDevice};
use crate::user::Identity;

/// Capabilities a container has unless told otherwise: Docker's list.
pub(crate) const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Paths hidden from containers unless told otherwise.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths containers may not write unless told otherwise.
pub(crate) const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What `--security-opt` said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    /// `None`: the built-in profile. `Some(None)`: no filter. Else a profile's JSON.
    pub(crate) seccomp: Option<Option<String>>,
    pub(crate) apparmor: Option<String>,
    /// Parts of an SELinux label: `user`, `role`, `type`, `level`; or `disable`.
    pub(crate) labels: Vec<String>,
    pub(crate) unconfined_paths: bool,
    pub(crate) writable_cgroups: bool,
}

impl Security {
    /// Reads the options; each `name=value`, `name:value` or a bare name.
    pub(crate) fn parse(options: &[String]) -> Result<Self> {
        let mut s = Self::default();
        for option in options {
            let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((name, value)) => (name, value),
                None => (option.as_str(), ""),
            };
            let flag = || match value {
                "" | "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Error::invalid(format!(
                    "invalid --security-opt {option}: give true or false"
                ))),
            };
            match name {
                "no-new-privileges" => s.no_new_privileges = flag()?,
                "writable-cgroups" => s.writable_cgroups = flag()?,
                "seccomp" => {
                    s.seccomp = match value {
                        "unconfined" => Some(None),
                        "builtin" => None,
                        profile => Some(Some(profile.to_owned())),
                    }
                }
                "apparmor" => s.apparmor = Some(value.to_owned()),
                "label" => s.labels.push(value.to_owned()),
                "systempaths" if value == "unconfined" => s.unconfined_paths = true,
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid --security-opt 2: {option:?}: known are seccomp, apparmor, label, \
                         no-new-privileges, systempaths=unconfined and writable-cgroups"
                    )));
                }
            }
        }
        Ok(s)
    }
}

/// The capabilities of a container, from the defaults and `--cap-add`, `--cap-drop`.
pub(crate) fn capabilities(host: &HostConfig) -> Result<Vec<String>> {
    let all = || runtime::capabilities::names().collect::<Vec<String>>();
    let normal = |names: &Option<Vec<String>>| -> Result<Vec<String>> {
        let known = all();
        let mut list = Vec::new();
        for name in names.iter().flatten() {
            let mut upper = name.to_ascii_uppercase();
            if upper != "ALL" && !upper.starts_with("CAP_") {
                upper.insert_str(0, "CAP_");
            }
            if upper == "CAP_ALL" {
                upper = "ALL".into();
            }
            if upper != "ALL" && !known.contains(&upper) {
                return Err(Error::invalid(format!(
                    "invalid capability: unknown capability: \"{upper}\""
                )));
            }
            list.push(upper);
        }
        Ok(list)
    };
    let (add, drop) = (normal(&host.cap_add)?, normal(&host.cap_drop)?);
    if host.privileged {
        return Ok(all());
    }
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    let mut list: Vec<String> = if has(&add, "ALL") {
        all().into_iter().filter(|c| !has(&drop, c)).collect()
    } else if has(&drop, "ALL") {
        Vec::new()
    } else {
        let defaults = DEFAULT_CAPABILITIES.iter().map(|c| (*c).to_owned());
        defaults.filter(|c| !has(&drop, c)).collect()
    };
    for name in add {
        if name != "ALL" && !has(&list, &name) {
            list.push(name);
        }
    }
    Ok(list)
}

/// What is decided at each start, beside the record.
pub(crate) struct Facts<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) security: &'a Security,
    /// Directory of the container's own files.
    pub(crate) directory: &'a Path,
    /// Directory of `/etc/hosts` and its kin.
    pub(crate) files: &'a Path,
    /// Path of the network namespace, for other runtimes.
    pub(crate) network: Option<&'a str>,
    pub(crate) cgroup: &'a str,
    /// Our own program, for `--init`.
    pub(crate) program: &'a Path,
    /// It runs systemd as its first process.
    pub(crate) systemd: bool,
    /// Host path of each volume, by name.
    pub(crate) volumes: &'a BTreeMap<String, std::path::PathBuf>,
    /// Default limits of the configuration.
    pub(crate) default_ulimits: &'a [crate::types::Ulimit],
    /// Variables about other containers; the container's own go before them.
    pub(crate) links: &'a [String],
}

/// The mounts of a specification and what the caller must hand over for some of them.
pub(crate) struct Spec {
    pub(crate) json: Value,
    /// Mounts, by their number, whose source is another container's `/dev/shm`.
    pub(crate) shared_shm: Option<usize>,
    /// Number of the first mount that a person asked for; the others follow in order.
    pub(crate) first_asked: usize,
}

fn list(host: &Option<Vec<String>>, default: &[&str]) -> Vec<String> {
    host.clone().unwrap_or_else(|| default.iter().map(|s| (*s).to_owned()).collect())
}

/// Makes the specification.
pub(crate) fn build(record: &Record, facts: &Facts<'_>) -> Result<Spec> {
    let config = &record.definition.config;
    let host = &record.definition.host;
    let capabilities = capabilities(host)?;
    let (mounts, shared_shm) = mounts(record, facts)?;
    let first_asked = mounts.len().saturating_sub(record.definition.mounts.len());
    let mut process = json!({
        "terminal": config.tty,
        "user": {
            "uid": facts.identity.uid,
            "gid": facts.identity.gid,
            "additionalGids": facts.identity.groups,
        },
        "args": arguments(record),
        "env": environment(record, facts),
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": capability_sets(&capabilities, facts.identity.uid),
        "oomScoreAdj": host.oom_score_adj,
        "noNewPrivileges": facts.security.no_new_privileges,
        "rlimits": rlimits(host, facts.default_ulimits),
    });
    if config.tty && host.console_size != [0, 0] {
        let [height, width] = host.console_size;
        process["consoleSize"] = json!({"height": height, "width": width});
    }
    if let Some(profile) = facts.security.apparmor.as_deref().filter(|p| *p != "unconfined") {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = selinux_label(&facts.security.labels) {
        process["selinuxLabel"] = json!(label);
    }
    let open = host.privileged || facts.security.unconfined_paths;
    let hide = |asked: &Option<Vec<String>>, default: &[&str]| {
        if asked.is_none() && open { Vec::new() } else { list(asked, default) }
    };
    let mut linux = json!({
        "namespaces": namespaces(host, facts.network),
        "resources": resources(host)?,
        "cgroupsPath": facts.cgroup,
        "devices": devices(host)?,
        "maskedPaths": hide(&host.masked_paths, &MASKED_PATHS),
        "readonlyPaths": hide(&host.readonly_paths, &READONLY_PATHS),
        "sysctl": sysctls(host)?,
    });
    let propagation = rootfs_propagation(&record.definition.mounts);
    linux["rootfsPropagation"] = json!(propagation);
    let mut json = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": {
            "path": facts.directory.join("rootfs"),
            "readonly": host.readonly_rootfs,
        },
        "mounts": mounts,
        "linux": linux,
        "annotations": host.annotations.clone().unwrap_or_default(),
    });
    if host.uts_mode != "host" {
        json["hostname"] = json!(hostname(record));
        if !config.domainname.is_empty() {
            json["domainname"] = json!(config.domainname);
        }
    }
    Ok(Spec { json, shared_shm, first_asked })
}

/// The container's host name.
pub(crate) fn hostname(record: &Record) -> String {
    if record.definition.host.network_mode == "host" && record.definition.config.hostname.is_empty()
    {
        let uname = rustix::system::uname();
        return uname.nodename().to_string_lossy().into_owned();
    }
    match record.definition.config.hostname.as_str() {
        "" => record.id.get(..12).unwrap_or(&record.id).to_owned(),
        name => name.to_owned(),
    }
}

/// Where the init program stands in a container with `--init`.
const INIT: &str = "/sbin/docker-init";

fn arguments(record: &Record) -> Vec<String> {
    let mut argv = record.definition.argv.clone();
    if record.definition.host.init == Some(true) {
        argv.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    argv
}

/// The environment: defaults, then what the container was made with.
fn environment(record: &Record, facts: &Facts<'_>) -> Vec<String> {
    let config = &record.definition.config;
    let given = config.env.iter().flatten();
    let name = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    let has = |n: &str| config.env.iter().flatten().any(|e| name(e) == n);
    let mut env = Vec::new();
    let mut default = |n: &str, value: &str| {
        if !has(n) {
            env.push(format!("{n}={value}"));
        }
    };
    default("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    default("HOSTNAME", &hostname(record));
    if config.tty {
        default("TERM", "xterm");
    }
    if facts.systemd {
        default("container", "oci");
    }
    env.extend(facts.links.iter().filter(|e| !has(&name(e))).cloned());
    env.extend(given.filter(|e| e.contains('=')).cloned());
    if !has("HOME") {
        env.push(format!("HOME={}", facts.identity.home));
    }
    env
}

/// The five sets; a process that is not root starts with none in its effective set, as
/// with Docker, but may gain those of the bounding set through file capabilities.
pub(crate) fn capability_sets(names: &[String], uid: u32) -> Value {
    if uid == 0 {
        json!({"bounding": names, "effective": names, "permitted": names})
    } else {
        json!({"bounding": names})
    }
}

fn rlimits(host: &HostConfig, defaults: &[crate::types::Ulimit]) -> Vec<Value> {
    let asked = host.ulimits.iter().flatten();
    let unset =
        defaults.iter().filter(|d| !host.ulimits.iter().flatten().any(|u| u.name == d.name));
    asked
        .chain(unset)
        .map(|u| {
            let value = |v: i64| if v < 0 { u64::MAX } else { v.cast_unsigned() };
            json!({
                "type": format!("RLIMIT_{}", u.name.to_ascii_uppercase()),
                "soft": value(u.soft),
                "hard": value(u.hard),
            })
        })
        .collect()
}

fn selinux_label(options: &[String]) -> Option<String> {
    if options.is_empty() || options.iter().any(|o| o == "disable") {
        return None;
    }
    let part = |key: &str, default: &str| {
        options
            .iter()
            .find_map(|o| o.split_once(':').filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned()))
            .unwrap_or_else(|| default.to_owned())
    };
    Some(format!(
        "{}:{}:{}:{}",
        part("user", "system_u"),
        part("role", "system_r"),
        part("type", "container_t"),
        part("level", "s0"),
    ))
}

fn namespaces(host: &HostConfig, network: Option<&str>) -> Vec<Value> {
    let mut list = vec![json!({"type": "mount"})];
    if host.network_mode != "host" {
        list.push(match network {
            Some(path) => json!({"type": "network", "path": path}),
            None => json!({"type": "network"}),
        });
    }
    if host.uts_mode != "host" {
        list.push(json!({"type": "uts"}));
    }
    if host.pid_mode != "host" {
        list.push(json!({"type": "pid"}));
    }
    if host.ipc_mode != "host" {
        list.push(json!({"type": "ipc"}));
    }
    if host.cgroupns_mode != "host" {
        list.push(json!({"type": "cgroup"}));
    }
    list
}

/// A bind with `shared` or `slave` needs the root to take part in propagation.
fn rootfs_propagation(mounts: &[PlannedMount]) -> &'static str {
    let any =
        |kind: &str| mounts.iter().any(|m| m.point.propagation.trim_start_matches('r') == kind);
    match () {
        () if any("shared") => "rshared",
        () if any("slave") => "rslave",
        () => "rprivate",
    }
}

pub(crate) fn check_sysctls(host: &HostConfig) -> Result<()> {
    sysctls(host).map(drop)
}

fn sysctls(host: &HostConfig) -> Result<BTreeMap<String, String>> {
    let sysctls = host.sysctls.clone().unwrap_or_default();
    for name in sysctls.keys() {
        let ipc = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ]
        .contains(&name.as_str())
            || name.starts_with("fs.mqueue.");
        let allowed = match () {
            () if ipc => host.ipc_mode != "host",
            () if name.starts_with("net.") => host.network_mode != "host",
            () if name == "kernel.hostname" || name == "kernel.domainname" => {
                host.uts_mode != "host"
            }
            () => {
                return Err(Error::invalid(format!(
                    "sysctl '{name}' is not allowed: it is not of a namespace and would change the host"
                )));
            }
        };
        if !allowed {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: the container shares that namespace with the host"
            )));
        }
    }
    Ok(sysctls)
}

// --- mounts ------------------------------------------------------------------------------

fn mounts(record: &Record, facts: &Facts<'_>) -> Result<(Vec<Value>, Option<usize>)> {
    let host = &record.definition.host;
    let writable_cgroups = host.privileged || facts.systemd || facts.security.writable_cgroups;
    let mut mounts = Vec::new();
    let mut shared_shm = None;
    let mut own: Vec<(&str, Value)> = Vec::new();
    let mut add = |destination: &'static str, kind: &str, source: &str, options: &[&str]| {
        own.push((
            destination,
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        ));
    };
    add("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]);
    add("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]);
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    add("/dev/pts", "devpts", "devpts", &pts);
    let read_only = if host.privileged { "rw" } else { "ro" };
    if host.network_mode == "host" && host.userns_mode != "host" && !host.privileged {
        // A new sysfs shows the network namespace of who mounts it: the host's here too.
        add("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    } else {
        add("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", read_only]);
    }
    let cgroup = if writable_cgroups { "rw" } else { "ro" };
    add("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", cgroup]);
    add("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
    let size = format!("size={}", host.shm_size);
    match host.ipc_mode.as_str() {
        "none" => {}
        "host" => add("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]),
        mode if mode.starts_with("container:") => {
            shared_shm = Some("/dev/shm");
            add("/dev/shm", "bind", "/dev/shm", &["bind"]);
        }
        _ => add("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]),
    }
    if facts.systemd {
        add("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755"]);
        add("/run/lock", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "size=5242880"]);
        add("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]);
    }
    let taken =
        |destination: &str| record.definition.mounts.iter().any(|m| m.mount.target == destination);
    let mut shm_index = None;
    for (destination, mount) in own {
        if !taken(destination) {
            if shared_shm == Some(destination) {
                shm_index = Some(mounts.len());
            }
            mounts.push(mount);
        }
    }
    let files = [
        ("/etc/resolv.conf", "resolv.conf"),
        ("/etc/hostname", "hostname"),
        ("/etc/hosts", "hosts"),
    ];
    for (destination, file) in files {
        if !taken(destination) {
            let read_only = if host.readonly_rootfs { "ro" } else { "rw" };
            mounts.push(json!({
                "destination": destination,
                "type": "bind",
                "source": facts.files.join(file),
                "options": ["bind", "rprivate", read_only],
            }));
        }
    }
    if host.init == Some(true) {
        mounts.push(json!({
            "destination": INIT,
            "type": "bind",
            "source": facts.program,
            "options": ["bind", "ro", "rprivate"],
        }));
    }
    for planned in &record.definition.mounts {
        mounts.push(user_mount(planned, facts)?);
    }
    Ok((mounts, shm_index))
}

fn user_mount(planned: &PlannedMount, facts: &Facts<'_>) -> Result<Value> {
    let mount = &planned.mount;
    let mode = if mount.read_only { "ro" } else { "rw" };
    Ok(match mount.r#type.as_str() {
        "tmpfs" => {
            let mut options: Vec<String> =
                ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
            if mount.read_only {
                options.push("ro".into());
            }
            if let Some(tmpfs) = &mount.tmpfs_options {
                if tmpfs.size_bytes > 0 {
                    options.push(format!("size={}", tmpfs.size_bytes));
                }
                if tmpfs.mode != 0 {
                    options.push(format!("mode={:o}", tmpfs.mode));
                }
                options.extend(tmpfs.options.iter().flatten().map(|words| words.join("=")));
            }
            options.extend(planned.options.iter().cloned());
            json!({"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options})
        }
        kind => {
            let (source, recursive) = if kind == "volume" {
                let path = facts.volumes.get(&mount.source).ok_or_else(|| {
                    Error::invalid(format!("get {}: no such volume", mount.source))
                })?;
                // A part of it comes as a descriptor.
                (path.clone(), true)
            } else {
                let recursive = !mount.bind_options.as_ref().is_some_and(|b| b.non_recursive);
                (mount.source.clone().into(), recursive)
            };
            let bind = mount.bind_options.as_ref();
            let mut options = vec![if recursive { "rbind" } else { "bind" }];
            let top_only = bind.is_some_and(|b| b.read_only_non_recursive);
            options.push(match (mount.read_only, recursive && !top_only) {
                (true, true) => "rro",
                _ => mode,
            });
            options.push(if planned.point.propagation.is_empty() {
                "rprivate"
            } else {
                &planned.point.propagation
            });
            json!({"destination": mount.target, "type": "bind", "source": source, "options": options})
        }
    })
}

// --- devices and limits ------------------------------------------------------------------

/// A device node as the specification has it, and the rule that allows it.
fn device_node(path: &Path, inside: &str, permissions: &str) -> Result<Option<(Value, Value)>> {
    let stat = rustix::fs::stat(path).map_err(|e| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{}\": {}",
            path.display(),
            std::io::Error::from(e)
        ))
    })?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return Ok(None),
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let node = json!({
        "path": inside, "type": kind, "major": major, "minor": minor,
        "fileMode": stat.st_mode & 0o7777, "uid": stat.st_uid, "gid": stat.st_gid,
    });
    let rule = json!({
        "allow": true, "type": kind, "major": major, "minor": minor, "access": permissions,
    });
    Ok(Some((node, rule)))
}

/// All nodes of one `--device`, a directory with everything below it.
fn device_nodes(d: &DeviceMapping) -> Result<Vec<(Value, Value)>> {
    let inside =
        if d.path_in_container.is_empty() { &d.path_on_host } else { &d.path_in_container };
    let permissions =
        if d.cgroup_permissions.is_empty() { "rwm" } else { d.cgroup_permissions.as_str() };
    if !permissions.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(Error::invalid(format!(
            "invalid device mode: {permissions}: use any of r, w and m"
        )));
    }
    let path = Path::new(&d.path_on_host);
    let mut found = Vec::new();
    if path.is_dir() {
        let mut pending = vec![(path.to_owned(), inside.clone())];
        while let Some((dir, inside)) = pending.pop() {
            let entries = std::fs::read_dir(&dir)
                .map_err(|e| Error::system(format!("cannot read {}", dir.display()), e))?;
            for entry in entries.flatten() {
                let inside = format!("{inside}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    pending.push((entry.path(), inside));
                } else if let Ok(Some(node)) = device_node(&entry.path(), &inside, permissions) {
                    found.push(node);
                }
            }
        }
    } else if let Some(node) = device_node(path, inside, permissions)? {
        found.push(node);
    }
    if found.is_empty() {
        return Err(Error::invalid(format!(
            "error gathering device information while adding custom device \"{}\": not a device node",
            d.path_on_host
        )));
    }
    Ok(found)
}

/// The host's device nodes, for a privileged container.
fn host_devices() -> Vec<(Value, Value)> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new("/dev").to_owned()];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            let skipped = ["pts", "shm", "fd", "mqueue", "console"]
                .iter()
                .any(|name| path == Path::new("/dev").join(name));
            if skipped || kind.is_symlink() {
                continue;
            }
            if kind.is_dir() {
                pending.push(path);
            } else if let Ok(Some(node)) = device_node(&path, &path.to_string_lossy(), "rwm") {
                found.push(node);
            }
        }
    }
    found
}

fn all_devices(host: &HostConfig) -> Result<Vec<(Value, Value)>> {
    let mut all = if host.privileged { host_devices() } else { Vec::new() };
    for device in host.devices.iter().flatten() {
        all.extend(device_nodes(device)?);
    }
    Ok(all)
}

fn devices(host: &HostConfig) -> Result<Vec<Value>> {
    Ok(all_devices(host)?.into_iter().map(|(node, _)| node).collect())
}

fn device_rules(host: &HostConfig) -> Result<Vec<Value>> {
    if host.privileged {
        return Ok(vec![json!({"allow": true, "access": "rwm"})]);
    }
    let rule = |kind: &str, major: i64, minor: Option<i64>, access: &str| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        // Nodes may be made, as tar and package managers do; using them is another matter.
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    for minor in [3, 5, 7, 8, 9] {
        rules.push(rule("c", 1, Some(minor), "rwm"));
    }
    rules.push(rule("c", 5, Some(0), "rwm"));
    rules.push(rule("c", 5, Some(1), "rwm"));
    rules.push(rule("c", 5, Some(2), "rwm"));
    rules.push(rule("c", 136, None, "rwm"));
    rules.extend(all_devices(host)?.into_iter().map(|(_, rule)| rule));
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(device_rule(text)?);
    }
    Ok(rules)
}

/// Reads `c 1:3 rwm`.
fn device_rule(text: &str) -> Result<Value> {
    let invalid = || {
        Error::invalid(format!(
            "invalid device cgroup rule format: '{text}': write it as 'c 1:3 rwm'"
        ))
    };
    let mut words = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |n: &str| -> Result<Option<i64>> {
        if n == "*" {
            Ok(None)
        } else {
            n.parse::<u32>().map(|n| Some(n.into())).map_err(|_| invalid())
        }
    };
    if !matches!(kind, "a" | "b" | "c")
        || access.is_empty()
        || !access.bytes().all(|b| b"rwm".contains(&b))
    {
        return Err(invalid());
    }
    Ok(json!({
        "allow": true, "type": kind, "major": number(major)?, "minor": number(minor)?, "access": access,
    }))
}

fn device_number(path: &str) -> Result<(u32, u32)> {
    let stat = rustix::fs::stat(path).map_err(|e| {
        Error::invalid(format!("no such block device {path}: {}", std::io::Error::from(e)))
    })?;
    Ok((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

fn throttle(devices: &Option<Vec<ThrottleDevice>>) -> Result<Vec<Value>> {
    devices
        .iter()
        .flatten()
        .map(|d| {
            let (major, minor) = device_number(&d.path)?;
            Ok(json!({"major": major, "minor": minor, "rate": d.rate}))
        })
        .collect()
}

/// The limits of a container; absent what was not asked for.
pub(crate) fn resources(host: &HostConfig) -> Result<Value> {
    let mut resources = limits(host)?;
    resources["devices"] = json!(device_rules(host)?);
    Ok(resources)
}

/// The limits that can be changed while it runs.
pub(crate) fn limits(host: &HostConfig) -> Result<Value> {
    let mut cpu = serde_json::Map::new();
    let mut set = |key: &str, value: i64| {
        if value != 0 {
            cpu.insert(key.into(), json!(value));
        }
    };
    set("shares", host.cpu_shares);
    if host.nano_cpus > 0 {
        set("quota", host.nano_cpus / 10_000);
        set("period", 100_000);
    } else {
        set("quota", host.cpu_quota);
        set("period", host.cpu_period);
    }
    set("realtimeRuntime", host.cpu_realtime_runtime);
    set("realtimePeriod", host.cpu_realtime_period);
    if !host.cpuset_cpus.is_empty() {
        cpu.insert("cpus".into(), json!(host.cpuset_cpus));
    }
    if !host.cpuset_mems.is_empty() {
        cpu.insert("mems".into(), json!(host.cpuset_mems));
    }
    let mut memory = serde_json::Map::new();
    if host.memory > 0 {
        memory.insert("limit".into(), json!(host.memory));
        // As much swap again, unless said otherwise.
        let swap = match host.memory_swap {
            0 => host.memory.saturating_mul(2),
            swap => swap,
        };
        memory.insert("swap".into(), json!(swap));
    }
    if host.memory_reservation > 0 {
        memory.insert("reservation".into(), json!(host.memory_reservation));
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|s| *s >= 0) {
        memory.insert("swappiness".into(), json!(swappiness));
    }
    if host.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".into(), json!(true));
    }
    let mut block = serde_json::Map::new();
    if host.blkio_weight > 0 {
        block.insert("weight".into(), json!(host.blkio_weight));
    }
    let weights = host.blkio_weight_device.iter().flatten().map(|d| {
        let (major, minor) = device_number(&d.path)?;
        Ok(json!({"major": major, "minor": minor, "weight": d.weight}))
    });
    let weights = weights.collect::<Result<Vec<_>>>()?;
    for (key, list) in [
        ("weightDevice", weights),
        ("throttleReadBpsDevice", throttle(&host.blkio_device_read_bps)?),
        ("throttleWriteBpsDevice", throttle(&host.blkio_device_write_bps)?),
        ("throttleReadIOPSDevice", throttle(&host.blkio_device_read_iops)?),
        ("throttleWriteIOPSDevice", throttle(&host.blkio_device_write_iops)?),
    ] {
        if !list.is_empty() {
            block.insert(key.into(), json!(list));
        }
    }
    let mut resources = json!({});
    for (key, part) in [("cpu", cpu), ("memory", memory), ("blockIO", block)] {
        if !part.is_empty() {
            resources[key] = Value::Object(part);
        }
    }
    if let Some(limit) = host.pids_limit.filter(|l| *l != 0) {
        resources["pids"] = json!({"limit": limit});
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped() {
        let caps = |add: &[&str], drop: &[&str]| {
            let owned = |l: &[&str]| Some(l.iter().map(|s| (*s).to_owned()).collect());
            capabilities(&HostConfig {
                cap_add: owned(add),
                cap_drop: owned(drop),
                ..HostConfig::default()
            })
        };
        assert_eq!(caps(&[], &[]).unwrap(), DEFAULT_CAPABILITIES);
        assert_eq!(caps(&["net_admin"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert!(!caps(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap().contains(&"CAP_SYS_ADMIN".into()));
        assert!(caps(&["nonsense"], &[]).unwrap_err().message.contains("CAP_NONSENSE"));
    }

    #[test]
    fn security_options_are_read() {
        let parse =
            |o: &[&str]| Security::parse(&o.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let s = parse(&["no-new-privileges", "seccomp=unconfined", "label=type:x"]).unwrap();
        assert!(s.no_new_privileges && s.seccomp == Some(None));
        assert_eq!(selinux_label(&s.labels).unwrap(), "system_u:system_r:x:s0");
        assert!(parse(&["bogus=1"]).is_err() && parse(&["no-new-privileges=maybe"]).is_err());
    }

    #[test]
    fn device_rules_are_read() {
        assert_eq!(device_rule("c 1:* rw").unwrap()["minor"], Value::Null);
        for bad in ["", "c 1 rw", "x 1:3 rw", "c 1:3 q", "c 1:3", "c 1:3 r w", "c -1:3 r"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_gets_as_much_swap_again() {
        let host = HostConfig { memory: 100, nano_cpus: 1_500_000_000, ..HostConfig::default() };
        let limits = limits(&host).unwrap();
        assert_eq!(limits["memory"], json!({"limit": 100, "swap": 200}));
        assert_eq!(limits["cpu"], json!({"quota": 150_000, "period": 100_000}));
    }
}
