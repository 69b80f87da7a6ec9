//! A registry that misbehaves. Each time there is a clear error or an image that is whole, never anything between.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::{Request, answer, serve};
use crate::world::{World, config, list, noise, sha256, tar_of, text};

/// What it does about a blob.
#[derive(Clone)]
enum Manner {
    /// Ends the connection after so many bytes, so often.
    Cut(usize, usize),
    /// Says so, so often.
    Status(&'static str, &'static str, usize),
    /// Sends other bytes of the same length.
    Lie,
    /// Sends fewer bytes than announced by the manifest, and says so.
    Short,
    /// Sends more.
    Long,
    /// Sends nothing after the head.
    Hang,
    /// Knows no ranges.
    NoRange(usize),
    /// Answers a range with other bytes than asked for.
    WrongRange(usize),
}

struct Bad {
    documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    manners: Mutex<HashMap<String, Manner>>,
    counts: Mutex<HashMap<String, usize>>,
    /// Bytes of blobs that were sent.
    sent: AtomicUsize,
    ranges: Mutex<Vec<String>>,
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl Bad {
    fn times(&self, what: &str) -> usize {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let path = request.path.as_str();
        if path == "/v2/" {
            return self.manner_of("ping", b"{}", request, &[]);
        }
        if let Some(name) = path.strip_prefix("/v2/app/manifests/") {
            let Some(raw) = self.documents.get(name) else {
                return answer(
                    "404 Not Found",
                    &[],
                    br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                );
            };
            return self.manner_of("manifest", raw, request, &[("Content-Type", MANIFEST)]);
        }
        if let Some(digest) = path.strip_prefix("/v2/app/blobs/") {
            let Some(raw) = self.blobs.get(digest) else {
                return answer("404 Not Found", &[], b"");
            };
            return self.manner_of(digest, raw, request, &[]);
        }
        answer("404 Not Found", &[], b"")
    }

    fn manner_of(
        &self,
        what: &str,
        raw: &[u8],
        request: &Request,
        headers: &[(&str, &str)],
    ) -> Vec<u8> {
        let manner = self.manners.lock().unwrap().get(what).cloned();
        let from = request
            .header("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        if let Some(range) = request.header("range") {
            self.ranges.lock().unwrap().push(range.to_owned());
        }
        let whole = |raw: &[u8], from: Option<usize>| {
            let rest = &raw[from.unwrap_or(0)..];
            self.sent.fetch_add(rest.len(), Ordering::Relaxed);
            match from {
                None => answer("200 OK", headers, rest),
                Some(from) => {
                    let range = format!("bytes {from}-{}/{}", raw.len() - 1, raw.len());
                    answer("206 Partial Content", &[("Content-Range", &range)], rest)
                }
            }
        };
        let head = |bytes: &[u8]| bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        match manner {
            None => whole(raw, from),
            Some(Manner::Cut(after, times)) if self.times(what) <= times => {
                let mut cut = whole(raw, from);
                let head = head(&cut);
                cut.truncate(head + after);
                self.sent.fetch_sub(raw.len() - from.unwrap_or(0) - after, Ordering::Relaxed);
                // What does not begin as an answer ends the connection after it was written.
                cut.splice(..8, *b"HTTP/1.0");
                cut
            }
            Some(Manner::Status(status, retry, times)) if self.times(what) <= times => {
                answer(status, &[("Retry-After", retry)], b"")
            }
            Some(Manner::Lie) => {
                let mut lie = raw.to_vec();
                let middle = lie.len() / 2;
                lie[middle] ^= 1;
                whole(&lie, from)
            }
            Some(Manner::Short) => whole(&raw[..raw.len() - 10], None),
            Some(Manner::Long) => whole(&[raw, b"more than was announced"].concat(), None),
            Some(Manner::Hang) => {
                let mut hang = whole(raw, from);
                let head = head(&hang);
                hang.truncate(head + 100);
                hang
            }
            Some(Manner::NoRange(after)) => {
                if self.times(what) > 1 {
                    return whole(raw, None);
                }
                let mut cut = whole(raw, None);
                let head = head(&cut);
                cut.truncate(head + after);
                cut.splice(..8, *b"HTTP/1.0");
                cut
            }
            Some(Manner::WrongRange(after)) => {
                if from.is_some() {
                    let range = format!("bytes 3-{}/{}", raw.len() - 1, raw.len());
                    return answer("206 Partial Content", &[("Content-Range", &range)], &raw[3..]);
                }
                let mut cut = whole(raw, None);
                let head = head(&cut);
                cut.truncate(head + after);
                cut.splice(..8, *b"HTTP/1.0");
                cut
            }
            Some(_) => whole(raw, from),
        }
    }
}

struct Case {
    w: World,
    bad: Arc<Bad>,
    name: String,
    layer: String,
    config: String,
}

/// An image of one layer of 2 MB, not compressed, and a tag for it.
fn case() -> Case {
    let layer = tar_of(&[("x", &noise(7, 2_000_000))]);
    let config = config("amd64", std::slice::from_ref(&layer));
    let (layer_digest, config_digest) = (sha256(&layer), sha256(&config));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "digest": layer_digest, "size": layer.len()}],
    })
    .to_string()
    .into_bytes();
    let bad = Arc::new(Bad {
        documents: [("1".to_owned(), manifest.clone()), (sha256(&manifest), manifest)].into(),
        blobs: [(layer_digest.clone(), layer), (config_digest.clone(), config)].into(),
        manners: Mutex::default(),
        counts: Mutex::default(),
        sent: AtomicUsize::new(0),
        ranges: Mutex::default(),
    });
    let own = Arc::clone(&bad);
    let port = serve(move |request| own.answer(request));
    let w = World::new();
    let name = format!("localhost:{port}/app:1");
    let host = format!(
        "[[registry]]\nprefix = \"localhost:{port}\"\nlocation = \"http://localhost:{port}\"\n"
    );
    w.configure(&host);
    Case { w, bad, name, layer: layer_digest, config: config_digest }
}

impl Case {
    fn layer_does(&self, manner: Manner) {
        self.does(&self.layer.clone(), manner);
    }

    fn does(&self, what: &str, manner: Manner) {
        self.bad.manners.lock().unwrap().insert(what.to_owned(), manner);
    }

    #[track_caller]
    fn works(&self) {
        let out = self.w.ok(&["pull", &self.name]);
        assert!(out.contains("Pull complete"), "{out}");
        self.w.layers_are_whole("data");
        assert_eq!(list(&self.w.path("data/layers")).len(), 1);
    }

    #[track_caller]
    fn is_refused(&self, why: &str) {
        let error = self.w.fails(&["pull", &self.name]);
        assert!(error.contains(why), "{error}");
        self.w.nothing_visible();
        assert!(list(&self.w.path("data/layers")).is_empty());
    }
}

#[test]
fn cut_connections_go_on_at_the_byte() {
    let c = case();
    c.layer_does(Manner::Cut(300_000, 4));
    c.works();
    let ranges = c.bad.ranges.lock().unwrap().clone();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert!(ranges[0].starts_with("bytes=") && !ranges[0].starts_with("bytes=0"), "{ranges:?}");
    // Hardly a byte twice: what was in flight when the connection ended may be lost.
    let (sent, size) = (c.bad.sent.load(Ordering::Relaxed), c.bad.blobs[&c.layer].len());
    assert!(sent < size + size / 4 + 2_000, "{sent} of {size}");
}

#[test]
fn a_pull_that_gave_up_goes_on_in_the_next() {
    let c = case();
    // Without progress tries end.
    c.layer_does(Manner::Cut(0, 1_000));
    c.is_refused("0 of");
    c.layer_does(Manner::Cut(900_000, 2));
    *c.bad.counts.lock().unwrap() = HashMap::new();
    let out = c.w.run(&["pull", &c.name]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let c = case();
    c.layer_does(Manner::Status("403 Forbidden", "", 1_000));
    c.is_refused("denied");
    // Half of it, then nothing more.
    c.layer_does(Manner::Hang);
    c.is_refused("imeout");
    assert_eq!(list(&c.w.path("data/tmp")).iter().filter(|n| n.starts_with("part-")).count(), 1);
    c.bad.manners.lock().unwrap().clear();
    c.bad.ranges.lock().unwrap().clear();
    let out = c.w.ok(&["pull", &c.name]);
    assert!(out.contains("Resuming at byte"), "{out}");
    assert_eq!(c.bad.ranges.lock().unwrap().len(), 1);
    c.w.layers_are_whole("data");
    assert!(list(&c.w.path("data/tmp")).iter().all(|n| !n.starts_with("part-")));
}

#[test]
fn what_was_kept_of_a_transfer_is_not_trusted() {
    let c = case();
    let name = format!("part-sha256-{}", c.layer.trim_start_matches("sha256:"));
    c.w.ok(&["images"]);
    fs::write(c.w.path("data/tmp").join(name), noise(99, 500_000)).unwrap();
    c.works();
}

#[test]
fn lies_are_found() {
    let c = case();
    c.layer_does(Manner::Lie);
    c.is_refused("digest");
    assert!(list(&c.w.path("data/tmp")).is_empty(), "nothing of a lie is kept");
    c.layer_does(Manner::Short);
    c.is_refused("announced");
    c.layer_does(Manner::Long);
    c.is_refused("announced");
    c.layer_does(Manner::WrongRange(700_000));
    c.is_refused("asked for byte");
    let c = case();
    c.does(&c.config.clone(), Manner::Lie);
    c.is_refused("digest");
    // By digest even the manifest is checked.
    let c = case();
    let digest = c.bad.documents.keys().find(|k| k.starts_with("sha256")).unwrap().clone();
    c.does("manifest", Manner::Lie);
    let by_digest = c.name.replace(":1", &format!("@{digest}"));
    assert!(c.w.fails(&["pull", &by_digest]).contains("digest"));
    c.w.nothing_visible();
}

#[test]
fn busy_registries_are_asked_again() {
    for (status, retry) in [
        ("429 Too Many Requests", "1"),
        ("500 Internal Server Error", ""),
        ("503 Service Unavailable", "0"),
    ] {
        let c = case();
        c.layer_does(Manner::Status(status, retry, 2));
        c.does("manifest", Manner::Status(status, "", 2));
        c.does("ping", Manner::Status(status, "", 1));
        let start = Instant::now();
        c.works();
        if retry == "1" {
            assert!(start.elapsed() >= Duration::from_secs(2), "it was told to wait");
        }
        let c = case();
        c.does("manifest", Manner::Status(status, "", 1_000));
        c.is_refused(&status[..3]);
    }
}

#[test]
fn registries_without_ranges_are_read_again() {
    let c = case();
    c.layer_does(Manner::NoRange(500_000));
    c.works();
}

#[test]
fn layers_that_are_no_archives_are_refused() {
    let c = case();
    let layer = noise(3, 50_000);
    let config = config("amd64", std::slice::from_ref(&layer));
    let (layer_digest, config_digest) = (sha256(&layer), sha256(&config));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": layer_digest, "size": layer.len()}],
    });
    let raw = manifest.to_string().into_bytes();
    let bad = Arc::new(Bad {
        documents: [("1".to_owned(), raw)].into(),
        blobs: [(layer_digest, layer), (config_digest, config)].into(),
        manners: Mutex::default(),
        counts: Mutex::default(),
        sent: AtomicUsize::new(0),
        ranges: Mutex::default(),
    });
    let port = serve(move |request| bad.answer(request));
    c.w.configure(&format!(
        "[[registry]]\nprefix = \"localhost:{port}\"\nlocation = \"http://localhost:{port}\"\n"
    ));
    let error = c.w.fails(&["pull", &format!("localhost:{port}/app:1")]);
    assert!(error.contains("tar"), "{error}");
    c.w.nothing_visible();
}

#[test]
fn uploads_go_on_at_the_byte() {
    let received: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    let uploads: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let (kept, going) = (Arc::clone(&received), Arc::clone(&uploads));
    let port = serve(move |request| {
        let mut going = going.lock().unwrap();
        let at = request
            .path
            .strip_prefix("/v2/app/blobs/uploads/")
            .and_then(|p| p.split('?').next()?.parse::<usize>().ok());
        let range =
            |at: usize, going: &[Vec<u8>]| format!("0-{}", going[at].len().saturating_sub(1));
        match (request.method.as_str(), at) {
            ("POST", None) => {
                going.push(Vec::new());
                let location = format!("/v2/app/blobs/uploads/{}", going.len() - 1);
                answer("202 Accepted", &[("Location", &location)], b"")
            }
            ("PATCH", Some(at)) => {
                let begins =
                    request.header("content-range").and_then(|r| r.split('-').next()?.parse().ok());
                if begins.unwrap_or(0) != going[at].len() {
                    return answer("416 Range Not Satisfiable", &[], b"");
                }
                going[at].extend_from_slice(&request.body);
                answer(
                    "202 Accepted",
                    &[("Location", &request.path), ("Range", &range(at, &going))],
                    b"",
                )
            }
            ("GET", Some(at)) => answer("204 No Content", &[("Range", &range(at, &going))], b""),
            ("PUT", Some(at)) => {
                let bytes = std::mem::take(&mut going[at]);
                let digest = sha256(&bytes);
                if !request.path.contains(&digest.replace(':', "%3A")) {
                    return answer(
                        "400 Bad Request",
                        &[],
                        br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#,
                    );
                }
                kept.lock().unwrap().insert(digest, bytes);
                answer("201 Created", &[], b"")
            }
            ("PUT", None) => {
                kept.lock().unwrap().insert(request.path.clone(), request.body.clone());
                answer("201 Created", &[], b"")
            }
            ("GET", None) if request.path == "/v2/" => answer("200 OK", &[], b"{}"),
            _ => answer("404 Not Found", &[], b""),
        }
    });
    let (through, sent) = crate::server::cutting_proxy(port, 1_000_000, 3);
    let w = World::new();
    w.configure(&format!(
        "[[registry]]\nprefix = \"localhost:{through}\"\nlocation = \"http://localhost:{through}\"\n"
    ));
    w.image("app", &[tar_of(&[("x", &noise(5, 4_000_000))])]);
    let name = format!("localhost:{through}/app:1");
    w.ok(&["tag", "app", &name]);
    w.ok(&["push", &name]);
    // Begun anew each time it would be seven million bytes.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 5_000_000, "{sent}");
    assert_eq!(uploads.lock().unwrap().len(), 2, "one for the layer, one for the configuration");
    let received = received.lock().unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&received["/v2/app/manifests/1"]).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(received[layer].len() as u64, manifest["layers"][0]["size"].as_u64().unwrap());
}
