//! A web server and its database by the programs that people run such stacks with.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{text, until};
use crate::server::Served;

const STACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/stack");

/// A client with the server's address, in the namespace where published ports are.
fn near(served: &Served, program: &str) -> Command {
    let mut command = served.engine.host.command("timeout");
    command
        .args(["-s", "KILL", "120", program])
        .env("DOCKER_HOST", format!("unix://{}", served.socket().display()))
        .env("DOCKER_CONFIG", served.engine.path("docker-config"))
        .env("HOME", &served.engine.dir)
        .stdin(std::process::Stdio::null());
    command
}

#[track_caller]
fn good(output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out
}

fn page(served: &Served) -> Option<String> {
    let mut wget = served.engine.host.command("busybox");
    let output =
        wget.args(["wget", "-q", "-O", "-", "http://127.0.0.1:8080/cgi-bin/row"]).output().ok()?;
    output.status.success().then(|| text(&output.stdout))
}

/// Up, healthy, used, changed, down.
fn stack(program: &str, first: &[&str]) {
    let served = Served::new();
    let engine = &served.engine;
    let compose = |args: &[&str]| {
        let file = format!("{STACK}/docker-compose.yml");
        let mut command = near(&served, program);
        command.args(first).args(["-p", "shop", "-f", &file]).args(args);
        good(command.output().unwrap())
    };
    compose(&["up", "-d"]);
    assert_eq!(page(&served).as_deref(), Some("row of table"));
    until("the web server's health", || {
        engine.ok(["ps", "-q", "--filter", "health=healthy"]).lines().count() == 2
    });
    let shown = compose(&["ps", "-q"]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert_eq!(
        compose(&["exec", "-T", "web", "sh", "-c", "nc db 5432 < /dev/null"]),
        "row of table"
    );
    compose(&["exec", "-T", "db", "sh", "-c", "echo other > /data/row"]);
    until("the new row", || page(&served).as_deref() == Some("other"));
    compose(&["logs", "--no-color"]);
    // Nothing is to be changed the second time.
    let before = compose(&["ps", "-q"]);
    compose(&["up", "-d"]);
    assert_eq!(compose(&["ps", "-q"]), before);
    compose(&["restart", "-t", "0", "web"]);
    until("the page after the restart", || page(&served).as_deref() == Some("other"));
    assert_eq!(compose(&["run", "--rm", "-T", "--no-deps", "web", "echo", "once"]), "once");
    compose(&["stop", "-t", "0"]);
    assert_eq!(engine.ok(["ps", "-q"]), "");
    compose(&["start"]);
    until("the page after the start", || page(&served).is_some());
    compose(&["down", "-v", "-t", "0"]);
    assert_eq!(engine.ok(["ps", "-aq"]), "");
    assert_eq!(engine.ok(["volume", "ls", "-q"]), "");
    let networks = engine.ok(["network", "ls", "--format", "{{.Name}}"]);
    assert!(!networks.contains("shop"), "{networks}");
    served.finish();
}

fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).args(["version", "--short"]).output().ok()?;
    output.status.success().then(|| text(&output.stdout).trim_start_matches('v').to_owned())
}

#[test]
fn docker_compose_1() {
    let program = "/usr/bin/docker-compose";
    match version_of(program) {
        Some(version) if version.starts_with("1.") => stack(program, &[]),
        _ => eprintln!("not tested: there is no docker-compose 1 here (Debian: docker-compose)"),
    }
}

#[test]
fn compose_2() {
    let given = std::env::var("WHERRY_TEST_COMPOSE").unwrap_or_default();
    let places = [
        given.as_str(),
        "/usr/libexec/docker/cli-plugins/docker-compose",
        "/usr/lib/docker/cli-plugins/docker-compose",
        "/usr/local/lib/docker/cli-plugins/docker-compose",
        "/usr/bin/docker-compose",
    ];
    let found = places.into_iter().find(|place| {
        Path::new(place).exists() && version_of(place).is_some_and(|v| !v.starts_with("1."))
    });
    match found {
        Some(program) => stack(program, &[]),
        None => eprintln!(
            "not tested: there is no Compose 2 here (the plugin docker-compose; WHERRY_TEST_COMPOSE names one)"
        ),
    }
}

#[test]
fn testcontainers() {
    let there = Command::new("python3")
        .args(["-c", "import testcontainers.core.container, testcontainers.core.network"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("not tested: install testcontainers (PyPI)");
        return;
    }
    let served = Served::new();
    let mut script = near(&served, "python3");
    // Its helper that cleans up after crashes is an image of its own from Docker Hub.
    script.env("TESTCONTAINERS_RYUK_DISABLED", "true").arg(format!("{STACK}/containers.py"));
    assert!(good(script.output().unwrap()).ends_with("done"));
    served.finish();
}
