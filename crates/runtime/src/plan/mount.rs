//! Mounts as data, and the meaning of mount options.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::IdMap;
use crate::error::{Error, Result};

/// How mounts and unmounts travel between mount namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// The mode.
    pub mode: PropagationMode,
    /// Also for all mounts below.
    pub recursive: bool,
}

/// The mode of a [`Propagation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PropagationMode {
    /// Neither way.
    Private,
    /// From the host only.
    Slave,
    /// Both ways.
    Shared,
    /// Neither way, and cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    /// Parses `private`, `rprivate`, `slave` and so on.
    pub fn parse(name: &str) -> Option<Propagation> {
        let (base, recursive) = match name.strip_prefix('r') {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let mode = match base {
            "private" => PropagationMode::Private,
            "slave" => PropagationMode::Slave,
            "shared" => PropagationMode::Shared,
            "unbindable" => PropagationMode::Unbindable,
            _ => return None,
        };
        Some(Propagation { mode, recursive })
    }

    /// The flag of mount(2) without `MS_REC`.
    pub fn flag(self) -> u64 {
        match self.mode {
            PropagationMode::Private => sys::mount::PRIVATE,
            PropagationMode::Slave => sys::mount::SLAVE,
            PropagationMode::Shared => sys::mount::SHARED,
            PropagationMode::Unbindable => sys::mount::UNBINDABLE,
        }
    }
}

/// A new instance of a filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filesystem {
    /// Its type, as in /proc/filesystems.
    pub kind: String,
    /// Its source.
    pub source: String,
    /// Its options, with values where they have one.
    pub options: Vec<(String, Option<String>)>,
    /// Begin with a copy of what the destination contains (tmpfs).
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute, on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A filesystem of its own.
    Filesystem(Filesystem),
    /// The container's part of the cgroup hierarchies, in the form the host has them.
    Cgroup,
}

/// A mount of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Attributes to set (`sys::mount` constants).
    #[serde(default)]
    pub set: u64,
    /// Attributes to clear, for a bind.
    #[serde(default)]
    pub clear: u64,
    /// Attributes to set here and below.
    #[serde(default)]
    pub set_recursive: u64,
    /// Attributes to clear here and below.
    #[serde(default)]
    pub clear_recursive: u64,
    /// Propagation.
    #[serde(default)]
    pub propagation: Option<Propagation>,
    /// User ID map of the mount.
    #[serde(default)]
    pub uid_maps: Vec<IdMap>,
    /// Group ID map of the mount.
    #[serde(default)]
    pub gid_maps: Vec<IdMap>,
    /// The ID map is for the mounts below, too.
    #[serde(default)]
    pub idmap_recursive: bool,
}

/// An option that sets or clears an attribute of the mount.
fn attribute(name: &str) -> Option<(u64, bool)> {
    use sys::mount::{
        ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME,
    };
    Some(match name {
        "ro" => (RDONLY, true),
        "rw" => (RDONLY, false),
        "nosuid" => (NOSUID, true),
        "suid" => (NOSUID, false),
        "nodev" => (NODEV, true),
        "dev" => (NODEV, false),
        "noexec" => (NOEXEC, true),
        "exec" => (NOEXEC, false),
        "noatime" => (NOATIME, true),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (ATIME, false),
        "strictatime" => (STRICTATIME, true),
        "nodiratime" => (NODIRATIME, true),
        "diratime" => (NODIRATIME, false),
        "nosymfollow" => (NOSYMFOLLOW, true),
        "symfollow" => (NOSYMFOLLOW, false),
        _ => return None,
    })
}

/// Options with a meaning of their own here; others go to the filesystem. Those that change an
/// attribute of the mount also exist with an `r` before them, for the mounts below.
pub const OPTIONS: &[&str] = &[
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
    "symfollow",
    "rro",
    "rrw",
    "rnosuid",
    "rsuid",
    "rnodev",
    "rdev",
    "rnoexec",
    "rexec",
    "rnoatime",
    "ratime",
    "rrelatime",
    "rnorelatime",
    "rstrictatime",
    "rnostrictatime",
    "rnodiratime",
    "rdiratime",
    "rnosymfollow",
    "rsymfollow",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
    "bind",
    "rbind",
    "idmap",
    "ridmap",
    "tmpcopyup",
    "defaults",
    "remount",
];

/// Adds one option to a set and its complement; the later one wins.
fn apply((bits, on): (u64, bool), set: &mut u64, clear: &mut u64) {
    use sys::mount::{ATIME, NOATIME, STRICTATIME};
    if bits & (NOATIME | STRICTATIME) != 0 && on {
        // The three access time modes are one field.
        *set = (*set & !ATIME) | bits;
        *clear |= ATIME;
    } else if on {
        *set |= bits;
        *clear &= !bits;
    } else {
        *set &= !bits;
        *clear |= bits;
    }
}

impl Mount {
    pub(super) fn from_spec(
        mount: &oci_spec::runtime::Mount,
        index: usize,
        bundle: &Path,
    ) -> Result<Mount> {
        let destination = absolute(mount.destination());
        let problem = |text: String| {
            Error::spec(format!("mounts[{index}] ({})", mount.destination().display()), text)
        };
        if destination.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(problem("the destination contains a null character".to_owned()));
        }
        let mut result = Mount {
            destination,
            kind: MountKind::Cgroup,
            set: 0,
            clear: 0,
            set_recursive: 0,
            clear_recursive: 0,
            propagation: None,
            uid_maps: IdMap::list(mount.uid_mappings()),
            gid_maps: IdMap::list(mount.gid_mappings()),
            idmap_recursive: false,
        };
        let mut bind = None;
        let mut filesystem =
            Filesystem { kind: mount.typ().clone().unwrap_or_default(), ..Filesystem::default() };
        let mut mapped = false;
        for option in mount.options().iter().flatten() {
            if let Some(change) = attribute(option) {
                apply(change, &mut result.set, &mut result.clear);
            } else if let Some(change) = option.strip_prefix('r').and_then(attribute) {
                apply(change, &mut result.set_recursive, &mut result.clear_recursive);
            } else if let Some(propagation) = Propagation::parse(option) {
                result.propagation = Some(propagation);
            } else {
                match option.as_str() {
                    "bind" => bind = Some(bind.unwrap_or(false)),
                    "rbind" => bind = Some(true),
                    "idmap" => mapped = true,
                    "ridmap" => {
                        mapped = true;
                        result.idmap_recursive = true;
                    }
                    "tmpcopyup" => filesystem.copy_up = true,
                    // Words for the reader, not for the kernel.
                    "defaults" | "remount" | "auto" | "noauto" | "user" | "nouser" | "_netdev"
                    | "nofail" | "iversion" | "noiversion" | "silent" | "loud" | "nomand"
                    | "async" => {}
                    // Labels and ownership that other layers already applied to a volume.
                    "z" | "Z" | "" => {}
                    other => {
                        let (key, value) = match other.split_once('=') {
                            Some((key, value)) => (key, Some(value.to_owned())),
                            None => (other, None),
                        };
                        filesystem.options.push((key.to_owned(), value));
                    }
                }
            }
        }
        if mapped && result.uid_maps.is_empty() {
            return Err(problem(
                "\"idmap\" needs uidMappings and gidMappings of the mount".to_owned(),
            ));
        }
        if result.uid_maps.is_empty() != result.gid_maps.is_empty() {
            return Err(problem("uidMappings and gidMappings come together".to_owned()));
        }
        let source = mount.source().clone().unwrap_or_default();
        if bind.is_some() || filesystem.kind == "bind" {
            if source.as_os_str().is_empty() {
                return Err(problem("a bind needs a source".to_owned()));
            }
            result.kind =
                MountKind::Bind { source: bundle.join(source), recursive: bind.unwrap_or(false) };
        } else if filesystem.kind == "cgroup" || filesystem.kind == "cgroup2" {
            result.kind = MountKind::Cgroup;
        } else {
            if filesystem.kind.is_empty() {
                return Err(problem("neither a type nor \"bind\" is given".to_owned()));
            }
            filesystem.source = source.to_string_lossy().into_owned();
            result.kind = MountKind::Filesystem(filesystem);
        }
        Ok(result)
    }
}

/// The specification tolerates relative destinations and takes them from the root.
fn absolute(path: &Path) -> PathBuf {
    let mut result = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir => {
                result.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::mount::{ATIME, NOATIME, NODEV, NOSUID, RDONLY};

    fn parse(json: serde_json::Value) -> Result<Mount> {
        Mount::from_spec(&serde_json::from_value(json).unwrap(), 0, Path::new("/bundle"))
    }

    #[test]
    fn options_of_a_bind() {
        let mount = parse(serde_json::json!({
            "destination": "data/../etc/x", "source": "rel", "options": ["rbind", "rro", "nosuid", "rw", "rslave", "noatime"]
        }))
        .unwrap();
        assert_eq!(mount.destination, Path::new("/etc/x"));
        assert_eq!(mount.kind, MountKind::Bind { source: "/bundle/rel".into(), recursive: true });
        assert_eq!(mount.set, NOSUID | NOATIME);
        assert_eq!(mount.clear, RDONLY | ATIME);
        assert_eq!(mount.set_recursive, RDONLY);
        assert_eq!(mount.propagation, Propagation::parse("rslave"));
    }

    #[test]
    fn options_of_a_filesystem() {
        let mount = parse(serde_json::json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k", "nodev", "dev"]
        }))
        .unwrap();
        let MountKind::Filesystem(filesystem) = mount.kind else { panic!() };
        assert_eq!(filesystem.options.len(), 2);
        assert_eq!(mount.set & NODEV, 0, "the later option wins");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(serde_json::json!({"destination": "/x", "options": ["bind"]})).is_err());
        assert!(parse(serde_json::json!({"destination": "/x"})).is_err());
        assert!(
            parse(serde_json::json!({"destination": "/x", "source": "/y", "options": ["bind", "idmap"]}))
                .is_err()
        );
    }
}
