//! An engine in a folder of its own, asked by the HTTP API without a socket. Nothing can be started in it: what would
//! hold containers is a program that ends at once.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use api::{Exchange, Options};
use engine::types::{CreateRequest, Rootfs};
use engine::{Engine, EngineOptions, settings::Settings};

static DOOR: LazyLock<Exchange> = LazyLock::new(|| {
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
        client: Box::new(|_| Err(engine::Error::invalid("nobody is asked"))),
        idle: None,
    })
    .expect("a server")
});

/// The first line is what follows the resource in the path, its first byte the method; the rest is the body.
pub(crate) fn ask(resources: &[&str], raw: &[u8]) {
    let Some((choice, rest)) = raw.split_first() else { return };
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (line, body) = rest.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    // What would start a container waits for a process that never comes.
    if ["/start", "/restart", "/attach"].iter().any(|verb| line.contains(verb)) {
        return;
    }
    let methods = ["GET", "POST", "DELETE", "PUT", "HEAD"];
    let method = methods[usize::from(*choice) % methods.len()];
    let resource = resources[usize::from(*choice) / methods.len() % resources.len()];
    let version = 24 + usize::from(*choice) % 28;
    let target: String = line.chars().filter(char::is_ascii_graphic).collect();
    let head = format!(
        "{method} /v1.{version}{resource}{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = DOOR.ask(&[head.as_bytes(), body].concat(), Duration::from_millis(500));
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {text}"));
    let (_, said) = text.split_once("\r\n\r\n").unwrap_or_default();
    // A refusal that hyper makes itself has no words.
    if status >= 400 && method != "HEAD" && !said.is_empty() {
        let said: serde_json::Value = serde_json::from_str(said).expect("a failure in JSON");
        assert!(said["message"].is_string(), "{said}");
    }
}
