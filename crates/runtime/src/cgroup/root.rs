//! The cgroup hierarchies of this host.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// A version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Controllers, or `name=systemd` and the like for one without.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

impl Hierarchy {
    /// Whether the controller is in this hierarchy.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// How a host arranges its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 only.
    V1,
    /// Controllers on version 1, and a version 2 hierarchy beside them.
    Hybrid,
    /// Version 2 only.
    V2,
    /// Nothing is mounted.
    None,
}

/// The mounted hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupRoot {
    /// Version 1 hierarchies.
    pub v1: Vec<Hierarchy>,
    /// Where version 2 is mounted.
    pub v2: Option<PathBuf>,
}

/// Words among a v1 mount's options that are no controllers.
const NOT_CONTROLLERS: [&str; 9] = [
    "rw",
    "ro",
    "xattr",
    "clone_children",
    "noprefix",
    "cpuset_v2_mode",
    "favordynmods",
    "nofavordynmods",
    "all",
];

impl CgroupRoot {
    /// Finds them.
    pub fn detect() -> Result<CgroupRoot> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read_to_string(path).doing(|| format!("read {path}"))?;
        Ok(CgroupRoot::parse(&text))
    }

    /// Reads the text of /proc/PID/mountinfo.
    pub fn parse(mountinfo: &str) -> CgroupRoot {
        let mut result = CgroupRoot::default();
        for line in mountinfo.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let mut back = back.split(' ');
            let (Some(kind), _, Some(options)) = (back.next(), back.next(), back.next()) else {
                continue;
            };
            let Some(mount_point) = front.split(' ').nth(4) else { continue };
            let mount_point = PathBuf::from(unescape(mount_point));
            match kind {
                "cgroup2" if result.v2.is_none() => result.v2 = Some(mount_point),
                "cgroup" => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|word| {
                            !NOT_CONTROLLERS.contains(word)
                                && (!word.contains('=') || word.starts_with("name="))
                        })
                        .map(str::to_owned)
                        .collect();
                    let known = result.v1.iter().any(|h| h.controllers == controllers);
                    if !controllers.is_empty() && !known {
                        result.v1.push(Hierarchy { controllers, mount_point });
                    }
                }
                _ => {}
            }
        }
        result
    }

    /// The arrangement.
    pub fn mode(&self) -> Mode {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => Mode::None,
            (true, Some(_)) => Mode::V2,
            (false, None) => Mode::V1,
            (false, Some(_)) => Mode::Hybrid,
        }
    }

    /// The v1 hierarchy with a controller.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// All mount points.
    pub fn mount_points(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|h| h.mount_point.as_path()).chain(self.v2.as_deref())
    }
}

/// mountinfo writes a space as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut result = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes
            .get(at + 1..at + 4)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) => {
                result.push(value);
                at += 4;
            }
            _ => {
                result.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

/// The path below the hierarchies for `linux.cgroupsPath`.
///
/// With `systemd`, the form `slice:prefix:name` becomes the path that systemd would use
/// (`a-b.slice` lies in `a.slice`). An absent path becomes `default`.
pub fn path_from_spec(path: Option<&str>, systemd: bool, default: &str) -> String {
    let Some(path) = path.filter(|path| !path.is_empty()) else { return clean(default) };
    if systemd {
        let mut parts = path.split(':');
        if let (Some(slice), Some(prefix), Some(name)) = (parts.next(), parts.next(), parts.next())
        {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            let unit = match (prefix.is_empty(), name.ends_with(".slice")) {
                (_, true) => name.to_owned(),
                (true, false) => format!("{name}.scope"),
                (false, false) => format!("{prefix}-{name}.scope"),
            };
            return clean(&format!("{}/{unit}", expand_slice(slice)));
        }
    }
    clean(path)
}

/// `a-b-c.slice` to `a.slice/a-b.slice/a-b-c.slice`.
fn expand_slice(slice: &str) -> String {
    let base = slice.strip_suffix(".slice").unwrap_or(slice);
    if base.is_empty() || base == "-" {
        return String::new();
    }
    let mut result = String::new();
    let mut prefix = String::new();
    for part in base.split('-').filter(|part| !part.is_empty()) {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        result.push_str(&format!("/{prefix}.slice"));
    }
    result
}

/// Relative to a hierarchy's root, without `.` and `..`.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_host() {
        let root = CgroupRoot::parse(
            "29 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             30 23 0:27 / /sys/fs/cgroup/my\\040dir rw - cgroup cgroup rw,xattr,name=systemd\n\
             31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             nonsense\n",
        );
        assert_eq!(root.mode(), Mode::Hybrid);
        assert!(root.hierarchy("cpuacct").is_some());
        assert_eq!(root.v1[1].controllers, ["name=systemd"]);
        assert_eq!(root.v1[1].mount_point, Path::new("/sys/fs/cgroup/my dir"));
    }

    #[test]
    fn paths() {
        assert_eq!(path_from_spec(None, false, "/wherry/x"), "wherry/x");
        assert_eq!(path_from_spec(Some("/a/../../b"), false, ""), "b");
        assert_eq!(
            path_from_spec(Some("a-b.slice:docker:x"), true, ""),
            "a.slice/a-b.slice/docker-x.scope"
        );
        assert_eq!(path_from_spec(Some(":crio:x"), true, ""), "system.slice/crio-x.scope");
        assert_eq!(path_from_spec(Some("/plain"), true, ""), "plain");
    }
}
