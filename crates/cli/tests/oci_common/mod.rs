//! A bundle, a state directory of its own, and `wherry oci` run on them.
// The lint knows `#[test]` functions only, not what they call.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn unique() -> String {
    format!("wherry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How a command ended and what it (or its container) wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) id: String,
    files: AtomicU32,
}

impl Bundle {
    /// A bundle with busybox and this specification.
    pub(crate) fn new(spec: &Value) -> Bundle {
        let id = unique();
        let dir = std::env::temp_dir().join(&id);
        std::fs::create_dir(&dir).unwrap();
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = rootfs.join("bin/busybox");
        std::fs::copy("/bin/busybox", &busybox).expect("install the package busybox-static");
        let list = Command::new(&busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let bundle = Bundle { dir, id, files: AtomicU32::new(0) };
        let mut spec = spec.clone();
        if spec["linux"]["cgroupsPath"].is_null() {
            spec["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
        }
        bundle.write_spec(&spec);
        bundle
    }

    pub(crate) fn write_spec(&self, spec: &Value) {
        std::fs::write(self.dir.join("config.json"), spec.to_string()).unwrap();
    }

    pub(crate) fn spec(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.join("config.json")).unwrap()).unwrap()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
        command.arg("oci").arg("--root").arg(self.dir.join("state"));
        command.arg("--log").arg(self.dir.join("log")).args(["--log-format", "json"]);
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Runs a subcommand. Output goes through files, because a container keeps them open.
    pub(crate) fn oci(&self, args: &[&str]) -> Output {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let out = self.dir.join(format!("out-{number}"));
        let err = self.dir.join(format!("err-{number}"));
        let status = self
            .command(args)
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        let read =
            |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Output { code: status.code().unwrap_or(-1), out: read(&out), err: read(&err) }
    }

    /// As [`Bundle::oci`], and it must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Output {
        let output = self.oci(args);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output
    }

    /// `run` of the bundle.
    pub(crate) fn run(&self) -> Output {
        self.oci(&["run", &self.id])
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id]).out).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_status(&self, wanted: &str) {
        wait_for(wanted, || self.status() == wanted);
    }

    /// Directories of this test's cgroups.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let root = runtime::cgroup::CgroupRoot::detect().unwrap();
        root.mount_points()
            .map(|mount| mount.join("wherry-tests").join(&self.id))
            .filter(|path| path.exists())
            .collect()
    }

    /// Nothing of the container may be left on the host.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "mounts are left: {mounts}");
        assert!(!self.dir.join("state").join(&self.id).exists(), "state is left");
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let root = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            assert!(!root.starts_with(self.rootfs()), "a process is left: {entry:?}");
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Ok(entries) = std::fs::read_dir(self.dir.join("state")) {
            for entry in entries.flatten() {
                let id = entry.file_name().into_string().unwrap_or_default();
                let _ = self.command(&["delete", "--force", &id]).output();
            }
        }
        if std::thread::panicking() {
            eprintln!("log: {}", std::fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits until a condition holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited too long for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A specification as Docker would write it.
pub(crate) fn spec(args: &[&str]) -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_MKNOD",
    ];
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin", "A=b"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}
            ],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/nonexistent"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

pub(crate) fn sh(script: &str) -> Value {
    spec(&["sh", "-c", script])
}

/// Runs a script in a container of this specification's kind.
pub(crate) fn run(spec: &Value) -> Output {
    let bundle = Bundle::new(spec);
    let output = bundle.run();
    bundle.assert_clean();
    output
}
