//! Images in and out.

use std::process::Command;

use crate::harness::{Engine, text, until};

fn have(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

#[test]
fn names_come_and_go() {
    let e = Engine::new();
    let id = e.ok(["images", "-q", "--no-trunc"]);
    e.ok(["tag", "bb", "reg.example:5000/team/bb:v1"]);
    assert_eq!(e.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().count(), 2);
    assert_eq!(e.ok(["images", "-f", "reference=bb*", "-q", "--no-trunc"]), id);
    let out = e.ok(["rmi", "reg.example:5000/team/bb:v1"]);
    assert_eq!(out, "Untagged: reg.example:5000/team/bb:v1");
    e.ok(["create", "--name", "c1", "bb", "true"]);
    assert!(e.fails(1, ["rmi", "bb"]).contains("container"));
    e.ok(["rm", "c1"]);
    assert!(e.ok(["rmi", "bb"]).contains("Deleted: sha256:"));
    assert!(e.fails(1, ["rmi", "bb"]).contains("No such image: bb:latest"));
    assert!(e.fails(125, ["run", "bb", "true"]).to_lowercase().contains("bb:latest"));
    assert!(e.fails(1, ["tag", "bb", "BAD NAME"]).contains("invalid reference format"));
    e.finish();
}

#[test]
fn what_was_saved_is_loaded_with_the_same_digests() {
    let e = Engine::new();
    e.ok(["run", "--name", "c1", "bb", "sh", "-c", "echo two > /two"]);
    e.ok(["commit", "c1", "two:latest"]);
    let layers = e.ok(["image", "inspect", "-f", "{{json .RootFS.Layers}}", "two"]);
    let id = e.ok(["images", "-q", "--no-trunc", "two"]);
    let (one, again) = (e.path("one.tar"), e.path("again.tar"));
    e.ok(["save", "-o", one.to_str().unwrap(), "two"]);
    e.ok(["rm", "c1"]);
    e.ok(["rmi", "two", "bb"]);
    assert_eq!(e.ok(["images", "-aq"]), "");
    assert!(e.ok(["load", "-i", one.to_str().unwrap()]).contains("Loaded image: two:latest"));
    assert_eq!(e.ok(["image", "inspect", "-f", "{{json .RootFS.Layers}}", "two"]), layers);
    assert_eq!(e.ok(["images", "-q", "--no-trunc", "two"]), id);
    e.ok(["save", "-o", again.to_str().unwrap(), "two"]);
    assert!(std::fs::read(&one).unwrap() == std::fs::read(&again).unwrap(), "the same bytes");
    assert_eq!(e.ok(["run", "--rm", "two", "cat", "/two"]), "two");
    // Compressed, and through a pipe.
    for tool in ["gzip", "zstd"] {
        if !have(tool) {
            continue;
        }
        let packed = Command::new(tool).arg("-c").arg(&one).output().unwrap().stdout;
        let output = e.with_input(["load"], &packed);
        assert!(output.status.success(), "{tool}: {}", text(&output.stderr));
    }
    e.finish();
}

#[test]
fn skopeo_reads_what_we_write_and_we_read_what_it_writes() {
    if !have("skopeo") {
        eprintln!("skipped: no skopeo here");
        return;
    }
    let e = Engine::new();
    let tar = e.path("bb.docker.tar");
    e.ok(["save", "-o", tar.to_str().unwrap(), "bb"]);
    for to in ["oci-archive", "docker-archive"] {
        let out = e.path(&format!("{to}.tar"));
        let done = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q"])
            .arg(format!("docker-archive:{}", tar.display()))
            .arg(format!("{to}:{}:copied:{to}", out.display()))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        e.ok(["load", "-i", out.to_str().unwrap()]);
    }
    let layers = |name: &str| e.ok(["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]);
    let ids = e.ok(["images", "-aq", "--no-trunc"]);
    for id in ids.lines() {
        assert_eq!(layers(id), layers("bb"));
    }
    e.finish();
}

#[test]
fn dangling_images_are_pruned() {
    let e = Engine::new();
    e.ok(["create", "--name", "c1", "bb", "true"]);
    e.ok(["commit", "c1", "x1"]);
    e.ok(["commit", "-m", "again", "c1", "x1"]);
    assert_eq!(e.ok(["images", "-f", "dangling=true", "-q"]).lines().count(), 1);
    let out = e.ok(["image", "prune", "-f"]);
    assert!(out.contains("Deleted Images:") && out.contains("Total reclaimed space:"), "{out}");
    assert_eq!(e.ok(["images", "-f", "dangling=true", "-q"]), "");
    assert_eq!(e.ok(["images", "--format", "{{.Repository}}"]), "x1\nbb");
    e.finish();
}

/// A real distribution: its programs, and its systemd as the first process.
#[test]
fn debian_runs_and_so_does_its_systemd() {
    if !have("debootstrap") {
        eprintln!("skipped: no debootstrap here");
        return;
    }
    let e = Engine::empty();
    let root = e.path("bookworm");
    let done = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm"])
        .arg(&root)
        .output()
        .unwrap();
    if !done.status.success() {
        eprintln!("skipped: debootstrap can't reach its packages");
        return;
    }
    let tar = e.path("bookworm.tar");
    let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
    assert!(packed.unwrap().success());
    e.ok(["image", "import", tar.to_str().unwrap(), "debian:bookworm"]);
    let release = e.ok(["run", "--rm", "debian:bookworm", "cat", "/etc/os-release"]);
    assert!(release.contains("bookworm"), "{release}");
    let packages = e.ok(["run", "--rm", "debian:bookworm", "dpkg-query", "-W"]);
    assert!(packages.lines().count() > 50);
    e.ok(["run", "--rm", "debian:bookworm", "su", "-s", "/bin/bash", "nobody", "-c", "id -u"]);

    e.ok(["run", "-d", "--name", "sys", "debian:bookworm", "/sbin/init"]);
    let mut state = String::new();
    crate::harness::until("systemd has settled", || {
        let output = e.run(["exec", "sys", "systemctl", "is-system-running"]);
        state = text(&output.stdout);
        matches!(state.as_str(), "running" | "degraded")
    });
    assert_eq!(state, "running", "{}", e.ok(["exec", "sys", "systemctl", "--failed"]));
    e.ok(["stop", "-t", "30", "sys"]);
    assert_eq!(e.inspect("{{.State.ExitCode}}", "sys"), "0");
    e.finish();
}

/// One mount for all running containers of an image, held by the keeper and by its successor.
#[test]
fn containers_of_an_image_share_its_mount() {
    let e = Engine::new();
    let form = e.ok(["info"]);
    let shared = form.lines().any(|line| line.trim() == "Form of layers: erofs");
    let mounts = |pid: i32| {
        let script = format!("stat -L -f -c %t /proc/{pid}/fd/* 2>/dev/null | grep -c e0f5e1e2");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        text(&output.stdout).parse::<usize>().unwrap()
    };
    let held = |count: usize| {
        let count = if shared { count } else { 0 };
        for name in ["wherry-keeper", "wherry-standby"] {
            let pid = e.keeper(name);
            until(&format!("{count} mounts in {name}"), || mounts(pid) == count);
        }
    };
    let start = |name: &str, image: &str| {
        e.ok(["run", "-d", "--name", name, "--network", "none", image, "sleep", "1000"]);
    };
    start("first", "bb");
    start("second", "bb");
    held(1);
    e.ok(["exec", "first", "touch", "/new"]);
    e.ok(["commit", "first", "other"]);
    start("third", "other");
    held(2);
    // The successor of a keeper that was killed goes on with them.
    let keeper = e.keeper("wherry-keeper");
    Command::new("kill").args(["-9", &keeper.to_string()]).status().unwrap();
    until("another keeper", || {
        e.keepers().iter().any(|(pid, name)| name == "wherry-keeper" && *pid != keeper)
    });
    held(2);
    start("fourth", "bb");
    held(2);
    e.ok(["rm", "-f", "first", "second"]);
    held(2);
    e.ok(["rm", "-f", "fourth"]);
    held(1);
    assert_eq!(e.ok(["exec", "third", "ls", "/new"]), "/new");
    let standby = e.keeper("wherry-standby");
    Command::new("kill").args(["-9", &standby.to_string()]).status().unwrap();
    until("another standby", || {
        e.keepers().iter().any(|(pid, name)| name == "wherry-standby" && *pid != standby)
    });
    held(1);
    e.finish();
}

/// What the engine needs for itself is no change of the container's.
#[test]
fn a_commit_holds_what_was_written_and_nothing_else() {
    let e = Engine::new();
    e.ok(["run", "--name", "c1", "bb", "sh", "-c", "echo x > /tmp/x; test -e /.dockerenv"]);
    assert_eq!(e.ok(["diff", "c1"]), "C /tmp\nA /tmp/x");
    e.ok(["commit", "c1", "changed"]);
    let archive = e.path("changed.tar");
    e.ok(["save", "-o", archive.to_str().unwrap(), "changed"]);
    let tar = |args: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new("tar").args(args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    let manifest: serde_json::Value = serde_json::from_slice(&tar(&[
        "-xOf".as_ref(),
        archive.as_os_str(),
        "manifest.json".as_ref(),
    ]))
    .unwrap();
    let layer = manifest[0]["Layers"][1].as_str().unwrap();
    let file = e.path("layer.tar");
    std::fs::write(&file, tar(&["-xOf".as_ref(), archive.as_os_str(), layer.as_ref()])).unwrap();
    let listing = tar(&["-tf".as_ref(), file.as_os_str()]);
    let entries: Vec<_> = text(&listing).lines().map(str::to_owned).collect();
    assert_eq!(entries, ["./", "tmp/", "tmp/x"]);
    e.finish();
}
