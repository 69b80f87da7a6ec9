//! Many clients at a time, and those that do not read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::until;
use crate::server::Served;

fn connect(served: &Served, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn head(stream: &mut UnixStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).unwrap()
}

fn attach(id: &str) -> String {
    format!(
        "POST /containers/{id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )
}

const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";

fn of_status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn who_only_listens_costs_no_thread() {
    let served = Served::new();
    let id = served.engine.ok([
        "run",
        "-d",
        "--network",
        "none",
        "bb",
        "sh",
        "-c",
        "until [ -e /go ]; do sleep 0.1; done; echo gone",
    ]);
    let before = of_status(served.pid(), "VmRSS");
    let mut attached: Vec<_> = (0..400).map(|_| connect(&served, &attach(&id))).collect();
    for stream in &mut attached {
        assert!(head(stream).starts_with("HTTP/1.1 101"));
    }
    let mut listening: Vec<_> = (0..1000).map(|_| connect(&served, EVENTS)).collect();
    for stream in &mut listening {
        assert!(head(stream).starts_with("HTTP/1.1 200"));
    }
    // The threads that attached go after ten seconds without work.
    until("the end of idle threads", || of_status(served.pid(), "Threads") < 16);
    let each = of_status(served.pid(), "VmRSS").saturating_sub(before) / 1400;
    // Of this build, which is not optimised.
    assert!(each < 256, "{each} KiB for each client");
    let mut ping = connect(&served, "GET /_ping HTTP/1.0\r\n\r\n");
    assert!(head(&mut ping).contains(" 200 "));
    served.engine.ok(["exec", &id, "touch", "/go"]);
    for stream in &mut attached {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"\x01\0\0\0\0\0\0\x05gone\n");
    }
    for stream in &mut listening {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&said).contains("\"die\"") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0);
            said.extend_from_slice(&buffer[..count]);
        }
    }
    served.finish();
}

#[test]
fn who_does_not_read_holds_nobody_up() {
    let served = Served::new();
    let id = served.engine.ok([
        "run",
        "-d",
        "--network",
        "none",
        "bb",
        "sh",
        "-c",
        "until [ -e /go ]; do sleep 0.1; done; dd if=/dev/zero bs=65536 count=1024 2>/dev/null",
    ]);
    // Neither its output, nor the events, nor an archive.
    let mut lazy: Vec<_> = (0..8).map(|_| connect(&served, &attach(&id))).collect();
    for stream in &mut lazy {
        assert!(head(stream).starts_with("HTTP/1.1 101"));
    }
    let _events = connect(&served, EVENTS);
    let _export =
        connect(&served, &format!("GET /containers/{id}/export HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut reader = connect(&served, &attach(&id));
    assert!(head(&mut reader).starts_with("HTTP/1.1 101"));
    let wait = format!(
        "POST /containers/{id}/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let mut wait = connect(&served, &wait);
    assert!(head(&mut wait).starts_with("HTTP/1.1 200"));
    served.engine.ok(["exec", &id, "touch", "/go"]);
    let (mut total, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    // Behind headers, so a little more.
    assert!(total > 64 << 20, "{total}");
    let mut said = String::new();
    wait.read_to_string(&mut said).unwrap();
    assert!(said.contains("\"StatusCode\":0"), "{said}");
    served.finish();
}

#[test]
fn a_hundred_runs_at_a_time() {
    let there = Command::new("docker").arg("--version").output().is_ok_and(|o| o.status.success());
    let program = if there { "docker" } else { env!("CARGO_BIN_EXE_wherry") };
    let served = Served::new();
    let children: Vec<_> = (0..100)
        .map(|number| {
            served
                .client("timeout")
                .args(["-s", "KILL", "300", program, "run", "--rm", "--network", "none", "bb"])
                .args(["sh", "-c", &format!("echo {number}; exit {}", number % 7)])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"));
        assert_eq!(output.status.code(), i32::try_from(number % 7).ok());
    }
    served.finish();
}
