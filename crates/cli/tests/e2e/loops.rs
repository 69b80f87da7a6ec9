//! Many runs, one after the other and at once, leave nothing behind.

use crate::harness::Engine;

/// Mounts, processes and cgroups of the host that could be ours.
fn census(e: &Engine) -> (usize, Vec<String>) {
    let dir = e.dir.to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|l| l.contains(&dir)).count();
    let mut left = Vec::new();
    for part in ["running", "exits", "io"] {
        for entry in std::fs::read_dir(e.run_root().join(part)).unwrap().flatten() {
            left.push(entry.path().display().to_string());
        }
    }
    for part in ["containers", "tmp"] {
        for entry in std::fs::read_dir(e.data_root().join(part)).unwrap().flatten() {
            left.push(entry.path().display().to_string());
        }
    }
    (mounts, left)
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn three_hundred_runs_in_a_loop() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "witness", "bb", "sleep", "1000"]);
    e.ok(["run", "--rm", "bb", "true"]);
    let (mounts, _) = census(&e);
    let (keeper, standby) = (e.keeper("wherry-keeper"), e.keeper("wherry-standby"));
    // What the keeper prepares for the next start comes a moment later.
    let count = || (descriptors(keeper), descriptors(standby));
    let (mut before, mut since) = (count(), std::time::Instant::now());
    crate::harness::until("the keeper is at rest", || {
        if count() != before {
            (before, since) = (count(), std::time::Instant::now());
        }
        since.elapsed() > std::time::Duration::from_millis(500)
    });
    for _ in 0..300 {
        e.ok(["run", "--rm", "bb", "true"]);
    }
    crate::harness::until("the keeper is as before", || count() == before);
    let (mounts_after, left) = census(&e);
    assert_eq!(mounts_after, mounts);
    // The witness has a directory, a note and two pipes; nobody else has anything.
    let others: Vec<_> =
        left.iter().filter(|l| !l.contains(&e.ok(["ps", "-q", "--no-trunc"]))).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(e.ok(["ps", "-a", "--format", "{{.Names}}"]), "witness");
    let id = e.ok(["ps", "-q", "--no-trunc"]);
    let cgroups: Vec<_> = std::fs::read_dir("/sys/fs/cgroup/memory/wherry")
        .or_else(|_| std::fs::read_dir("/sys/fs/cgroup/wherry"))
        .map(|d| d.flatten().filter(|f| f.file_name().to_string_lossy() == id).collect())
        .unwrap_or_default();
    assert_eq!(cgroups.len(), 1);
    e.finish();
}

#[test]
fn fifty_runs_at_once() {
    let e = Engine::new();
    let children: Vec<_> = (0..50)
        .map(|n| e.spawn(["run", "--rm", "bb", "sh", "-c", &format!("echo {n}; exit {n}")]))
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(i32::try_from(n).unwrap()),
            "{}",
            crate::harness::text(&output.stderr)
        );
        assert_eq!(crate::harness::text(&output.stdout), n.to_string());
    }
    assert_eq!(e.ok(["ps", "-aq"]), "");
    e.finish();
}

/// One starts it and the others find it running; none of them takes away what another has made.
#[test]
fn eight_starts_of_one_container() {
    let e = Engine::new();
    for round in 0..6 {
        let network = if round % 2 == 0 { "none" } else { "bridge" };
        let id = e.ok(["create", "--network", network, "bb", "sleep", "1000"]);
        let starts: Vec<_> = (0..8).map(|_| e.spawn(["start", &id])).collect();
        for start in starts {
            let out = start.wait_with_output().unwrap();
            assert!(out.status.success(), "{}", crate::harness::text(&out.stderr));
        }
        assert_eq!(e.inspect("{{.State.Status}}", &id), "running");
        let filter = format!("container={id}");
        let events = e.past_events("{{.Action}}", &[&filter, "event=start", "event=die"]);
        assert_eq!(events, "start");
        assert_eq!(e.ok(["exec", &id, "echo", "here"]), "here");
        e.ok(["rm", "-f", &id]);
    }
    e.finish();
}
