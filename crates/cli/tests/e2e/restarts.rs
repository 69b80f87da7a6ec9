//! Restart policies and health checks.

use crate::harness::{Engine, until};

#[test]
fn on_failure_counts() {
    let e = Engine::new();
    e.ok([
        "run",
        "-d",
        "--name",
        "c1",
        "--restart",
        "on-failure:2",
        "bb",
        "sh",
        "-c",
        "echo try; exit 3",
    ]);
    until("it has given up", || {
        e.inspect("{{.State.Status}} {{.RestartCount}}", "c1") == "exited 2"
    });
    assert_eq!(e.ok(["logs", "c1"]).lines().count(), 3);
    e.ok(["run", "-d", "--name", "good", "--restart", "on-failure", "bb", "true"]);
    until("it has ended", || e.inspect("{{.State.Status}}", "good") == "exited");
    assert_eq!(e.inspect("{{.RestartCount}}", "good"), "0");
    e.finish();
}

#[test]
fn always_restarts_until_it_is_stopped() {
    let e = Engine::new();
    e.ok([
        "run",
        "-d",
        "--name",
        "c1",
        "--restart",
        "always",
        "bb",
        "sh",
        "-c",
        "echo up; sleep 0.1",
    ]);
    until("it was started again", || {
        e.inspect("{{.RestartCount}}", "c1").parse::<u32>().unwrap() >= 2
    });
    e.ok(["stop", "-t", "0", "c1"]);
    assert_eq!(e.inspect("{{.State.Running}} {{.State.Restarting}}", "c1"), "false false");
    let count = e.ok(["logs", "c1"]).lines().count();
    until("the keeper has left", || e.keepers().is_empty());
    assert_eq!(e.ok(["logs", "c1"]).lines().count(), count);
    assert!(e.fails(125, ["run", "--rm", "--restart", "always", "bb", "true"]).contains("restart"));
    assert!(e.fails(125, ["run", "--restart", "sometimes", "bb", "true"]).contains("sometimes"));
    e.finish();
}

#[test]
fn a_killed_process_is_restarted() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "--restart", "unless-stopped", "bb", "sleep", "1000"]);
    let pid = e.inspect("{{.State.Pid}}", "c1");
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    until("it lives again", || {
        let now = e.inspect("{{.State.Running}} {{.State.Pid}}", "c1");
        now.starts_with("true ") && !now.ends_with(&format!(" {pid}")) && !now.ends_with(" 0")
    });
    e.finish();
}

#[test]
fn health_is_checked_and_shown() {
    let e = Engine::new();
    e.ok([
        "run",
        "-d",
        "--name",
        "c1",
        "--health-cmd",
        "cat /tmp/ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "bb",
        "sleep",
        "1000",
    ]);
    let health = || e.inspect("{{.State.Health.Status}}", "c1");
    until("it is unhealthy", || health() == "unhealthy");
    assert!(e.ok(["ps"]).contains("(unhealthy)"));
    assert_eq!(e.ok(["ps", "-q", "-f", "health=unhealthy"]).lines().count(), 1);
    e.ok(["exec", "c1", "touch", "/tmp/ok"]);
    until("it is healthy", || health() == "healthy");
    assert_ne!(e.inspect("{{len .State.Health.Log}}", "c1"), "0");
    let events = e.past_events("{{.Action}}", &[]);
    assert!(
        events.contains("health_status: unhealthy") && events.contains("health_status: healthy"),
        "{events}"
    );
    assert_eq!(e.inspect("{{.State.Running}} {{.RestartCount}}", "c1"), "true 0");
    // A steward that is killed is replaced.
    for (pid, name) in e.keepers() {
        if !name.starts_with("wherry-") {
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        }
    }
    e.ok(["exec", "c1", "rm", "/tmp/ok"]);
    until("it is unhealthy again", || health() == "unhealthy");
    e.finish();
}
