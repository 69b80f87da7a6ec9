//! Websockets, detach keys, archives of containers that do not run, a commit's configuration.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::until;
use crate::server::Served;

fn connect(served: &Served, request: &str) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.extend_from_slice(&byte);
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// A request whose answer is read to its end: status and body.
fn ask(served: &Served, method: &str, target: &str, body: &str) -> (u16, String) {
    let (head, mut stream) = connect(
        served,
        &format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), rest)
}

fn upgrade(target: &str, protocol: &str, body: &str) -> String {
    let method = if protocol == "websocket" { "GET" } else { "POST" };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A client's frame.
fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![0x80 | kind, 0x80 | u8::try_from(bytes.len()).unwrap()];
    out.extend(mask);
    out.extend(bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// A server's frame: its kind, and what it carries.
fn read_frame(stream: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut bytes = vec![0; usize::from(head[1])];
    stream.read_exact(&mut bytes).unwrap();
    (head[0], bytes)
}

#[test]
fn a_websocket() {
    let served = Served::new();
    let id = served.engine.ok(["run", "-d", "-i", "--network", "none", "bb", "cat"]);
    let target = format!("/v1.51/containers/{id}/attach/ws?stream=1&stdin=1&stdout=1");
    let (head, mut stream) = connect(&served, &upgrade(&target, "websocket", ""));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(&frame(1, b"one\n")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x82, b"one\n".to_vec()));
    stream.write_all(&frame(9, b"?")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x8a, b"?".to_vec()));
    served.engine.ok(["kill", &id]);
    assert_eq!(read_frame(&mut stream), (0x88, vec![3, 0xe8]));
    let (status, _) = ask(&served, "GET", &target, "");
    assert_eq!(status, 400);
    served.finish();
}

/// Makes an exec; where it is started.
fn make_exec(served: &Served, container: &str, config: &str) -> String {
    let (status, made) = ask(served, "POST", &format!("/containers/{container}/exec"), config);
    assert_eq!(status, 201, "{made}");
    let made: serde_json::Value = serde_json::from_str(made.trim()).unwrap();
    format!("/exec/{}/start", made["Id"].as_str().unwrap())
}

/// Makes an exec and starts it; its stream.
fn exec(served: &Served, container: &str, config: &str) -> UnixStream {
    let target = make_exec(served, container, config);
    let (head, stream) = connect(served, &upgrade(&target, "tcp", "{\"Tty\": true}"));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// A program that reads to the end of its input hears of that end when the client closes its half.
#[test]
fn the_end_of_an_execs_input() {
    let served = Served::new();
    let id = served.engine.ok(["run", "-d", "--network", "none", "bb", "sleep", "1000"]);
    for count in [0, 5, 300_000] {
        let config = "{\"Cmd\": [\"wc\", \"-c\"], \"AttachStdin\": true, \"AttachStdout\": true}";
        let mut stream = exec(&served, &id, config);
        stream.write_all(&vec![b'x'; count]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said.trim(), count.to_string());
    }
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

/// The way of clients before upgrades: 200, then both streams on the connection.
#[test]
fn a_connection_is_taken_over_without_asking() {
    let served = Served::new();
    let ask_for = |target: &str, body: &str| {
        let length = body.len();
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        let (head, stream) = connect(&served, &request);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/vnd.docker.raw-stream\r\n"), "{head}");
        assert!(!head.contains("upgrade") && !head.contains("chunked"), "{head}");
        stream
    };
    let talk = |mut stream: UnixStream| {
        stream.write_all(b"both ways").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"\x01\0\0\0\0\0\0\x09both ways");
    };
    let id = served.engine.ok(["create", "-i", "--network", "none", "bb", "cat"]);
    let stream = ask_for(&format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"), "");
    served.engine.ok(["start", &id]);
    talk(stream);
    let id = served.engine.ok(["run", "-d", "--network", "none", "bb", "sleep", "1000"]);
    let config = r#"{"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true}"#;
    let target = make_exec(&served, &id, config);
    talk(ask_for(&format!("/v1.24{target}"), "{}"));
    // What is refused is answered as ever.
    let (status, said) = ask(&served, "POST", "/containers/nosuch/attach?stream=1", "");
    assert_eq!((status, said.contains("No such container")), (404, true), "{said}");
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

/// A connection that is closed with bytes in it that nobody read is cut.
#[test]
fn input_that_nobody_reads() {
    let served = Served::new();
    let id = served.engine.ok(["run", "-d", "--network", "none", "bb", "sleep", "1000"]);
    let config = r#"{"Cmd": ["sh", "-c", "sleep 0.2; echo out"], "AttachStdin": true, "AttachStdout": true}"#;
    let mut stream = exec(&served, &id, config);
    let mut input = stream.try_clone().unwrap();
    // More than the pipe takes; the rest waits in the connection.
    let writer = std::thread::spawn(move || input.write_all(&vec![b'x'; 300_000]));
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "out\n");
    drop(stream);
    let _ = writer.join().unwrap();
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

#[test]
fn the_size_of_an_execs_terminal() {
    let served = Served::new();
    let id = served.engine.ok(["run", "-d", "--network", "none", "bb", "sleep", "1000"]);
    let config =
        r#"{"Cmd": ["stty", "size"], "AttachStdout": true, "Tty": true, "ConsoleSize": [40, 132]}"#;
    // The program must not be faster than the one who sets it.
    for _ in 0..30 {
        let mut said = String::new();
        exec(&served, &id, config).read_to_string(&mut said).unwrap();
        assert_eq!(said, "40 132\r\n");
    }
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

/// A client that looks for a BuildKit is answered in HTTP/2; what it is told is tested beside the code.
#[test]
fn a_connection_for_calls() {
    let served = Served::new();
    let (head, mut stream) = connect(&served, &upgrade("/grpc", "h2c", ""));
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("h2c"), "{head}");
    // The preface, and settings of which there are none.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!((frame[3], frame[4]), (4, 0), "settings come first");
    drop(stream);
    served.finish();
}

#[test]
fn detach_keys() {
    let served = Served::new();
    let id = served.engine.ok(["run", "-dit", "--network", "none", "bb", "cat"]);
    let attach = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1");
    let exec = |keys: &str| {
        let body = format!(
            "{{\"Cmd\": [\"cat\"], \"Tty\": true, \"AttachStdin\": true, \"AttachStdout\": true, \"DetachKeys\": \"{keys}\"}}"
        );
        let (status, body) = ask(&served, "POST", &format!("/containers/{id}/exec"), &body);
        assert_eq!(status, 201, "{body}");
        let made: serde_json::Value = serde_json::from_str(body.trim()).unwrap();
        format!("/exec/{}/start", made["Id"].as_str().unwrap())
    };
    let start = "{\"Tty\": true}";
    for (target, body, keys) in [
        (attach.clone(), "", &b"\x10\x11"[..]),
        (format!("{attach}&detachKeys=ctrl-a%2Cx"), "", b"\x01x"),
        (exec(""), start, b"\x10\x11"),
        (exec("ctrl-b"), start, b"\x02"),
    ] {
        let (head, mut stream) = connect(&served, &upgrade(&target, "tcp", body));
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"typed").unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"typed");
        stream.write_all(keys).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(served.engine.inspect("{{.State.Running}}", &id), "true");
    }
    let (status, body) = ask(&served, "POST", &format!("{attach}&detachKeys=nosuch"), "");
    assert!(status == 400 && body.contains("detach keys"), "{status} {body}");
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

#[test]
fn files_of_a_container_that_does_not_run() {
    let served = Served::new();
    let engine = &served.engine;
    let host = engine.path("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let bind = format!("{}:/deep/bind", host.display());
    let read_only = format!("{}:/ro:ro", host.display());
    engine.ok([
        "create",
        "--name",
        "cc",
        "-v",
        "vol:/data",
        "-v",
        &bind,
        "-v",
        &read_only,
        "bb",
        "true",
    ]);
    let local = engine.path("local");
    std::fs::write(&local, "hello").unwrap();
    let local = local.to_str().unwrap();
    engine.ok(["cp", local, "cc:/data/x"]);
    engine.ok(["cp", local, "cc:/deep/bind/y"]);
    assert!(!engine.run(["cp", local, "cc:/ro/z"]).status.success());
    assert_eq!(std::fs::read_to_string(host.join("y")).unwrap(), "hello");
    assert!(!host.join("z").exists());
    // It is in the volume, not under it.
    assert_eq!(
        engine.ok(["run", "--rm", "--network", "none", "-v", "vol:/v", "bb", "cat", "/v/x"]),
        "hello"
    );
    let out = engine.path("out");
    engine.ok(["cp", "cc:/deep/bind/file", out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "from the host");
    for (path, status) in [("/data/x", 200), ("/data/nosuch", 404), ("/ro/file", 200)] {
        let (got, _) = ask(&served, "HEAD", &format!("/containers/cc/archive?path={path}"), "");
        assert_eq!(got, status, "{path}");
    }
    // No mount of it is left, nor ever was the host's.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(engine.dir.to_str().unwrap()));
    engine.ok(["start", "-a", "cc"]);
    engine.ok(["rm", "-v", "cc"]);
    engine.ok(["volume", "rm", "vol"]);
    served.finish();
}

#[test]
fn what_a_commit_is_told() {
    let served = Served::new();
    let engine = &served.engine;
    engine.ok([
        "create",
        "--name",
        "cc",
        "--network",
        "none",
        "-e",
        "A=1",
        "-e",
        "B=2",
        "--label",
        "x=y",
        "bb",
        "echo",
        "old",
    ]);
    let body = "{\"Cmd\": [\"echo\", \"new\"], \"Env\": [\"B=3\"], \"Labels\": {\"z\": \"1\"}, \"ExposedPorts\": {\"80/tcp\": {}}}";
    let (status, said) = ask(&served, "POST", "/commit?container=cc&repo=made&tag=1", body);
    assert_eq!(status, 201, "{said}");
    let shown = engine.ok([
        "image",
        "inspect",
        "-f",
        "{{json .Config.Env}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}",
        "made:1",
    ]);
    assert!(
        shown.contains("\"A=1\"") && shown.contains("\"B=3\"") && !shown.contains("B=2"),
        "{shown}"
    );
    assert!(
        shown.contains("\"x\":\"y\"") && shown.contains("\"z\":\"1\"") && shown.contains("80/tcp"),
        "{shown}"
    );
    assert_eq!(engine.ok(["run", "--rm", "--network", "none", "made:1"]), "new");
    engine.ok(["rm", "cc"]);
    served.finish();
}

#[test]
fn a_restart_is_seen_at_once_and_links_have_variables() {
    let served = Served::new();
    let engine = &served.engine;
    engine.ok([
        "run",
        "-d",
        "--name",
        "rr",
        "--network",
        "none",
        "--restart",
        "always",
        "bb",
        "sh",
        "-c",
        "exit 3",
    ]);
    until("the second restart", || engine.inspect("{{.RestartCount}}", "rr") != "0");
    for _ in 0..50 {
        let (_, body) = ask(&served, "GET", "/containers/rr/json", "");
        let state: serde_json::Value = serde_json::from_str(body.trim()).unwrap();
        assert_ne!(state["State"]["Status"], "exited", "{body}");
    }
    // Its next end is one, whatever comes after.
    let (status, said) = ask(&served, "POST", "/containers/rr/wait", "");
    assert!(status == 200 && said.contains("\"StatusCode\":3"), "{said}");
    engine.ok(["rm", "-f", "rr"]);
    engine.ok([
        "run",
        "-d",
        "--name",
        "db",
        "-e",
        "MODE=fast",
        "--expose",
        "5432",
        "bb",
        "sleep",
        "1000",
    ]);
    let address = engine.inspect("{{.NetworkSettings.IPAddress}}", "db");
    let env = engine.ok(["run", "--rm", "--link", "db:store", "--name", "web", "bb", "env"]);
    assert!(env.contains(&format!("STORE_PORT_5432_TCP=tcp://{address}:5432")), "{env}");
    assert!(env.contains("STORE_NAME=/web/store") && env.contains("STORE_ENV_MODE=fast"), "{env}");
    engine.ok(["create", "--name", "later", "--link", "db:store", "bb", "true"]);
    let (status, said) = ask(&served, "DELETE", "/containers/later/store?link=1", "");
    assert_eq!(status, 204, "{said}");
    assert_eq!(ask(&served, "DELETE", "/containers/later/store?link=1", "").0, 404);
    assert_eq!(engine.inspect("{{json .HostConfig.Links}}", "later"), "[]");
    engine.ok(["rm", "-f", "db", "later"]);
    served.finish();
}
