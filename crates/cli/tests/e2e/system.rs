//! The whole engine: accounting, information, several engines, Docker's name.

use crate::harness::{Engine, text};

fn du(dir: &std::path::Path) -> u64 {
    let output =
        std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(dir).output().unwrap();
    text(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn every_byte_is_accounted_for() {
    let e = Engine::new();
    e.ok([
        "run",
        "--name",
        "c1",
        "-v",
        "vol:/v",
        "bb",
        "sh",
        "-c",
        "head -c 3000000 /dev/urandom > /big; head -c 500000 /dev/urandom > /v/f; seq 1 5000",
    ]);
    let json = e.ok(["system", "df", "--format", "{{json .}}"]);
    let verbose = e.ok(["system", "df", "-v"]);
    assert!(verbose.contains("c1") && verbose.contains("vol"), "{verbose}");
    assert!(json.contains("Images"), "{json}");
    let stray = e.data_root().join("stray");
    std::fs::write(&stray, vec![1; 100_000]).unwrap();
    assert!(e.ok(["system", "df", "-v"]).contains("stray"));
    std::fs::remove_file(stray).unwrap();
    assert!(du(&e.data_root()) > 5_000_000);
    e.ok(["system", "prune", "-af", "--volumes"]);
    assert_eq!(e.ok(["ps", "-aq"]) + &e.ok(["images", "-aq"]), "");
    assert!(du(&e.data_root()) < 3_000_000, "{}", du(&e.data_root()));
    e.finish();
}

#[test]
fn two_engines_know_nothing_of_each_other() {
    let (a, b) = (Engine::new(), Engine::new());
    a.ok(["run", "-d", "--name", "same", "bb", "sleep", "1000"]);
    b.ok(["run", "-d", "--name", "same", "bb", "sleep", "1000"]);
    assert_ne!(a.inspect("{{.Id}}", "same"), b.inspect("{{.Id}}", "same"));
    a.ok(["rm", "-f", "same"]);
    assert_eq!(b.inspect("{{.State.Running}}", "same"), "true");
    a.finish();
    b.finish();
}

#[test]
fn information_about_the_engine() {
    let e = Engine::new();
    assert!(e.ok(["info"]).contains("Images: 1"));
    assert!(e.ok(["version"]).contains("Version"));
    assert_eq!(e.ok(["info", "-f", "{{.Images}} {{.OSType}}"]), "1 linux");
    let config = e.ok(["config", "show"]);
    assert!(
        config.contains("data-root") && config.contains(e.data_root().to_str().unwrap()),
        "{config}"
    );
    let doctor = e.run(["doctor"]);
    assert!(text(&doctor.stdout).to_lowercase().contains("cgroup"));
    e.finish();
}

#[test]
fn under_dockers_name_it_speaks_as_docker() {
    let e = Engine::new();
    let docker = e.path("docker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wherry"), &docker).unwrap();
    let run = |args: &[&str]| {
        let output = e
            .host
            .command(docker.to_str().unwrap())
            .env("WHERRY_DATA_ROOT", e.data_root())
            .env("WHERRY_RUN_ROOT", e.run_root())
            .args(args)
            .output()
            .unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    assert!(run(&["--version"]).1.starts_with("Docker version"));
    assert_eq!(run(&["run", "--rm", "bb", "echo", "x"]), (0, "x".into(), String::new()));
    let (code, _, error) = run(&["run", "--bogus", "bb"]);
    assert_eq!(code, 125);
    assert!(
        error.contains("unknown flag: --bogus") && error.contains("docker run --help"),
        "{error}"
    );
    let (code, _, error) = run(&["start", "nope"]);
    assert_eq!(code, 1);
    assert!(error.contains("Error response from daemon: No such container: nope"), "{error}");
    e.finish();
}

#[test]
fn a_read_only_data_root_can_be_looked_at() {
    let e = Engine::new();
    e.ok(["create", "--name", "c1", "bb", "true"]);
    // A mount namespace of its own in which the data root is read-only.
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"",
        e.data_root().display()
    );
    let run = |args: &[&str]| {
        let mut command = e.host.command("unshare");
        command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_wherry")]).args(args);
        command.env("WHERRY_DATA_ROOT", e.data_root()).env("WHERRY_RUN_ROOT", e.run_root());
        command.output().unwrap()
    };
    let create = run(&["create", "bb", "true"]);
    assert!(!create.status.success());
    assert_eq!(
        text(&create.stderr).lines().filter(|l| !l.is_empty() && !l.starts_with("Run '")).count(),
        1,
        "{}",
        text(&create.stderr)
    );
    assert_eq!(e.ok(["ps", "-a", "--format", "{{.Names}}"]), "c1");
    e.finish();
}
