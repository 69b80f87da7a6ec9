//! Requests by hand: what well-behaved clients don't send.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::server::Served;

/// Sends bytes and reads until the other side closes; the answer's head and body.
fn exchange(served: &Served, bytes: &[u8]) -> (String, String) {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may answer and close before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

fn ask(served: &Served, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (head, body) = exchange(served, request.as_bytes());
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or_else(|| panic!("{method} {path}: {head:?}")), body)
}

/// An answer that needs nothing of the body does not cut the connection of one who is still sending it.
#[test]
fn a_body_that_nobody_reads_may_come_after_the_answer() {
    let served = Served::new();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let body = [b'x'; 200_000];
    let answer = |stream: &mut UnixStream, until: &str| {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        while !text.contains(until) {
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        text
    };
    let head =
        format!("POST /swarm/init HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    assert!(answer(&mut stream, "\"message\"").starts_with("HTTP/1.1 501"));
    stream.write_all(&body).unwrap();
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(answer(&mut stream, "OK").contains("HTTP/1.1 200"));
}

#[test]
fn what_no_client_sends() {
    let served = Served::new();
    for (method, path, body, status, message) in [
        ("GET", "/nosuch", "", 404, "page not found"),
        ("POST", "/_ping", "", 404, "page not found"),
        ("GET", "/v1.23/info", "", 400, "too old"),
        ("GET", "/v1.99/info", "", 400, "too new"),
        ("GET", "/v9.99/version", "", 400, "client version 9.99 is too new"),
        ("GET", "/vx/info", "", 404, "page not found"),
        ("GET", "//containers//json", "", 404, ""),
        ("GET", "/containers/%2e%2e%2f/json", "", 404, "No such container"),
        ("GET", "/containers/json?filters=%7B", "", 400, "invalid filter"),
        ("GET", "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "", 400, "nosuch"),
        ("GET", "/containers/json?limit=x", "", 400, "limit"),
        ("POST", "/containers/create", "", 400, "empty"),
        ("POST", "/containers/create", "{", 400, "invalid JSON"),
        ("POST", "/containers/create", "[]", 400, "invalid JSON"),
        ("POST", "/containers/create", "{\"Image\": 7}", 400, "invalid JSON"),
        ("POST", "/containers/create", "{\"Image\": \"nosuch\"}", 404, "No such image"),
        (
            "POST",
            "/containers/create?name=a/b",
            "{\"Image\": \"bb\"}",
            400,
            "Invalid container name",
        ),
        ("POST", "/containers/nosuch/start", "", 404, "No such container"),
        ("POST", "/containers/nosuch/wait?condition=x", "", 400, "condition"),
        ("GET", "/containers/nosuch/logs?stdout=1", "", 404, "No such container"),
        ("GET", "/containers/nosuch/logs", "", 400, "at least one stream"),
        ("GET", "/containers/nosuch/archive", "", 400, "path"),
        ("POST", "/containers/nosuch/resize?h=x&w=1", "", 400, "not a number"),
        ("POST", "/exec/nosuch/start", "{}", 404, "No such exec"),
        ("GET", "/images/nosuch/json", "", 404, "No such image"),
        ("GET", "/images//json", "", 400, ""),
        ("POST", "/images/create", "", 400, "fromImage"),
        ("POST", "/images/create?fromSrc=ftp%3A%2F%2Fx", "", 400, "only http and https"),
        ("GET", "/images/get", "", 400, "at least one"),
        ("GET", "/volumes/nosuch", "", 404, "no such volume"),
        ("GET", "/events?since=x", "", 400, "invalid time"),
        ("GET", "/events?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "", 400, "nosuch"),
        ("GET", "/system/df?type=x", "", 400, "unknown object type"),
        ("GET", "/swarm", "", 503, "not a swarm manager"),
        ("POST", "/swarm/leave", "", 503, "not part of a swarm"),
        ("POST", "/build", "", 400, "open Dockerfile: no such file"),
        ("POST", "/build?buildargs=x", "", 400, "buildargs"),
        ("POST", "/build?version=2", "", 501, "DOCKER_BUILDKIT=0"),
        ("POST", "/build/prune?filters=%7B%22x%22%3A%5B%22x%22%5D%7D", "", 400, "invalid filter"),
        ("POST", "/session", "", 501, "DOCKER_BUILDKIT=0"),
        ("POST", "/grpc", "", 501, "DOCKER_BUILDKIT=0"),
    ] {
        let (got, answer) = ask(&served, method, path, body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        let is_message = serde_json::from_str::<serde_json::Value>(&answer)
            .is_ok_and(|v| v["message"].as_str().is_some_and(|m| m.contains(message)));
        assert!(is_message, "{method} {path}: {answer}");
    }
    for bytes in [
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        [b"GET /".to_vec(), vec![b'x'; 1 << 20]].concat(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat(),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
    ] {
        let (head, _) = exchange(&served, &bytes);
        assert!(head.starts_with("HTTP/1.1 4") || head.is_empty(), "{head}");
    }
    // A body that does not end.
    let huge = " ".repeat(9 << 20);
    let (status, answer) = ask(&served, "POST", "/containers/create", &huge);
    assert_eq!(status, 400, "{answer}");
    assert_eq!(ask(&served, "GET", "/_ping", "").0, 200);
    served.finish();
}

#[test]
fn a_server_that_is_killed_takes_nothing_with_it() {
    let mut served = Served::new();
    let id = served.engine.ok(["run", "-d", "--network", "none", "bb", "sleep", "1000"]);
    let (status, body) =
        ask(&served, "POST", &format!("/containers/{id}/exec"), "{\"Cmd\": [\"sleep\", \"1000\"]}");
    assert_eq!(status, 201, "{body}");
    let exec: serde_json::Value = serde_json::from_str(&body).unwrap();
    let exec = exec["Id"].as_str().unwrap();
    assert_eq!(ask(&served, "POST", &format!("/exec/{exec}/start"), "{\"Detach\": true}").0, 200);
    served.restart();
    let (status, body) = ask(&served, "GET", &format!("/exec/{exec}/json"), "");
    assert_eq!(status, 200);
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(state["Running"], true, "{body}");
    let (_, body) = ask(&served, "GET", &format!("/containers/{id}/json"), "");
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(state["State"]["Running"], true, "{body}");
    // Two at the same time.
    assert_eq!(served.engine.ok(["ps", "-q", "--no-trunc"]), id);
    served.engine.ok(["rm", "-f", &id]);
    served.finish();
}

#[test]
fn every_version() {
    let served = Served::new();
    let all: Vec<String> = (24..=51).map(|minor| format!("1.{minor}")).collect();
    for version in &all {
        for path in
            ["info", "version", "containers/json", "images/json", "system/df", "images/bb/json"]
        {
            let (status, body) = ask(&served, "GET", &format!("/v{version}/{path}"), "");
            assert_eq!(status, 200, "{version} {path}: {body}");
        }
    }
    let get = |path: &str| -> serde_json::Value {
        serde_json::from_str(ask(&served, "GET", path, "").1.trim()).unwrap()
    };
    assert!(get("/v1.43/images/json")[0]["VirtualSize"].is_number());
    assert!(get("/v1.44/images/json")[0]["VirtualSize"].is_null());
    assert!(get("/v1.44/images/bb/json")["ContainerConfig"].is_object());
    assert!(get("/v1.45/images/bb/json")["ContainerConfig"].is_null());
    assert_eq!(get("/v1.41/system/df")["BuilderSize"], 0);
    // docker, told to speak an old one, and finding out by itself.
    let there = std::process::Command::new("docker").arg("--version").output();
    if !there.is_ok_and(|o| o.status.success()) {
        eprintln!("not tested: there is no docker client here");
        served.finish();
        return;
    }
    for version in ["", "1.24", "1.30", "1.41", "1.44", "1.51"] {
        let mut docker = served.client("timeout");
        docker.args([
            "-s",
            "KILL",
            "60",
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "bb",
            "echo",
            "hello",
        ]);
        if !version.is_empty() {
            docker.env("DOCKER_API_VERSION", version);
        }
        let output = docker.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.stdout, b"hello\n", "{version}: {said}");
    }
    served.finish();
}

/// A container keeps the name of the runtime that it was asked for with; docker-py asks beside the host's part.
#[test]
fn a_runtime_is_known_by_the_name_it_was_asked_for() {
    let served = Served::new();
    let create = |wanted: &str| {
        let body = format!("{{\"Image\":\"bb\",\"Cmd\":[\"true\"],{wanted}}}");
        let (status, said) = ask(&served, "POST", "/containers/create", &body);
        (status, serde_json::from_str::<serde_json::Value>(&said).unwrap())
    };
    for (wanted, shown, warned) in [
        (r#""HostConfig":{"NetworkMode":"none"}"#, "wherry", false),
        (r#""HostConfig":{"NetworkMode":"none","Runtime":"runc"},"Runtime":null"#, "runc", false),
        (
            r#""HostConfig":{"NetworkMode":"none","Runtime":"io.containerd.runc.v2"},"Runtime":"runc""#,
            "io.containerd.runc.v2",
            false,
        ),
        (r#""HostConfig":{"NetworkMode":"none"},"Runtime":"runc""#, "runc", false),
        (r#""HostConfig":{"NetworkMode":"none"},"Runtime":"bogus""#, "wherry", true),
    ] {
        let (status, created) = create(wanted);
        assert_eq!(status, 201, "{wanted}: {created}");
        let id = created["Id"].as_str().unwrap();
        assert_eq!(created["Warnings"].to_string().contains("bogus"), warned, "{created}");
        // What is changed and started later keeps the name.
        served.engine.ok(["update", "--memory", "64m", "--memory-swap", "64m", id]);
        served.engine.ok(["start", "-a", id]);
        let (_, said) = ask(&served, "GET", &format!("/containers/{id}/json"), "");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["HostConfig"]["Runtime"], shown, "{wanted}");
        assert_eq!(said["State"]["ExitCode"], 0, "{wanted}");
    }
    let (status, said) = create(r#""HostConfig":{"NetworkMode":"none","Runtime":"bogus"}"#);
    assert_eq!(status, 400, "{said}");
    assert!(said["message"].as_str().unwrap().contains("bogus"), "{said}");
    let (_, info) = ask(&served, "GET", "/info", "");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["DefaultRuntime"], "wherry");
    for name in ["wherry", "runc", "io.containerd.runc.v2"] {
        assert!(info["Runtimes"][name]["path"].is_string(), "{name}: {}", info["Runtimes"]);
    }
    let command = served
        .engine
        .command()
        .env("WHERRY_DEFAULT_RUNTIME", "runc")
        .args(["create", "--name", "dd", "--network", "none", "bb", "true"])
        .output()
        .unwrap();
    assert!(command.status.success(), "{command:?}");
    assert_eq!(served.engine.inspect("{{.HostConfig.Runtime}}", "dd"), "runc");
    served.engine.ok(["rm", "dd"]);
    served.finish();
}
