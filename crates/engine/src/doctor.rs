//! What this host offers to containers, what is missing, what that costs, and what to do.

use std::path::Path;
use std::time::Duration;

use runtime::cgroup::{CgroupRoot, Mode};
use serde::Serialize;

use crate::settings::Settings;

pub(crate) mod host;
mod probe;

use host::{existing, filesystem, kernel, kernel_number, line_of, text};
use probe::Overlay;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Worth knowing; nothing is lost.
    Note,
    /// Something is slower or weaker than it could be.
    Weak,
    /// Something does not work.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// What it belongs to: `kernel`, `cgroups`, `storage` …
    pub area: &'static str,
    /// What was looked at.
    pub name: String,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What its state costs; empty when it is good.
    pub cost: &'static str,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: &'static str,
}

#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn good(&mut self, area: &'static str, name: &str, found: impl Into<String>) {
        self.add(area, name, State::Good, found, "", "");
    }

    fn add(
        &mut self,
        area: &'static str,
        name: &str,
        state: State,
        found: impl Into<String>,
        cost: &'static str,
        remedy: &'static str,
    ) {
        let (name, found) = (name.to_owned(), found.into());
        self.0.push(Finding { area, name, state, found, cost, remedy });
    }

    /// Good when it is there, else the rest.
    fn check(
        &mut self,
        area: &'static str,
        name: &str,
        there: bool,
        state: State,
        cost: &'static str,
        remedy: &'static str,
    ) {
        match there {
            true => self.good(area, name, "yes"),
            false => self.add(area, name, state, "no", cost, remedy),
        }
    }
}

/// Looks at everything. The caller must have one thread: two probes fork.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut report = Report::default();
    look_at_kernel(&mut report);
    look_at_cgroups(&mut report);
    look_at_storage(&mut report, settings);
    look_at_namespaces(&mut report);
    look_at_security(&mut report);
    look_at_limits(&mut report);
    look_at_pressure(&mut report);
    report.0
}

fn look_at_kernel(report: &mut Report) {
    let release = kernel();
    let number = kernel_number(&release);
    let (state, cost) = match number {
        n if n >= (6, 12) => (State::Good, ""),
        n if n >= (5, 12) => {
            (State::Note, "slower ways are taken where newer kernels have faster ones")
        }
        n if n >= (5, 6) => (
            State::Weak,
            "no id-mapped mounts, no mount_setattr: read-only binds are not recursive",
        ),
        _ => (State::Missing, "openat2 and detached mounts are needed to start a container"),
    };
    let remedy =
        if state == State::Good { "" } else { "install a newer kernel; 6.12 has all that is used" };
    report.add("kernel", "release", state, release, cost, remedy);
    report.good("kernel", "architecture", std::env::consts::ARCH);
    report.check(
        "kernel",
        "exit codes of reaped processes",
        probe::keeps_exit_codes(),
        State::Note,
        "when the keeper is killed, exit codes of containers that end before its successor is there are lost",
        "a kernel of 6.15 or newer keeps them (PIDFD_INFO_EXIT)",
    );
}

fn look_at_cgroups(report: &mut Report) {
    let root = CgroupRoot::detect().unwrap_or_default();
    let remedy = "boot with systemd.unified_cgroup_hierarchy=1, or mount version 2 only";
    match root.mode() {
        Mode::V2 => report.good("cgroups", "mode", "version 2"),
        Mode::Hybrid => report.add("cgroups", "mode", State::Note, "hybrid: controllers on version 1",
            "limits are set one hierarchy at a time; devices are listed instead of filtered by a program", remedy),
        Mode::V1 => report.add("cgroups", "mode", State::Note, "version 1",
            "limits are set one hierarchy at a time; no memory pressure, no kill of a whole cgroup at once", remedy),
        Mode::None => report.add("cgroups", "mode", State::Missing, "nothing is mounted",
            "no container can be limited, frozen or counted", "mount -t cgroup2 none /sys/fs/cgroup"),
    }
    let have = crate::info::controllers(&root);
    let has = |name: &str| have.iter().any(|c| c == name);
    for (name, there, cost) in [
        ("cpu", has("cpu"), "--cpus, --cpu-shares and --cpu-quota do not work"),
        ("cpuset", has("cpuset"), "--cpuset-cpus and --cpuset-mems do not work"),
        ("memory", has("memory"), "--memory does not work, stats shows no memory"),
        ("pids", has("pids"), "--pids-limit does not work: a fork bomb takes the host with it"),
        ("io", has("io") || has("blkio"), "--blkio-weight and --device-*-bps do not work"),
        ("freezer", has("freezer"), "pause does not work"),
        ("devices", has("devices"), "every device the container can make a node for is open to it"),
    ] {
        report.check("cgroups", name, there, State::Weak, cost,
            "enable the controller in the kernel's configuration or on its command line (cgroup_enable=)");
    }
}

fn look_at_storage(report: &mut Report, settings: &Settings) {
    let root = existing(&settings.data_root);
    let made =
        if root == settings.data_root { "" } else { " (not made yet; this is where it will be)" };
    let kind = filesystem(&root);
    let place = format!("{} on {kind}{made}", settings.data_root.display());
    match kind.as_str() {
        "overlay" | "nfs" | "fuse" | "9p" => report.add(
            "storage",
            "data root",
            State::Missing,
            place,
            "overlayfs can't write on top of this filesystem, so no container starts",
            "name a data root on ext4, xfs or btrfs with --data-root",
        ),
        "tmpfs" => report.add(
            "storage",
            "data root",
            State::Weak,
            place,
            "images and containers are in memory and gone after a reboot",
            "name a data root on ext4, xfs or btrfs with --data-root",
        ),
        _ => report.good("storage", "data root", place),
    }
    look_at_disk(report, &root);
    let overlay = probe::has_filesystem("overlay");
    report.check(
        "storage",
        "overlayfs",
        overlay,
        State::Missing,
        "no container starts",
        "load the module: modprobe overlay",
    );
    if overlay {
        for (option, name, cost, remedy) in [
            (
                Overlay::LowerPath,
                "overlayfs: layers one by one",
                "images have at most as many layers as fit in one page of options",
                "a kernel of 6.5 or newer",
            ),
            (
                Overlay::LowerDescriptor,
                "overlayfs: layers by descriptor",
                "layers are named by paths",
                "a kernel of 6.13 or newer",
            ),
            (
                Overlay::Volatile,
                "overlayfs: volatile",
                "--rm containers wait for the disk when they are removed",
                "a kernel of 5.10 or newer",
            ),
            (
                Overlay::Metacopy,
                "overlayfs: metacopy",
                "chown and chmod copy whole files",
                "a kernel of 4.19 or newer",
            ),
            (
                Overlay::UserXattr,
                "overlayfs: userxattr",
                "no overlay without root",
                "a kernel of 5.11 or newer",
            ),
        ] {
            report.check("storage", name, probe::overlay(option), State::Note, cost, remedy);
        }
    }
    let erofs = probe::has_filesystem("erofs");
    report.check(
        "storage",
        "EROFS",
        erofs,
        State::Note,
        "layers are unpacked into directories: loading is slower, and pages are not shared as well",
        "load the module: modprobe erofs",
    );
    if erofs {
        look_at_images(report, settings);
    }
    match probe::id_mapped_mounts(&root) {
        None => report.good("storage", "id-mapped mounts", "yes"),
        Some(why) => report.add(
            "storage",
            "id-mapped mounts",
            State::Note,
            why,
            "containers with a user namespace need their files' owners changed first",
            "a kernel of 5.12 or newer and ext4, xfs or btrfs",
        ),
    }
}

/// Whether images are mounted from their archives: tried in the data root if there is one, since it
/// depends on the disk's filesystem too.
fn look_at_images(report: &mut Report, settings: &Settings) {
    const NAME: &str = "images mounted from archives";
    const COST: &str =
        "layers are unpacked into directories: loading is slower, and takes more disk";
    const REMEDY: &str = "a kernel of 6.12 or newer";
    if !settings.data_root.join("version").exists() {
        let new = kernel_number(&kernel()) >= (6, 12);
        report.check("storage", NAME, new, State::Note, COST, REMEDY);
        return;
    }
    let opened = store::Store::open(&settings.data_root, store::OpenOptions::default());
    match opened.map(|store| store.erofs_form()) {
        Ok((store::Form::ErofsFiles, _)) => report.good("storage", NAME, "yes"),
        Ok((store::Form::ErofsLoop, why)) => {
            let cost = "a loop device is used for each archive in use";
            report.add("storage", NAME, State::Note, why, cost, REMEDY);
        }
        Ok((store::Form::Directories, why)) => {
            report.add("storage", NAME, State::Note, why, COST, REMEDY);
        }
        Err(error) => {
            let remedy = "check the data root, or name another with --data-root";
            report.add("storage", NAME, State::Weak, error.to_string(), COST, remedy);
        }
    }
}

fn look_at_disk(report: &mut Report, root: &Path) {
    match probe::sync_latency(root) {
        Ok(time) => {
            let slow = time > Duration::from_millis(20);
            let state = if slow { State::Weak } else { State::Good };
            report.add(
                "storage",
                "fsync of 4 KiB",
                state,
                format!("{:.2} ms", time.as_secs_f64() * 1000.0),
                if slow { "loading and committing images waits for the disk" } else { "" },
                if slow { "put the data root on a faster disk" } else { "" },
            );
        }
        Err(e) => report.add(
            "storage",
            "fsync of 4 KiB",
            State::Weak,
            e.to_string(),
            "nothing can be written below the data root",
            "check its permissions and that it is not read-only",
        ),
    }
    let Ok(stat) = rustix::fs::statvfs(root) else { return };
    let gib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) as f64 / (1u64 << 30) as f64;
    let found = format!("{:.1} GiB of {:.1} GiB free", gib(stat.f_bavail), gib(stat.f_blocks));
    let short = stat.f_bavail.saturating_mul(20) < stat.f_blocks || gib(stat.f_bavail) < 1.0;
    let remedy = "wherry system prune gives back what nothing uses";
    match short {
        true => report.add(
            "storage",
            "disk space",
            State::Weak,
            found,
            "images can't be loaded when it is full",
            remedy,
        ),
        false => report.good("storage", "disk space", found),
    }
    // btrfs counts no inodes.
    if stat.f_files > 0 {
        let found = format!("{} of {} free", stat.f_favail, stat.f_files);
        match stat.f_favail.saturating_mul(20) < stat.f_files {
            true => report.add(
                "storage",
                "inodes",
                State::Weak,
                found,
                "no file can be made when there is none left",
                remedy,
            ),
            false => report.good("storage", "inodes", found),
        }
    }
}

fn look_at_namespaces(report: &mut Report) {
    for (name, state, cost) in [
        ("mnt", State::Missing, "no container starts"),
        ("pid", State::Missing, "no container starts"),
        ("uts", State::Missing, "no container starts"),
        ("ipc", State::Missing, "no container starts"),
        ("net", State::Missing, "only --network host works"),
        ("cgroup", State::Weak, "containers see the cgroups of the host"),
        ("user", State::Note, "no user namespaces for containers"),
        ("time", State::Note, "containers have the clocks of the host"),
    ] {
        let there = Path::new("/proc/self/ns").join(name).exists();
        report.check(
            "namespaces",
            name,
            there,
            state,
            cost,
            "build the kernel with this namespace",
        );
    }
    if let Some(most) = text("/proc/sys/user/max_user_namespaces") {
        match most.as_str() {
            "0" => report.add(
                "namespaces",
                "user namespaces at the most",
                State::Note,
                most,
                "no user namespaces for containers",
                "sysctl user.max_user_namespaces=15000",
            ),
            _ => report.good("namespaces", "user namespaces at the most", most),
        }
    }
}

fn look_at_security(report: &mut Report) {
    let modules = host::security_modules();
    let strong = modules.iter().any(|m| matches!(m.as_str(), "apparmor" | "selinux"));
    let list = if modules.is_empty() { "none".to_owned() } else { modules.join(", ") };
    match strong {
        true => report.good("security", "security modules", list),
        false => report.add(
            "security",
            "security modules",
            State::Note,
            list,
            "capabilities, seccomp and masked paths protect the host without a second wall",
            "boot with AppArmor or SELinux",
        ),
    }
    report.check(
        "security",
        "seccomp",
        host::has_seccomp(),
        State::Weak,
        "every system call is open to containers",
        "build the kernel with CONFIG_SECCOMP_FILTER",
    );
    let actions = text("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if !actions.is_empty() {
        report.good("security", "seccomp actions", actions);
    }
    let have = line_of(Path::new("/proc/self/status"), "CapEff:")
        .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
        .unwrap_or(0);
    for (bit, name, cost) in [
        (21u32, "CAP_SYS_ADMIN", "no container starts"),
        (
            24,
            "CAP_SYS_RESOURCE",
            "limits can't be raised above the inherited ones: --ulimit may fail",
        ),
        (12, "CAP_NET_ADMIN", "networks can't be set up"),
        (27, "CAP_MKNOD", "device nodes are bound from the host instead of made"),
    ] {
        let state = if bit == 21 { State::Missing } else { State::Weak };
        report.check(
            "security",
            name,
            have & (1u64 << bit) != 0,
            state,
            cost,
            "run as root, in a shell that has all capabilities",
        );
    }
}

fn look_at_limits(report: &mut Report) {
    let (_, open) = sys::privilege::get_rlimit(0, 7).unwrap_or((0, 0));
    let shown = if open == u64::MAX { "unlimited".to_owned() } else { open.to_string() };
    match open < 65_536 {
        true => report.add(
            "limits",
            "open files",
            State::Weak,
            shown,
            "many containers, or one with many files, run into it",
            "ulimit -Hn 1048576, or LimitNOFILE= of the unit",
        ),
        false => report.good("limits", "open files", shown),
    }
    for (name, path, least, cost, remedy) in [
        (
            "process ids",
            "/proc/sys/kernel/pid_max",
            32_768u64,
            "few processes fit on this host",
            "sysctl kernel.pid_max=4194304",
        ),
        (
            "inotify instances a user",
            "/proc/sys/fs/inotify/max_user_instances",
            128,
            "programs in containers that watch files share this number and fail beyond it",
            "sysctl fs.inotify.max_user_instances=8192",
        ),
        (
            "mounts a namespace",
            "/proc/sys/fs/mount-max",
            10_000,
            "containers with many mounts fail",
            "sysctl fs.mount-max=100000",
        ),
        (
            "keys of root",
            "/proc/sys/kernel/keys/root_maxkeys",
            10_000,
            "each container takes a session keyring",
            "sysctl kernel.keys.root_maxkeys=1000000",
        ),
    ] {
        let Some(found) = text(path) else { continue };
        match found.parse::<u64>().unwrap_or(0) < least {
            true => report.add("limits", name, State::Weak, found, cost, remedy),
            false => report.good("limits", name, found),
        }
    }
}

fn look_at_pressure(report: &mut Report) {
    for kind in ["cpu", "memory", "io"] {
        let Some(found) = text(&format!("/proc/pressure/{kind}")) else {
            report.add(
                "pressure",
                kind,
                State::Note,
                "not counted",
                "stats and this report can't say what the host waits for",
                "boot with psi=1, on a kernel built with CONFIG_PSI",
            );
            continue;
        };
        let some = found.lines().find_map(|l| l.strip_prefix("some ")).unwrap_or_default();
        let average = some
            .split(' ')
            .find_map(|f| f.strip_prefix("avg60="))
            .and_then(|v| v.parse::<f64>().ok())
            .unwrap_or(0.0);
        let shown = format!("{average:.2} % of the last minute waited");
        match average > 40.0 {
            true => report.add(
                "pressure",
                kind,
                State::Weak,
                shown,
                "containers wait for this host, whatever their limits",
                "wherry stats shows who uses it",
            ),
            false => report.good("pressure", kind, shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_looked_at_and_nothing_weak_is_left_unexplained() {
        let settings =
            Settings { data_root: std::env::temp_dir().join("nope"), ..Settings::default() };
        let all = examine(&settings);
        for area in ["kernel", "cgroups", "storage", "namespaces", "security", "limits", "pressure"]
        {
            assert!(all.iter().any(|f| f.area == area), "{area}");
        }
        for finding in &all {
            if finding.state == State::Good {
                assert_eq!(finding.cost, "", "{finding:?}");
            } else {
                assert_ne!(finding.cost, "", "{finding:?}");
                assert_ne!(finding.remedy, "", "{finding:?}");
            }
        }
        assert!(!std::env::temp_dir().join("nope").exists());
    }
}
