//! `cp`, `diff`, `export`, `commit`.

use std::process::Command;

use crate::harness::{Engine, text};

#[test]
fn copying_in_and_out() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    let from = e.path("from");
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("sub/f"), "content").unwrap();
    let from = from.to_str().unwrap();
    e.ok(["cp", from, "c1:/tmp/dst"]);
    assert_eq!(e.ok(["exec", "c1", "cat", "/tmp/dst/sub/f"]), "content");
    e.ok(["cp", from, "c1:/tmp/dst"]);
    assert_eq!(e.ok(["exec", "c1", "cat", "/tmp/dst/from/sub/f"]), "content");
    e.ok(["cp", &format!("{from}/."), "c1:/home"]);
    assert_eq!(e.ok(["exec", "c1", "cat", "/home/sub/f"]), "content");
    let out = e.path("out");
    e.ok(["cp", "c1:/tmp/dst/sub/f", out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "content");
    e.ok(["cp", "c1:/home/.", e.path("dir").to_str().unwrap()]);
    assert!(e.path("dir/sub/f").exists());
    let tar = e.run(["cp", "c1:/home/sub", "-"]).stdout;
    let back = e.with_input(["cp", "-", "c1:/var"], &tar);
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert_eq!(e.ok(["exec", "c1", "cat", "/var/sub/f"]), "content");
    assert!(e.fails(1, ["cp", "c1:/nope", "/tmp"]).contains("Could not find the file /nope"));
    e.ok(["stop", "-t", "0", "c1"]);
    e.ok(["cp", "c1:/etc/passwd", e.path("passwd").to_str().unwrap()]);
    assert!(e.path("passwd").exists());
    e.finish();
}

#[test]
fn a_link_does_not_lead_a_copy_out() {
    let e = Engine::new();
    let victim = e.path("victim");
    std::fs::create_dir(&victim).unwrap();
    e.ok(["run", "--name", "c1", "bb", "ln", "-s", victim.to_str().unwrap(), "/escape"]);
    std::fs::write(e.path("f"), "x").unwrap();
    let _ = e.run(["cp", e.path("f").to_str().unwrap(), "c1:/escape/f"]);
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    std::fs::write(victim.join("secret"), "s").unwrap();
    assert!(!e.run(["cp", "c1:/escape/secret", "-"]).status.success());
    e.finish();
}

#[test]
fn diff_export_and_commit() {
    let e = Engine::new();
    e.ok([
        "run",
        "--name",
        "c1",
        "bb",
        "sh",
        "-c",
        "echo new > /new; rm /etc/group; echo x >> /etc/passwd; mkdir /d; mknod /d/null c 1 3",
    ]);
    let diff = e.ok(["diff", "c1"]);
    for line in ["A /new", "D /etc/group", "C /etc/passwd", "C /etc", "A /d", "A /d/null"] {
        assert!(diff.lines().any(|l| l == line), "{line} in\n{diff}");
    }
    let tar = e.path("x.tar");
    e.ok(["export", "-o", tar.to_str().unwrap(), "c1"]);
    let list = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let list = text(&list.stdout);
    assert!(
        list.lines().any(|l| l.trim_start_matches("./") == "new") && !list.contains("etc/group"),
        "{list}"
    );
    let id = e.ok([
        "commit",
        "-a",
        "Ann",
        "-m",
        "why",
        "-c",
        "ENV A=b",
        "-c",
        r#"CMD ["cat","/new"]"#,
        "c1",
        "made:1",
    ]);
    assert!(id.starts_with("sha256:"));
    assert_eq!(e.ok(["run", "--rm", "made:1"]), "new");
    assert_eq!(
        e.ok(["run", "--rm", "made:1", "sh", "-c", "echo $A; ls /etc"]),
        "b\nhostname\nhosts\npasswd\nresolv.conf"
    );
    assert_eq!(
        e.ok([
            "image",
            "inspect",
            "-f",
            "{{.Author}} {{.Comment}} {{len .RootFS.Layers}}",
            "made:1"
        ]),
        "Ann why 2"
    );
    assert!(e.ok(["history", "made:1"]).contains("why"));
    e.finish();
}
