//! An engine in a folder of its own, asked by the HTTP API without a socket. Nothing can be started in it: what would
//! hold containers is a program that ends at once. Nothing can be fetched, either: its network is one without an interface.

// Each target uses a part of it.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use api::{Exchange, Options};
use base64::Engine as _;
use engine::types::{CreateRequest, Rootfs};
use engine::{Engine, EngineOptions, settings::Settings};

static DOOR: LazyLock<Exchange> = LazyLock::new(|| {
    // The server's threads are made by this one, and are where it is.
    sys::namespace::unshare(sys::clone::NEWNET).expect("a network of its own");
    // A fuzzer ends without a word, so the next one clears up.
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("wherry-fuzz-")
            && !PathBuf::from(format!("/proc/{pid}")).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let place = PathBuf::from(format!("/dev/shm/wherry-fuzz-{}", std::process::id()));
    let root = place.join("root");
    std::fs::create_dir_all(root.join("bin")).expect("a folder");
    let options = EngineOptions {
        data_root: place.join("data"),
        run_root: place.join("run"),
        program: "/bin/false".into(),
        settings: Settings::default(),
        debug: None,
        trace: Default::default(),
    };
    let engine = Engine::open(options.clone()).expect("an engine");
    let mut request = CreateRequest { name: Some("c1".into()), ..CreateRequest::default() };
    request.config.cmd = Some(vec!["true".into()]);
    request.host_config.network_mode = "none".into();
    request.rootfs = Some(Rootfs { path: root.to_string_lossy().into_owned(), writable: false });
    engine.create(request).expect("a container");
    drop(engine);
    Exchange::new(Options {
        engine: options,
        listeners: Vec::new(),
        client: Box::new(|credentials| {
            let mut options = registry::Options::default();
            options.config.retries = 0;
            if let Some(credentials) = credentials {
                options.credentials = credentials;
            }
            Ok(registry::Client::new(options))
        }),
        idle: None,
    })
    .expect("a server")
});

/// A part of the input up to the end of its line, and what comes after it.
fn line(raw: &[u8]) -> (&[u8], &[u8]) {
    let end = raw.iter().position(|b| *b == b'\n').unwrap_or(raw.len());
    let (line, rest) = raw.split_at(end);
    (line, rest.get(1..).unwrap_or_default())
}

/// The first line is what follows the resource in the path, its first byte the method; the rest is the body.
pub(crate) fn ask(resources: &[&str], raw: &[u8]) {
    let Some(asked) = Asked::read(resources, raw) else { return };
    let (_, body) = line(raw);
    asked.send(&["Connection: close", "Content-Type: application/json"], body, true);
}

/// As [`ask`], with a header. Its value is the second line, in base64 as clients send it, unless it begins with `=`: then
/// it is sent as it is.
pub(crate) fn ask_with(
    resources: &[&str],
    header: &str,
    kind: &str,
    raw: &[u8],
    body: impl Fn(&[u8]) -> Vec<u8>,
) {
    let Some(asked) = Asked::read(resources, raw) else { return };
    let (_, rest) = line(raw);
    let (value, rest) = line(rest);
    let value = match value.split_first() {
        Some((b'=', raw)) => {
            String::from_utf8_lossy(raw).chars().filter(|c| matches!(c, ' '..='~')).collect()
        }
        _ => base64::engine::general_purpose::URL_SAFE.encode(value),
    };
    let (header, kind) = (format!("{header}: {value}"), format!("Content-Type: {kind}"));
    asked.send(&["Connection: close", &header, &kind], &body(rest), true);
}

/// As [`ask`], by a client that wants the connection for itself: what follows is no body.
pub(crate) fn take_over(
    resources: &[&str],
    protocol: &str,
    raw: &[u8],
    said: impl Fn(&[u8]) -> Vec<u8>,
) {
    let Some(asked) = Asked::read(resources, raw) else { return };
    let (_, rest) = line(raw);
    asked.send(&["Connection: Upgrade", &format!("Upgrade: {protocol}")], &said(rest), false);
}

/// The first line of a request.
struct Asked {
    method: &'static str,
    first: String,
}

impl Asked {
    fn read(resources: &[&str], raw: &[u8]) -> Option<Self> {
        let (choice, rest) = raw.split_first()?;
        let (line, _) = line(rest);
        let line = String::from_utf8_lossy(line);
        // What would start a container waits for a process that never comes.
        if ["/start", "/restart", "/attach"].iter().any(|verb| line.contains(verb)) {
            return None;
        }
        let methods = ["GET", "POST", "DELETE", "PUT", "HEAD"];
        let method = methods[usize::from(*choice) % methods.len()];
        let resource = resources[usize::from(*choice) / methods.len() % resources.len()];
        let version = 24 + usize::from(*choice) % 28;
        let target: String = line.chars().filter(char::is_ascii_graphic).collect();
        Some(Self {
            method,
            first: format!("{method} /v1.{version}{resource}{target} HTTP/1.1\r\n"),
        })
    }

    fn send(&self, headers: &[&str], body: &[u8], counted: bool) {
        let mut head = format!("{}Host: x\r\n", self.first);
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if counted {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        check(
            self.method,
            &DOOR.ask(&[head.as_bytes(), body].concat(), Duration::from_millis(500)),
        );
    }
}

/// Every answer is one of HTTP, and every failure says why.
fn check(method: &str, answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {text}"));
    let (_, said) = text.split_once("\r\n\r\n").unwrap_or_default();
    // A refusal that hyper makes itself has no words.
    if status >= 400 && method != "HEAD" && !said.is_empty() {
        // Behind it may be the answer to what came next on a connection that goes on.
        let mut said = serde_json::Deserializer::from_str(said).into_iter::<serde_json::Value>();
        let said = said.next().expect("a failure with words").expect("a failure in JSON");
        assert!(said["message"].is_string(), "{said}");
    }
}
