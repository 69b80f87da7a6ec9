//! The life of a container.

use crate::harness::{Engine, cgroups_of, text, until};

#[test]
fn run_prints_and_gives_the_exit_code() {
    let e = Engine::new();
    assert_eq!(e.ok(["run", "--rm", "bb", "echo", "hello"]), "hello");
    e.fails(7, ["run", "--rm", "bb", "sh", "-c", "exit 7"]);
    e.fails(137, ["run", "--rm", "--pid", "host", "bb", "sh", "-c", "kill -9 $$; sleep 9"]);
    assert_eq!(e.ok(["ps", "-aq"]), "");
    e.finish();
}

#[test]
fn a_directory_of_the_host_is_a_root_filesystem() {
    let e = Engine::empty();
    let listed = e.ok(["run", "--rm", "--rootfs", "/", "--", "ls", "/"]);
    assert!(listed.lines().any(|l| l == "etc"), "{listed}");
    let root = e.path("root");
    crate::harness::busybox_root(&root);
    let dir = root.to_str().unwrap();
    e.ok(["run", "--rm", "--rootfs", dir, "--", "touch", "/in-overlay"]);
    assert!(!root.join("in-overlay").exists());
    e.ok(["run", "--rm", "--rootfs", dir, "--rootfs-rw", "--", "touch", "/for-real"]);
    assert!(root.join("for-real").exists());
    e.finish();
}

#[test]
fn create_start_wait_logs_rm() {
    let e = Engine::new();
    let id = e.ok(["create", "--name", "c1", "bb", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(id.len(), 64);
    assert_eq!(e.inspect("{{.State.Status}}", "c1"), "created");
    assert_eq!(e.ok(["start", "c1"]), "c1");
    assert_eq!(e.ok(["wait", "c1"]), "3");
    let logs = e.run(["logs", "c1"]);
    assert_eq!((text(&logs.stdout), text(&logs.stderr)), ("out".into(), "err".into()));
    let state = e.inspect("{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", &id[..12]);
    assert_eq!(state, "exited 3 false");
    assert_eq!(e.ok(["rm", "c1"]), "c1");
    assert!(e.fails(1, ["inspect", "c1"]).contains("No such object: c"));
    assert_eq!(cgroups_of(&id), Vec::<std::path::PathBuf>::new());
    e.finish();
}

#[test]
fn stop_asks_then_kills() {
    let e = Engine::new();
    let polite = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    e.ok(["run", "-d", "--name", "polite", "bb", "sh", "-c", polite]);
    e.ok([
        "run",
        "-d",
        "--name",
        "deaf",
        "bb",
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    e.ok([
        "run",
        "-d",
        "--name",
        "usr1",
        "--stop-signal",
        "USR1",
        "bb",
        "sh",
        "-c",
        "trap 'exit 6' USR1; echo up; while :; do sleep 0.05; done",
    ]);
    for name in ["polite", "deaf", "usr1"] {
        until("it is up", || e.ok(["logs", name]).contains("up"));
    }
    e.ok(["stop", "polite"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "polite"), "5");
    assert!(e.ok(["logs", "polite"]).ends_with("asked"));
    e.ok(["stop", "-t", "0", "deaf"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "deaf"), "137");
    e.ok(["stop", "usr1"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "usr1"), "6");
    // Stopping what is stopped is no error.
    assert_eq!(e.ok(["stop", "polite"]), "polite");
    e.finish();
}

#[test]
fn kill_restart_pause_rename() {
    let e = Engine::new();
    e.ok([
        "run",
        "-d",
        "--name",
        "a1",
        "bb",
        "sh",
        "-c",
        "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; sleep 0.02; done",
    ]);
    let pid = e.inspect("{{.State.Pid}}", "a1");
    e.ok(["restart", "-t", "0", "a1"]);
    assert_ne!(e.inspect("{{.State.Pid}}", "a1"), pid);
    e.ok(["pause", "a1"]);
    assert_eq!(e.inspect("{{.State.Status}}", "a1"), "paused");
    assert!(e.ok(["ps"]).contains("(Paused)"));
    assert!(e.fails(1, ["exec", "a1", "true"]).contains("is paused"));
    assert!(e.fails(1, ["pause", "a1"]).contains("already paused"));
    e.ok(["unpause", "a1"]);
    let before = e.ok(["exec", "a1", "cat", "/tmp/n"]);
    until("it goes on", || e.ok(["exec", "a1", "cat", "/tmp/n"]) != before);
    e.ok(["rename", "a1", "b1"]);
    assert_eq!(e.inspect("{{.Name}}", "b1"), "/b1");
    e.ok(["kill", "-s", "URG", "b1"]);
    e.ok(["kill", "b1"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "b1"), "137");
    assert!(e.fails(1, ["kill", "b1"]).contains("is not running"));
    e.finish();
}

#[test]
fn exec_runs_in_the_container() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "-e", "A=1", "-w", "/tmp", "bb", "sleep", "1000"]);
    assert_eq!(e.ok(["exec", "c1", "pwd"]), "/tmp");
    assert_eq!(
        e.ok(["exec", "-e", "B=2", "-w", "/etc", "c1", "sh", "-c", "echo $A$B; pwd"]),
        "12\n/etc"
    );
    assert_eq!(e.ok(["exec", "-u", "ann", "c1", "id", "-un"]), "ann");
    assert_eq!(e.ok(["exec", "-u", "ann", "c1", "id", "-G"]), "1000 50");
    e.fails(4, ["exec", "c1", "sh", "-c", "exit 4"]);
    e.fails(127, ["exec", "c1", "nope"]);
    e.fails(126, ["exec", "c1", "/etc/passwd"]);
    let output = e.with_input(["exec", "-i", "c1", "cat"], &b"x".repeat(300_000));
    assert_eq!(output.stdout.len(), 300_000);
    // It sees the container's processes and is in its cgroup.
    assert!(e.ok(["exec", "c1", "ps"]).contains("sleep 1000"));
    assert_eq!(
        e.ok(["exec", "c1", "cat", "/proc/self/cgroup"]),
        e.ok(["exec", "c1", "cat", "/proc/1/cgroup"])
    );
    e.ok(["exec", "-d", "c1", "touch", "/tmp/detached"]);
    until("the detached exec has run", || {
        e.run(["exec", "c1", "ls", "/tmp/detached"]).status.success()
    });
    e.finish();
}

/// The keeper tells an exec what it knows of a container; what it may not tell any more it must not.
#[test]
fn exec_finds_containers_by_the_names_they_have() {
    let e = Engine::new();
    let host = |name: &str| e.ok(["exec", name, "hostname"]);
    let run = |name: &str, host: &str| {
        e.ok([
            "run",
            "-d",
            "--name",
            name,
            "--hostname",
            host,
            "--network",
            "none",
            "bb",
            "sleep",
            "1000",
        ])
    };
    let first = run("c1", "one");
    assert_eq!([host("c1"), host(&first), host(&first[..12]), host("/c1")], ["one"; 4]);
    e.ok(["rename", "c1", "c2"]);
    assert!(e.fails(1, ["exec", "c1", "true"]).contains("No such container: c1"));
    assert_eq!([host("c2"), host(&first)], ["one"; 2]);
    run("c1", "other");
    assert_eq!([host("c1"), host("c2")], ["other", "one"]);
    // A name may pass on while both run.
    e.ok(["rename", "c1", "c3"]);
    e.ok(["rename", "c2", "c1"]);
    assert_eq!([host("c1"), host("c3")], ["one", "other"]);
    e.fails(1, ["exec", "c2", "true"]);
    e.ok(["restart", "-t", "0", "c1", "c3"]);
    assert_eq!([host("c1"), host("c3")], ["one", "other"]);
    // Another engine upon the same run root knows nothing of it.
    let elsewhere = e.path("elsewhere");
    let mut other = e.command();
    other.env("WHERRY_DATA_ROOT", &elsewhere).args(["exec", "c1", "true"]);
    let other = other.output().unwrap();
    assert!(text(&other.stderr).contains("No such container: c1"), "{}", text(&other.stderr));
    // The keeper's successor does not know, and the database does.
    let keeper = e.keeper("wherry-keeper");
    std::process::Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap();
    assert_eq!([host("c1"), host(&first)], ["one"; 2]);
    e.ok(["pause", "c1"]);
    assert!(e.fails(1, ["exec", "c1", "true"]).contains("is paused"));
    e.ok(["unpause", "c1"]);
    e.ok(["kill", "c1"]);
    assert!(e.fails(1, ["exec", "c1", "true"]).contains("is not running"));
    e.ok(["rm", "c1"]);
    assert!(e.fails(1, ["exec", "c1", "true"]).contains("No such container: c1"));
    e.ok(["rm", "-f", "c3"]);
    e.finish();
}

/// An exec has the container's filter, limits and environment, whoever tells them.
#[test]
fn exec_is_confined_as_its_container() {
    let e = Engine::new();
    let profile = e.path("profile.json");
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":99}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let custom = format!("seccomp={}", profile.display());
    for (options, filters) in [
        (&["--cap-drop", "CHOWN", "--ulimit", "nofile=77:88", "--oom-score-adj", "123"][..], "2"),
        (&["--security-opt", &custom, "--security-opt", "no-new-privileges"], "2"),
        (&["--security-opt", "seccomp=unconfined", "--group-add", "77", "-u", "ann"], "0"),
        (&["--privileged"], "0"),
    ] {
        let mut args = vec!["run", "-d", "--name", "c1", "--network", "none", "-e", "HOME=/h"];
        args.extend(options);
        args.extend(["bb", "sleep", "1000"]);
        e.ok(&args);
        let shown = "grep -E '^(Seccomp|NoNewPrivs|Cap[A-Za-z]*|Groups|Uid):' /proc/$PID/status; grep files /proc/$PID/limits; \
                     cat /proc/$PID/oom_score_adj; tr '\\0' '\\n' </proc/$PID/environ | sort";
        let of = |pid: &str| shown.replace("$PID", pid);
        let container = e.ok(["exec", "c1", "sh", "-c", &of("1")]);
        assert!(container.contains(&format!("Seccomp:\t{filters}")), "{container}");
        let told = e.ok(["exec", "c1", "sh", "-c", &of("$$")]);
        assert_eq!(told, container, "{options:?}");
        // What the database says is the same.
        let short = e.inspect("{{slice .Id 0 12}}", "c1");
        assert_eq!(e.ok(["exec", &short, "sh", "-c", &of("$$")]), container, "{options:?}");
        if options.contains(&custom.as_str()) {
            e.fails(1, ["exec", "c1", "mkdir", "/tmp/x"]);
        }
        e.ok(["rm", "-f", "c1"]);
    }
    e.finish();
}

#[test]
fn environment_labels_and_files_of_them() {
    let e = Engine::new();
    let (env, labels) = (e.path("env"), e.path("labels"));
    std::fs::write(&env, "# comment\nA=from file\nB\nPATHLIKE=/x:/y\n").unwrap();
    std::fs::write(&labels, "l1=v1\nl2\n").unwrap();
    let args =
        ["run", "--rm", "--env-file", env.to_str().unwrap(), "-e", "C", "-e", "D=4", "bb", "env"];
    let output = e.command().env("B", "own").env("C", "mine").args(args).output().unwrap();
    let out = text(&output.stdout);
    for line in ["A=from file", "B=own", "C=mine", "D=4", "PATHLIKE=/x:/y", "HOME=/root"] {
        assert!(out.lines().any(|l| l == line), "{line} in {out}");
    }
    e.ok([
        "create",
        "--name",
        "l1",
        "--label-file",
        labels.to_str().unwrap(),
        "-l",
        "l3=v3",
        "bb",
        "true",
    ]);
    assert_eq!(e.inspect("{{json .Config.Labels}}", "l1"), r#"{"l1":"v1","l2":"","l3":"v3"}"#);
    e.finish();
}

#[test]
fn users_and_groups() {
    let e = Engine::new();
    assert_eq!(
        e.ok(["run", "--rm", "-u", "ann", "bb", "id"]),
        "uid=1000(ann) gid=1000(ann) groups=50(staff),1000(ann)"
    );
    assert_eq!(e.ok(["run", "--rm", "-u", "1234:50", "bb", "id", "-u"]), "1234");
    let groups =
        e.ok(["run", "--rm", "--group-add", "staff", "--group-add", "77", "bb", "id", "-G"]);
    assert!(groups.contains("50") && groups.contains("77"), "{groups}");
    assert!(
        e.fails(125, ["run", "--rm", "-u", "zoe", "bb", "id"]).contains("unable to find user zoe")
    );
    e.finish();
}

#[test]
fn ps_filters_and_formats() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "up", "-l", "k=v", "bb", "sleep", "1000"]);
    e.ok(["run", "--name", "gone", "bb", "true"]);
    assert_eq!(e.ok(["ps", "--format", "{{.Names}}"]), "up");
    assert_eq!(e.ok(["ps", "-a", "--format", "{{.Names}}"]), "gone\nup");
    assert_eq!(e.ok(["ps", "-a", "-f", "status=exited", "--format", "{{.Names}}"]), "gone");
    assert_eq!(e.ok(["ps", "-f", "label=k=v", "--format", "{{.Names}}"]), "up");
    assert_eq!(e.ok(["ps", "-a", "-f", "exited=0", "--format", "{{.Names}}"]), "gone");
    assert_eq!(e.ok(["ps", "-a", "-n", "1", "--format", "{{.Names}}"]), "gone");
    assert_eq!(e.ok(["container", "ls", "-q"]).len(), 12);
    assert_eq!(e.ok(["ps", "-q", "--no-trunc"]).len(), 64);
    let line = e.ok(["ps", "--format", "json"]);
    assert!(line.starts_with('{') && line.contains(r#""Names":"up""#), "{line}");
    assert!(e.fails(1, ["ps", "-f", "bogus=1"]).contains("invalid filter"));
    assert!(e.ok(["ps"]).starts_with("CONTAINER ID   IMAGE     COMMAND"));
    e.finish();
}

#[test]
fn top_stats_and_events() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    assert!(e.ok(["top", "c1"]).contains("sleep 1000"));
    assert!(e.ok(["top", "c1", "-o", "pid,comm"]).contains("sleep"));
    let stats = e.ok(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "c1"]);
    assert_eq!(stats, "c1 1");
    e.ok(["kill", "c1"]);
    e.ok(["rm", "c1"]);
    let events = e.past_events("{{.Action}}", &["type=container"]);
    let actions: Vec<_> = events.lines().collect();
    assert_eq!(actions, ["create", "start", "kill", "die", "destroy"]);
    e.finish();
}

#[test]
fn events_are_heard_as_they_happen() {
    use std::io::BufRead;
    let e = Engine::new();
    let mut listener = e.spawn(["events", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    let mut lines = std::io::BufReader::new(listener.stdout.take().unwrap()).lines();
    // It listens from some moment on; volumes tell when.
    let mut n = 0;
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    until("the listener listens", || {
        n += 1;
        e.ok(["volume", "create", &format!("v{n}")]);
        receiver.recv_timeout(std::time::Duration::from_millis(300)).is_ok()
    });
    e.ok(["run", "--name", "c1", "bb", "true"]);
    let mut heard = Vec::new();
    until("the container's end is heard", || {
        heard.extend(receiver.try_iter());
        heard.iter().any(|l| l == "die c1")
    });
    assert!(heard.iter().any(|l| l == "start c1"), "{heard:?}");
    listener.kill().unwrap();
    listener.wait().unwrap();
    reader.join().unwrap();
    e.finish();
}

/// A container that distributes controllers to groups of its own, as systemd does, has no place for a process in its
/// own group.
#[test]
fn a_command_in_a_container_with_groups_of_its_own() {
    let e = Engine::new();
    let script = r#"M=$(awk '$3=="cgroup2"{print $2}' /proc/mounts)
        C=$(cut -d" " -f1 "$M"/cgroup.controllers); [ -n "$C" ] || { echo none; exec sleep 1000; }
        mkdir "$M"/init && echo 1 >"$M"/init/cgroup.procs && echo +$C >"$M"/cgroup.subtree_control && echo ready
        exec sleep 1000"#;
    e.ok(["run", "-d", "--name", "c1", "--privileged", "bb", "sh", "-c", script]);
    until("its groups", || !e.ok(["logs", "c1"]).is_empty());
    let said = e.ok(["logs", "c1"]);
    if said == "none" {
        eprintln!("not tested: version 2 of cgroups has no controllers here");
    }
    let own = e.ok(["exec", "c1", "cat", "/proc/self/cgroup"]);
    let own = own.lines().find(|line| line.starts_with("0::"));
    assert!(said == "none" || own == Some("0::/init"), "{said}: {own:?}");
    e.ok(["rm", "-f", "c1"]);
    e.finish();
}

/// A script may hold a lock by an open descriptor, and start a service: the lock is the script's.
#[test]
fn what_a_script_has_open_is_not_held_by_containers() {
    let e = Engine::new();
    let script = "exec 9>lock && flock 9 && \"$@\" && exec 9>&- && flock -n lock true";
    let mut command = e.command_as("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_wherry"), "run", "-d", "--name", "c1"]);
    command.args(["bb", "sleep", "1000"]);
    let done = command.current_dir(&e.dir).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    e.ok(["rm", "-f", "c1"]);
    e.finish();
}

#[test]
fn another_runtime_by_path() {
    let e = Engine::new();
    let Some(runc) =
        ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|p| std::path::Path::new(p).exists())
    else {
        eprintln!("skipped: no runc here");
        return;
    };
    e.fails(5, ["run", "--rm", "--runtime", runc, "bb", "sh", "-c", "exit 5"]);
    e.ok([
        "run",
        "-d",
        "--name",
        "r1",
        "--runtime",
        runc,
        "bb",
        "sh",
        "-c",
        "echo from runc; sleep 1000",
    ]);
    until("its output", || e.ok(["logs", "r1"]) == "from runc");
    assert!(e.ok(["exec", "r1", "ps"]).contains("sleep 1000"));
    let filter = e.ok(["exec", "r1", "grep", "-w", "Seccomp", "/proc/1/status"]);
    assert!(filter.ends_with('2'), "{filter}");
    e.ok(["stop", "-t", "0", "r1"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "r1"), "137");
    e.fails(127, ["run", "--rm", "--runtime", runc, "bb", "nope"]);
    assert!(e.fails(125, ["run", "--rm", "--runtime", "/nope", "bb", "true"]).contains("/nope"));
    e.finish();
}

#[test]
fn init_reaps_and_passes_signals_on() {
    let e = Engine::empty();
    e.fails(9, ["run", "--rm", "--init", "--rootfs", "/", "--", "sh", "-c", "exit 9"]);
    let script = "trap 'exit 8' TERM; (sleep 0.01 &); echo up; while :; do sleep 0.05; done";
    e.ok(["run", "-d", "--name", "i1", "--init", "--rootfs", "/", "--", "sh", "-c", script]);
    until("it is up", || e.ok(["logs", "i1"]).contains("up"));
    // The orphan's new parent is init, which takes it in.
    until("no zombie is left", || !e.ok(["exec", "i1", "ps", "-eo", "stat"]).contains('Z'));
    e.ok(["stop", "i1"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "i1"), "8");
    // Shells unblock signals by themselves; other programs are ended by them, too.
    e.ok(["run", "-d", "--name", "i2", "--init", "--rootfs", "/", "--", "sleep", "1000"]);
    until("both are up", || e.ok(["top", "i2"]).lines().count() == 3);
    e.ok(["stop", "-t", "60", "i2"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "i2"), "143");
    for init in ["--init=true", "--init=false"] {
        let run = ["run", "--rm", init, "--rootfs", "/", "--", "cat", "/proc/self/status"];
        assert!(e.ok(run).contains("SigBlk:\t0000000000000000"), "{init}");
    }
    e.finish();
}
