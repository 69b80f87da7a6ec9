//! `wherry oci`: what the program is and may do.
#![allow(clippy::unwrap_used)]
mod oci_common;

use oci_common::{Bundle, run, sh, spec, wait_for};
use serde_json::json;

#[test]
fn user_groups_umask_and_directory() {
    let mut spec = sh("id -u; id -g; id -G; umask; pwd; touch /tmp/x 2>/dev/null || echo denied");
    spec["process"]["user"] =
        json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
    spec["process"]["cwd"] = "/new/dir".into();
    let bundle = Bundle::new(&spec);
    let output = bundle.run();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.out, "1000\n1001\n1001 5 6\n0027\n/new/dir\ndenied\n");
    bundle.assert_clean();
}

#[test]
fn capabilities_are_exactly_those_asked_for() {
    let mut spec = sh("grep ^Cap /proc/self/status");
    spec["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
    });
    spec["process"]["user"] = json!({"uid": 5, "gid": 5});
    let output = run(&spec);
    assert_eq!(output.code, 0, "{output:?}");
    let get = |name: &str| {
        let line = output.out.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    // As another user than root only ambient capabilities survive the exec.
    assert_eq!(get("CapBnd"), 1 | 1 << 5 | 1 << 6 | 1 << 7);
    assert_eq!(get("CapPrm"), 1 << 5);
    assert_eq!(get("CapEff"), 1 << 5);
    assert_eq!(get("CapAmb"), 1 << 5);
    assert_eq!(get("CapInh"), 1 << 5);
}

#[test]
fn limits_and_no_new_privileges() {
    let mut spec =
        sh("ulimit -n; ulimit -c; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj");
    spec["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    ]);
    spec["process"]["oomScoreAdj"] = 500.into();
    let output = run(&spec);
    assert_eq!(output.out, "100\n0\nNoNewPrivs:\t1\n500\n", "{output:?}");
    spec["process"]["noNewPrivileges"] = false.into();
    assert!(run(&spec).out.contains("NoNewPrivs:\t0"));
}

#[test]
fn seccomp_by_the_specification() {
    for no_new_privileges in [true, false] {
        let mut spec =
            sh("mkdir /tmp/d; echo $?; chmod 700 /tmp; echo $?; grep Seccomp: /proc/self/status");
        spec["process"]["noNewPrivileges"] = no_new_privileges.into();
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"}]}
            ]
        });
        let output = run(&spec);
        assert!(output.err.contains("No space left"), "{output:?}");
        assert!(output.err.contains("chmod: /tmp: Operation not permitted"), "{output:?}");
        assert!(output.out.ends_with("Seccomp:\t2\n"), "{output:?}");
    }
    let mut bad = sh("true");
    bad["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]});
    assert!(run(&bad).err.contains("SCMP_ACT_NOTIFY"));
}

#[test]
fn exec_joins_the_container() {
    let bundle = Bundle::new(&sh("touch /tmp/up; exec sleep 1000"));
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    wait_for("the program", || bundle.rootfs().join("tmp/up").exists());
    let output = bundle.ok(&["exec", "--env", "X=y", "--cwd", "/tmp", "--user", "7:8", id, "sh", "-c",
        "hostname; pwd; id -u; id -g; echo $A$X; cat /proc/1/comm; grep -c . /proc/self/cgroup >/dev/null && cut -d: -f3 /proc/self/cgroup | sort -u; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done"]);
    let lines: Vec<&str> = output.out.lines().collect();
    assert_eq!(&lines[..7], ["inside", "/tmp", "7", "8", "by", "sleep", "/"], "{output:?}");
    let pid = bundle.state()["pid"].to_string();
    for (line, name) in lines[7..].iter().zip(["mnt", "pid", "net", "ipc", "uts", "cgroup"]) {
        let expected = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(*line, expected.to_str().unwrap());
    }
    assert_eq!(bundle.oci(&["exec", id, "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(bundle.oci(&["exec", id, "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(bundle.oci(&["exec", id, "nope"]).code, 127);
    assert_eq!(bundle.oci(&["exec", id, "/etc"]).code, 126);
    std::fs::write(
        bundle.dir.join("process.json"),
        json!({"args": ["sh", "-c", "sleep 1000 & echo $! > /tmp/child; wait"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}).to_string(),
    )
    .unwrap();
    bundle.ok(&["exec", "--detach", "--process", "process.json", "--pid-file", "pid2", id]);
    let exec: i32 = std::fs::read_to_string(bundle.dir.join("pid2")).unwrap().parse().unwrap();
    let pids: Vec<i32> = serde_json::from_str(&bundle.ok(&["ps", "-f", "json", id]).out).unwrap();
    assert!(pids.contains(&exec), "{pids:?} {exec}");
    let groups = std::fs::read_to_string(format!("/proc/{exec}/cgroup")).unwrap();
    assert!(groups.lines().all(|line| line.contains(id)), "in every hierarchy: {groups}");
    bundle.ok(&["delete", "-f", id]);
    bundle.assert_clean();
    assert!(bundle.oci(&["exec", id, "true"]).err.contains("does not exist"));
}

#[test]
fn personality_keyring_scheduler_and_preserved_descriptors() {
    let mut wanted = sh("uname -m; ls /proc/self/fd | wc -l; cat /proc/self/stat | cut -d' ' -f19");
    wanted["linux"]["personality"] = json!({"domain": "LINUX32"});
    wanted["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 4});
    let output = run(&wanted);
    let lines: Vec<&str> = output.out.lines().collect();
    if cfg!(target_arch = "x86_64") {
        assert_eq!(lines[0], "i686", "{output:?}");
    }
    // 0, 1, 2 and the directory itself.
    assert_eq!(lines[1], "4", "no descriptor leaks into the program: {output:?}");
    assert_eq!(lines[2], "4");
    let bundle = Bundle::new(&spec(&["sh", "-c", "echo through >&3"]));
    let mut shell = std::process::Command::new("sh");
    let line = format!(
        "exec '{}' oci --root '{}' run --preserve-fds 1 {} 3>passed",
        env!("CARGO_BIN_EXE_wherry"),
        bundle.dir.join("state").display(),
        bundle.id
    );
    assert!(shell.arg("-c").arg(line).current_dir(&bundle.dir).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(bundle.dir.join("passed")).unwrap(), "through\n");
}

#[test]
fn hooks_of_all_kinds_in_order() {
    let bundle = Bundle::new(&spec(&["true"]));
    let trace = bundle.dir.join("trace");
    let mut spec = sh("echo program >> /trace");
    std::fs::write(&trace, "").unwrap();
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/trace", "source": trace, "options": ["bind"]
    }));
    let host = |kind: &str| {
        let script = format!(
            "s=$(cat); echo {kind} $HOOK $(echo \"$s\" | grep -o '\"status\":\"[a-z]*\"' | cut -d'\"' -f4) $(readlink /proc/self/ns/uts) >> {}",
            trace.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["HOOK=x", "PATH=/bin:/usr/bin"]}])
    };
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null; echo startContainer $(hostname) >> /trace"], "env": ["PATH=/bin"]}]);
    spec["hooks"] = json!({
        "prestart": host("prestart"), "createRuntime": host("createRuntime"),
        "createContainer": host("createContainer"), "startContainer": inside,
        "poststart": host("poststart"), "poststop": host("poststop")
    });
    spec["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
    bundle.write_spec(&spec);
    let id = bundle.id.as_str();
    bundle.ok(&["create", id]);
    let read = || std::fs::read_to_string(&trace).unwrap();
    let uts = std::fs::read_link("/proc/self/ns/uts").unwrap();
    let uts = uts.to_str().unwrap();
    let text = read();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], format!("prestart x creating {uts}"));
    assert_eq!(lines[1], format!("createRuntime x creating {uts}"));
    assert!(lines[2].starts_with("createContainer x creating uts:"), "{text}");
    assert!(!lines[2].ends_with(uts), "runs in the container's namespaces: {text}");
    bundle.ok(&["start", id]);
    wait_for("all", || read().lines().count() == 6);
    let text = read();
    assert!(
        text.contains("startContainer inside\nprogram\n")
            || text.contains("startContainer inside\npoststart"),
        "{text}"
    );
    assert!(text.contains("poststart x running"), "{text}");
    bundle.wait_status("stopped");
    bundle.ok(&["delete", id]);
    let text = read();
    assert_eq!(text.lines().last().unwrap(), format!("poststop x stopped {uts}"));
    bundle.assert_clean();
}

#[test]
fn a_failing_hook_stops_the_start() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut wanted = sh("echo ran > /tmp/ran");
        wanted["hooks"] =
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 4"]}]});
        let bundle = Bundle::new(&wanted);
        let output = bundle.run();
        assert_eq!(output.code, 1, "{kind}: {output:?}");
        assert!(output.err.contains(kind) && output.err.contains("because"), "{output:?}");
        assert!(!bundle.rootfs().join("tmp/ran").exists());
        bundle.assert_clean();
    }
    let mut wanted = sh("true");
    wanted["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
    let output = run(&wanted);
    assert!(output.err.contains("did not end within 1 s"), "{output:?}");
}
