//! Every path and method of Docker's reference is answered, with every field that must be there.
//!
//! `reference.json` is made of the reference by `reference.py`, and holds facts only.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::until;
use crate::server::Served;

#[derive(Deserialize)]
struct Row {
    method: String,
    path: String,
    /// Statuses of success, and the fields an answer with it must have: `a.b`, `[].a`; `a?.b` where `a` may
    /// be absent.
    success: BTreeMap<String, Vec<String>>,
    /// Fields of the answer's top, required or not.
    known: Vec<String>,
}

/// Method, the reference's path, what is asked, headers, body, and the status that is expected.
type Asked<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [u8], u16);

/// A process that ends with the test, however that ends.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// One request on a connection of its own, and the whole answer, or its head where it goes on.
fn ask(served: &Served, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let close = if headers.contains("Upgrade") { "" } else { "Connection: close\r\n" };
    let head = format!(
        "{method} /v1.51{target} HTTP/1.1\r\nHost: x\r\n{close}{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        all.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&all).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {target}: {head:?}"));
    let mut body = Vec::new();
    if status != 101 && method != "HEAD" {
        stream.read_to_end(&mut body).unwrap();
    }
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status, head, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        out.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    out
}

/// The parts of the path that are missing from a value.
fn missing(value: &Value, path: &str, problems: &mut Vec<String>) {
    if let Some(rest) = path.strip_prefix("[].") {
        let Some(items) = value.as_array() else {
            // An empty list may be null.
            if !value.is_null() {
                problems.push(format!("{path}: no list"));
            }
            return;
        };
        items.iter().for_each(|item| missing(item, rest, problems));
        return;
    }
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let optional = name.ends_with('?');
    match (value.get(name.trim_end_matches('?')), rest) {
        (None, _) if optional => {}
        (None, _) => problems.push(format!("{path} is missing")),
        (Some(Value::Null), Some(_)) => {}
        (Some(inner), Some(rest)) => missing(inner, rest, problems),
        (Some(_), None) => {}
    }
}

/// What docs/compatibility.md says is not there: the tables of its part on the API.
struct Page {
    /// Method and path, and the status that says so.
    refused: Vec<(String, u16)>,
    /// Method and path, and a field that is left out of the answer.
    left_out: Vec<(String, String)>,
}

impl Page {
    fn read() -> Self {
        let page = include_str!("../../../../docs/compatibility.md");
        let part = page.split("\n## The HTTP API\n").nth(1).unwrap();
        let part = part.split("\n### ").next().unwrap();
        let (mut refused, mut left_out) = (Vec::new(), Vec::new());
        for row in part.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [what, second, why] = cells[..] else { panic!("a row of three cells: {row}") };
            assert!(!why.is_empty(), "without a reason: {row}");
            let quoted = |text: &str| {
                let parts = text.split('`').skip(1).step_by(2);
                parts.map(str::to_owned).collect::<Vec<_>>()
            };
            for path in quoted(what) {
                match second.parse() {
                    Ok(status) => refused.push((path, status)),
                    Err(_) => left_out
                        .extend(quoted(second).into_iter().map(|field| (path.clone(), field))),
                }
            }
        }
        assert!(refused.len() > 30 && left_out.len() > 10);
        Self { refused, left_out }
    }
}

/// Fields that are there at times only, and not of what is asked for here.
const AT_TIMES: [(&str, &[&str]); 7] = [
    // Of a container with a network.
    ("GET /containers/{id}/stats", &["networks"]),
    // Only where it is true, as in Docker.
    ("GET /version", &["Experimental"]),
    // Only where it was asked for.
    ("GET /containers/{id}/json", &["SizeRw", "SizeRootFs"]),
    ("GET /volumes/{name}", &["UsageData"]),
    ("POST /volumes/create", &["UsageData"]),
    // Only where there is any.
    ("GET /images/{name}/json", &["Variant", "OsVersion"]),
    ("POST /containers/{id}/wait", &["Error"]),
];

#[test]
fn every_path_and_method() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("reference.json")).unwrap();
    assert!(rows.len() > 100);
    let page = Page::read();
    let served = Served::new();
    let engine = &served.engine;
    let run = |name: &str, more: &[&str]| {
        let args = ["run", "-d", "--network", "none", "--name", name];
        engine.ok(args.iter().chain(more).chain(&["bb", "sleep", "1000"]))
    };
    run("c1", &["-v", "v0:/v", "--health-cmd", "true"]);
    run("c2", &[]);
    run("c3", &[]);
    engine.ok(["create", "--name", "c4", "--network", "none", "bb", "true"]);
    engine.ok(["create", "--name", "c5", "--network", "none", "bb", "true"]);
    engine.ok(["create", "--name", "c6", "-i", "--network", "none", "bb", "sleep", "1000"]);
    engine.ok(["pause", "c3"]);
    engine.ok(["tag", "bb", "gone:1"]);
    engine.ok(["tag", "bb", "localhost:5000/bb:1"]);
    engine.ok(["network", "create", "n0"]);
    engine.ok(["network", "create", "n1"]);
    engine.ok(["network", "connect", "n1", "c2"]);
    engine.ok(["volume", "create", "v1"]);
    let exec = |cmd: &str| {
        let body = format!("{{\"Cmd\": [{cmd}], \"AttachStdout\": true, \"Tty\": true}}");
        let answer = ask(
            &served,
            "POST",
            "/containers/c1/exec",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        );
        let made: Value = serde_json::from_slice(&answer.body).unwrap();
        made["Id"].as_str().unwrap().to_owned()
    };
    let (e1, e2) = (exec("\"sleep\", \"1000\""), exec("\"true\""));
    let started = ask(
        &served,
        "POST",
        &format!("/exec/{e1}/start"),
        "Content-Type: application/json\r\n",
        b"{\"Detach\": true}",
    );
    assert_eq!(started.status, 200);

    // The registry is in the network namespace that stands for the host.
    let registry_directory = engine.path("registry");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {registry_directory:?}}}}}\n\
         http: {{addr: 127.0.0.1:5000}}\n"
    );
    std::fs::write(engine.path("registry.yml"), config).unwrap();
    let registry = engine
        .host
        .command("docker-registry")
        .arg("serve")
        .arg(engine.path("registry.yml"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let registry = Running(registry);
    until("the registry", || {
        let mut probe = engine.host.command("busybox");
        probe
            .args(["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/v2/"])
            .status()
            .is_ok_and(|s| s.success())
    });
    let tar = std::fs::read(engine.path("bb.tar")).unwrap();
    let saved = engine.run(["save", "bb"]).stdout;
    std::fs::write(engine.path("Dockerfile"), "FROM bb\nLABEL a=b\n").unwrap();
    let context = std::process::Command::new("tar")
        .args(["-c", "-C", engine.dir.to_str().unwrap(), "Dockerfile"])
        .output();
    let context = context.unwrap().stdout;

    let json = "Content-Type: application/json\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let auth = base64::engine::general_purpose::URL_SAFE.encode("{}");
    let auth = format!("X-Registry-Auth: {auth}\r\n");
    let new_container =
        br#"{"Image": "bb", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}"#;
    let (start1, resize1, json1) = (
        format!("/exec/{e2}/start"),
        format!("/exec/{e1}/resize?h=10&w=20"),
        format!("/exec/{e1}/json"),
    );
    // What is asked, in this order, and the status that is expected.
    let asked: Vec<Asked<'_>> = vec![
        ("GET", "/_ping", "/_ping", "", b"", 200),
        ("HEAD", "/_ping", "/_ping", "", b"", 200),
        ("GET", "/version", "/version", "", b"", 200),
        ("GET", "/info", "/info", "", b"", 200),
        ("GET", "/events", "/events?since=1&until=2", "", b"", 200),
        (
            "POST",
            "/auth",
            "/auth",
            json,
            br#"{"username": "a", "password": "b", "serveraddress": "localhost:5000"}"#,
            200,
        ),
        ("GET", "/containers/json", "/containers/json?all=1&size=1", "", b"", 200),
        ("POST", "/containers/create", "/containers/create?name=c7", json, new_container, 201),
        ("GET", "/containers/{id}/json", "/containers/c1/json", "", b"", 200),
        ("GET", "/containers/{id}/top", "/containers/c1/top", "", b"", 200),
        ("GET", "/containers/{id}/logs", "/containers/c1/logs?stdout=1", "", b"", 200),
        ("GET", "/containers/{id}/changes", "/containers/c1/changes", "", b"", 200),
        ("GET", "/containers/{id}/export", "/containers/c1/export", "", b"", 200),
        ("GET", "/containers/{id}/stats", "/containers/c1/stats?stream=0&one-shot=1", "", b"", 200),
        (
            "GET",
            "/containers/{id}/archive",
            "/containers/c1/archive?path=/etc/passwd",
            "",
            b"",
            200,
        ),
        (
            "HEAD",
            "/containers/{id}/archive",
            "/containers/c1/archive?path=/etc/passwd",
            "",
            b"",
            200,
        ),
        ("PUT", "/containers/{id}/archive", "/containers/c1/archive?path=/tmp", "", &tar, 200),
        (
            "POST",
            "/containers/{id}/attach",
            "/containers/c1/attach?stream=1&stdout=1",
            upgrade,
            b"",
            101,
        ),
        (
            "GET",
            "/containers/{id}/attach/ws",
            "/containers/c1/attach/ws?stream=1&stdout=1",
            socket,
            b"",
            101,
        ),
        (
            "POST",
            "/containers/{id}/exec",
            "/containers/c1/exec",
            json,
            br#"{"Cmd": ["true"]}"#,
            201,
        ),
        ("GET", "/exec/{id}/json", &json1, "", b"", 200),
        ("POST", "/exec/{id}/resize", &resize1, "", b"", 200),
        ("POST", "/exec/{id}/start", &start1, json, br#"{"Detach": false, "Tty": true}"#, 200),
        ("POST", "/containers/{id}/start", "/containers/c6/start", "", b"", 204),
        ("POST", "/containers/{id}/start", "/containers/c6/start", "", b"", 304),
        ("POST", "/containers/{id}/resize", "/containers/c6/resize?h=10&w=20", "", b"", 200),
        ("POST", "/containers/{id}/pause", "/containers/c2/pause", "", b"", 204),
        ("POST", "/containers/{id}/unpause", "/containers/c3/unpause", "", b"", 204),
        ("POST", "/containers/{id}/unpause", "/containers/c2/unpause", "", b"", 204),
        (
            "POST",
            "/containers/{id}/update",
            "/containers/c2/update",
            json,
            br#"{"CpuShares": 512}"#,
            200,
        ),
        ("POST", "/containers/{id}/rename", "/containers/c5/rename?name=c9", "", b"", 204),
        ("POST", "/containers/{id}/restart", "/containers/c3/restart?t=0", "", b"", 204),
        ("POST", "/containers/{id}/stop", "/containers/c3/stop?t=0", "", b"", 204),
        ("POST", "/containers/{id}/stop", "/containers/c3/stop?t=0", "", b"", 304),
        ("POST", "/containers/{id}/wait", "/containers/c3/wait", "", b"", 200),
        ("POST", "/containers/{id}/kill", "/containers/c6/kill", "", b"", 204),
        ("DELETE", "/containers/{id}", "/containers/c4", "", b"", 204),
        ("POST", "/commit", "/commit?container=c1&repo=made", json, b"null", 201),
        ("GET", "/images/json", "/images/json?all=1", "", b"", 200),
        ("GET", "/images/{name}/json", "/images/bb/json", "", b"", 200),
        ("GET", "/images/{name}/history", "/images/bb/history", "", b"", 200),
        ("GET", "/images/{name}/get", "/images/bb/get", "", b"", 200),
        ("GET", "/images/get", "/images/get?names=bb", "", b"", 200),
        ("POST", "/build", "/build?t=of-a-file", "", &context, 200),
        ("POST", "/build/prune", "/build/prune?all=1", "", b"", 200),
        ("POST", "/images/load", "/images/load", "", &saved, 200),
        ("POST", "/images/create", "/images/create?fromSrc=-&repo=imported", "", &tar, 200),
        ("POST", "/images/{name}/tag", "/images/bb/tag?repo=other&tag=1", "", b"", 201),
        ("POST", "/images/{name}/push", "/images/localhost:5000/bb/push?tag=1", &auth, b"", 200),
        (
            "GET",
            "/distribution/{name}/json",
            "/distribution/localhost:5000/bb:1/json",
            "",
            b"",
            200,
        ),
        ("DELETE", "/images/{name}", "/images/gone:1", "", b"", 200),
        // Docker Hub alone has a search, and the tests ask nobody outside.
        ("GET", "/images/search", "/images/search?term=x", "", b"", 403),
        ("GET", "/networks", "/networks", "", b"", 200),
        ("POST", "/networks/create", "/networks/create", json, br#"{"Name": "n2"}"#, 201),
        ("GET", "/networks/{id}", "/networks/n1", "", b"", 200),
        (
            "POST",
            "/networks/{id}/connect",
            "/networks/n2/connect",
            json,
            br#"{"Container": "c1"}"#,
            200,
        ),
        (
            "POST",
            "/networks/{id}/disconnect",
            "/networks/n2/disconnect",
            json,
            br#"{"Container": "c1", "Force": true}"#,
            200,
        ),
        ("DELETE", "/networks/{id}", "/networks/n2", "", b"", 204),
        ("GET", "/volumes", "/volumes", "", b"", 200),
        ("POST", "/volumes/create", "/volumes/create", json, br#"{"Name": "v2"}"#, 201),
        ("GET", "/volumes/{name}", "/volumes/v1", "", b"", 200),
        ("DELETE", "/volumes/{name}", "/volumes/v2", "", b"", 204),
        ("GET", "/system/df", "/system/df", "", b"", 200),
        ("POST", "/containers/prune", "/containers/prune", "", b"", 200),
        ("POST", "/images/prune", "/images/prune", "", b"", 200),
        ("POST", "/networks/prune", "/networks/prune", "", b"", 200),
        ("POST", "/volumes/prune", "/volumes/prune", "", b"", 200),
        ("GET", "/plugins", "/plugins", "", b"", 200),
    ];
    let mut problems = Vec::new();
    let mut visited = std::collections::BTreeSet::new();
    let mut check = |method: &str, path: &str, answer: &Answer, expected: u16| {
        let label = format!("{method} {path}");
        let Some(row) = rows.iter().find(|r| r.method == method && r.path == path) else {
            problems.push(format!("{label} is not in the reference"));
            return;
        };
        visited.insert(label.clone());
        if answer.status != expected {
            let text = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
            problems.push(format!("{label}: {} instead of {expected}: {text}", answer.status));
            return;
        }
        if answer.status >= 400 {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if said["message"].as_str().is_none_or(str::is_empty) {
                problems.push(format!("{label}: {} without a message", answer.status));
            }
            return;
        }
        let Some(fields) = row.success.get(&answer.status.to_string()) else {
            problems.push(format!("{label}: {} is no success of the reference", answer.status));
            return;
        };
        let json = answer.head.contains("content-type: application/json");
        if fields.is_empty() && row.known.is_empty() || !json {
            if !fields.is_empty() {
                problems.push(format!("{label}: no JSON"));
            }
            return;
        }
        let first = answer.body.split(|b| *b == b'\n').next().unwrap_or_default();
        if first.is_empty() {
            return;
        }
        let value: Value = serde_json::from_slice(first).unwrap();
        let mut lacking = Vec::new();
        fields.iter().for_each(|field| missing(&value, field, &mut lacking));
        let at_times =
            AT_TIMES.iter().find(|(l, _)| *l == label).map_or(&[][..], |(_, names)| names);
        for name in row.known.iter().filter(|_| value.is_object()) {
            let left_out = page.left_out.iter().any(|(l, field)| *l == label && field == name);
            match value.get(name) {
                None if !left_out && !at_times.contains(&name.as_str()) => {
                    lacking.push(format!("{name} is missing"));
                }
                Some(_) if left_out => {
                    lacking.push(format!("{name} is there, and the page says it is not"));
                }
                _ => {}
            }
        }
        problems.extend(lacking.into_iter().map(|what| format!("{label}: {what}")));
    };
    for (method, path, target, headers, body, expected) in &asked {
        let answer = ask(&served, method, target, headers, body);
        check(method, path, &answer, *expected);
    }
    // What this engine has not, as the page says.
    for (label, expected) in &page.refused {
        let (method, path) = label.split_once(' ').unwrap();
        let answered = asked.iter().any(|row| (row.0, row.1) == (method, path));
        assert!(!answered, "{label} is answered, and the page says it is not");
        let target = path.replace("{id}", "x").replace("{name}", "x");
        let answer = ask(&served, method, &target, json, b"{}");
        check(method, path, &answer, *expected);
    }
    for (label, field) in &page.left_out {
        let row = rows.iter().find(|r| format!("{} {}", r.method, r.path) == *label);
        if !row.is_some_and(|row| row.known.contains(field)) {
            problems.push(format!("{label} has no {field} in the reference"));
        }
    }
    let all = rows.iter().map(|r| format!("{} {}", r.method, r.path));
    problems.extend(all.filter(|l| !visited.contains(l)).map(|l| {
        format!(
            "{l} was not asked for, and docs/compatibility.md does not say that it is not there"
        )
    }));
    drop(registry);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    served.engine.ok(["rm", "-f", "c1", "c2"]);
    served.finish();
}
