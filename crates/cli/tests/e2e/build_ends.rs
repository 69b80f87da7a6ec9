//! Builds that end before they are done: by a signal, or because they must not or cannot go on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::builds::{build, build_fails, context};
use crate::harness::{Engine, text, until};

/// Begins a build, and waits until it has said something.
fn begun(e: &Engine, args: &[&str], wanted: &str) -> Child {
    let mut child = e.spawn(["build", "--network", "none"].iter().chain(args));
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !said.lines().any(|line| line.ends_with(wanted)) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    // Nobody is to be told that there is nobody to read.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    child
}

fn interrupted(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// What builds have on the disk while they go on.
fn nothing_is_left(e: &Engine) -> bool {
    let directories = [
        e.data_root().join("containers"),
        e.data_root().join("cache/uploads"),
        e.run_root().join("build"),
        e.run_root().join("running"),
    ];
    directories.iter().all(|path| fs::read_dir(path).map_or(0, Iterator::count) == 0)
}

#[test]
fn the_steps_of_a_build_that_was_killed_end_with_it() {
    let e = Engine::new();
    let file = "FROM bb\nRUN --mount=type=secret,id=s echo begun; sleep 1000\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file), ("s", "secret")]);
    let secret = format!("id=s,src={}", dir.join("s").display());
    let mut child = begun(&e, &["--secret", &secret, dir.to_str().unwrap()], " begun");
    assert!(!nothing_is_left(&e));
    // What stays behind ends by signals, whatever the build does about them.
    for (pid, _) in e.keepers() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Without another build.
    until("nothing is left", || nothing_is_left(&e));
    e.finish();
}

#[test]
fn a_build_can_be_given_up_whatever_it_does() {
    let e = Engine::new();
    let file = "FROM bb\nCOPY large /\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    fs::File::create(dir.join("large")).unwrap().set_len(1 << 36).unwrap();
    interrupted(begun(&e, &[dir.to_str().unwrap()], "COPY large /"));
    assert!(nothing_is_left(&e));

    // One that goes on when its terminal is gone.
    fs::write(dir.join("Dockerfile"), "FROM bb\nRUN echo begun; sleep 0.5; echo through\n")
        .unwrap();
    let mut command = e.command_as("nohup");
    command.arg(env!("CARGO_BIN_EXE_wherry")).args(["build", "--network", "none"]);
    let mut child = command.arg(&dir).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().ends_with(" begun")).unwrap().unwrap();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert!(lines.any(|line| line.unwrap().ends_with(" through")));
    assert!(child.wait().unwrap().success());

    // In the middle of a context on standard input.
    let mut command = e.command();
    let mut child =
        command.args(["build", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    archive.append_data(&mut header, "Dockerfile", &b"FRO"[..]).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(archive.get_ref()).unwrap();
    let uploads = e.data_root().join("cache/uploads");
    until("the context", || fs::read_dir(&uploads).is_ok_and(|list| list.count() > 0));
    interrupted(child);
    assert!(nothing_is_left(&e));
    drop(stdin);
    e.finish();
}

#[test]
fn steps_get_no_power_over_the_host_unless_it_is_allowed() {
    let e = Engine::new();
    let file = "FROM bb\nRUN echo first\nRUN --network=host ls /sys/class/net\n\
        RUN --security=insecure grep CapEff /proc/self/status\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    let said = build_fails(&e, &dir, &[]);
    assert!(said.contains("Dockerfile:3: network.host is not allowed"), "{said}");
    // Before anything is done.
    assert!(!said.contains("first\n#"), "{said}");
    let said = build_fails(&e, &dir, &["--allow", "network.host"]);
    assert!(said.contains("Dockerfile:4: security.insecure is not allowed"), "{said}");
    let said = build(&e, &dir, &["--allow", "network.host,security.insecure"]);
    let sandboxed = "CapEff:\t00000000a80425fb";
    assert!(said.contains("CapEff:\t") && !said.contains(sandboxed), "{said}");
    // A base image can't ask for it either.
    let base =
        context(&e, "base", &[("Dockerfile", "FROM bb\nONBUILD RUN --security=insecure id\n")]);
    build(&e, &base, &["-t", "asks"]);
    fs::write(dir.join("Dockerfile"), "FROM asks\n").unwrap();
    let said = build_fails(&e, &dir, &[]);
    assert!(said.contains("Dockerfile:1: security.insecure is not allowed"), "{said}");
    fs::write(dir.join("Dockerfile"), "FROM bb\nCOPY ../ctx/s /\n").unwrap();
    assert!(build_fails(&e, &dir, &[]).contains("nothing above it can be copied"));
    assert!(build_fails(&e, &dir, &["--allow", "much"]).contains("expected network.host"));
    e.finish();
}

/// The beginning of a program for a processor that this machine does not have.
fn foreign_program() -> Vec<u8> {
    let mut program = vec![0x7f, b'E', b'L', b'F', 2, 2, 1];
    program.resize(16, 0);
    program.extend([0, 2, 0, 22]);
    program.resize(4096, 0);
    program
}

#[test]
fn images_for_another_processor() {
    let e = Engine::new();
    let dir = context(&e, "ctx", &[("Dockerfile", "FROM scratch\nCOPY sh /bin/sh\n"), ("a", "")]);
    fs::write(dir.join("sh"), foreign_program()).unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(dir.join("sh"), mode).unwrap();
    let platform = ["--platform", "linux/s390x"];
    build(&e, &dir, &[&platform[..], &["-t", "other"]].concat());
    fs::write(dir.join("Dockerfile"), "FROM other\nCOPY a /\nENV A=b\n").unwrap();
    build(&e, &dir, &[&platform[..], &["-t", "more"]].concat());
    assert_eq!(e.inspect("{{.Os}}/{{.Architecture}}", "more"), "linux/s390x");
    // Where it can be run this is about nothing.
    if !std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        fs::write(dir.join("Dockerfile"), "FROM more\nRUN true\n").unwrap();
        let said = build_fails(&e, &dir, &platform);
        for wanted in ["Dockerfile:2:", "no interpreter for s390x", "qemu-user", "2 > RUN true"] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }
    e.finish();
}

/// `COPY --link` makes its layer upon nothing, and so does all that is upon `scratch`.
#[test]
fn a_layer_upon_nothing_leaves_the_root_as_it_is() {
    let e = Engine::new();
    let file = "FROM bb AS base\nRUN chmod 751 / && chown 3:4 /\n\
        FROM base\nCOPY --link a /l/a\nUSER 5\nRUN stat -c '%a %u %g' / && cat /l/a\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file), ("a", "linked\n")]);
    let said = build(&e, &dir, &["-t", "x"]);
    assert!(said.contains("751 3 4\n") && said.contains("linked\n"), "{said}");
    let file = "FROM bb AS base\nFROM scratch\nCOPY --from=base /bin/busybox /bin/sh\nUSER 5\n\
        CMD [\"/bin/sh\", \"-c\", \"stat -c %a /\"]\n";
    fs::write(dir.join("Dockerfile"), file).unwrap();
    build(&e, &dir, &["-t", "y"]);
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "y"]), "755");
    e.finish();
}

#[test]
fn the_same_content_is_the_same_image_whatever_its_age() {
    let e = Engine::new();
    let dir = context(&e, "ctx", &[("Dockerfile", "FROM bb\nCOPY a /a\n"), ("a", "content")]);
    let id = || {
        let output = e.run(["build", "-q", "--network", "none", dir.to_str().unwrap()]);
        text(&output.stdout)
    };
    let first = id();
    let file = fs::File::options().append(true).open(dir.join("a")).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5000);
    file.set_modified(later).unwrap();
    assert!(first.starts_with("sha256:"));
    assert_eq!(id(), first);
    e.finish();
}
