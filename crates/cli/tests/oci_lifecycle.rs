//! `wherry oci`: the life of a container, from create to delete.
#![allow(clippy::unwrap_used)]
mod oci_common;

use oci_common::{Bundle, run, sh, spec, wait_for};

#[test]
fn create_start_kill_delete() {
    let bundle =
        Bundle::new(&sh("trap 'exit 7' TERM; touch /tmp/up; while :; do sleep 0.05; done"));
    let id = bundle.id.as_str();
    bundle.ok(&["create", "--pid-file", "pid", id]);
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["id"], id);
    assert_eq!(state["bundle"], bundle.dir.to_str().unwrap());
    let pid = std::fs::read_to_string(bundle.dir.join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert!(!bundle.rootfs().join("tmp/up").exists(), "the program waits for start");
    bundle.ok(&["start", id]);
    wait_for("the program", || bundle.rootfs().join("tmp/up").exists());
    assert_eq!(bundle.status(), "running");
    assert_ne!(bundle.oci(&["start", id]).code, 0, "a second start");
    let refused = bundle.oci(&["delete", id]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("not stopped"), "{refused:?}");
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["kill", id, "TERM"]);
    bundle.wait_status("stopped");
    let refused = bundle.oci(&["kill", id, "TERM"]);
    assert!(refused.code == 1 && refused.err.contains("container not running"), "{refused:?}");
    bundle.ok(&["delete", id]);
    bundle.assert_clean();
    let gone = bundle.oci(&["state", id]);
    assert!(gone.code == 1 && gone.err.contains("does not exist"), "{gone:?}");
}

#[test]
fn run_passes_the_exit_code_and_leaves_nothing() {
    let output = run(&sh("echo $$ $(hostname) $A; echo wrong >&2; exit 42"));
    assert_eq!((output.code, output.out.as_str()), (42, "1 inside b\n"));
    assert_eq!(output.err, "wrong\n");
    assert_eq!(run(&sh("kill -9 $$; sleep 1; kill -s SEGV 1; exit 3")).code, 3, "pid 1 is immune");
}

#[test]
fn delete_of_created_and_by_force() {
    let bundle = Bundle::new(&spec(&["sleep", "1000"]));
    let id = bundle.id.as_str();
    bundle.ok(&["create", id]);
    let taken = bundle.oci(&["create", id]);
    assert!(taken.code == 1 && taken.err.contains("already exists"), "{taken:?}");
    assert_eq!(bundle.status(), "created", "the first one is untouched");
    bundle.ok(&["delete", id]);
    bundle.assert_clean();
    bundle.ok(&["run", "-d", id]);
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_clean();
    bundle.ok(&["delete", "--force", id]);
}

#[test]
fn processes_of_the_container_end_with_it() {
    let bundle = Bundle::new(&sh("sleep 1000 & sleep 1000 & touch /tmp/up; wait"));
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    wait_for("the program", || bundle.rootfs().join("tmp/up").exists());
    wait_for("both sleeps", || bundle.ok(&["ps", id]).out.matches("sleep 1000\n").count() == 2);
    let pids: Vec<i32> = serde_json::from_str(&bundle.ok(&["ps", "-f", "json", id]).out).unwrap();
    assert_eq!(pids.len(), 3, "{pids:?}");
    assert!(bundle.ok(&["ps", id]).out.contains("sleep 1000"));
    bundle.ok(&["kill", "--all", id, "KILL"]);
    bundle.wait_status("stopped");
    bundle.ok(&["delete", id]);
    bundle.assert_clean();
}

#[test]
fn programs_that_cannot_run() {
    let bundle = Bundle::new(&spec(&["no-such-program"]));
    let output = bundle.run();
    assert_eq!(output.code, 127, "{output:?}");
    assert!(output.err.contains("\"no-such-program\": executable file not found in $PATH"));
    let created = bundle.oci(&["create", &bundle.id]);
    assert_eq!(created.code, 127, "known at create: {created:?}");
    bundle.assert_clean();
    let log = std::fs::read_to_string(bundle.dir.join("log")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().unwrap().contains("executable file not found"));
    assert_eq!(run(&spec(&["/no/such"])).code, 127);
    let denied = run(&spec(&["/etc"]));
    assert!(denied.code == 126, "{denied:?}");
    let bundle = Bundle::new(&spec(&["/etc/data"]));
    std::fs::write(bundle.rootfs().join("etc/data"), "x").unwrap();
    let denied = bundle.run();
    assert!(denied.code == 126 && denied.err.contains("ermission denied"), "{denied:?}");
    bundle.assert_clean();
}

#[test]
fn wrong_input_is_named() {
    let bundle = Bundle::new(&spec(&["true"]));
    for (change, word) in [
        ("ociVersion", "ociVersion"),
        ("cwd", "process.cwd"),
        ("args", "process.args"),
        ("namespace", "twice"),
        ("sysctl", "kernel.panic"),
        ("destination", "type"),
        ("rlimit", "twice"),
    ] {
        let mut bad = spec(&["true"]);
        match change {
            "ociVersion" => bad["ociVersion"] = "2.0".into(),
            "cwd" => bad["process"]["cwd"] = "x".into(),
            "args" => bad["process"]["args"] = serde_json::json!([]),
            "namespace" => {
                bad["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .push(serde_json::json!({"type": "pid"}));
            }
            "sysctl" => bad["linux"]["sysctl"] = serde_json::json!({"kernel.panic": "1"}),
            "destination" => bad["mounts"] = serde_json::json!([{"destination": "/x"}]),
            _ => {
                let limit = serde_json::json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
                bad["process"]["rlimits"] = serde_json::json!([limit, limit]);
            }
        }
        bad["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
        bundle.write_spec(&bad);
        let output = bundle.run();
        assert!(output.code == 1 && output.err.contains(word), "{change}: {output:?}");
        bundle.assert_clean();
    }
    for id in ["../x", "a/b", "", ".", ".."] {
        let output = bundle.oci(&["create", "--", id]);
        assert!(output.code != 0, "{id:?}");
    }
    std::fs::write(bundle.dir.join("config.json"), "{").unwrap();
    assert!(bundle.run().err.contains("config.json"));
    std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
    assert!(bundle.run().err.contains("config.json"));
}

#[test]
fn list_spec_features_version() {
    let bundle = Bundle::new(&spec(&["sleep", "1000"]));
    bundle.ok(&["create", &bundle.id]);
    assert_eq!(bundle.ok(&["list", "-q"]).out.trim(), bundle.id);
    let list: serde_json::Value =
        serde_json::from_str(&bundle.ok(&["list", "-f", "json"]).out).unwrap();
    assert_eq!(list[0]["status"], "created");
    assert!(bundle.ok(&["list"]).out.starts_with("ID "));
    let empty = bundle.dir.join("empty");
    std::fs::create_dir(&empty).unwrap();
    bundle.ok(&["spec", "--bundle", empty.to_str().unwrap()]);
    let written = std::fs::read(empty.join("config.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&written).unwrap();
    assert_ne!(bundle.oci(&["spec", "--bundle", empty.to_str().unwrap()]).code, 0);
    serde_json::from_str::<serde_json::Value>(&bundle.ok(&["features"]).out).unwrap();
    assert!(bundle.ok(&["--version"]).out.contains("spec: 1."));
}

#[test]
fn pause_and_resume() {
    let bundle = Bundle::new(&sh("i=0; while :; do i=$((i+1)); echo $i > /tmp/n; done"));
    let id = bundle.id.as_str();
    let count = || std::fs::read_to_string(bundle.rootfs().join("tmp/n")).unwrap_or_default();
    bundle.ok(&["run", "-d", id]);
    wait_for("the program", || !count().is_empty());
    bundle.ok(&["pause", id]);
    assert_eq!(bundle.status(), "paused");
    let before = count();
    assert!(bundle.oci(&["exec", id, "true"]).err.contains("paused"));
    assert_eq!(before, count(), "nothing runs");
    bundle.ok(&["resume", id]);
    assert_eq!(bundle.status(), "running");
    wait_for("progress", || count() != before);
    bundle.ok(&["pause", id]);
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_clean();
}
