//! Against the real registry, and other programs.

use std::fs;
use std::process::{Command, Stdio};

use crate::platforms::multi_platform;
use crate::server::Registry;
use crate::world::{World, have, list, noise, sha256, tar_of, text, until};

fn three_layers() -> Vec<Vec<u8>> {
    (0..3u64)
        .map(|i| {
            let name = format!("file{i}");
            let content = noise(i, 300_000);
            tar_of(&[(&name, &content), ("text", &b"the same words again ".repeat(1000))])
        })
        .collect()
}

pub(crate) fn skopeo(args: &[&str]) -> String {
    let out = Command::new("skopeo").arg("--insecure-policy").args(args).output().unwrap();
    assert!(out.status.success(), "skopeo {args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn digest_in(out: &str) -> String {
    let at = out.find("sha256:").unwrap();
    out[at..at + 71].to_owned()
}

#[test]
fn what_is_pushed_is_pulled_with_the_same_digests() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &three_layers());
    let (name, id) = (r.name("team/app:v1"), w.ok(&["images", "-q", "--no-trunc", "app"]));
    w.ok(&["tag", "app", &name]);
    let out = w.ok(&["push", &name]);
    assert!(out.starts_with(&format!("The push refers to repository [{}]", r.name("team/app"))));
    assert_eq!(out.matches(": Pushed").count(), 3, "{out}");
    let digest = digest_in(out.lines().last().unwrap());
    // Again: everything is there.
    let again = w.ok(&["push", &name]);
    assert_eq!(again.matches(": Layer already exists").count(), 3, "{again}");
    assert!(again.contains(&digest));
    // To another repository: mounted, not sent.
    let other = r.name("other/app:v2");
    w.ok(&["tag", "app", &other]);
    let out = w.ok(&["push", &other]);
    assert_eq!(out.matches(": Mounted from team/app").count(), 3, "{out}");
    assert!(out.contains(&digest), "the same manifest");
    // In another engine.
    let out = w.ok_in("two", &["pull", &name]);
    assert!(out.contains(&format!("Digest: {digest}")), "{out}");
    assert!(out.contains(&format!("Status: Downloaded newer image for {name}")), "{out}");
    assert_eq!(out.matches(": Pull complete").count(), 3, "{out}");
    assert_eq!(out.lines().last(), Some(name.as_str()));
    assert_eq!(w.ok_in("two", &["images", "-q", "--no-trunc"]), id);
    w.layers_are_whole("two");
    let out = w.ok_in("two", &["pull", &name]);
    assert!(out.contains(&format!("Status: Image is up to date for {name}")), "{out}");
    assert_eq!(out.matches(": Already exists").count(), 3);
    // By digest; quiet; and what was pulled pushes with the digest it had.
    let by_digest = format!("{}@{digest}", r.name("team/app"));
    assert_eq!(w.ok_in("three", &["pull", "-q", &by_digest]), by_digest);
    let shown = w.ok_in("three", &["images", "--digests", "--format", "{{.Digest}}"]);
    assert_eq!(shown, digest);
    let third = r.name("third/app");
    w.ok_in("three", &["tag", &by_digest, &third]);
    assert!(w.ok_in("three", &["push", &third]).contains(&digest));
    // All tags.
    w.ok(&["tag", "app", &r.name("team/app:v2")]);
    w.ok(&["push", "-a", &r.name("team/app")]);
    let out = w.ok_in("four", &["pull", "-a", &r.name("team/app")]);
    assert!(out.contains("v1: Pulling from team/app") && out.contains("v2: Pulling"), "{out}");
    let tags = w.ok_in("four", &["images", "--format", "{{.Tag}}"]);
    assert_eq!(tags.lines().count(), 2, "{tags}");
    // What is not there.
    let error = w.fails(&["pull", &r.name("team/app:none")]);
    assert!(error.contains("manifest for") && error.contains("not found"), "{error}");
    assert!(w.fails(&["push", &r.name("team/none")]).contains("does not exist"));
    assert!(w.fails(&["push", &by_digest]).contains("cannot push a digest reference"));
}

#[test]
fn skopeo_and_we_see_the_same() {
    if !have("skopeo") {
        return;
    }
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &three_layers());
    let name = r.name("app:one");
    w.ok(&["tag", "app", &name]);
    let digest = digest_in(w.ok(&["push", &name]).lines().last().unwrap());
    let ours = format!("docker://{name}");
    let seen = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &ours]);
    assert_eq!(seen, digest);
    // It reads and checks what we saved, and compresses it in two ways that are not ours.
    let tar = w.path("saved.tar");
    w.ok(&["save", "-o", tar.to_str().unwrap(), "app"]);
    let archive = format!("docker-archive:{}", tar.display());
    for tag in ["zstd", "gzip"] {
        let target = format!("docker://{}", r.name(&format!("app:{tag}")));
        let mut args = vec!["copy", "-q", "-f", "oci", "--dest-tls-verify=false"];
        args.extend(["--dest-compress-format", tag, &archive, &target]);
        skopeo(&args);
        let theirs = r.name(&format!("app:{tag}"));
        let out = w.ok_in(tag, &["pull", &theirs]);
        let digest = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &target]);
        assert!(out.contains(&format!("Digest: {digest}")), "{out}");
        let layers = |data: &str, name: &str| {
            w.ok_in(data, &["image", "inspect", "-f", "{{json .RootFS.Layers}}", name])
        };
        assert_eq!(layers(tag, &theirs), layers("data", "app"));
        w.layers_are_whole(tag);
        // Layers that are here under another compression are not fetched again.
        let out = w.ok(&["pull", &theirs]);
        assert_eq!(out.matches(": Already exists").count(), 3, "{out}");
        // Unchanged, it pushes under the digest it was pulled with.
        let other = r.name(&format!("again:{tag}"));
        w.ok_in(tag, &["tag", &theirs, &other]);
        assert!(w.ok_in(tag, &["push", &other]).contains(&digest));
    }
    // What we pushed, it reads and checks, and copies with the same digest.
    let layout = format!("oci:{}:x", w.path("copied").display());
    skopeo(&["copy", "-q", "--preserve-digests", "--src-tls-verify=false", &ours, &layout]);
}

#[test]
fn missing_images_are_fetched_for_a_container() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &three_layers());
    let name = r.name("app:1");
    w.ok(&["tag", "app", &name]);
    w.ok(&["push", "-q", &name]);
    let out = w.command_in("two", &["create", "--name", "one", &name]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(said.starts_with(&format!("Unable to find image '{name}' locally")), "{said}");
    assert!(said.contains("Pull complete"), "{said}");
    assert_eq!(text(&out.stdout).len(), 64, "only the id: {}", text(&out.stdout));
    // It is here now; asked for always, it is asked for.
    let out = w.command_in("two", &["create", &name]).output().unwrap();
    assert_eq!(text(&out.stderr), "");
    let out = w.command_in("two", &["create", "--pull", "always", &name]).output().unwrap();
    assert!(text(&out.stderr).contains("Image is up to date"), "{}", text(&out.stderr));
    let out = w.command_in("two", &["create", "--pull", "always", "-q", &name]).output().unwrap();
    assert_eq!(text(&out.stderr), "");
    let out = w.command_in("three", &["create", "--pull", "never", &name]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("No such image"), "{}", text(&out.stderr));
    let ids = w.ok_in("two", &["ps", "-aq"]);
    for id in ids.lines() {
        w.ok_in("two", &["rm", id]);
    }
}

#[test]
fn mirrors_and_rewrites_lead_elsewhere() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &three_layers());
    let host = r.host();
    w.configure(&format!(
        "[[registry]]\nprefix = \"reg.example\"\nlocation = \"{host}/moved\"\nmirrors = [\"http://{host}/mirror\"]\n"
    ));
    w.ok(&["tag", "app", "reg.example/team/app:1"]);
    w.ok(&["push", "reg.example/team/app:1"]);
    assert!(r.dir.join("storage/docker/registry/v2/repositories/moved/team/app").is_dir());
    // The mirror lacks it: the place itself is asked.
    let out = w.ok_in("two", &["pull", "reg.example/team/app:1"]);
    assert_eq!(out.matches(": Pull complete").count(), 3, "{out}");
    assert_eq!(w.ok_in("two", &["images", "--format", "{{.Repository}}"]), "reg.example/team/app");
    // The mirror has another one: it is believed.
    w.image("other", &three_layers()[..1]);
    let mirrored = r.name("mirror/team/app:1");
    w.ok(&["tag", "other", &mirrored]);
    w.ok(&["push", &mirrored]);
    w.ok_in("three", &["pull", "reg.example/team/app:1"]);
    let id = w.ok(&["images", "-q", "--no-trunc", "other"]);
    assert_eq!(w.ok_in("three", &["images", "-q", "--no-trunc"]), id);
    let error = w.fails(&["pull", "debian"]);
    assert!(error.contains("debian is blocked"), "{error}");
}

#[test]
fn pulls_at_once_share_and_killed_ones_go_on() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let layers: Vec<Vec<u8>> =
        (0..4u64).map(|i| tar_of(&[(&format!("big{i}"), &noise(i + 50, 8_000_000))])).collect();
    w.image("app", &layers);
    let name = r.name("app:1");
    w.ok(&["tag", "app", &name]);
    w.ok(&["push", &name]);
    let id = w.ok(&["images", "-q", "--no-trunc", "app"]);
    // Killed at moments that differ, then left alone.
    let mut killed = 0;
    for round in 0..25u64 {
        let mut child = w
            .command_in("two", &["pull", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round * 13 % 170));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        w.layers_are_whole("two");
        let shown = w.ok_in("two", &["images", "-q", "--no-trunc"]);
        assert!(shown.is_empty() || shown == id, "{shown}");
        if shown == id {
            w.ok_in("two", &["rmi", &name]);
        }
    }
    assert!(killed > 3, "{killed}");
    let mut children: Vec<_> = (0..4)
        .map(|_| {
            w.command_in("two", &["pull", &name])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let outs: Vec<_> = children.drain(..).map(|c| c.wait_with_output().unwrap()).collect();
    let mut complete = 0;
    for out in &outs {
        assert!(out.status.success(), "{}", text(&out.stderr));
        complete += text(&out.stdout).matches(": Pull complete").count();
    }
    assert!(complete <= 4, "each layer was fetched once: {complete}");
    assert_eq!(w.ok_in("two", &["images", "-q", "--no-trunc"]), id);
    w.layers_are_whole("two");
    w.ok_in("two", &["rmi", &name]);
    w.ok_in("two", &["image", "prune", "-f"]);
    until("an empty store", || {
        list(&w.path("two/layers")).is_empty() && list(&w.path("two/tmp")).is_empty()
    });
}

#[test]
fn images_go_by_their_last_use_and_to_a_size() {
    let w = World::new();
    for i in 0..4u64 {
        w.image(&format!("i{i}"), &[tar_of(&[("x", &noise(i + 10, 3_000_000))])]);
    }
    let id = w.ok(&["create", "i0"]);
    let names = || w.ok(&["images", "--format", "{{.Repository}}"]);
    // Each costs its archive, and its files where they are unpacked. The one of a container stays
    // though it came first.
    let unpacked = w.ok(&["info"]).contains("Form of layers: directories");
    let keep = if unpacked { "15m" } else { "8m" };
    w.ok(&["image", "prune", "-af", "--keep-storage", keep]);
    let left: Vec<String> = names().lines().map(str::to_owned).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&"i0".to_owned()) && left.contains(&"i3".to_owned()), "{left:?}");
    w.ok(&["rm", &id]);
    w.ok(&["image", "prune", "-af", "--filter", "unused-for=1h"]);
    assert_eq!(names().lines().count(), 2);
    assert!(
        w.fails(&["image", "prune", "-af", "--filter", "unused-for=x"]).contains("unused-for=x")
    );
    w.ok(&["image", "prune", "-af", "--filter", "unused-for=0s"]);
    assert_eq!(names(), "");
}

#[test]
fn copies_keep_digests_through_every_form() {
    if !have("skopeo") {
        return;
    }
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let digest = multi_platform(&w, &r, "multi:1");
    let name = r.name("multi:1");
    let path = |name: &str| w.path(name).to_str().unwrap().to_owned();
    let copy = |from: &str, to: &str| w.ok(&["image", "copy", "-q", from, to]);
    let all = |from: &str, to: &str| w.ok(&["image", "copy", "-q", "-a", from, to]);
    // The whole index, through a layout, an archive, and into another repository.
    let (layout, archive) =
        (format!("oci:{}:x", path("out")), format!("oci-archive:{}:y", path("out.tar")));
    assert_eq!(all(&name, &layout), digest);
    assert_eq!(all(&layout, &archive), digest);
    let back = r.name("back:1");
    assert_eq!(all(&archive, &back), digest);
    let seen = skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{back}")]);
    assert_eq!(sha256(seen.as_bytes()), digest);
    // Within the registry nothing is sent.
    let out = w.ok(&["image", "copy", "-a", &name, &r.name("elsewhere:1")]);
    assert_eq!(out.matches("Mounted from multi").count(), 6, "{out}");
    // One platform.
    let one = w.ok(&["image", "copy", "-q", "--platform", "s390x", &name, &r.name("one:1")]);
    assert_ne!(one, digest);
    w.ok(&["pull", "-q", "--platform", "s390x", &r.name("one:1")]);
    assert_eq!(w.ok(&["image", "inspect", "-f", "{{.Architecture}}", &r.name("one:1")]), "s390x");
    // An archive for `docker load`, read by us and by skopeo; and one that `save` wrote.
    let docker = format!("docker-archive:{}:got/it:2", path("docker.tar"));
    copy(&name, &docker);
    assert!(w.ok(&["load", "-i", &path("docker.tar")]).contains("Loaded image: got/it:2"));
    skopeo(&["inspect", &format!("docker-archive:{}", path("docker.tar"))]);
    w.image("old", &three_layers());
    let old = format!("docker-archive:{}", path("image.tar"));
    copy(&old, &r.name("old:1"));
    let id = w.ok(&["images", "-q", "--no-trunc", "old"]);
    w.ok_in("two", &["pull", "-q", &r.name("old:1")]);
    assert_eq!(w.ok_in("two", &["images", "-q", "--no-trunc"]), id);
    // What was pushed has Docker's types; in a layout it has those that others look for there.
    let pushed = r.name("types:1");
    w.ok(&["tag", "old", &pushed]);
    w.ok(&["push", "-q", &pushed]);
    let terms = format!("oci:{}:t", path("terms"));
    let there = copy(&pushed, &terms);
    let seen = skopeo(&["inspect", "--raw", &terms]);
    assert!(sha256(seen.as_bytes()) == there && !seen.contains("vnd.docker"), "{seen}");
    copy(&terms, &r.name("terms:1"));
    w.ok_in("three", &["pull", "-q", &r.name("terms:1")]);
    assert_eq!(w.ok_in("three", &["images", "-q", "--no-trunc"]), id);
    // A layout that was changed is found out.
    let layer = list(&w.path("out/blobs/sha256")).pop().unwrap();
    fs::write(w.path("out/blobs/sha256").join(&layer), b"other").unwrap();
    let error = w.fails(&["image", "copy", "-a", &layout, &r.name("broken:1")]);
    assert!(
        error.contains("digest") || error.contains("DIGEST") || error.contains("invalid"),
        "{error}"
    );
    assert_eq!(list(&w.path("data/tmp")), Vec::<String>::new());
}

#[test]
fn uploads_survive_cuts_and_go_in_chunks() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &[tar_of(&[("x", &noise(5, 4_000_000))])]);
    let id = w.ok(&["images", "-q", "--no-trunc", "app"]);
    // This registry forgets an upload that broke off: it is begun anew.
    let (through, _) = crate::server::cutting_proxy(r.port, 1_000_000, 3);
    let name = format!("localhost:{through}/cut/app:1");
    w.ok(&["tag", "app", &name]);
    let out = w.ok(&["push", &name]);
    assert!(out.contains(": Pushed"), "{out}");
    w.ok_in("two", &["pull", "-q", &r.name("cut/app:1")]);
    assert_eq!(w.ok_in("two", &["images", "-q", "--no-trunc"]), id);
    w.configure("chunk-size = 300000\n");
    let name = r.name("chunks/app:1");
    w.ok(&["tag", "app", &name]);
    w.ok(&["push", &name]);
    w.ok_in("three", &["pull", "-q", &name]);
    assert_eq!(w.ok_in("three", &["images", "-q", "--no-trunc"]), id);
    w.layers_are_whole("three");
}

#[test]
fn buildah_and_we_see_the_same() {
    if !have("buildah") {
        return;
    }
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &three_layers());
    let name = r.name("app:one");
    w.ok(&["tag", "app", &name]);
    let digest = digest_in(w.ok(&["push", &name]).lines().last().unwrap());
    let policy = w.path("policy.json");
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let storage = w.path("buildah");
    let buildah = |args: &[&str]| {
        let out = Command::new("buildah")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"))
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "buildah {args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let policy = policy.to_str().unwrap();
    let docker = |name: &str| format!("docker://{name}");
    buildah(&["pull", "--tls-verify=false", "--signature-policy", policy, &docker(&name)]);
    let seen = buildah(&["images", "--format", "{{.Digest}}"]);
    assert_eq!(seen, digest);
    let again = r.name("again:one");
    buildah(&["push", "--tls-verify=false", "--signature-policy", policy, &name, &docker(&again)]);
    w.ok_in("two", &["pull", "-q", &again]);
    let layers = |data: &str, name: &str| {
        w.ok_in(data, &["image", "inspect", "-f", "{{.Id}} {{json .RootFS.Layers}}", name])
    };
    assert_eq!(layers("two", &again), layers("data", "app"));
    // What we save, it reads.
    let tar = w.path("saved.tar");
    w.ok(&["save", "--format", "oci", "-o", tar.to_str().unwrap(), "app"]);
    buildah(&["pull", "--signature-policy", policy, &format!("oci-archive:{}", tar.display())]);
}

#[test]
fn proxies_are_gone_through() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    w.image("app", &[tar_of(&[("x", b"y")])]);
    let (proxy, asked) = crate::server::http_proxy(r.port);
    w.configure("[[registry]]\nprefix = \"reg.example\"\nlocation = \"http://reg.example\"\n");
    w.ok(&["tag", "app", "reg.example/app:1"]);
    let through = |args: &[&str]| {
        let mut command = w.command(args);
        command.env("http_proxy", format!("http://127.0.0.1:{proxy}")).output().unwrap()
    };
    let out = through(&["push", "reg.example/app:1"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(asked.lock().unwrap().iter().all(|line| line.contains("reg.example")));
    assert!(!asked.lock().unwrap().is_empty());
    asked.lock().unwrap().clear();
    // Not for this machine.
    assert!(through(&["pull", &r.name("app:1")]).status.success());
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn registries_are_searched() {
    let w = World::new();
    let port = crate::server::serve(|request| {
        if request.path != "/v1/search?n=25&q=some%20thing" {
            return crate::server::answer("404 Not Found", &[], b"");
        }
        let found = r#"{"results":[{"name":"a/thing","description":"A thing that is described at a length that no table has room for","star_count":7,"is_official":true},{"name":"b","star_count":1}]}"#;
        crate::server::answer("200 OK", &[], found.as_bytes())
    });
    let term = format!("localhost:{port}/some thing");
    let out = w.ok(&["search", &term]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("NAME      DESCRIPTION") && lines[0].ends_with("STARS     OFFICIAL")
    );
    assert!(
        lines[1].starts_with("a/thing   A thing that is described") && lines[1].ends_with("[OK]")
    );
    assert!(lines[1].contains('…') && lines.len() == 3, "{out}");
    let names = w.ok(&["search", "--format", "{{.Name}} {{.StarCount}}", "-f", "stars=2", &term]);
    assert_eq!(names, "a/thing 7");
    let error = w.fails(&["search", &format!("localhost:{port}/else")]);
    assert!(error.contains("only Docker Hub"), "{error}");
}
