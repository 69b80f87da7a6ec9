//! Wrong input: one clear line, the right exit code, nothing left behind.

use std::process::Command;

use crate::harness::{Engine, busybox_root, text};

#[test]
fn wrong_requests_leave_nothing_behind() {
    let e = Engine::new();
    let run: &[(&[&str], i32, &str)] = &[
        (&["run", "--memory", "1k", "bb", "true"], 125, "6MB"),
        (&["run", "--memory", "x", "bb", "true"], 125, "--memory"),
        (&["run", "--cpus", "1000", "bb", "true"], 125, "CPUs"),
        (&["run", "--network", "nope", "bb", "true"], 125, "nope"),
        (&["run", "--name", "bad name", "bb", "true"], 125, "bad name"),
        (&["run", "-v", "rel/path:/x", "bb", "true"], 125, "rel/path"),
        (&["run", "--mount", "type=bogus,target=/x", "bb", "true"], 125, "bogus"),
        (&["run", "--pid", "bogus", "bb", "true"], 125, "PID mode"),
        (&["run", "--security-opt", "bogus=1", "bb", "true"], 125, "bogus"),
        (&["run", "--platform", "linux/arm64", "bb", "true"], 125, "linux/arm64"),
        (&["run", "nope:latest", "true"], 125, "nope:latest"),
        (&["run", "UPPER", "true"], 125, "lowercase"),
        (&["run", "bb"], 125, "no command"),
        (&["run", "--health-interval", "1ns", "bb", "true"], 125, "millisecond"),
        (&["run", "--runtime", "bogus", "bb", "true"], 125, "bogus"),
        (&["run"], 1, "requires at least 1 argument"),
        (&["exec", "nope", "true"], 1, "No such container: nope"),
        (&["logs", "nope"], 1, "No such container: nope"),
        (&["bogus"], 1, "bogus"),
        (&["load", "-i", "/nope"], 1, "/nope"),
    ];
    for (args, code, part) in run {
        let error = e.fails(*code, *args);
        assert!(error.contains(part), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
    // What fails at the start leaves a created container with `run`, as in Docker; with
    // --rm, nothing.
    e.fails(127, ["run", "--rm", "bb", "nope"]);
    assert_eq!(e.ok(["ps", "-a", "--format", "{{.Names}}"]), "");
    e.ok(["volume", "prune", "-af"]);
    e.finish();
}

#[test]
fn names_and_cidfiles_are_taken_once() {
    let e = Engine::new();
    let cid = e.path("cid");
    let cid = cid.to_str().unwrap();
    let id = e.ok(["run", "-d", "--name", "c1", "--cidfile", cid, "bb", "sleep", "1000"]);
    assert_eq!(std::fs::read_to_string(cid).unwrap(), id);
    assert!(
        e.fails(125, ["run", "--cidfile", cid, "bb", "true"])
            .to_lowercase()
            .contains("container id file")
    );
    let error = e.fails(125, ["run", "--name", "c1", "bb", "true"]);
    assert!(error.contains("is already in use by container") && error.contains(&id), "{error}");
    assert!(e.fails(1, ["rm", "c1"]).contains("container is running"));
    e.finish();
}

#[test]
fn damaged_archives_are_refused_whole() {
    let e = Engine::new();
    let tar = e.path("bb.tar2");
    e.ok(["save", "-o", tar.to_str().unwrap(), "bb"]);
    let bytes = std::fs::read(&tar).unwrap();
    e.ok(["rmi", "bb"]);
    let before = list(&e.data_root());
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for (what, bytes) in [
        ("cut short", bytes[..bytes.len() / 2].to_vec()),
        ("a flipped byte", flipped),
        ("not an archive", b"hello world, this is no archive".repeat(100)),
        ("nothing", Vec::new()),
    ] {
        let output = e.with_input(["load"], &bytes);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", text(&output.stderr));
        let lines = text(&output.stderr);
        assert_eq!(
            lines.lines().filter(|l| l.starts_with("wherry: ")).count(),
            1,
            "{what}: {lines}"
        );
    }
    assert_eq!(e.ok(["images", "-aq"]), "");
    assert_eq!(list(&e.data_root()), before);
    e.finish();
}

/// All paths below a directory, but for the database's.
fn list(dir: &std::path::Path) -> Vec<String> {
    let output =
        Command::new("find").arg(dir).args(["-not", "-name", "state.db*"]).output().unwrap();
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A container that fills the disk its own engine is on can still be looked at, stopped and removed, and
/// with it the disk is free again.
#[test]
fn a_container_that_fills_the_disk_can_be_removed() {
    let e = Engine::new();
    let small = e.path("small");
    std::fs::create_dir(&small).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=24m none {0} && set -e
         $1 run -d --name c1 --network none --rootfs {1} -- \
             sh -c 'dd if=/dev/zero of=/big bs=64k; echo full; sleep 1000'
         until $1 logs c1 2>/dev/null | grep -q full; do sleep 0.05; done
         $1 run --rm --network none --rootfs {1} -- true && exit 9
         $1 exec c1 true; $1 stop -t 0 c1; $1 start c1
         $1 rm -f c1
         test \"$($1 ps -aq)\" = ''
         $1 run -d --name other --network none --rootfs {1} -- sleep 1000
         $1 run --rm --network none --rootfs {1} -- sh -c 'dd if=/dev/zero of=/big bs=64k; true'
         $1 run --rm --network none --rootfs {1} -- true && $1 rm -f other && echo all fine",
        small.display(),
        e.path("root").display(),
    );
    busybox_root(&e.path("root"));
    let output = e
        .host
        .command("unshare")
        .args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_wherry")])
        .env("WHERRY_DATA_ROOT", small.join("data"))
        .env("WHERRY_RUN_ROOT", e.path("small-run"))
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("all fine"), "{out}\n{err}");
    assert!(err.to_lowercase().contains("no space left"), "{err}");
    e.finish();
}

#[test]
fn a_full_disk_is_one_clear_error() {
    let e = Engine::new();
    let tar = e.path("bb.tar2");
    e.ok(["save", "-o", tar.to_str().unwrap(), "bb"]);
    // A data root on a small tmpfs, in a mount namespace of its own.
    let small = e.path("small");
    std::fs::create_dir(&small).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=3m none {0} && W=$1 && T=$2 && \
         \"$W\" load -i \"$T\"; echo first $?; ls -A {0}/data/tmp {0}/data/layers; \
         mount -o remount,size=2g {0} && \"$W\" load -i \"$T\" && echo second fine",
        small.display()
    );
    let output = e
        .host
        .command("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_wherry"),
            tar.to_str().unwrap(),
        ])
        .env("WHERRY_DATA_ROOT", small.join("data"))
        .env("WHERRY_RUN_ROOT", e.path("small-run"))
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("first 1") && out.contains("second fine"), "{out}\n{err}");
    assert!(err.to_lowercase().contains("no space left"), "{err}");
    e.finish();
}
