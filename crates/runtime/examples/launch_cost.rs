//! What a launch costs on this machine: medians, printed. Needs root and busybox.
//!
//! `cargo run --release -p wherry-runtime --example launch_cost [ROUNDS]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::os::fd::AsFd;
use std::time::Instant;

use oci_spec::runtime::LinuxResources;
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::{Descriptors, Plan};
use serde_json::json;

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(50);
    let dir = std::env::temp_dir().join(format!("wherry-launch-cost-{}", std::process::id()));
    for name in ["bin", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(dir.join("rootfs").join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.join("rootfs/bin/true")).unwrap();
    let mount = |to: &str, kind: &str| json!({"destination": to, "type": kind, "source": kind, "options": ["nosuid", "noexec"]});
    let spec = json!({
        "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "x",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": ["PATH=/bin"],
            "noNewPrivileges": true},
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/dev/pts", "devpts"),
            mount("/sys", "sysfs"), mount("/sys/fs/cgroup", "cgroup"), mount("/dev/mqueue", "mqueue"),
            mount("/dev/shm", "tmpfs")],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    let mut plan = Plan::from_spec(&serde_json::from_value(spec).unwrap(), &dir).unwrap();
    let profile = runtime::seccomp::default_profile();
    let arch = runtime::seccomp::Arch::NATIVE;
    let started = Instant::now();
    let filter = runtime::seccomp::compile(&profile, Default::default(), arch).unwrap();
    println!("compile the default seccomp profile: {:.3} ms", ms(started));
    plan.seccomp = Some(filter);
    let root = CgroupRoot::detect().unwrap();
    let resources = LinuxResources::default();
    let base = format!("launch-cost-{}", std::process::id());

    let mut alone = plan.clone();
    alone.mounts.retain(|mount| mount.kind != runtime::plan::MountKind::Cgroup);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let started = Instant::now();
        let mut launching = runtime::launch(&alone, None, Descriptors::default()).unwrap();
        launching.wait_ready().unwrap();
        times[0].push(ms(started));
        sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap();

        let started = Instant::now();
        let cgroup = Cgroup::create(&root, &format!("/wherry-tests/{base}"), &resources).unwrap();
        let mut launching = runtime::launch(&plan, Some(&cgroup), Descriptors::default()).unwrap();
        launching.wait_ready().unwrap();
        times[1].push(ms(started));
        sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap();
        cgroup.remove().unwrap();
    }
    for (times, what) in times.iter_mut().zip(["no cgroups", "cgroups made and entered"]) {
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).unwrap();
        println!("{what}: median {median:.2} ms, least {:.2} ms", times.first().unwrap());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
