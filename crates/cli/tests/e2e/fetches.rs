//! What a build fetches: addresses and git repositories, from servers in the test's own network.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Engine, busybox, text, until};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listens(e: &Engine, port: u16) {
    until("the server", || {
        let target = format!("/dev/tcp/127.0.0.1/{port}");
        let mut command = e.host.command("bash");
        let ok = command.args(["-c", &format!(": < {target}")]).stderr(Stdio::null()).status();
        ok.is_ok_and(|status| status.success())
    });
    // Of the machine's own network nothing is used.
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// Serves a directory by HTTP; the log names every request.
fn http(e: &Engine, dir: &Path, log: &Path) -> Server {
    let child = e
        .host
        .command(busybox())
        .args(["httpd", "-f", "-vv", "-p", "127.0.0.1:8123", "-h", dir.to_str().unwrap()])
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .unwrap();
    listens(e, 8123);
    Server(child)
}

fn build(e: &Engine, dir: &Path, file: &str) -> String {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("Dockerfile"), file).unwrap();
    let output = e.run(["build", "--network", "none", "-t", "x", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

fn build_fails(e: &Engine, dir: &Path, file: &str) -> String {
    fs::write(dir.join("Dockerfile"), file).unwrap();
    e.fails(1, ["build", "--network", "none", dir.to_str().unwrap()])
}

#[test]
fn files_by_their_addresses() {
    let e = Engine::new();
    let (dir, www, log) = (e.path("ctx"), e.path("www"), e.path("httpd.log"));
    fs::create_dir_all(www.join("packed")).unwrap();
    fs::write(www.join("a.txt"), "hello\n").unwrap();
    fs::write(www.join("packed/p"), "packed\n").unwrap();
    fs::write(www.join("Dockerfile"), "FROM bb\nRUN echo by address\n").unwrap();
    for (from, what, to) in [("www", "packed", "p.tar"), ("www", "Dockerfile", "context.tar")] {
        let done = Command::new("tar")
            .arg("-C")
            .arg(e.path(from))
            .arg("-cf")
            .arg(www.join(to))
            .arg(what)
            .status();
        assert!(done.unwrap().success());
    }
    let _server = http(&e, &www, &log);
    let at = "http://127.0.0.1:8123";
    let file = format!(
        "FROM bb\nADD {at}/a.txt /in/\nADD --chmod=640 --chown=ann {at}/a.txt /named\nADD {at}/p.tar /p\n\
         ADD --unpack=true {at}/p.tar /u/\n\
         RUN [ $(stat -c %a:%u /in/a.txt) = 600:0 ] && [ $(stat -c %a:%U /named) = 640:ann ] \
         && cat /u/packed/p && [ -f /p ]\n"
    );
    build(&e, &dir, &file);
    assert!(build(&e, &dir, &file).contains("0 steps done, 5 from the cache"));
    fs::write(www.join("a.txt"), "other\n").unwrap();
    // What follows lies upon other files.
    assert!(build(&e, &dir, &file).contains("5 steps done, 0 from the cache"));

    // With a checksum nothing is asked for that is here.
    let sum = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    fs::write(www.join("sum.txt"), "hello\n").unwrap();
    let file = format!("FROM bb\nADD --checksum={sum} {at}/sum.txt /s\n");
    let asked = || fs::read_to_string(&log).unwrap().matches("url:/sum.txt").count();
    build(&e, &dir, &file);
    assert!(build(&e, &dir, &file).contains("0 steps done"));
    assert_eq!(asked(), 1, "{}", fs::read_to_string(&log).unwrap());
    let said = build_fails(&e, &dir, &file.replace("03 ", "04 "));
    assert!(said.contains("digest mismatch") && said.contains("Dockerfile:2"), "{said}");
    let said = build_fails(&e, &dir, &format!("FROM bb\nADD {at}/nosuch /\n"));
    assert!(said.contains("/nosuch") && said.contains("not found"), "{said}");
    let said = build_fails(&e, &dir, &format!("FROM bb\nADD --checksum={sum} a /\n"));
    assert!(said.contains("checksum"), "{said}");

    // A locked build fails if an address has something else, and says so.
    let lock = e.path("lock");
    let locked = |more: &[&str]| {
        let mut args = vec!["build", "--network", "none", "--lock", lock.to_str().unwrap()];
        args.extend(more);
        args.push(dir.to_str().unwrap());
        e.run(args)
    };
    fs::write(dir.join("Dockerfile"), format!("FROM bb\nADD {at}/a.txt /a\n")).unwrap();
    for _ in 0..2 {
        let output = locked(&[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    fs::write(www.join("a.txt"), "and another\n").unwrap();
    let said = text(&locked(&[]).stderr);
    assert!(said.contains("a.txt is locked to sha256:") && said.contains("Dockerfile:2"), "{said}");
    assert!(locked(&["--lock-update"]).status.success() && locked(&[]).status.success());

    for context in ["Dockerfile", "context.tar"] {
        let url = format!("{at}/{context}");
        let output = e.run(["build", "--no-cache", "--network", "none", &url]);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("by address"), "{said}");
    }
    assert_eq!(fs::read_dir(e.data_root().join("cache/uploads")).unwrap().count(), 0);
    e.finish();
}

fn git(dir: &Path, args: &[&str]) {
    let own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").arg("-C").arg(dir).args(own).args(args);
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
}

fn daemon(e: &Engine, base: &Path) -> Option<Server> {
    let path = Command::new("git").arg("--exec-path").output().ok()?;
    let program = PathBuf::from(text(&path.stdout)).join("git-daemon");
    if !program.exists() {
        return None;
    }
    let child = e
        .host
        .command(program.to_str().unwrap())
        .args(["--export-all", "--listen=127.0.0.1", "--port=9419", "--reuseaddr"])
        .arg(format!("--base-path={}", base.display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    listens(e, 9419);
    Some(Server(child))
}

#[test]
fn git_repositories() {
    let e = Engine::new();
    let (dir, base) = (e.path("ctx"), e.path("git"));
    let repository = base.join("r");
    fs::create_dir_all(repository.join("sub")).unwrap();
    fs::write(repository.join("Dockerfile"), "FROM bb\nCOPY . /here\nRUN ls /here; cat /here/f\n")
        .unwrap();
    fs::write(repository.join("f"), "one\n").unwrap();
    fs::write(repository.join("sub/run"), "#!/bin/sh\necho ran\n").unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    fs::set_permissions(repository.join("sub/run"), mode).unwrap();
    std::os::unix::fs::symlink("../../../etc", repository.join("up")).unwrap();
    let Some(_server) = daemon(&e, &base) else { return };
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-qm", "one"]);
    git(&repository, &["tag", "-am", "first", "v1"]);
    fs::write(repository.join("f"), "two\n").unwrap();
    git(&repository, &["commit", "-qam", "two"]);

    let at = "git://127.0.0.1:9419/r";
    let file = format!(
        "FROM bb\nADD {at}#v1 /one\nADD {at}#main:sub /sub\nADD --keep-git-dir=true {at} /all\n\
         RUN cat /one/f /all/f && /sub/run && [ -d /all/.git ] && [ ! -e /one/.git ] \
         && [ $(stat -c %a /one/f) = 644 ]\n"
    );
    let said = build(&e, &dir, &file);
    assert!(said.contains("one\n") && said.contains("two\n") && said.contains("ran"), "{said}");
    assert!(build(&e, &dir, &file).contains("0 steps done, 4 from the cache"));
    fs::write(repository.join("f"), "three\n").unwrap();
    git(&repository, &["commit", "-qam", "three"]);
    assert!(!build(&e, &dir, &file).contains("0 steps done"));

    // A branch stays where it was.
    let lock = e.path("lock");
    let locked = ["build", "--network", "none", "--lock", lock.to_str().unwrap(), "-t", "l"];
    let locked = || {
        e.ok(locked.iter().copied().chain([dir.to_str().unwrap()]));
        e.ok(["run", "--rm", "--network", "none", "l", "cat", "/f"])
    };
    fs::write(dir.join("Dockerfile"), format!("FROM bb\nADD {at}#main /\n")).unwrap();
    assert_eq!(locked(), "three");
    fs::write(repository.join("f"), "four\n").unwrap();
    git(&repository, &["commit", "-qam", "four"]);
    e.ok(["builder", "prune", "-af"]);
    assert_eq!(locked(), "three");
    fs::remove_file(&lock).unwrap();
    assert_eq!(locked(), "four");

    for (more, wanted) in [("", "four"), ("#v1", "one")] {
        let output = e.run(["build", "--network", "none", &format!("{at}{more}")]);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains(wanted), "{said}");
    }
    let said = e.fails(1, ["build", &format!("{at}#nosuch")]);
    assert!(said.contains("no branch or tag nosuch"), "{said}");
    let said = e.fails(1, ["build", &format!("{at}#main:up")]);
    assert!(said.contains("no directory up"), "{said}");
    // The files have the time of the commit, so that it does not matter when they were fetched.
    let id = || e.ok(["build", "-q", "--network", "none", "--no-cache", &format!("{at}#v1")]);
    let first = id();
    // In another second of the clock.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(id(), first);
    // A locked context stays at its commit, too.
    let lock = e.path("context-lock");
    let lock = ["build", "--network", "none", "--no-cache", "--lock", lock.to_str().unwrap()];
    let locked = |more: &[&str]| {
        let output = e.run(lock.iter().chain(more));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let main = format!("{at}#main");
    assert!(locked(&[&main]).contains("four\n"));
    fs::write(repository.join("f"), "five\n").unwrap();
    git(&repository, &["commit", "-qam", "five"]);
    assert!(locked(&[&main]).contains("four\n"));
    let said = e.fails(1, lock.iter().chain(&[at]));
    assert!(said.contains("is not in the lock file"), "{said}");
    assert!(locked(&["--lock-update", &main]).contains("five\n"));

    // Named contexts, in two stages at once.
    let named = "FROM bb AS one\nCOPY --from=r f /f\nRUN cat /f\n\
        FROM bb\nRUN --mount=from=r,source=sub,target=/m /m/run\nCOPY --from=one /f /\n";
    fs::write(dir.join("Dockerfile"), named).unwrap();
    let by_name = format!("r={main}");
    let named = ["--build-context", &by_name, dir.to_str().unwrap()];
    assert!(locked(&[&["--lock-update"], &named[..]].concat()).contains("five\n"));
    fs::write(repository.join("f"), "six\n").unwrap();
    git(&repository, &["commit", "-qam", "six"]);
    let said = locked(&named);
    assert!(said.contains("five\n") && said.contains("ran\n"), "{said}");
    let by_name = format!("r={at}#nosuch");
    let said = e.fails(1, ["build", "--build-context", &by_name, dir.to_str().unwrap()]);
    assert!(said.contains("Dockerfile:2") && said.contains("no branch or tag nosuch"), "{said}");
    assert_eq!(fs::read_dir(e.data_root().join("cache/uploads")).unwrap().count(), 0);

    let output = e.command().env("PATH", "/nonexistent").args(["build", at]).output().unwrap();
    assert!(text(&output.stderr).contains("install it"), "{}", text(&output.stderr));
    e.finish();
}

/// `import` of an address reads what comes while it comes; half of an archive is no image.
#[test]
fn an_archive_by_its_address() {
    let e = Engine::new();
    let served = e.path("served");
    fs::create_dir_all(served.join("root/dir")).unwrap();
    fs::write(served.join("root/dir/file"), vec![b'x'; 300_000]).unwrap();
    let archive = served.join("root.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(served.join("root")).arg("-cf").arg(&archive).arg(".");
    assert!(pack.status().unwrap().success());
    let _server = http(&e, &served, &e.path("log"));
    let url = "http://127.0.0.1:8123/root.tar";
    let id = e.ok(["import", "-c", "CMD [\"x\"]", url, "fetched:1"]);
    assert_eq!(
        e.ok(["image", "inspect", "-f", "{{.Id}} {{json .Config.Cmd}}", "fetched:1"]),
        format!("{id} [\"x\"]")
    );
    assert!(e.ok(["history", "fetched:1"]).contains(&format!("Imported from {url}")));
    assert!(e.fails(1, ["import", "http://127.0.0.1:8123/nosuch", "not:1"]).contains("not found"));
    assert!(e.fails(1, ["import", "http://127.0.0.1:1/x", "not:1"]).contains("connection refused"));
    let script = e.path("half.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\nprintf 'HTTP/1.0 200 OK\\r\\nContent-Length: 900000\\r\\n\\r\\n'; head -c 200000 {}\n",
            archive.display()
        ),
    )
    .unwrap();
    let mut half = e.host.command(busybox());
    half.args(["nc", "-ll", "-p", "8124", "-e", "/bin/sh", script.to_str().unwrap()]);
    let _half = Server(half.spawn().unwrap());
    listens(&e, 8124);
    let said = e.fails(1, ["import", "http://127.0.0.1:8124/root.tar", "not:1"]);
    assert!(!said.contains("truncated") && said.contains("127.0.0.1:8124"), "{said}");
    assert!(!e.ok(["images"]).contains("not"));
    e.finish();
}
