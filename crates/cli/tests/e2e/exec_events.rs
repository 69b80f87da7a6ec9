//! What the events say of execs, of which no process of the engine takes notice while they run.

use std::path::PathBuf;

use crate::harness::{Engine, until};

/// What happened to `c1`, oldest first.
fn events(e: &Engine) -> Vec<String> {
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}";
    let said = e.past_events(format, &["container=c1"]);
    said.lines().map(|line| line.replace("<no value>", "-").trim().to_owned()).collect()
}

/// The files of the reports that nobody has taken in.
fn reports(e: &Engine) -> Vec<PathBuf> {
    let files = std::fs::read_dir(e.run_root().join("exits")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
    paths.retain(|p| p.file_name().unwrap().to_str().unwrap().starts_with("exec."));
    paths
}

#[test]
fn an_exec_is_told_as_docker_tells_it() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    e.ok(["exec", "c1", "true", "x"]);
    e.fails(3, ["exec", "c1", "sh", "-c", "exit 3"]);
    e.ok(["kill", "c1"]);
    let want = [
        "create c1 -",
        "start c1 -",
        "exec_create: true x c1 -",
        "exec_start: true x c1 -",
        "exec_die c1 0",
        "exec_create: sh -c exit 3 c1 -",
        "exec_start: sh -c exit 3 c1 -",
        "exec_die c1 3",
        "kill c1 -",
        "die c1 137",
    ];
    assert_eq!(events(&e), want);
    assert_eq!(reports(&e), Vec::<PathBuf>::new());
    e.ok(["rm", "c1"]);
    e.finish();
}

/// Who was killed between writing reports down and removing them leaves them to be found again.
#[test]
fn a_report_is_taken_in_once() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    for _ in 0..5 {
        e.ok(["exec", "c1", "true"]);
    }
    let kept: Vec<_> = reports(&e).into_iter().map(|p| (std::fs::read(&p).unwrap(), p)).collect();
    assert_eq!(kept.len(), 10);
    let said = events(&e);
    assert_eq!(said.len(), 2 + 5 * 3);
    for (bytes, path) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(events(&e), said);
    assert_eq!(reports(&e), Vec::<PathBuf>::new());
    e.ok(["rm", "-f", "c1"]);
    e.finish();
}

/// Several listeners and many execs: each is heard once by each listener, and written once.
#[test]
fn listeners_hear_of_execs() {
    use std::io::{BufRead, BufReader};
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    let listen = ["events", "--since", "1h", "-f", "event=exec_die", "--format", "{{.Action}}"];
    let listeners: Vec<_> = (0..3).map(|_| e.spawn(listen)).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..10).for_each(|_| drop(e.ok(["exec", "c1", "true"]))));
        }
    });
    for mut listener in listeners {
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        let heard: Vec<String> = lines.by_ref().take(30).map(Result::unwrap).collect();
        assert_eq!(heard, vec!["exec_die"; 30]);
        listener.kill().unwrap();
        listener.wait().unwrap();
        assert_eq!(lines.count(), 0);
    }
    assert_eq!(events(&e).len(), 2 + 30 * 3);
    e.ok(["rm", "-f", "c1"]);
    e.finish();
}

/// Where the keeper cannot leave a report, the command writes the start down.
#[test]
fn an_exec_that_the_keeper_cannot_report() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    std::fs::remove_dir(e.run_root().join("exits")).unwrap();
    e.ok(["exec", "c1", "true"]);
    let said = events(&e);
    assert!(said.contains(&"exec_start: true c1 -".to_owned()), "{said:?}");
    e.ok(["rm", "-f", "c1"]);
    e.finish();
}

/// The last thing the keeper has done is to take them in.
#[test]
fn reports_do_not_outlive_the_keeper() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    e.ok(["exec", "c1", "true"]);
    assert_eq!(reports(&e).len(), 2);
    let pid = e.ok(["inspect", "-f", "{{.State.Pid}}", "c1"]);
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    until("the keeper has left", || e.keepers().is_empty());
    assert_eq!(reports(&e), Vec::<PathBuf>::new());
    assert_eq!(events(&e).last().unwrap(), "die c1 137");
    e.ok(["rm", "c1"]);
    e.finish();
}
