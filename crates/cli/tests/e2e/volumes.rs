//! Volumes, bind mounts, tmpfs.

use crate::harness::Engine;

#[test]
fn named_volumes_keep_their_files() {
    let e = Engine::new();
    assert_eq!(e.ok(["volume", "create", "--label", "a=b", "data"]), "data");
    e.ok(["run", "--rm", "-v", "data:/d", "bb", "sh", "-c", "echo kept > /d/f"]);
    assert_eq!(e.ok(["run", "--rm", "-v", "data:/d:ro", "bb", "cat", "/d/f"]), "kept");
    e.fails(1, ["run", "--rm", "-v", "data:/d:ro", "bb", "touch", "/d/x"]);
    assert_eq!(e.ok(["volume", "ls", "-q"]), "data");
    assert_eq!(
        e.ok(["volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Labels.a}}", "data"]),
        "data local b"
    );
    e.ok(["create", "--name", "user", "-v", "data:/d", "bb", "true"]);
    assert!(e.fails(1, ["volume", "rm", "data"]).contains("volume is in use"));
    e.ok(["rm", "user"]);
    e.ok(["volume", "rm", "data"]);
    assert!(e.fails(1, ["volume", "inspect", "data"]).contains("no such volume"));
    e.finish();
}

#[test]
fn a_new_volume_is_seeded_from_the_image() {
    let e = Engine::new();
    e.ok([
        "run",
        "--name",
        "m1",
        "bb",
        "sh",
        "-c",
        "mkdir -p /seed/sub; echo s > /seed/sub/f; chown -R ann /seed; ln /seed/sub/f /seed/g",
    ]);
    e.ok(["commit", "-c", "VOLUME /seed", "m1", "seeded"]);
    e.ok([
        "run",
        "--name",
        "anon",
        "seeded",
        "sh",
        "-c",
        "cat /seed/sub/f; echo more > /seed/more",
    ]);
    assert_eq!(e.ok(["logs", "anon"]), "s");
    assert_eq!(e.ok(["volume", "ls", "-q"]).len(), 64);
    assert_eq!(
        e.ok(["run", "--rm", "-v", "named:/seed", "seeded", "stat", "-c", "%U %h", "/seed/sub/f"]),
        "ann 2"
    );
    assert_eq!(e.ok(["run", "--rm", "-v", "empty:/seed:nocopy", "seeded", "ls", "/seed"]), "");
    // `rm -v` takes the anonymous one, never a named one.
    e.ok(["rm", "-v", "anon"]);
    assert_eq!(e.ok(["volume", "ls", "-q"]), "empty\nnamed");
    e.ok(["volume", "prune", "-af"]);
    assert_eq!(e.ok(["volume", "ls", "-q"]), "");
    e.finish();
}

#[test]
fn binds_and_their_options() {
    let e = Engine::new();
    let dir = e.path("bound");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "host").unwrap();
    let dir = dir.to_str().unwrap();
    assert_eq!(e.ok(["run", "--rm", "-v", &format!("{dir}:/b"), "bb", "cat", "/b/f"]), "host");
    e.ok(["run", "--rm", "-v", &format!("{dir}:/b"), "bb", "touch", "/b/new"]);
    assert!(e.path("bound/new").exists());
    let mount = format!("type=bind,source={dir},target=/b,readonly");
    e.fails(1, ["run", "--rm", "--mount", &mount, "bb", "touch", "/b/x"]);
    assert_eq!(
        e.ok(["run", "--rm", "-v", &format!("{dir}/f:/etc/one"), "bb", "cat", "/etc/one"]),
        "host"
    );
    // -v makes a missing directory, --mount does not.
    e.ok(["run", "--rm", "-v", &format!("{dir}/made:/m"), "bb", "true"]);
    assert!(e.path("bound/made").is_dir());
    let missing = format!("type=bind,source={dir}/missing,target=/m");
    assert!(
        e.fails(125, ["run", "--rm", "--mount", &missing, "bb", "true"]).contains("does not exist")
    );
    assert!(
        e.fails(125, ["run", "--rm", "-v", "/a:/x", "-v", "/b:/x", "bb", "true"])
            .contains("Duplicate mount point")
    );
    e.finish();
}

#[test]
fn tmpfs_and_shm() {
    let e = Engine::new();
    let mounts =
        e.ok(["run", "--rm", "--tmpfs", "/t:size=1m,mode=700", "--shm-size", "2m", "bb", "mount"]);
    let line = |path: &str| {
        mounts.lines().find(|l| l.contains(&format!(" on {path} "))).unwrap_or("").to_owned()
    };
    assert!(line("/t").contains("size=1024k") && line("/t").contains("mode=700"), "{mounts}");
    assert!(line("/dev/shm").contains("size=2048k"), "{mounts}");
    e.ok([
        "run",
        "--rm",
        "--mount",
        "type=tmpfs,target=/u,tmpfs-size=65536",
        "bb",
        "touch",
        "/u/x",
    ]);
    e.finish();
}

#[test]
fn volumes_from_another_container() {
    let e = Engine::new();
    e.ok(["create", "--name", "src", "-v", "shared:/s", "bb", "true"]);
    e.ok(["run", "--rm", "--volumes-from", "src", "bb", "sh", "-c", "echo 1 > /s/f"]);
    assert_eq!(e.ok(["run", "--rm", "--volumes-from", "src:ro", "bb", "cat", "/s/f"]), "1");
    e.fails(1, ["run", "--rm", "--volumes-from", "src:ro", "bb", "touch", "/s/g"]);
    e.finish();
}

#[test]
fn a_link_in_the_image_does_not_lead_a_mount_out() {
    let e = Engine::new();
    let outside = e.path("outside");
    std::fs::create_dir(&outside).unwrap();
    e.ok([
        "run",
        "--name",
        "m1",
        "bb",
        "sh",
        "-c",
        &format!("ln -s {} /link; ln -s /../../../.. /up", outside.display()),
    ]);
    e.ok(["commit", "m1", "tricky"]);
    e.ok(["run", "--rm", "-v", "vol:/link/in", "tricky", "sh", "-c", "echo x > /link/in/f"]);
    e.ok(["run", "--rm", "-v", "vol:/up/tmp/in", "tricky", "true"]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    e.finish();
}

/// A part of a volume, and nothing outside of it, whatever links a container has made there.
#[test]
fn a_part_of_a_volume_stays_in_it() {
    let e = Engine::new();
    e.ok([
        "run",
        "--rm",
        "-v",
        "vol:/v",
        "bb",
        "sh",
        "-c",
        "mkdir -p /v/a/b; echo x >/v/a/b/f; ln -s /etc /v/out; ln -s a /v/in",
    ]);
    let part = |sub: &str| format!("src=vol,dst=/p,volume-subpath={sub}");
    assert_eq!(e.ok(["run", "--rm", "--mount", &part("a/b"), "bb", "cat", "/p/f"]), "x");
    assert_eq!(e.ok(["run", "--rm", "--mount", &part("in/b"), "bb", "ls", "/p"]), "f");
    for (sub, why) in
        [("../..", "relative path"), ("/etc", "relative path"), ("none", "none"), ("out", "out")]
    {
        let error = e.fails(125, ["run", "--rm", "--mount", &part(sub), "bb", "ls", "/p"]);
        assert!(error.contains(why), "{sub}: {error}");
    }
    let read_only = format!("{},readonly", part("a"));
    e.fails(1, ["run", "--rm", "--mount", &read_only, "bb", "touch", "/p/x"]);
    let id = e.ok(["create", "--mount", &part("a/b"), "bb", "true"]);
    e.ok(["cp", &format!("{id}:/p/f"), "-"]);
    e.finish();
}
