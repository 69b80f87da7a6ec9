//! Limits, capabilities, filters: what a container may not do.

use crate::harness::{Engine, text, until};

/// The file of a limit, in version 1 or 2 of cgroups.
fn limit(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

#[test]
fn memory_cpu_and_pids_are_limited() {
    let e = Engine::new();
    e.ok([
        "run",
        "-d",
        "--name",
        "c1",
        "--memory",
        "32m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "77",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "bb",
        "sleep",
        "1000",
    ]);
    let read = |v1: &str, v2: &str| e.ok(["exec", "c1", "sh", "-c", &limit(v1, v2)]);
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(read("pids/pids.max", "pids.max"), "77");
    assert_eq!(read("cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    let quota = e.ok(["exec", "c1", "sh", "-c", &limit("cpu/cpu.cfs_quota_us", "cpu.max")]);
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    e.ok(["update", "--memory", "64m", "--memory-swap", "128m", "--pids-limit", "99", "c1"]);
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("pids/pids.max", "pids.max"), "99");
    assert_eq!(e.inspect("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "c1"), "67108864 99");
    e.finish();
}

#[test]
fn running_out_of_memory_is_told() {
    let e = Engine::new();
    let run = e.run([
        "run",
        "--name",
        "c1",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "bb",
        "sh",
        "-c",
        "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}",
    ]);
    assert_eq!(
        e.inspect("{{.State.OOMKilled}}", "c1"),
        "true",
        "exit code {:?}",
        run.status.code()
    );
    assert!(e.past_events("{{.Action}}", &[]).contains("oom"));
    e.finish();
}

#[test]
fn capabilities_are_dockers() {
    let e = Engine::new();
    let effective = |args: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend(["bb", "sh", "-c", "grep CapEff /proc/self/status | cut -f2"]);
        e.ok(all)
    };
    assert_eq!(effective(&[]), "00000000a80425fb");
    assert_eq!(effective(&["--cap-drop", "all", "--cap-add", "chown"]), "0000000000000001");
    assert_eq!(effective(&["-u", "ann"]), "0000000000000000");
    assert!(effective(&["--privileged"]).starts_with("000001ff"));
    e.fails(1, ["run", "--rm", "bb", "chroot", "/nope"]);
    assert!(!e.run(["run", "--rm", "bb", "mount", "-t", "tmpfs", "x", "/tmp"]).status.success());
    assert!(
        e.run([
            "run",
            "--rm",
            "--cap-add",
            "sys_admin",
            "--security-opt",
            "seccomp=unconfined",
            "bb",
            "mount",
            "-t",
            "tmpfs",
            "x",
            "/tmp"
        ])
        .status
        .success()
    );
    assert!(
        e.fails(125, ["run", "--rm", "--cap-add", "bogus", "bb", "true"]).contains("CAP_BOGUS")
    );
    e.finish();
}

#[test]
fn system_calls_are_filtered() {
    let e = Engine::new();
    let mode = |args: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend(["bb", "sh", "-c", "grep -w Seccomp /proc/self/status | cut -f2; grep NoNewPrivs /proc/self/status | cut -f2"]);
        e.ok(all)
    };
    assert_eq!(mode(&[]), "2\n0");
    assert_eq!(mode(&["--security-opt", "seccomp=unconfined"]), "0\n0");
    assert_eq!(mode(&["--privileged"]), "0\n0");
    assert_eq!(mode(&["--security-opt", "no-new-privileges"]), "2\n1");
    // A new user namespace is what the default profile forbids first of all.
    assert!(!e.run(["run", "--rm", "bb", "unshare", "-U", "true"]).status.success());
    let profile = e.path("profile.json");
    std::fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#).unwrap();
    let option = format!("seccomp={}", profile.display());
    let error = e.fails(1, ["run", "--rm", "--security-opt", &option, "bb", "mkdir", "/x"]);
    assert!(error.contains("not supported"), "{error}");
    std::fs::write(&profile, "{").unwrap();
    assert!(
        e.fails(125, ["run", "--rm", "--security-opt", &option, "bb", "true"])
            .to_lowercase()
            .contains("seccomp")
    );
    e.finish();
}

#[test]
fn paths_are_masked_and_read_only() {
    let e = Engine::new();
    assert_eq!(e.ok(["run", "--rm", "bb", "sh", "-c", "cat /proc/kcore /proc/keys | wc -c"]), "0");
    e.fails(1, ["run", "--rm", "bb", "sh", "-c", "echo 1 > /proc/sys/kernel/panic"]);
    e.fails(1, ["run", "--rm", "bb", "sh", "-c", "echo x > /sys/kernel/mm/ksm/run"]);
    e.fails(1, ["run", "--rm", "--read-only", "bb", "touch", "/x"]);
    e.ok(["run", "--rm", "--read-only", "--tmpfs", "/tmp", "bb", "touch", "/tmp/x"]);
    e.finish();
}

#[test]
fn devices_are_refused_unless_given() {
    let e = Engine::new();
    // Making a node is allowed, using it is not.
    e.fails(1, ["run", "--rm", "bb", "sh", "-c", "mknod /kmsg c 1 11 && head -c 1 /kmsg"]);
    e.ok([
        "run",
        "--rm",
        "bb",
        "sh",
        "-c",
        "head -c 1 /dev/zero; echo x > /dev/null; head -c 1 /dev/urandom",
    ]);
    assert_eq!(
        e.ok([
            "run",
            "--rm",
            "--device",
            "/dev/zero:/dev/mine:r",
            "bb",
            "sh",
            "-c",
            "head -c 3 /dev/mine | wc -c"
        ]),
        "3"
    );
    e.ok([
        "run",
        "--rm",
        "--device-cgroup-rule",
        "c 10:229 rw",
        "bb",
        "sh",
        "-c",
        "mknod /k c 10 229 && : <> /k",
    ]);
    assert!(
        e.fails(125, ["run", "--rm", "--device", "/dev/nope", "bb", "true"]).contains("/dev/nope")
    );
    assert!(
        e.fails(125, ["run", "--rm", "--device-cgroup-rule", "zzz", "bb", "true"]).contains("zzz")
    );
    e.finish();
}

#[test]
fn rlimits_sysctls_and_oom_score() {
    let e = Engine::new();
    assert_eq!(
        e.ok([
            "run",
            "--rm",
            "--ulimit",
            "nofile=100:200",
            "bb",
            "sh",
            "-c",
            "ulimit -n; ulimit -Hn"
        ]),
        "100\n200"
    );
    assert_eq!(
        e.ok([
            "run",
            "--rm",
            "--sysctl",
            "kernel.msgmax=9999",
            "bb",
            "cat",
            "/proc/sys/kernel/msgmax"
        ]),
        "9999"
    );
    assert_eq!(
        e.ok(["run", "--rm", "--oom-score-adj", "500", "bb", "cat", "/proc/self/oom_score_adj"]),
        "500"
    );
    // A default that this host forbids is left out, and said where somebody looks for it; what was
    // asked for is an error.
    let config = e.path("config.toml");
    std::fs::write(&config, "[default-ulimits]\nnofile = \"1048576:1048576\"\n").unwrap();
    let config = config.to_str().unwrap();
    let run = ["run", "--rm", "bb", "sh", "-c", "ulimit -n"];
    let quiet = e.run(["--config", config].iter().chain(&run));
    let told = e.run(["--config", config, "--debug"].iter().chain(&run));
    assert!(quiet.status.success() && told.status.success());
    assert_eq!(text(&quiet.stderr), "");
    if text(&quiet.stdout) == "1048576" {
        assert_eq!(text(&told.stderr), "");
    } else {
        assert_eq!(
            text(&told.stderr),
            "debug: RLIMIT_NOFILE stays as inherited: raising it to 1048576:1048576 needs \
             CAP_SYS_RESOURCE"
        );
        let asked = ["run", "--rm", "--ulimit", "nofile=1048576", "bb", "true"];
        assert!(e.fails(125, asked).contains("CAP_SYS_RESOURCE"));
    }
    assert!(
        e.fails(125, ["run", "--rm", "--sysctl", "kernel.panic=1", "bb", "true"])
            .contains("kernel.panic")
    );
    assert!(
        e.fails(125, ["run", "--rm", "--ulimit", "nofile=200:100", "bb", "true"])
            .contains("ulimit")
    );
    e.finish();
}

#[test]
fn a_paused_container_can_be_killed() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    e.ok(["pause", "c1"]);
    e.ok(["rm", "-f", "c1"]);
    until("it is gone", || e.ok(["ps", "-aq"]).is_empty());
    e.finish();
}

/// Both the container's first process and those of `exec` are in its groups, of every hierarchy, and the
/// keeper finds nothing to remove when they have ended.
#[test]
fn every_process_is_in_all_of_the_containers_groups() {
    let e = Engine::new();
    let id = e.ok(["run", "-d", "--name", "c1", "--cgroupns", "host", "bb", "sleep", "1000"]);
    let groups = |text: &str| {
        let mut own: Vec<_> = text
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        own.dedup();
        own
    };
    let pid = e.inspect("{{.State.Pid}}", "c1");
    let first = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(groups(&first), [format!("wherry/{id}")], "{first}");
    for _ in 0..2 {
        let exec = e.ok(["exec", "c1", "cat", "/proc/self/cgroup"]);
        assert_eq!(groups(&exec), [format!("wherry/{id}")], "{exec}");
    }
    // Its children are counted and limited with it.
    e.ok(["exec", "-d", "c1", "sleep", "999"]);
    until("two are counted", || e.ok(["top", "c1"]).lines().count() == 3);
    e.ok(["rm", "-f", "c1"]);
    let left = || {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        hierarchies.filter(|h| h.path().join("wherry").join(&id).exists()).count()
    };
    until("its groups are gone", || left() == 0);
    e.finish();
}

#[test]
fn real_time_budgets() {
    if !std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        eprintln!("not tested: this host has no budgets for real-time processes");
        return;
    }
    let e = Engine::new();
    let budget = "cd /sys/fs/cgroup/cpu; cat cpu.rt_runtime_us cpu.rt_period_us";
    // One after another: what the last one had is free again.
    for _ in 0..4 {
        let run = e.ok(["run", "--rm", "--cpu-rt-runtime", "200000", "bb", "sh", "-c", budget]);
        assert_eq!(run, "200000\n1000000");
    }
    for name in ["c1", "c2"] {
        e.ok([
            "run",
            "-d",
            "--name",
            name,
            "--cpu-rt-runtime",
            "5000",
            "--cpu-rt-period",
            "50000",
            "bb",
            "sleep",
            "1000",
        ]);
    }
    e.ok(["update", "--cpu-rt-runtime", "7000", "c2"]);
    assert_eq!(e.ok(["exec", "c2", "cat", "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"]), "7000");
    for wanted in ["1000000", "2000000"] {
        let run = e.run(["run", "--rm", "--cpu-rt-runtime", wanted, "bb", "true"]);
        assert_eq!(run.status.code(), Some(125));
        let error = text(&run.stderr);
        assert!(error.contains("is more than"), "{error}");
    }
    e.finish();
}

/// The keeper needs descriptors for each container, of which a login shell has few; containers get what that shell has.
#[test]
fn open_files_of_the_keeper_and_of_containers() {
    let limited = |e: &Engine, limit: &str, name: &str| {
        let script = format!("ulimit {limit}; exec \"$@\"");
        let mut run = e.command_as("sh");
        run.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_wherry"), "run", "-d", "--name", name]);
        run.args(["bb", "sh", "-c", "ulimit -Sn; ulimit -Hn; exec sleep 1000"]).output().unwrap()
    };
    let e = Engine::new();
    let names: Vec<String> = (0..30).map(|n| format!("c{n}")).collect();
    for name in &names {
        let done = limited(&e, "-Sn 64", name);
        assert!(done.status.success(), "{name}: {}", text(&done.stderr));
    }
    until("it has looked", || text(&e.run(["logs", "c29"]).stdout).lines().count() == 2);
    let hard = e.ok(["logs", "c29"]);
    assert!(hard.starts_with("64\n") && !hard.ends_with("\n64"), "{hard}");
    assert_eq!(e.ok(["exec", "c0", "sh", "-c", "ulimit -Sn"]), "64");
    let mut all = vec!["rm", "-f"];
    all.extend(names.iter().map(String::as_str));
    e.ok(&all);
    e.finish();

    let e = Engine::new();
    let mut names = Vec::new();
    let refused = loop {
        let name = format!("c{}", names.len());
        let done = limited(&e, "-n 100", &name);
        if !done.status.success() {
            break done;
        }
        names.push(name);
        assert!(names.len() < 100, "each takes a descriptor");
    };
    let said = text(&refused.stderr);
    assert!(said.contains("ulimit -Hn"), "{said}");
    assert!(names.len() > 10, "{names:?}: {said}");
    let all: Vec<String> = e.ok(["ps", "-aq"]).lines().map(str::to_owned).collect();
    e.ok(["rm".to_owned(), "-f".to_owned()].iter().chain(&all));
    e.finish();
}
