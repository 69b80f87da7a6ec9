//! What a start costs, in system calls: a bound for what every later change adds. Times are measured by
//! `bench/`; calls can be counted anywhere. Whoever has a reason raises a bound, in the change that needs it.

use std::path::Path;
use std::process::Command;

use crate::harness::{Engine, until};

/// Calls of the command, and those of the keeper for it with the process that it makes. As measured, and a tenth more.
struct Bound {
    verb: &'static [&'static str],
    command: u64,
    keeper: u64,
}

const BOUNDS: &[Bound] = &[
    Bound { verb: &["run", "--rm", "--network", "none", "bb", "true"], command: 850, keeper: 790 },
    Bound { verb: &["run", "--rm", "bb", "true"], command: 1040, keeper: 795 },
    Bound { verb: &["run", "--rm", "--network", "net", "bb", "true"], command: 1065, keeper: 795 },
    Bound { verb: &["exec", "c1", "true"], command: 180, keeper: 345 },
    Bound { verb: &["ps"], command: 315, keeper: 20 },
];

/// The sum in a table of `strace -c`.
fn total(path: &Path) -> u64 {
    let table = std::fs::read_to_string(path).unwrap();
    let last = table.lines().rfind(|line| line.ends_with(" total")).unwrap_or_else(|| {
        panic!("no table of calls: {table}");
    });
    last.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Counts the calls of one command and, meanwhile, of the keeper and its children.
fn count(e: &Engine, verb: &[&str]) -> (u64, u64) {
    let (own, held) = (e.path("own.calls"), e.path("keeper.calls"));
    let keeper = e.keeper("wherry-keeper");
    let mut watch = Command::new("strace")
        .args(["-f", "-q", "-c", "-o", held.to_str().unwrap(), "-p", &keeper.to_string()])
        .spawn()
        .unwrap();
    until("the keeper is watched", || {
        let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
        !status.lines().any(|line| line == "TracerPid:\t0")
    });
    let mut traced = e.command_as("strace");
    traced.args(["-f", "-q", "-c", "-o", own.to_str().unwrap(), env!("CARGO_BIN_EXE_wherry")]);
    let done = traced.args(verb).output().unwrap();
    assert!(done.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&done.stderr));
    let pid = rustix::process::Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    watch.wait().unwrap();
    (total(&own), total(&held))
}

#[test]
fn a_start_makes_no_more_calls_than_it_did() {
    if Command::new("strace").arg("-V").output().is_err() {
        panic!("install strace: this test counts system calls by it");
    }
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "--network", "none", "bb", "sleep", "1000"]);
    e.ok(["network", "create", "net"]);
    e.ok(["run", "-d", "--name", "c2", "--network", "net", "bb", "sleep", "1000"]);
    // The first time things are made that stay.
    e.ok(["run", "--rm", "bb", "true"]);
    let mut wrong = Vec::new();
    for Bound { verb, command, keeper } in BOUNDS {
        // Chance adds calls, it never saves any.
        let counts: Vec<_> = (0..3).map(|_| count(&e, verb)).collect();
        let own = counts.iter().map(|c| c.0).min().unwrap();
        let held = counts.iter().map(|c| c.1).min().unwrap();
        if own > *command || held > *keeper {
            wrong.push(format!(
                "{verb:?}: {own} calls ({command} allowed), keeper {held} ({keeper})"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    e.finish();
}

/// What an exec needs to know the keeper tells, and what is to be told of it the keeper reports.
#[test]
fn an_exec_opens_no_database() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "--network", "none", "bb", "sleep", "1000"]);
    let opens = |name: &str| {
        let log = e.path("exec.calls");
        let mut traced = e.command_as("strace");
        traced.args(["-q", "-e", "trace=open,openat", "-o", log.to_str().unwrap()]);
        let done =
            traced.args([env!("CARGO_BIN_EXE_wherry"), "exec", name, "true"]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let log = std::fs::read_to_string(log).unwrap();
        log.contains("/state.db\"")
    };
    assert!(!opens("c1"));
    let id = e.inspect("{{.Id}}", "c1");
    assert!(!opens(&id));
    assert!(opens(&id[..12]), "only the database knows what begins so");
    // The new name is in the database alone, until the next start.
    e.ok(["rename", "c1", "c2"]);
    assert!(opens("c2"));
    e.ok(["restart", "-t", "0", "c2"]);
    assert!(!opens("c2"));
    e.finish();
}

/// No step of a start grows with the number of other containers, and where there are many the child of a start or an exec
/// begins otherwise (`keeper::shelf`).
#[test]
fn a_start_costs_the_same_beside_many() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "--network", "none", "bb", "sleep", "1000"]);
    let verb = ["run", "--rm", "--network", "none", "bb", "true"];
    count(&e, &verb);
    let alone = (0..3).map(|_| count(&e, &verb)).min().unwrap();
    const MANY: u32 = 120;
    for n in 2..MANY {
        let name = format!("c{n}");
        e.ok(["run", "-d", "--name", &name, "--network", "none", "bb", "sleep", "1000"]);
    }
    let beside = (0..3).map(|_| count(&e, &verb)).min().unwrap();
    // The database is a tree that grows in depth, by some reads for thousands.
    assert!(
        beside.0 <= alone.0 + 40 && beside.1 <= alone.1 + 20,
        "alone {alone:?}, beside many {beside:?}"
    );
    assert_eq!(e.ok(["exec", "c7", "sh", "-c", "echo out; cat /etc/hostname"]).lines().count(), 2);
    assert_eq!(e.ok(["run", "--rm", "-t", "bb", "echo", "x"]).trim_end(), "x");
    assert_eq!(e.run(["run", "--rm", "bb", "no such program"]).status.code(), Some(127));
    // The next keeper's descriptors lie as high.
    let keeper = e.keeper("wherry-keeper");
    let pid = rustix::process::Pid::from_raw(keeper).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("another keeper", || {
        e.keepers().iter().any(|(pid, name)| name == "wherry-keeper" && *pid != keeper)
    });
    assert_eq!(e.ok(["exec", "c7", "echo", "y"]), "y");
    let low = std::fs::read_dir(format!("/proc/{}/fd", e.keeper("wherry-keeper"))).unwrap();
    let low = low.filter(|fd| {
        let name = fd.as_ref().unwrap().file_name();
        name.to_str().unwrap().parse::<u32>().unwrap() < 1024
    });
    assert!(low.count() < 40, "what is held for containers lies apart");
    let mut all = vec!["rm".to_owned(), "-f".to_owned()];
    all.extend((1..MANY).map(|n| format!("c{n}")));
    e.ok(&all);
    e.finish();
}
