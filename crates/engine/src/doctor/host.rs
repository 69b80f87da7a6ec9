//! Facts of this host, read from `/proc` and `/sys`.

use std::path::{Path, PathBuf};

/// Release of the kernel.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor number of a kernel's release.
pub(crate) fn kernel_number(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    (next(), next())
}

/// A field of `/etc/os-release`.
pub(crate) fn os_release(key: &str) -> Option<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// What follows `key` at the beginning of a line of a file.
pub(crate) fn line_of(path: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned())
}

/// A file's text without the newline at its end.
pub(crate) fn text(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A file holds `1` or `Y`.
pub(crate) fn yes(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|t| matches!(t.trim(), "1" | "Y"))
}

/// The nearest directory that exists: the path itself or one above it.
pub(crate) fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Name of the filesystem that a path is on.
pub(crate) fn filesystem(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(existing(path)) else { return "unknown".to_owned() };
    let magic = stat.f_type as u64 & 0xffff_ffff;
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x0102_1997 => "9p",
        _ => return format!("{magic:#x}"),
    }
    .to_owned()
}

/// Security modules of the kernel that are on.
pub(crate) fn security_modules() -> Vec<String> {
    if let Some(list) = text("/sys/kernel/security/lsm") {
        return list.split(',').filter(|m| !m.is_empty()).map(ToOwned::to_owned).collect();
    }
    // Without securityfs only these two show themselves.
    let mut found = Vec::new();
    if yes(Path::new("/sys/module/apparmor/parameters/enabled")) {
        found.push("apparmor".to_owned());
    }
    if Path::new("/sys/fs/selinux/enforce").exists() {
        found.push("selinux".to_owned());
    }
    found
}

/// The kernel filters system calls.
pub(crate) fn has_seccomp() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
        || line_of(Path::new("/proc/self/status"), "Seccomp:").is_some()
}

/// As `info` lists them: `name=seccomp,profile=builtin`.
pub(crate) fn security_options() -> Vec<String> {
    let modules = security_modules();
    let mut all: Vec<String> = ["apparmor", "selinux"]
        .iter()
        .filter(|m| modules.iter().any(|have| have == **m))
        .map(|m| format!("name={m}"))
        .collect();
    if has_seccomp() {
        all.push("name=seccomp,profile=builtin".to_owned());
    }
    if Path::new("/proc/self/ns/cgroup").exists() {
        all.push("name=cgroupns".to_owned());
    }
    all
}

/// An id that stays the same as long as this machine and this data root do.
pub(crate) fn engine_id(data_root: &Path) -> String {
    use sha2::Digest;
    use std::os::unix::ffi::OsStrExt;
    let mut hash = sha2::Sha256::new();
    hash.update(text("/etc/machine-id").unwrap_or_default().as_bytes());
    hash.update([0]);
    hash.update(data_root.as_os_str().as_bytes());
    let digest = hash.finalize();
    let hex: Vec<String> = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let group = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().concat();
    [group(0, 4), group(4, 6), group(6, 8), group(8, 10), group(10, 16)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        assert_eq!(kernel_number("6.18.3-amd64"), (6, 18));
        assert_eq!(kernel_number("5.4"), (5, 4));
        assert_eq!(kernel_number(""), (0, 0));
        assert!(kernel_number(&kernel()).0 >= 4);
        assert_eq!(existing(Path::new("/proc/nonexistent/x")), Path::new("/proc"));
        assert_eq!(engine_id(Path::new("/a")), engine_id(Path::new("/a")));
        assert_ne!(engine_id(Path::new("/a")), engine_id(Path::new("/b")));
        assert_eq!(engine_id(Path::new("/a")).len(), 36);
    }
}
