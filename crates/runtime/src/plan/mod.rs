//! The plan: everything the child will do, as data.
//!
//! [`Plan::from_spec`] turns an OCI specification and its bundle into a plan without touching the
//! host; a plan can be printed, compared, stored and sent. Fields this version does not know are
//! ignored when a plan is read, and missing ones have defaults, so that processes of different
//! versions understand each other.

pub mod mount;
pub mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

pub use mount::{Filesystem, Mount, MountKind, Propagation};
pub use process::{IdMap, Process, Rlimit};

use crate::error::{Error, Result};
use crate::hooks::Hook;
use crate::seccomp::Filter;

/// A kind of namespace. The order is the one in which they are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Identifiers and capabilities.
    User,
    /// Clocks.
    Time,
    /// System V and POSIX message objects.
    Ipc,
    /// Host name.
    Uts,
    /// Network devices and addresses.
    Network,
    /// Process numbers.
    Pid,
    /// Cgroup paths.
    Cgroup,
    /// Mounts.
    Mount,
}

impl Namespace {
    /// All kinds.
    pub const ALL: [Namespace; 8] = [
        Namespace::User,
        Namespace::Time,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Network,
        Namespace::Pid,
        Namespace::Cgroup,
        Namespace::Mount,
    ];

    /// The flag of clone and setns.
    pub fn flag(self) -> u64 {
        match self {
            Namespace::User => sys::clone::NEWUSER,
            Namespace::Time => sys::clone::NEWTIME,
            Namespace::Ipc => sys::clone::NEWIPC,
            Namespace::Uts => sys::clone::NEWUTS,
            Namespace::Network => sys::clone::NEWNET,
            Namespace::Pid => sys::clone::NEWPID,
            Namespace::Cgroup => sys::clone::NEWCGROUP,
            Namespace::Mount => sys::clone::NEWNS,
        }
    }

    /// The file's name below `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Namespace::User => "user",
            Namespace::Time => "time",
            Namespace::Ipc => "ipc",
            Namespace::Uts => "uts",
            Namespace::Network => "net",
            Namespace::Pid => "pid",
            Namespace::Cgroup => "cgroup",
            Namespace::Mount => "mnt",
        }
    }

    /// The kind a specification means.
    pub fn from_spec(kind: LinuxNamespaceType) -> Namespace {
        match kind {
            LinuxNamespaceType::User => Namespace::User,
            LinuxNamespaceType::Time => Namespace::Time,
            LinuxNamespaceType::Ipc => Namespace::Ipc,
            LinuxNamespaceType::Uts => Namespace::Uts,
            LinuxNamespaceType::Network => Namespace::Network,
            LinuxNamespaceType::Pid => Namespace::Pid,
            LinuxNamespaceType::Cgroup => Namespace::Cgroup,
            LinuxNamespaceType::Mount => Namespace::Mount,
        }
    }
}

/// Where a namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceSource {
    /// Made for this container.
    New,
    /// Joined, through this file.
    Path(PathBuf),
}

/// A device node to make in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path in the container.
    pub path: PathBuf,
    /// `b`, `c` or `p`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
}

/// Everything the child will do. See the page above.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The container's ID, for hooks and messages; the caller fills it in.
    pub id: String,
    /// The bundle directory, for hooks.
    pub bundle: PathBuf,
    /// For hooks.
    pub annotations: BTreeMap<String, String>,
    /// The `ociVersion` of the specification, for hooks.
    pub oci_version: String,
    /// Namespaces to make or join; a kind that is absent is shared with the caller.
    pub namespaces: BTreeMap<Namespace, NamespaceSource>,
    /// User IDs of a new user namespace.
    pub uid_maps: Vec<IdMap>,
    /// Group IDs of a new user namespace.
    pub gid_maps: Vec<IdMap>,
    /// Clock name (`monotonic`, `boottime`) to seconds and nanoseconds, for a new time namespace.
    pub time_offsets: BTreeMap<String, (i64, u32)>,
    /// The root filesystem, absolute, on the host; unused when the caller gives a mount.
    pub rootfs: PathBuf,
    /// Make the root mount read-only at the end.
    pub rootfs_readonly: bool,
    /// Propagation between the host's mounts and the container's.
    pub propagation: Option<Propagation>,
    /// Change the root with chroot(2) in place of pivot_root(2), as on an initial ramdisk.
    pub no_pivot: bool,
    /// Bring up the loopback interface (a network namespace was made for this container).
    pub loopback: bool,
    /// Mounts, in the order of the specification.
    pub mounts: Vec<Mount>,
    /// Device nodes beyond the default ones.
    pub devices: Vec<Device>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters; keys with dots.
    pub sysctl: BTreeMap<String, String>,
    /// Execution domain as a number for personality(2).
    pub personality: Option<u32>,
    /// The label of mounts that take one (SELinux).
    pub mount_label: Option<String>,
    /// The process to run.
    pub process: Process,
    /// The system call filter.
    pub seccomp: Option<Filter>,
    /// Run by the caller of launch, before the root is changed.
    pub prestart: Vec<Hook>,
    /// Run by the caller of launch, before the root is changed.
    pub create_runtime: Vec<Hook>,
    /// Run by the child, before the root is changed.
    pub create_container: Vec<Hook>,
    /// Run by the child just before the program.
    pub start_container: Vec<Hook>,
    /// The child notes its phases, see [`crate::trace`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trace: bool,
}

impl Plan {
    /// Makes the plan of a bundle's specification. Relative paths of the specification are taken
    /// from `bundle`, which must be absolute.
    pub fn from_spec(spec: &Spec, bundle: &Path) -> Result<Plan> {
        check_version(spec.version())?;
        if !bundle.is_absolute() {
            return Err(Error::spec("bundle", format!("{} is not absolute", bundle.display())));
        }
        let mut plan = Plan {
            bundle: bundle.to_owned(),
            oci_version: spec.version().clone(),
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            ..Plan::default()
        };
        if let Some(annotations) = spec.annotations() {
            plan.annotations =
                annotations.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::spec("root", "missing; a Linux container needs root.path"))?;
        plan.rootfs = bundle.join(root.path());
        plan.rootfs_readonly = root.readonly().unwrap_or(false);
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            plan.mounts.push(Mount::from_spec(mount, index, bundle)?);
        }
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::spec("process", "missing; there is nothing to run"))?;
        plan.process = Process::from_spec(process)?;
        if let Some(linux) = spec.linux() {
            plan.add_linux(linux)?;
        }
        if let Some(hooks) = spec.hooks() {
            #[allow(deprecated)] // Docker and its GPU tools still use them.
            let prestart = hooks.prestart();
            plan.prestart = Hook::list(prestart, "prestart")?;
            plan.create_runtime = Hook::list(hooks.create_runtime(), "createRuntime")?;
            plan.create_container = Hook::list(hooks.create_container(), "createContainer")?;
            plan.start_container = Hook::list(hooks.start_container(), "startContainer")?;
        }
        plan.check()?;
        Ok(plan)
    }

    fn add_linux(&mut self, linux: &oci_spec::runtime::Linux) -> Result<()> {
        for item in linux.namespaces().iter().flatten() {
            let kind = Namespace::from_spec(item.typ());
            let source = match item.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(Error::spec(
                            format!("linux.namespaces: {}", kind.file_name()),
                            format!("path {} is not absolute", path.display()),
                        ));
                    }
                    NamespaceSource::Path(path.clone())
                }
                _ => NamespaceSource::New,
            };
            if self.namespaces.insert(kind, source).is_some() {
                return Err(Error::spec(
                    "linux.namespaces",
                    format!("the kind \"{}\" is given twice", kind.file_name()),
                ));
            }
        }
        self.loopback = self.namespaces.get(&Namespace::Network) == Some(&NamespaceSource::New);
        self.uid_maps = IdMap::list(linux.uid_mappings());
        self.gid_maps = IdMap::list(linux.gid_mappings());
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            self.time_offsets.insert(
                clock.clone(),
                (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)),
            );
        }
        for (key, value) in linux.sysctl().iter().flatten() {
            self.sysctl.insert(key.clone(), value.clone());
        }
        for device in linux.devices().iter().flatten() {
            self.devices.push(Device::from_spec(device)?);
        }
        let paths = |list: &Option<Vec<String>>| -> Vec<PathBuf> {
            list.iter().flatten().map(PathBuf::from).collect()
        };
        self.masked_paths = paths(linux.masked_paths());
        self.readonly_paths = paths(linux.readonly_paths());
        self.mount_label = linux.mount_label().clone().filter(|label| !label.is_empty());
        self.propagation = match linux.rootfs_propagation().as_deref() {
            None | Some("") => None,
            Some(name) => Some(Propagation::parse(name).ok_or_else(|| {
                Error::spec(
                    "linux.rootfsPropagation",
                    format!("\"{name}\" is not one of private, slave, shared, unbindable"),
                )
            })?),
        };
        if let Some(personality) = linux.personality() {
            use oci_spec::runtime::LinuxPersonalityDomain as Domain;
            self.personality = Some(match personality.domain() {
                Domain::PerLinux => 0,
                Domain::PerLinux32 => 8,
            });
        }
        if let Some(seccomp) = linux.seccomp() {
            self.seccomp = crate::seccomp::compile_oci(seccomp)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let has = |kind| self.namespaces.contains_key(&kind);
        if !has(Namespace::Mount) {
            return Err(Error::spec(
                "linux.namespaces",
                "a mount namespace is needed; add {\"type\": \"mount\"}",
            ));
        }
        if (self.hostname.is_some() || self.domainname.is_some()) && !has(Namespace::Uts) {
            return Err(Error::spec(
                "hostname",
                "cannot be set without a UTS namespace; add {\"type\": \"uts\"} or leave it out",
            ));
        }
        let new_user = self.namespaces.get(&Namespace::User) == Some(&NamespaceSource::New);
        if new_user && (self.uid_maps.is_empty() || self.gid_maps.is_empty()) {
            return Err(Error::spec(
                "linux.uidMappings, linux.gidMappings",
                "a new user namespace needs both",
            ));
        }
        let mapped = !self.uid_maps.is_empty() || !self.gid_maps.is_empty();
        if mapped && !has(Namespace::User) {
            return Err(Error::spec(
                "linux.uidMappings, linux.gidMappings",
                "given without a user namespace; add {\"type\": \"user\"}",
            ));
        }
        if !self.time_offsets.is_empty() && !has(Namespace::Time) {
            return Err(Error::spec("linux.timeOffsets", "given without a time namespace"));
        }
        for key in self.sysctl.keys() {
            self.check_sysctl(key)?;
        }
        Ok(())
    }

    /// A kernel parameter may be set only where a namespace of the container's own holds it;
    /// otherwise it would change the host.
    fn check_sysctl(&self, key: &str) -> Result<()> {
        let problem = |text: &str| Err(Error::spec(format!("linux.sysctl: {key}"), text));
        let valid =
            key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
        if !valid || key.is_empty() || key.split(['.', '/']).any(str::is_empty) {
            return problem("not a name of a kernel parameter");
        }
        let dotted = key.replace('/', ".");
        let own = |kind| self.namespaces.contains_key(&kind);
        const IPC: [&str; 10] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.msg_next_id",
            "kernel.sem_next_id",
        ];
        if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            return if own(Namespace::Ipc) { Ok(()) } else { problem("needs an IPC namespace") };
        }
        if dotted.starts_with("net.") {
            return if own(Namespace::Network) {
                Ok(())
            } else {
                problem("needs a network namespace")
            };
        }
        match dotted.as_str() {
            "kernel.domainname" if own(Namespace::Uts) => Ok(()),
            "kernel.hostname" => problem("use the field hostname"),
            _ if dotted.starts_with("user.") && own(Namespace::User) => Ok(()),
            _ => problem("is not separate for each container and would change the host"),
        }
    }
}

impl Device {
    fn from_spec(device: &oci_spec::runtime::LinuxDevice) -> Result<Device> {
        let problem =
            |text: &str| Error::spec(format!("linux.devices: {}", device.path().display()), text);
        let kind = match device.typ() {
            LinuxDeviceType::B => 'b',
            LinuxDeviceType::C | LinuxDeviceType::U => 'c',
            LinuxDeviceType::P => 'p',
            LinuxDeviceType::A => return Err(problem("type \"a\" is not a type of a file")),
        };
        let number = |value: i64| {
            // A FIFO has no numbers, and tools write 0 or -1 there.
            if kind == 'p' { Ok(0) } else { u32::try_from(value) }
        };
        Ok(Device {
            path: device.path().clone(),
            kind,
            major: number(device.major()).map_err(|_| problem("major number out of range"))?,
            minor: number(device.minor()).map_err(|_| problem("minor number out of range"))?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-', '+']);
    match parts.next() {
        Some("1") => Ok(()),
        _ => Err(Error::spec(
            "ociVersion",
            format!("\"{version}\" is not supported; this runtime knows 1.0 to 1.2"),
        )),
    }
}
