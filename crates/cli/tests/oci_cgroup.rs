//! `wherry oci`: limits and counters.
#![allow(clippy::unwrap_used)]
mod oci_common;

use oci_common::{Bundle, run, sh, spec, wait_for};
use runtime::cgroup::{Cgroup, CgroupRoot, Mode};
use serde_json::{Value, json};

/// The value of a file of the container's group.
fn value(bundle: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    let root = CgroupRoot::detect().unwrap();
    let (mount, file) = match root.hierarchy(controller) {
        Some(hierarchy) => (hierarchy.mount_point.clone(), v1),
        None => (root.v2.clone().unwrap(), v2),
    };
    let path = mount.join("wherry-tests").join(&bundle.id).join(file);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .trim()
        .to_owned()
}

#[test]
fn limits_are_set_and_updated() {
    let mut wanted = spec(&["sleep", "1000"]);
    wanted["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000},
        "pids": {"limit": 50}
    });
    let bundle = Bundle::new(&wanted);
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    assert_eq!(
        value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "50");
    if CgroupRoot::detect().unwrap().hierarchy("cpu").is_some() {
        assert_eq!(value(&bundle, "cpu", "cpu.shares", ""), "512");
        assert_eq!(value(&bundle, "cpu", "cpu.cfs_quota_us", ""), "20000");
        assert_eq!(value(&bundle, "cpu", "cpu.cfs_period_us", ""), "50000");
        assert_eq!(
            value(&bundle, "memory", "memory.memsw.limit_in_bytes", ""),
            (128 << 20).to_string()
        );
    }
    bundle.ok(&[
        "update",
        "--memory",
        "268435456",
        "--memory-swap",
        "-1",
        "--pids-limit",
        "77",
        id,
    ]);
    assert_eq!(
        value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"),
        (256 << 20).to_string()
    );
    assert_eq!(value(&bundle, "pids", "pids.max", "pids.max"), "77");
    bundle.ok(&["update", "--memory", "33554432", "--memory-swap", "33554432", id]);
    assert_eq!(
        value(&bundle, "memory", "memory.limit_in_bytes", "memory.max"),
        (32 << 20).to_string()
    );
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", id]).out).unwrap();
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 32 << 20);
    assert_eq!(stats["data"]["pids"]["limit"], 77);
    assert_eq!(stats["data"]["pids"]["current"], 1);
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    let group =
        Cgroup::open(&CgroupRoot::detect().unwrap(), &format!("wherry-tests/{id}")).unwrap();
    assert_eq!(group.stats().memory.limit, Some(32 << 20));
    assert!(!group.oom_killed());
    bundle.ok(&["delete", "-f", id]);
    bundle.assert_clean();
}

#[test]
fn processes_are_limited() {
    let mut wanted = sh("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all");
    wanted["linux"]["resources"] = json!({"pids": {"limit": 5}});
    let output = run(&wanted);
    assert!(output.err.contains("fork"), "{output:?}");
}

#[test]
fn memory_is_limited_and_the_kill_is_known() {
    let mut wanted = sh(
        "(head -c 200000000 /dev/zero | tail -c 190000000 | wc -c) ; touch /tmp/done; sleep 1000",
    );
    wanted["linux"]["resources"] = json!({"memory": {"limit": 20 << 20, "swap": 20 << 20}});
    let bundle = Bundle::new(&wanted);
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    let root = CgroupRoot::detect().unwrap();
    let group = Cgroup::open(&root, &format!("wherry-tests/{id}")).unwrap();
    wait_for("the kernel's kill", || group.oom_killed());
    bundle.ok(&["delete", "-f", id]);
    bundle.assert_clean();
    drop(group);
    assert_ne!(root.mode(), Mode::None);
}

#[test]
fn every_process_is_in_every_group() {
    let bundle = Bundle::new(&spec(&["sleep", "1000"]));
    let id = bundle.id.as_str();
    bundle.ok(&["create", id]);
    let pid = bundle.state()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for line in groups.lines() {
        assert!(line.ends_with(&format!(":/wherry-tests/{id}")), "{groups}");
    }
    // A second container must not share the groups of a live one.
    let taken = bundle.oci(&["create", "other"]);
    assert!(taken.code == 1 && taken.err.contains("already has processes"), "{taken:?}");
    assert_eq!(bundle.status(), "created");
    bundle.ok(&["delete", id]);
    bundle.assert_clean();
}

#[test]
fn bad_limits_leave_nothing() {
    let mut wanted = spec(&["true"]);
    wanted["linux"]["resources"] = json!({"cpu": {"cpus": "9999"}});
    let output = run(&wanted);
    assert!(output.code == 1 && output.err.contains("cpuset.cpus"), "{output:?}");
}
