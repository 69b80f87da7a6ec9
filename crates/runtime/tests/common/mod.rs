//! A bundle with a busybox root filesystem, and what tests of this crate share.
// The lint knows `#[test]` functions only, not what they call.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use oci_spec::runtime::Spec;
use runtime::{Descriptors, Error, Plan};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name nobody else uses.
pub(crate) fn unique() -> String {
    format!("wherry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that is removed at the end of the test.
pub(crate) struct Temp(pub(crate) PathBuf);

impl Temp {
    pub(crate) fn new() -> Temp {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a root filesystem with busybox.
pub(crate) fn rootfs(path: &Path) {
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "root"] {
        std::fs::create_dir_all(path.join(name)).unwrap();
    }
    let busybox = path.join("bin/busybox");
    std::fs::copy("/bin/busybox", &busybox).expect("install the package busybox-static");
    for applet in std::process::Command::new(&busybox)
        .arg("--list")
        .output()
        .unwrap()
        .stdout
        .split(|b| *b == b'\n')
    {
        let applet = String::from_utf8_lossy(applet);
        if !applet.is_empty() && applet != "busybox" {
            std::os::unix::fs::symlink("busybox", path.join("bin").join(&*applet)).unwrap();
        }
    }
    std::fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
}

/// A specification as Docker would write it, without seccomp and cgroups.
pub(crate) fn spec(args: &[&str]) -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_NET_BIND_SERVICE",
        "CAP_MKNOD",
        "CAP_DAC_OVERRIDE",
    ];
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

pub(crate) fn plan(spec: &Value, bundle: &Path) -> Result<Plan, Error> {
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    Plan::from_spec(&spec, bundle)
}

/// How a run ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: u8,
    pub(crate) text: String,
}

pub(crate) fn null() -> OwnedFd {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
}

/// Runs a plan to its end.
pub(crate) fn run(
    plan: &Plan,
    cgroup: Option<&runtime::Cgroup>,
    mut d: Descriptors,
) -> Result<Output, Error> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    d.stdio = Some([null(), write.try_clone().unwrap(), write]);
    let mut launching = runtime::launch(plan, cgroup, d)?;
    launching.wait_ready()?;
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    let exit = sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap().unwrap();
    Ok(Output { code: exit.shell_code(), text })
}

/// Makes a bundle and runs a specification in it.
pub(crate) fn run_spec(spec: &Value) -> Result<Output, Error> {
    let bundle = Temp::new();
    rootfs(&bundle.0.join("rootfs"));
    run(&plan(spec, &bundle.0)?, None, Descriptors::default())
}
