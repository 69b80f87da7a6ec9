//! Killing any process of the engine, at any moment.

use std::process::{Command, Stdio};

use crate::harness::{Engine, all_cgroups, cgroups_of, text, until};

fn kill9(pid: i32) {
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
}

/// A container that counts to `last`, with pauses, and ends with `code`.
fn counter(last: u32, code: u32) -> String {
    format!(
        "i=0; while [ $i -le {last} ]; do echo n $i; i=$((i+1)); [ $((i % 50)) = 0 ] && sleep 0.1; done; exit {code}"
    )
}

#[test]
fn twenty_containers_survive_their_keeper_again_and_again() {
    let e = Engine::new();
    for n in 0..20 {
        e.ok(["run", "-d", "--name", &format!("c{n}"), "bb", "sh", "-c", &counter(1500, n)]);
    }
    for _ in 0..3 {
        let pid = e.keeper("wherry-keeper");
        kill9(pid);
        until("another keeper", || {
            e.keepers().iter().any(|(p, n)| n == "wherry-keeper" && *p != pid)
        });
    }
    for n in 0..20 {
        let name = format!("c{n}");
        assert_eq!(e.ok(["wait", &name]), n.to_string(), "exit code of {name}");
        let logs = e.ok(["logs", &name]);
        let want: Vec<String> = (0..=1500).map(|i| format!("n {i}")).collect();
        assert_eq!(logs.lines().collect::<Vec<_>>(), want, "output of {name}");
    }
    e.finish();
}

/// A run root that was removed while a container ran is no place for a keeper: its helpers leave, the container
/// lives on, and the engine begins anew.
#[test]
fn helpers_leave_a_run_root_that_is_gone() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    let keeper = e.keeper("wherry-keeper");
    let pid: i32 = e.ok(["inspect", "-f", "{{.State.Pid}}", "c1"]).parse().unwrap();
    std::fs::remove_dir_all(e.run_root()).unwrap();
    kill9(keeper);
    until("the helpers have left", || e.keepers().is_empty());
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    e.ok(["rm", "-f", "c1"]);
    until("the container has ended", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    e.finish();
}

#[test]
fn an_attached_client_outlives_the_keeper() {
    let e = Engine::new();
    // As the owner of a container that goes with it, and as one of several.
    for flags in [&["--rm"][..], &[]] {
        let mut args = vec!["run", "--name", "c1"];
        args.extend(flags);
        let script = counter(1500, 9);
        args.extend(["bb", "sh", "-c", &script]);
        let child = e.spawn(args);
        until("it has begun", || text(&e.run(["logs", "c1"]).stdout).lines().count() > 10);
        for _ in 0..3 {
            let pid = e.keeper("wherry-keeper");
            kill9(pid);
            until("another keeper", || {
                e.keepers().iter().any(|(p, n)| n == "wherry-keeper" && *p != pid)
            });
        }
        let output = child.wait_with_output().unwrap();
        let want: Vec<String> = (0..=1500).map(|i| format!("n {i}")).collect();
        assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), want, "{flags:?}");
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(9), ""));
    }
    e.ok(["rm", "c1"]);
    e.finish();
}

#[test]
fn what_is_typed_reaches_the_program_after_the_keepers_death() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let e = Engine::new();
    let mut child = e.spawn(["run", "--rm", "-i", "--name", "c1", "bb", "cat"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut say = |word: &str| {
        writeln!(stdin, "{word}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    };
    say("before");
    let pid = e.keeper("wherry-keeper");
    kill9(pid);
    // The client is back when its successor says so: who is attached is what it hears first.
    until("another keeper", || e.keepers().iter().any(|(p, n)| n == "wherry-keeper" && *p != pid));
    until("the client is back", || text(&e.run(["exec", "c1", "true"]).stderr).is_empty());
    say("after");
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    e.finish();
}

#[test]
fn the_standby_is_replaced() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sh", "-c", &counter(500, 4)]);
    let standby = e.keeper("wherry-standby");
    kill9(standby);
    until("another standby", || {
        e.keepers().iter().any(|(p, n)| n == "wherry-standby" && *p != standby)
    });
    // And now the keeper, whose children nobody of ours inherits.
    kill9(e.keeper("wherry-keeper"));
    assert_eq!(e.ok(["wait", "c1"]), "4");
    assert_eq!(e.ok(["logs", "c1"]).lines().count(), 501);
    e.finish();
}

#[test]
fn both_at_once_harm_no_container() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sh", "-c", &counter(800, 6)]);
    until("it has begun", || e.ok(["logs", "c1"]).lines().count() > 10);
    let (keeper, standby) = (e.keeper("wherry-keeper"), e.keeper("wherry-standby"));
    Command::new("kill").args(["-9", &standby.to_string(), &keeper.to_string()]).status().unwrap();
    until("both are gone", || e.keepers().iter().all(|(p, _)| *p != keeper && *p != standby));
    // The next command starts a keeper that takes the container over.
    assert_eq!(e.inspect("{{.State.Running}}", "c1"), "true");
    assert_eq!(e.ok(["wait", "c1"]), "6");
    let logs = e.ok(["logs", "c1"]);
    let lines: Vec<_> = logs.lines().collect();
    // What was in flight between the two may be missing or doubled, nothing else.
    assert!(lines.len() >= 750, "{} lines", lines.len());
    assert_eq!(lines.last(), Some(&"n 800"));
    e.finish();
}

/// Whoever waits for the end of a container while its keeper is killed hears of it from the next one.
#[test]
fn an_end_that_the_next_keeper_reports_is_awaited() {
    let e = Engine::new();
    for verb in [&["stop", "-t", "60"][..], &["rm", "-f"]] {
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";
        e.ok(["run", "-d", "--name", "c1", "bb", "sh", "-c", script]);
        until("it can be stopped", || text(&e.run(["logs", "c1"]).stdout).contains("up"));
        let pid: i32 = e.ok(["inspect", "-f", "{{.State.Pid}}", "c1"]).parse().unwrap();
        let killed = e.keeper("wherry-keeper");
        kill9(killed);
        until("another keeper", || {
            e.keepers().iter().any(|(pid, name)| name == "wherry-keeper" && *pid != killed)
        });
        // Its parent is the standby now, without which its end cannot be told.
        let standby = e.keeper("wherry-standby");
        let signal = |name: &str| {
            Command::new("kill").args([name, &standby.to_string()]).status().unwrap();
        };
        signal("-STOP");
        let child = e.spawn(verb.iter().copied().chain(["c1"]));
        until("it has ended", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().starts_with(" Z")
        });
        kill9(e.keeper("wherry-keeper"));
        signal("-CONT");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{verb:?}: {}", text(&output.stderr));
        if verb == ["rm", "-f"] {
            assert!(!e.run(["inspect", "c1"]).status.success());
        } else {
            let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
            assert_eq!(e.ok(["inspect", "-f", state, "c1"]).trim_end(), "exited 7");
            e.ok(["rm", "c1"]);
        }
    }
    assert!(!e.run_root().join("keeper.log").exists(), "the keepers had nothing to complain of");
    e.finish();
}

/// A keeper that is killed while it notes that a program runs has started it, or nothing is left of it.
#[test]
fn a_start_during_which_the_keeper_is_killed() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "other", "bb", "sleep", "1000"]);
    // Killed as it makes the note, and as it has written it.
    for (call, started) in [("open,openat", false), ("close", true)] {
        for attached in [false, true] {
            let case = format!("{call}, attached: {attached}");
            let id =
                e.ok(["create", "--name", "c1", "bb", "sh", "-c", "echo out; sleep 1; exit 3"]);
            let note = e.run_root().join("running").join(id.trim());
            let keeper = e.keeper("wherry-keeper");
            let mut killer = Command::new("strace")
                .args(["-q", "-o", "/dev/null", "-P", note.to_str().unwrap()])
                .args(["-e", &format!("inject={call}:signal=KILL"), "-p", &keeper.to_string()])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            until("the keeper is watched", || {
                let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
                !status.lines().any(|line| line == "TracerPid:\t0")
            });
            let mut verb = vec!["start", "c1"];
            verb.splice(1..1, attached.then_some("-a"));
            let done = e.run(verb);
            killer.wait().unwrap();
            if started {
                let code = if attached { 3 } else { 0 };
                assert_eq!(done.status.code(), Some(code), "{case}: {}", text(&done.stderr));
                let out = if attached { "out" } else { "c1" };
                assert_eq!(text(&done.stdout), out, "{case}");
                assert_eq!(e.ok(["wait", "c1"]), "3", "{case}");
                assert_eq!(e.ok(["logs", "c1"]), "out", "{case}");
            } else {
                assert!(!done.status.success(), "{case}");
                assert!(text(&done.stderr).contains("keeper"), "{case}: {}", text(&done.stderr));
                assert_eq!(e.inspect("{{.State.Running}}", "c1"), "false", "{case}");
                assert!(cgroups_of(id.trim()).is_empty(), "{case}");
                // And can be started.
                assert_eq!(e.run(["start", "-a", "c1"]).status.code(), Some(3), "{case}");
            }
            assert_eq!(e.inspect("{{.State.Running}}", "other"), "true", "{case}");
            e.ok(["rm", "c1"]);
        }
    }
    e.ok(["rm", "-f", "other"]);
    e.finish();
}

#[test]
fn a_killed_client_leaves_no_container_of_rm() {
    let e = Engine::new();
    let mut child = e.spawn(["run", "--rm", "--name", "c1", "bb", "sh", "-c", "echo up; sleep 1"]);
    until("it is up", || text(&e.run(["logs", "c1"]).stdout).contains("up"));
    child.kill().unwrap();
    child.wait().unwrap();
    until("it is removed", || e.ok(["ps", "-aq"]).is_empty());
    e.finish();
}

#[test]
fn a_start_killed_anywhere_can_be_repeated() {
    let e = Engine::new();
    e.ok(["create", "--name", "c1", "bb", "sleep", "1000"]);
    for delay in [0, 2, 5, 10, 20, 40] {
        let mut child = e.spawn(["start", "c1"]);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
        let mut output = e.run(["start", "c1"]);
        until("it starts", || {
            output = e.run(["start", "c1"]);
            output.status.success()
        });
        assert_eq!(e.inspect("{{.State.Running}}", "c1"), "true");
        e.ok(["kill", "c1"]);
    }
    e.finish();
}

/// What a killed start has made goes with the container, whatever the record knew of it.
#[test]
fn a_killed_start_leaves_no_cgroup() {
    let e = Engine::new();
    let nothing: Vec<std::path::PathBuf> = Vec::new();
    for delay in [1, 3, 6, 9, 12, 15, 20, 30] {
        let id = e.ok(["create", "bb", "sleep", "1000"]);
        let mut child = e.spawn(["start", &id]);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
        e.ok(["rm", "-f", &id]);
        until("its cgroup is gone", || cgroups_of(&id) == nothing);
    }
    // As it is left where the kill came between the groups and the keeper.
    let id = e.ok(["create", "bb", "true"]);
    for parent in all_cgroups() {
        std::fs::create_dir_all(parent.join("wherry").join(&id)).unwrap();
    }
    assert_ne!(cgroups_of(&id), nothing);
    e.ok(["rm", &id]);
    assert_eq!(cgroups_of(&id), nothing);
    e.finish();
}

#[test]
fn after_a_reboot_containers_are_shown_as_ended() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    let pid: i32 = e.inspect("{{.State.Pid}}", "c1").parse().unwrap();
    // A reboot: every process gone, an empty run root.
    for (pid, _) in e.keepers() {
        kill9(pid);
    }
    kill9(pid);
    until("all is gone", || {
        e.keepers().is_empty() && !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    std::fs::remove_dir_all(e.run_root()).unwrap();
    assert_eq!(e.inspect("{{.State.Status}} {{.State.ExitCode}}", "c1"), "exited 255");
    e.ok(["start", "c1"]);
    assert_eq!(e.inspect("{{.State.Running}}", "c1"), "true");
    e.finish();
}

/// Who looks at the same moment takes the report of an end in before the start is written down.
#[test]
fn a_short_run_is_written_down_once_whoever_looks() {
    let e = Engine::new();
    let mut watcher = e.command().args(["events"]).stdout(Stdio::null()).spawn().unwrap();
    e.ok(["create", "--name", "again", "bb", "sh", "-c", "exit 3"]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..12 {
                    let id = e.ok(["run", "-d", "bb", "sh", "-c", "exit 4"]);
                    assert_eq!(e.ok(["wait", &id]), "4");
                }
            });
        }
        for _ in 0..12 {
            e.ok(["start", "again"]);
            assert_eq!(e.ok(["wait", "again"]), "3");
        }
    });
    let starts = e.past_events("{{.Action}}", &[]);
    let count = |action: &str| starts.lines().filter(|line| *line == action).count();
    assert_eq!((count("start"), count("die")), (48, 48));
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    e.finish();
}

/// A `create` that was killed before it wrote the container down leaves a directory of nobody.
#[test]
fn directories_of_nobody_go_with_a_prune() {
    let e = Engine::new();
    e.ok(["create", "--name", "c1", "bb", "true"]);
    let containers = e.data_root().join("containers");
    let make = |digit: &str| {
        let path = containers.join(digit.repeat(64));
        std::fs::create_dir(&path).unwrap();
        path
    };
    let age = |path: &std::path::Path| {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        std::fs::File::open(path).unwrap().set_modified(old).unwrap();
    };
    let (old, new) = (make("a"), make("b"));
    let own = containers.join(e.inspect("{{.Id}}", "c1"));
    age(&old);
    age(&own);
    e.ok(["container", "prune", "-f", "--filter", "label=nobody"]);
    assert!(!old.exists() && new.exists() && own.exists());
    age(&new);
    e.ok(["container", "prune", "-f"]);
    assert!(!new.exists() && !own.exists());
    e.finish();
}
