//! The same command with an engine elsewhere: TLS, contexts, ssh, sockets that are handed over.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{Engine, text, until};
use crate::server::Served;

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(directory: &Path, args: &str) {
    let done =
        Command::new("openssl").args(args.split(' ')).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "openssl {args}: {}", text(&done.stderr));
}

/// `ca.pem`, and in `server` and `client` what each needs, named as Docker names it.
fn certificates(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        directory,
        &format!("req -x509 -days 2 -subj /CN=authority {ec} -keyout ca.key -out ca.pem"),
    );
    openssl(
        directory,
        &format!("req -x509 -days 2 -subj /CN=stranger {ec} -keyout other.key -out other.pem"),
    );
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
        ("stranger", "extendedKeyUsage=clientAuth\n"),
    ] {
        let to = directory.join(name);
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("ext"), extension).unwrap();
        let by = if name == "stranger" { "other" } else { "ca" };
        openssl(
            directory,
            &format!("req -subj /CN={name} {ec} -keyout {name}/key.pem -out {name}/csr"),
        );
        openssl(
            directory,
            &format!(
                "x509 -req -days 2 -in {name}/csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -extfile {name}/ext -out {name}/cert.pem"
            ),
        );
        fs::copy(directory.join("ca.pem"), to.join("ca.pem")).unwrap();
    }
}

/// A program in the namespace that stands for the host, where the port is.
fn near(engine: &Engine, program: &str) -> Command {
    let mut command = engine.host.command("timeout");
    command
        .args(["-s", "KILL", "60", program])
        .env_remove("DOCKER_HOST")
        .env("HOME", &engine.dir)
        .env("DOCKER_CONFIG", engine.path("docker-config"))
        .stdin(Stdio::null());
    command
}

#[track_caller]
fn good(output: Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("not tested: there is no {program} here");
    }
    there
}

#[test]
fn tcp_is_for_clients_with_a_certificate() {
    let engine = Engine::new();
    // Plain TCP is refused.
    let said = engine.fails(1, ["serve", "-H", "tcp://127.0.0.1:2375"]);
    assert!(said.contains("only to clients with a certificate"), "{said}");

    let certs = engine.path("certs");
    certificates(&certs);
    let file = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.pem"), file("server/cert.pem"), file("server/key.pem"));
    let host = "tcp://127.0.0.1:2376";
    let child = engine
        .command()
        .args([
            "serve",
            "-H",
            host,
            "--tlsverify",
            "--tlscacert",
            &ca,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
        ])
        .stderr(fs::File::create(engine.path("serve.log")).unwrap())
        .spawn()
        .unwrap();
    let server = Server(child);
    until("the port", || {
        fs::read_to_string(engine.path("serve.log"))
            .unwrap()
            .contains("listening on tcp://127.0.0.1:2376")
    });
    let with = |program: &str, who: &str| {
        let mut command = near(&engine, program);
        command
            .env("DOCKER_HOST", host)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", certs.join(who));
        command
    };
    let programs: Vec<&str> = if has("docker") { vec![WHERRY, "docker"] } else { vec![WHERRY] };
    for program in programs {
        let run = ["run", "--rm", "--network", "none", "-i", "bb", "cat"];
        let mut child = with(program, "client")
            .args(run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"over TLS\n").unwrap();
        assert_eq!(good(child.wait_with_output().unwrap()), "over TLS", "{program}");
        let shown = good(
            with(program, "client")
                .args(["images", "--format", "{{.Repository}}"])
                .output()
                .unwrap(),
        );
        assert_eq!(shown, "bb");
        // Somebody whom another authority vouches for, nobody, and a plain client.
        let refused = with(program, "stranger").arg("ps").output().unwrap();
        assert!(!refused.status.success(), "{program}");
        let mut plain = near(&engine, program);
        let refused = plain.env("DOCKER_HOST", host).arg("ps").output().unwrap();
        assert!(!refused.status.success(), "{program}");
    }
    if has("curl") {
        let mut curl = near(&engine, "curl");
        let client = |name: &str| file(&format!("client/{name}.pem"));
        curl.args(["-s", "--cacert", &ca, "--cert", &client("cert"), "--key", &client("key")]);
        assert_eq!(good(curl.arg("https://127.0.0.1:2376/_ping").output().unwrap()), "OK");
        let mut curl = near(&engine, "curl");
        let nobody =
            curl.args(["-s", "--cacert", &ca, "https://127.0.0.1:2376/_ping"]).output().unwrap();
        assert!(!nobody.status.success());
    }
    // A server that another authority vouches for is not believed, unless one asks for that.
    let mut wrong = with(WHERRY, "client");
    wrong.env("DOCKER_CERT_PATH", certs.join("client"));
    let stranger = certs.join("other.pem");
    let output = wrong.args(["--tlscacert", stranger.to_str().unwrap(), "ps"]).output().unwrap();
    assert!(
        !output.status.success() && text(&output.stderr).contains("certificate"),
        "{}",
        text(&output.stderr)
    );
    let mut any = near(&engine, WHERRY);
    any.args(["-H", host, "--tls", "--tlscert"]).arg(certs.join("client/cert.pem"));
    any.arg("--tlskey").arg(certs.join("client/key.pem"));
    assert_eq!(good(any.args(["ps", "-q"]).output().unwrap()), "");
    drop(server);
    engine.finish();
}

#[test]
fn contexts_are_dockers() {
    let served = Served::new();
    let engine = &served.engine;
    let host = format!("unix://{}", served.socket().display());
    let wherry = |args: &[&str]| near(engine, WHERRY).args(args).output().unwrap();
    let endpoint = format!("host={host}");
    good(wherry(&[
        "context",
        "create",
        "there",
        "--description",
        "the other one",
        "--docker",
        &endpoint,
    ]));
    assert!(!wherry(&["context", "create", "there", "--docker", &endpoint]).status.success());
    assert_eq!(good(wherry(&["context", "show"])), "default");
    assert_eq!(good(wherry(&["--context", "there", "images", "-q"])).len(), 12);
    assert_eq!(good(wherry(&["context", "use", "there"])), "there");
    assert_eq!(good(wherry(&["context", "show"])), "there");
    assert_eq!(good(wherry(&["images", "-q"])).len(), 12);
    let shown =
        good(wherry(&["context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"]));
    assert_eq!(shown, format!("there {host}"));
    let refused = wherry(&["doctor"]);
    assert!(refused.status.success() || !text(&refused.stderr).is_empty());
    if has("docker") {
        let docker = |args: &[&str]| good(near(engine, "docker").args(args).output().unwrap());
        assert_eq!(docker(&["context", "show"]), "there");
        assert_eq!(docker(&["images", "-q"]).len(), 12);
        docker(&["context", "create", "theirs", "--description", "d", "--docker", &endpoint]);
        let names = good(wherry(&["context", "ls", "-q"]));
        assert_eq!(names, docker(&["context", "ls", "-q"]));
        let format = "{{.Name}} {{.Current}} {{.Description}}";
        let ours = good(wherry(&["context", "ls", "--format", format]));
        let theirs = docker(&["context", "ls", "--format", format]);
        let without_own = |text: &str| {
            text.lines()
                .filter(|l| !l.starts_with("default"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(without_own(&ours), without_own(&theirs));
        let archive = engine.path("archive");
        docker(&["context", "export", "theirs", archive.to_str().unwrap()]);
        good(wherry(&["context", "import", "again", archive.to_str().unwrap()]));
        assert_eq!(good(wherry(&["--context", "again", "images", "-q"])).len(), 12);
    }
    let archive = engine.path("ours");
    good(wherry(&["context", "export", "there", archive.to_str().unwrap()]));
    good(wherry(&["context", "import", "copy", archive.to_str().unwrap()]));
    good(wherry(&["context", "update", "copy", "--description", "a copy"]));
    let shown =
        good(wherry(&["context", "inspect", "copy", "--format", "{{.Metadata.Description}}"]));
    assert_eq!(shown, "a copy");
    // In use: not without -f.
    assert!(!wherry(&["context", "rm", "there"]).status.success());
    good(wherry(&["context", "rm", "-f", "there"]));
    assert_eq!(good(wherry(&["context", "show"])), "default");
    assert!(!wherry(&["--context", "there", "ps"]).status.success());
    // Whatever the environment says, folders that are named are this machine's.
    let mut own = engine.command();
    own.args(["--data-root"]).arg(engine.data_root()).args(["--run-root"]).arg(engine.run_root());
    own.env("DOCKER_HOST", "unix:///nonexistent").args(["images", "-q"]);
    assert_eq!(good(own.output().unwrap()).len(), 12);
    served.finish();
}

#[test]
fn over_ssh_without_a_server() {
    let engine = Engine::new();
    // In the place of ssh: what is run at the other end, in that engine's environment.
    let bin = engine.path("bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(WHERRY, bin.join("docker")).unwrap();
    let (data, run) = (engine.data_root(), engine.run_root());
    fs::write(
        bin.join("ssh"),
        format!(
            "#!/bin/sh\necho \"$@\" >> {0}/ssh.log\nwhile [ \"$1\" != -- ]; do shift; done; shift 2\nexport WHERRY_DATA_ROOT={1} WHERRY_RUN_ROOT={2}\n\
             unset DOCKER_HOST\nPATH={3}:$PATH exec sh -c \"$*\"\n",
            engine.dir.display(),
            data.display(),
            run.display(),
            bin.display()
        ),
    )
    .unwrap();
    fs::set_permissions(bin.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
    let call = |program: &str, args: &[&str]| {
        let mut command = near(&engine, program);
        command.env("PATH", &path).env("DOCKER_HOST", "ssh://me@there:2222").args(args);
        command
    };
    let mut programs = vec![WHERRY];
    if has("/usr/local/bin/docker") {
        programs.push("/usr/local/bin/docker");
    }
    for program in programs {
        assert_eq!(good(call(program, &["images", "-q"]).output().unwrap()).len(), 12);
        let args = ["run", "--rm", "--network", "none", "bb", "sh", "-c", "echo out; exit 3"];
        let output = call(program, &args).output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(3), "out".into()),
            "{program}: {}",
            text(&output.stderr)
        );
        let mut child = call(program, &["run", "--rm", "-i", "--network", "none", "bb", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        assert_eq!(good(child.wait_with_output().unwrap()), "typed", "{program}");
    }
    // Docker's client alone, without an engine, is in nobody's way.
    if !Path::new("/var/run/docker.sock").exists() {
        fs::rename(bin.join("docker"), bin.join("wherry")).unwrap();
        fs::write(bin.join("docker"), "#!/bin/sh\necho no engine >&2\nexit 1\n").unwrap();
        fs::set_permissions(
            bin.join("docker"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let mut command = call(WHERRY, &["images", "-q"]);
        command.env_remove("XDG_RUNTIME_DIR");
        assert_eq!(good(command.output().unwrap()).len(), 12);
    }
    // The server that was started for it leaves by itself.
    let socket = engine.run_root().join("dial.sock");
    until("the end of the server", || UnixStream::connect(&socket).is_err());
    let log = fs::read_to_string(engine.path("ssh.log")).unwrap();
    assert!(log.contains("-l me -p 2222 -- there"), "{log}");
    engine.finish();
}

#[test]
fn a_socket_that_is_handed_over() {
    let engine = Engine::new();
    let path = engine.path("given.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // What a service manager does: descriptor 3, and two variables.
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut command = engine.command_as("sh");
    command.args(["-c", script, "sh", WHERRY, "serve", "-H", "fd://"]);
    let server = Server(command.stdin(Stdio::from(OwnedFd::from(listener))).spawn().unwrap());
    // It has the listener, too.
    drop(command);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("OK"), "{answer}");
    // What the server starts, and what outlives it, does not hold the socket: nobody would answer there.
    let host = format!("unix://{}", path.display());
    engine.ok(["-H", &host, "run", "-d", "--name", "c1", "bb", "sleep", "1000"]);
    drop(server);
    until("nobody listens", || UnixStream::connect(&path).is_err());
    engine.ok(["rm", "-f", "c1"]);
    let said = engine.fails(1, ["serve", "-H", "fd://"]);
    assert!(said.contains("LISTEN_FDS"), "{said}");
    engine.finish();
}

#[test]
fn units_that_systemd_takes() {
    let engine = Engine::new();
    let units = engine.path("units");
    let units = units.to_str().unwrap();
    let two = ["-H", "unix:///run/one.sock", "-H", "unix:///run/two.sock", "--idle", "60"];
    let install = ["serve", "--install", "--units", units, "-G", "root"];
    let installed = engine
        .command()
        .current_dir(&engine.dir)
        .args(["--config", "a file"])
        .args(install)
        .args(two)
        .output()
        .unwrap();
    // A configuration that is named must be there.
    assert!(!installed.status.success(), "{installed:?}");
    fs::write(engine.path("a file"), "").unwrap();
    let mut command = engine.command();
    command.current_dir(&engine.dir).args(["--config", "a file"]).args(install).args(two);
    assert!(command.status().unwrap().success());
    // What is read from somewhere else, with another environment, says all of it.
    let service = fs::read_to_string(format!("{units}/wherry.service")).unwrap();
    for (name, path) in [
        ("--data-root", engine.data_root()),
        ("--run-root", engine.run_root()),
        ("--config", engine.path("a file")),
    ] {
        assert!(service.contains(&format!("{name} \"{}\"", path.display())), "{service}");
    }
    assert!(service.contains("serve -H fd:// --idle 60\n"), "{service}");
    let socket = fs::read_to_string(format!("{units}/wherry.socket")).unwrap();
    assert!(
        socket.contains("ListenStream=/run/one.sock\nListenStream=/run/two.sock\n"),
        "{socket}"
    );
    let said = engine.fails(1, ["serve", "--install", "--units", units, "-H", "tcp://:2376"]);
    assert!(said.contains("--tlsverify"), "{said}");
    let port = ["-H", "tcp://:2376", "--tlsverify", "--idle", "1"];
    let said = engine.fails(1, install.iter().chain(&port));
    assert!(said.contains("--idle"), "{said}");
    engine.fails(1, ["serve", "--install", "--units", units, "-G", "a b"]);
    assert_eq!(fs::read_to_string(format!("{units}/wherry.service")).unwrap(), service);
    engine.ok(install);
    let names = ["wherry.socket", "wherry.service", "wherry-boot.service"];
    let paths = names.map(|name| format!("{units}/{name}"));
    if has("systemd-analyze") {
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(&paths)
            .output()
            .unwrap();
        assert!(
            verified.status.success() && verified.stderr.is_empty(),
            "{}",
            text(&verified.stderr)
        );
    }
    engine.ok(["serve", "--uninstall", "--units", units]);
    engine.ok(["serve", "--uninstall", "--units", units]);
    assert_eq!(fs::read_dir(units).unwrap().count(), 0);
    engine.finish();
}

/// Before the host ends containers end in their own way, side by side, and the next boot has them back.
#[test]
fn what_ends_with_the_host() {
    let engine = Engine::new();
    let run = |name: &str, policy: &str, script: &str| {
        let policy = format!("--restart={policy}");
        let run = ["run", "-d", "--network", "none", "--name", name, &policy];
        engine.ok(run.iter().chain(&["bb", "sh", "-c", script]));
    };
    let polite = "trap 'sleep 1; echo done; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    run("c1", "always", polite);
    run("c2", "unless-stopped", polite);
    run("c3", "on-failure", polite);
    run("c4", "no", polite);
    run("c5", "unless-stopped", polite);
    engine.ok(["stop", "-t", "0", "c5"]);
    engine.ok(["pause", "c4"]);
    for name in ["c1", "c2", "c3", "c4"] {
        until("its trap", || engine.ok(["logs", name]).contains("up"));
    }
    let mut stopped: Vec<String> =
        engine.ok(["system", "boot", "--stop"]).lines().map(str::to_owned).collect();
    stopped.sort();
    assert_eq!(stopped, ["c1", "c2", "c3", "c4"]);
    for name in ["c1", "c2", "c3", "c4"] {
        assert_eq!(engine.inspect("{{.State.Status}} {{.State.ExitCode}}", name), "exited 0");
        assert!(engine.ok(["logs", name]).ends_with("done"), "{name}");
    }
    // Nothing is left to do, and no policy did it meanwhile.
    assert_eq!(engine.ok(["system", "boot", "--stop"]), "");
    assert_eq!(engine.ok(["ps", "-q"]), "");
    let mut started: Vec<String> =
        engine.ok(["system", "boot"]).lines().map(str::to_owned).collect();
    started.sort();
    assert_eq!(started, ["c1", "c2", "c3"]);
    engine.ok(["rm", "-f", "c1", "c2", "c3", "c4", "c5"]);
    engine.finish();
}

#[test]
fn what_runs_after_a_boot() {
    let engine = Engine::new();
    let run = |name: &str, policy: &str| {
        engine.ok([
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            name,
            "--restart",
            policy,
            "bb",
            "sleep",
            "1000",
        ])
    };
    run("always", "always");
    run("stopped", "unless-stopped");
    run("unless", "unless-stopped");
    run("never", "no");
    engine.ok(["stop", "-t", "0", "stopped", "always"]);
    // As if the host had been switched off: all processes are gone, and the run root is of another boot.
    let pids: Vec<String> =
        ["unless", "never"].map(|n| engine.inspect("{{.State.Pid}}", n)).to_vec();
    // Stopped first: a standby that takes over would see their ends, and restart them.
    let keepers: Vec<String> = engine.keepers().iter().map(|(pid, _)| pid.to_string()).collect();
    for signal in ["-STOP", "-9"] {
        Command::new("kill").arg(signal).args(&keepers).status().unwrap();
    }
    Command::new("kill").arg("-9").args(&pids).status().unwrap();
    // Before anybody looks: a keeper that still finds one would have a steward restart it.
    let gone = |pid: &String| !std::path::Path::new("/proc").join(pid).exists();
    until("their end", || pids.iter().all(gone));
    until("it is known", || engine.ok(["ps", "-q", "--filter", "status=running"]).is_empty());
    let mut started: Vec<String> =
        engine.ok(["system", "boot"]).lines().map(str::to_owned).collect();
    started.sort();
    assert_eq!(started, ["always", "unless"]);
    assert_eq!(engine.ok(["system", "boot"]), "");
    assert_eq!(engine.inspect("{{.State.Running}}", "unless"), "true");
    engine.finish();
}
