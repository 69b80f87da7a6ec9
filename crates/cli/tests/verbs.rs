//! Verbs through the binary, in real namespaces.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use world::{World, ended, wait_for};

const ROOT: &[&str] = &["--rootfs", "/"];

fn args<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, ROOT, after].concat()
}

#[test]
fn exit_codes_are_dockers() {
    let world = World::new();
    for (script, want) in [("exit 0", 0), ("exit 3", 3), ("exit 300", 44)] {
        let (code, _, err) = world.all(&args(&["run", "--rm"], &["sh", "-c", script]));
        assert_eq!(code, want, "{script}: {err}");
    }
    for (program, want) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let (code, out, err) = world.all(&args(&["run", "--rm"], &["--", program]));
        assert_eq!((code, out.as_str()), (want, ""));
        assert!(err.contains(program), "{err}");
    }
    let (code, _, err) = world.all(&["run", "no-such-image"]);
    assert_eq!(code, 125);
    assert!(err.starts_with("Unable to find image 'no-such-image:latest' locally\n"), "{err}");
    assert!(err.contains("wherry: no-such-image is blocked"), "{err}");
    // Nothing is left of any of them.
    assert_eq!(world.ok(&["ps", "-aq"]), "");
    let mut child =
        world.command(&args(&["run", "--name", "boat"], &["sleep", "1000"])).spawn().unwrap();
    wait_for("the container", || world.run(&["kill", "boat"]).status.success());
    assert_eq!(ended(&mut child), 137);
    assert_eq!(world.ok(&["wait", "boat"]), "137");
    assert_eq!(world.ok(&["rm", "boat"]), "boat");
}

#[test]
fn output_and_errors_keep_apart() {
    let world = World::new();
    let (_, out, err) = world.all(&args(&["run", "--rm"], &["sh", "-c", "echo out; echo err >&2"]));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let (_, out, err) =
        world.all(&args(&["run", "--rm", "-a", "stderr"], &["sh", "-c", "echo out; echo err >&2"]));
    assert_eq!((out.as_str(), err.as_str()), ("", "err\n"));
}

#[test]
fn much_input_gets_through_while_more_output_comes_back() {
    let world = World::new();
    world.ok(&args(&["run", "-d", "--name", "boat"], &["sleep", "1000"]));
    let input: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let run = args(&["run", "--rm", "-i"], &["sh", "-c"]);
    for start in [run, vec!["exec", "-i", "boat", "sh", "-c"]] {
        let out = world.fed(&[start.as_slice(), &["cat"]].concat(), &input);
        assert!(out.status.success() && out.stdout == input, "{start:?}");
        // `od` writes three times what it reads.
        let out = world.fed(&[start.as_slice(), &["od -v -x"]].concat(), &input);
        assert!(out.stdout.len() > 2 * input.len(), "{start:?}");
        // What is not read is no failure.
        let out = world.fed(&[start.as_slice(), &["head -c 3"]].concat(), &input);
        assert!(out.status.success() && out.stdout == input[..3], "{start:?}");
    }
}

#[test]
fn the_id_file_is_written_once() {
    let world = World::new();
    let file = world.path("id");
    world.ok(&args(&["create", "--cidfile", &file], &["true"]));
    let id = std::fs::read_to_string(&file).unwrap();
    assert_eq!(world.ok(&["inspect", "-f", "{{.Id}}", &id]), id);
    let (code, _, err) = world.all(&args(&["run", "--cidfile", &file], &["true"]));
    assert_eq!(code, 125);
    assert!(err.contains("container ID file found"), "{err}");
    // A failure leaves no empty file.
    let other = world.path("other");
    assert_eq!(world.all(&["run", "--cidfile", &other, "no-such-image"]).0, 125);
    assert!(!std::path::Path::new(&other).exists());
}

#[test]
fn what_is_there_is_listed_and_looked_at() {
    let world = World::new();
    let id = world.ok(&args(&["run", "-d", "--name", "boat", "-l", "a=b"], &["sleep", "1000"]));
    let row: serde_json::Value =
        serde_json::from_str(&world.ok(&["ps", "--format", "json"])).unwrap();
    assert_eq!(row["Names"], "boat");
    assert_eq!(row["ID"], id[..12]);
    assert_eq!(row["State"], "running");
    assert_eq!(world.ok(&["ps", "-q", "--no-trunc", "--filter", "label=a=b"]), id);
    assert_eq!(world.ok(&["ps", "-q", "--filter", "name=other"]), "");
    assert!(world.ok(&["ps"]).starts_with("CONTAINER ID   IMAGE "));
    let all: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "boat"])).unwrap();
    assert_eq!(all[0]["Name"], "/boat");
    assert_eq!(
        world.ok(&[
            "inspect",
            "-f",
            "{{.State.Running}} {{index .Config.Labels \"a\"}} {{json .Config.Cmd}}",
            "boat"
        ]),
        "true b [\"sleep\",\"1000\"]"
    );
    let (code, out, err) = world.all(&["inspect", "boat", "nope", "--format", "{{.Name}}"]);
    assert_eq!((code, out.as_str()), (1, "/boat\n"));
    assert_eq!(err, "Error: No such object: nope\n");
    assert_eq!(world.all(&["inspect", "nope"]).1, "[]\n");
    assert!(world.ok(&["top", "boat"]).contains("sleep 1000"));
    assert!(world.ok(&["stats", "--no-stream", "boat"]).contains("boat"));
    assert_eq!(world.ok(&["rename", "boat", "ship"]), "");
    assert_eq!(world.ok(&["stop", "-t", "0", "ship"]), "ship");
    assert!(world.ok(&["ps", "-a"]).contains("Exited (137)"));
}

#[test]
fn logs_have_times_and_ends() {
    let world = World::new();
    world.ok(&args(
        &["run", "-d", "--name", "boat"],
        &["sh", "-c", "echo one; echo two >&2; echo three"],
    ));
    world.ok(&["wait", "boat"]);
    let (_, out, err) = world.all(&["logs", "boat"]);
    assert_eq!((out.as_str(), err.as_str()), ("one\nthree\n", "two\n"));
    // The order of two streams is not that of their writes; that of one is.
    world.ok(&args(&["run", "--name", "ship"], &["sh", "-c", "echo one; echo three"]));
    let line = world.ok(&["logs", "--tail", "1", "-t", "ship"]);
    let (time, text) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "three"));
    assert!(time.ends_with('Z'));
    assert_eq!(
        world.all(&["logs", "--since", "1s", "--until", "2000-01-01T00:00:00Z", "boat"]).1,
        ""
    );
    assert_eq!(world.all(&["logs", "--since", "yesterday", "boat"]).0, 1);
    let (code, _, err) = world.all(&["logs", "nope"]);
    assert_eq!(code, 1);
    assert!(err.contains("No such container: nope"), "{err}");
}

#[test]
fn files_are_copied_both_ways() {
    let world = World::new();
    world.ok(&args(&["run", "-d", "--name", "boat"], &["sleep", "1000"]));
    let source = world.path("src");
    std::fs::create_dir_all(format!("{source}/sub")).unwrap();
    std::fs::write(format!("{source}/sub/f"), "text").unwrap();
    world.ok(&["cp", &source, "boat:/tmp"]);
    world.ok(&["cp", &source, "boat:/tmp/new"]);
    world.ok(&["cp", &format!("{source}/sub/f"), "boat:/tmp/g"]);
    assert_eq!(
        world.ok(&["exec", "boat", "cat", "/tmp/src/sub/f", "/tmp/new/sub/f", "/tmp/g"]),
        "texttexttext"
    );
    let into = world.path("into");
    std::fs::create_dir(&into).unwrap();
    world.ok(&["cp", "boat:/tmp/src", &into]);
    world.ok(&["cp", "boat:/tmp/src/.", &world.path("content")]);
    world.ok(&["cp", "boat:/tmp/g", &world.path("h")]);
    for path in ["into/src/sub/f", "content/sub/f", "h"] {
        assert_eq!(std::fs::read_to_string(world.dir.join(path)).unwrap(), "text", "{path}");
    }
    // A stream out of one path and into another.
    let tar = world.run(&["cp", "boat:/tmp/src", "-"]).stdout;
    world.ok(&["exec", "boat", "mkdir", "/tmp/other"]);
    assert!(world.fed(&["cp", "-", "boat:/tmp/other"], &tar).status.success());
    assert_eq!(world.ok(&["exec", "boat", "cat", "/tmp/other/src/sub/f"]), "text");
    for (from, to, why) in [
        ("boat:/nope", into.as_str(), "Could not find the file /nope in container boat"),
        ("/nope", "boat:/", "lstat /nope: no such file or directory"),
        ("boat:/tmp/src", "/nope/x", "does not exist"),
        ("boat:/a", "boat:/b", "copying between containers is not supported"),
        (source.as_str(), "boat:/tmp/g", "cannot copy directory"),
        ("/a", "/b", "must specify at least one container source"),
    ] {
        let (code, _, err) = world.all(&["cp", from, to]);
        assert_eq!(code, 1, "{from} {to}");
        assert!(err.contains(why), "{from} {to}: {err}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_accident() {
    let world = World::new();
    world.ok(&args(&["run", "-d", "--name", "boat"], &["sh", "-c", "seq 1 100000; sleep 1000"]));
    wait_for("the output", || world.ok(&["logs", "--tail", "1", "boat"]) == "100000");
    let mut child = world
        .command(&["logs", "-f", "boat"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    assert_eq!(ended(&mut child), 141);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(err, "");
}

#[test]
fn as_docker_it_speaks_as_docker() {
    let world = World::new();
    let docker = world.dir.join("docker");
    std::os::unix::fs::symlink(world.program(), &docker).unwrap();
    let run = |args: &[&str]| {
        let out = Command::new(&docker)
            .args(args)
            .env("WHERRY_DATA_ROOT", world.dir.join("data"))
            .env("WHERRY_RUN_ROOT", world.dir.join("run"))
            .env("WHERRY_REGISTRIES", world.dir.join("registries.toml"))
            .output()
            .unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    };
    assert!(run(&["--version"]).1.starts_with("Docker version "));
    assert_eq!(run(&["rm", "nope"]).2, "Error response from daemon: No such container: nope\n");
    let (code, _, err) = run(&["run", "nope"]);
    assert_eq!(code, 125);
    assert!(err.contains("\ndocker: Error response from daemon: "), "{err}");
    assert!(err.ends_with("\nRun 'docker run --help' for more information\n"), "{err}");
    assert!(run(&["run", "--help"]).1.starts_with("Usage:  docker run [OPTIONS] IMAGE"));
    // Helpers are found though the name is another one.
    assert_eq!(run(&["run", "--rm", "--network", "none", "--rootfs", "/", "echo", "hi"]).1, "hi\n");
}

#[test]
fn what_is_not_here_says_so() {
    let world = World::new();
    for (args, code, why) in [
        (&["buildx", "ls"][..], 1, "builders are not managed"),
        (&["network", "nope"], 1, "unknown command"),
        (&["-H", "unix:///nonexistent/sock", "ps"], 1, "Cannot connect to the Docker daemon"),
        (&["-H", "nonsense", "ps"], 1, "unable to parse docker host"),
        (&["--context", "nosuch", "ps"], 1, "context not found"),
        (&["run", "--gpus", "all", "x"], 125, "--gpus"),
        (&["run", "--cpu-count", "2", "x"], 125, "Windows"),
        (&["run", "--ip", "1.2.3", "x"], 125, "invalid IPv4 address"),
        (&["run", "--rootfs", "/"], 125, "the command must be given"),
        (&["start", "--checkpoint", "x", "y"], 1, "checkpoint"),
        (&["import", "http://example.org/a.tar"], 1, "fetches no archives"),
        (&["inspect", "--type", "network", "x"], 1, "network x not found"),
        (&["nonsense"], 1, "unknown command: wherry nonsense"),
    ] {
        let (got, _, err) = world.all(args);
        assert_eq!(got, code, "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
}

#[test]
fn settings_tell_where_they_are_from() {
    let world = World::new();
    let file = world.path("config.toml");
    std::fs::write(&file, "log-driver = \"local\"\n").unwrap();
    let out = world.ok(&["--config", &file, "--run-root", &world.path("r2"), "config", "show"]);
    let line = |key: &str| out.lines().find(|l| l.starts_with(key)).unwrap().to_owned();
    assert!(line("log-driver").contains(&format!(" {file}:1 ")), "{out}");
    assert!(line("log-driver").ends_with("\"local\""), "{out}");
    assert!(line("data-root").contains(" environment WHERRY_DATA_ROOT "), "{out}");
    assert!(line("run-root").contains(" option --run-root "), "{out}");
    assert!(line("storage").contains(" default "), "{out}");
    std::fs::write(&file, "debug = true\nnonsense = 1\n").unwrap();
    let (code, _, err) = world.all(&["--config", &file, "ps"]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("{file}:2: unknown key \"nonsense\"")), "{err}");
}
