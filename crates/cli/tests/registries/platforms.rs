//! Images for several platforms, with all that stands beside them in an index.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::real::skopeo;
use crate::server::{Registry, answer, serve};
use crate::world::{World, have, list, sha256, tar_of, until};

/// Writes an OCI layout with an index of several platforms, and puts it into the registry.
pub(crate) fn multi_platform(w: &World, r: &Registry, name: &str) -> String {
    let layout = w.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let digest = sha256(bytes);
        let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        fs::write(path, bytes).unwrap();
        (digest, bytes.len())
    };
    let mut entries = Vec::new();
    for (architecture, variant) in [("amd64", None), ("arm64", Some("v8")), ("s390x", None)] {
        let layer = tar_of(&[("arch", architecture.as_bytes())]);
        let config = crate::world::config(architecture, std::slice::from_ref(&layer));
        let (layer, layer_size) = blob(&layer);
        let (config, config_size) = blob(&config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
        });
        let (digest, size) = blob(manifest.to_string().as_bytes());
        let mut platform = serde_json::json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        entries.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": size, "platform": platform,
        }));
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    let (digest, size) = blob(index.to_string().as_bytes());
    let top = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "all"},
    }]});
    fs::write(layout.join("index.json"), top.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let target = format!("docker://{}", r.name(name));
    let source = format!("oci:{}:all", layout.display());
    skopeo(&[
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &source,
        &target,
    ]);
    digest
}

#[test]
fn platforms_are_chosen_and_kept_whole() {
    if !have("skopeo") {
        return;
    }
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let digest = multi_platform(&w, &r, "multi:1");
    let name = r.name("multi:1");
    let architecture =
        |data: &str| w.ok_in(data, &["image", "inspect", "-f", "{{.Architecture}}", &name]);
    let out = w.ok_in("own", &["pull", &name]);
    assert!(out.contains(&format!("Digest: {digest}")), "{out}");
    assert_eq!(architecture("own"), if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    w.ok_in("s390x", &["pull", "--platform", "linux/s390x", &name]);
    assert_eq!(architecture("s390x"), "s390x");
    let error = w.fails(&["pull", "--platform", "linux/mips", &name]);
    assert!(error.contains("no matching manifest for linux/mips"), "{error}");
    assert!(error.contains("linux/arm64/v8"), "it says what there is: {error}");
    // All of them, and pushed again as one, with the same digest.
    w.ok_in("all", &["pull", "--all-platforms", &name]);
    assert_eq!(w.ok_in("all", &["images", "-aq", "--no-trunc"]).lines().count(), 3);
    w.ok_in("all", &["image", "prune", "-f"]);
    assert_eq!(w.ok_in("all", &["images", "-aq", "--no-trunc"]).lines().count(), 3, "kept");
    let out = w.ok_in("all", &["push", &name]);
    assert!(out.contains(&format!("1: digest: {digest}")), "{out}");
    // What can be seen from afar.
    let list = w.ok(&["manifest", "inspect", &name]);
    assert!(list.contains("\"s390x\"") && list.contains("image.index.v1+json"), "{list}");
    let all: serde_json::Value =
        serde_json::from_str(&w.ok(&["manifest", "inspect", "-v", &name])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert!(all[0]["OCIManifest"]["layers"].is_array());
    let seen = w.ok(&[
        "image",
        "inspect",
        "--remote",
        "--platform",
        "arm64",
        "-f",
        "{{.Architecture}}",
        &name,
    ]);
    assert_eq!(seen, "arm64");
    assert_eq!(w.ok(&["images", "-aq"]), "", "nothing was fetched for that");
}

/// A layout that is written document by document.
struct Layout(PathBuf);

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Layout {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(path)
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = sha256(bytes);
        let path = self.0.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        fs::write(path, bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn document(&self, document: &serde_json::Value) -> serde_json::Value {
        self.blob(document["mediaType"].as_str().unwrap(), document.to_string().as_bytes())
    }

    fn image(&self, os: &str, architecture: &str) -> serde_json::Value {
        let layer = tar_of(&[("arch", format!("{os}/{architecture}").as_bytes())]);
        let config = json!({
            "os": os, "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        });
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &layer);
        let mut entry = self.document(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        }));
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    }

    /// What BuildKit puts beside an image: a statement that is no archive, called a layer.
    fn attestation(&self, about: &serde_json::Value) -> serde_json::Value {
        let statement = format!(r#"{{"subject":{}}}"#, about["digest"]);
        let config = json!({
            "os": "unknown", "architecture": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(statement.as_bytes())]},
        });
        let config =
            self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layer = self.blob("application/vnd.in-toto+json", statement.as_bytes());
        let mut entry = self.document(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        }));
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({
            "vnd.docker.reference.digest": about["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        });
        entry
    }

    fn index(&self, entries: &[serde_json::Value]) -> serde_json::Value {
        self.document(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    }

    /// Makes that the only name in it; how the layout is called then.
    fn top(&self, entry: &serde_json::Value) -> String {
        let mut entry = entry.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "top"});
        let top = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(self.0.join("index.json"), top.to_string()).unwrap();
        format!("oci:{}:top", self.0.display())
    }
}

/// An index with an attestation, an image for another system, and an index in an index.
fn rich(layout: &Layout) -> serde_json::Value {
    let (amd64, arm64) = (layout.image("linux", "amd64"), layout.image("linux", "arm64"));
    let s390x = layout.image("linux", "s390x");
    let (about, windows) = (layout.attestation(&amd64), layout.image("windows", "amd64"));
    let inner = layout.index(&[layout.index(&[s390x]), arm64]);
    layout.index(&[amd64, about, windows, inner])
}

/// Files below the blobs of a data root.
fn blobs(w: &World, data: &str) -> Vec<String> {
    list(&w.path(data).join("blobs/sha256"))
}

#[test]
fn an_index_is_kept_with_all_it_names() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let layout = Layout::new(w.path("rich"));
    let top = rich(&layout);
    let digest = top["digest"].as_str().unwrap().to_owned();
    let name = r.name("rich:1");
    assert_eq!(w.ok(&["image", "copy", "-q", "-a", &layout.top(&top), &name]), digest);
    // One platform of an index in an index in the index.
    w.ok_in("one", &["pull", "-q", "--platform", "linux/s390x", &name]);
    let one = ["image", "inspect", "-f", "{{.Architecture}}", &name];
    assert_eq!(w.ok_in("one", &one), "s390x");
    assert_eq!(blobs(&w, "one").len(), 1, "its configuration and nothing else");
    let seen = ["image", "inspect", "--remote", "--platform", "arm64"];
    let seen = w.ok(&[&seen[..], &["-f", "{{.Architecture}}", &name]].concat());
    assert_eq!(seen, "arm64");
    let copied = ["image", "copy", "-q", "--platform", "s390x", &name, &r.name("single:1")];
    assert_ne!(w.ok(&copied), digest);
    // All of it, and what else is kept stays for as long as one of the names is there.
    let out = w.ok_in("all", &["pull", "--all-platforms", &name]);
    assert!(out.contains(&format!("Digest: {digest}")), "{out}");
    assert_eq!(w.ok_in("all", &["images", "-aq"]).lines().count(), 3);
    let other = r.name("moved/rich:2");
    w.ok_in("all", &["tag", &name, &other]);
    w.ok_in("all", &["rmi", &name]);
    w.ok_in("all", &["image", "prune", "-f"]);
    w.ok_in("all", &["system", "prune", "-f"]);
    // Three configurations; two manifests with a configuration and a layer each; two indexes.
    assert_eq!(blobs(&w, "all").len(), 3 + 2 * 3 + 2, "{:?}", blobs(&w, "all"));
    // Pushed to a registry that has nothing of it.
    let empty = w.path("second");
    fs::create_dir(&empty).unwrap();
    let second = Registry::plain(&empty);
    let target = second.name("rich:1");
    w.ok_in("all", &["tag", &other, &target]);
    let out = w.ok_in("all", &["push", &target]);
    assert!(out.contains(&format!("1: digest: {digest}")), "{out}");
    let back = Layout::new(w.path("back"));
    let to = format!("oci:{}:x", back.0.display());
    assert_eq!(w.ok(&["image", "copy", "-q", "-a", &target, &to]), digest);
    let sorted = |path: &Path| {
        let mut names = list(&path.join("blobs/sha256"));
        names.sort();
        names
    };
    assert_eq!(sorted(&back.0), sorted(&layout.0), "everything is there again");
    if have("skopeo") {
        let raw =
            skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{target}")]);
        assert_eq!(sha256(raw.as_bytes()), digest);
    }
    // Without a name nothing of it stays.
    w.ok_in("all", &["rmi", "-f", &other, &target]);
    w.ok_in("all", &["image", "prune", "-af"]);
    until("an empty store", || {
        blobs(&w, "all").is_empty() && list(&w.path("all/layers")).is_empty()
    });
}

#[test]
fn a_name_means_what_it_was_pulled_as_last() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let layout = Layout::new(w.path("two"));
    let (amd64, arm64) = (layout.image("linux", "amd64"), layout.image("linux", "arm64"));
    let name = r.name("change:1");
    let put = |entries: &[serde_json::Value]| {
        w.ok(&["image", "copy", "-q", "-a", &layout.top(&layout.index(entries)), &name])
    };
    let both = put(&[amd64.clone(), arm64]);
    w.ok_in("all", &["pull", "-q", "--all-platforms", &name]);
    // One image of the index that was pulled whole: it is still that.
    w.ok_in("all", &["pull", "-q", "--platform", "amd64", &name]);
    let other = r.name("other:1");
    w.ok_in("all", &["tag", &name, &other]);
    assert!(w.ok_in("all", &["push", &other]).contains(&format!("1: digest: {both}")));
    // Of another index, with the same image in it.
    put(std::slice::from_ref(&amd64));
    w.ok_in("all", &["pull", "-q", "--platform", "amd64", &name]);
    let out = w.ok_in("all", &["push", &name]);
    assert!(out.contains(&format!("1: digest: {}", amd64["digest"].as_str().unwrap())), "{out}");
    // A tag of that replaces what the target meant.
    w.ok_in("all", &["tag", &name, &other]);
    assert!(!w.ok_in("all", &["push", &other]).contains(&both));
}

/// Serves a layout's documents and blobs, whatever the repository.
fn serve_layout(layout: &Path, top: &str, lie: Option<String>) -> u16 {
    let mut all: HashMap<String, Vec<u8>> = HashMap::new();
    for name in list(&layout.join("blobs/sha256")) {
        let bytes = fs::read(layout.join("blobs/sha256").join(&name)).unwrap();
        all.insert(format!("sha256:{name}"), bytes);
    }
    all.insert("1".to_owned(), all[top].clone());
    serve(move |request| {
        if request.path == "/v2/" {
            return answer("200 OK", &[], b"{}");
        }
        let wanted = request.path.rsplit('/').next().unwrap();
        match all.get(wanted) {
            Some(raw) if lie.as_deref() == Some(wanted) => {
                let mut other = raw.clone();
                other[0] ^= 1;
                answer("200 OK", &[], &other)
            }
            Some(raw) => answer("200 OK", &[("Content-Type", MANIFEST)], raw),
            None => answer("404 Not Found", &[], b""),
        }
    })
}

#[test]
fn chains_of_indexes_have_an_end() {
    let w = World::new();
    let layout = Layout::new(w.path("deep"));
    let mut entry = layout.index(&[layout.image("linux", "amd64")]);
    for depth in 1..7 {
        let digest = entry["digest"].as_str().unwrap().to_owned();
        let port = serve_layout(&layout.0, &digest, None);
        let name = format!("localhost:{port}/deep:1");
        let to = format!("oci:{}:x", w.path("copied").display());
        for args in [
            &["pull", "--platform", "amd64", &name][..],
            &["pull", "--all-platforms", &name],
            &["image", "copy", "-q", "--platform", "amd64", &name, &to],
        ] {
            let data = format!("deep{depth}");
            let out = w.command_in(&data, args).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            let refused = said.contains("indexes are nested more than 4 deep");
            assert_eq!(refused, depth > 5, "{depth} {args:?}: {said}");
            if args[0] == "pull" {
                assert_eq!(out.status.success(), depth <= 5, "{said}");
                assert!(depth <= 5 || w.ok_in(&data, &["images", "-aq"]).is_empty());
            }
        }
        entry = layout.index(&[entry]);
    }
}

#[test]
fn attestations_are_checked_like_everything_else() {
    let w = World::new();
    let layout = Layout::new(w.path("lies"));
    let image = layout.image("linux", "amd64");
    let about = layout.attestation(&image);
    let top = layout.index(&[image, about.clone()])["digest"].as_str().unwrap().to_owned();
    let name = about["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.0.join("blobs/sha256").join(name)).unwrap())
            .unwrap();
    let lie = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let port = serve_layout(&layout.0, &top, Some(lie.clone()));
    let name = format!("localhost:{port}/lies:1");
    let error = w.fails(&["pull", "--all-platforms", &name]);
    assert!(error.contains("digest") && error.contains(&lie), "{error}");
    w.nothing_visible();
    // The image alone is well.
    w.ok(&["pull", "-q", "--platform", "amd64", &name]);
    w.ok(&["image", "prune", "-f"]);
    assert_eq!(blobs(&w, "data").len(), 1, "nothing is left of the other");
}
