//! Builds and what they have elsewhere: caches in directories and registries.

use std::fs;
use std::path::{Path, PathBuf};

use crate::server::Registry;
use crate::world::{World, text};

/// A context that needs no base image.
fn context(w: &World, file: &str) -> PathBuf {
    let dir = w.path("ctx");
    fs::create_dir_all(&dir).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    fs::copy(busybox.unwrap(), dir.join("sh")).unwrap();
    fs::write(dir.join("Dockerfile"), file).unwrap();
    dir
}

/// Builds in the engine with this data root; what it reported.
#[track_caller]
fn build(w: &World, data: &str, more: &[&str]) -> String {
    let dir = w.path("ctx");
    let mut args = vec!["build", "--network", "none"];
    args.extend(more);
    args.push(dir.to_str().unwrap());
    let out = w.command_in(data, &args).output().unwrap();
    assert!(out.status.success(), "{args:?}\n{}", text(&out.stderr));
    text(&out.stderr)
}

#[test]
fn a_cache_goes_to_another_engine() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    // Each run of the step adds a line to the cache, and says how many there are.
    let file = "FROM scratch AS tools\nCOPY sh /bin/sh\nENV PATH=/bin\nFROM tools AS made\n\
        RUN --mount=type=cache,id=c,target=/c,mode=0750 echo more >> /c/log; n=0; while read l; do n=$((n+1)); done < /c/log; echo lines $n; echo $n > /n\n\
        FROM tools\nCOPY --from=made /n /copied\n";
    let dir = context(&w, file);
    let local = w.path("cache");
    let (to, from) = (
        format!("type=local,dest={}", local.display()),
        format!("type=local,src={}", local.display()),
    );
    let there = r.name("team/cache:ci");
    let registry = format!("type=registry,ref={there}");
    let said = build(
        &w,
        "one",
        &["--cache-from", &from, "--cache-to", &to, "--cache-to", &registry, "-t", "x"],
    );
    assert!(said.contains("there is no build cache") && said.contains("lines 1"), "{said}");
    let id = w.ok_in("one", &["images", "-q", "--no-trunc"]);
    for (data, from) in [("two", from.as_str()), ("three", there.as_str())] {
        let said = build(&w, data, &["--cache-from", from, "-t", "x"]);
        assert!(said.contains("0 steps done, 3 from the cache"), "{data}: {said}");
        assert_eq!(w.ok_in(data, &["images", "-q", "--no-trunc"]), id);
        // The mount is filled when a step needs it.
        let said = build(&w, data, &["--cache-from", from, "--no-cache-filter", "made"]);
        assert!(said.contains("lines 2"), "{data}: {said}");
        let mounts = w.path(data).join("cache/mounts");
        let mount = fs::read_dir(mounts).unwrap().next().unwrap().unwrap().path().join("data");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(mount).unwrap());
        assert_eq!(mode & 0o7777, 0o750);
    }
    // A build that used no cache mount passes it on.
    let said = build(&w, "four", &["--cache-from", &there, "--cache-to", &to]);
    assert!(said.contains("0 steps done"), "{said}");
    let said = build(&w, "five", &["--cache-from", &from, "--no-cache-filter", "made"]);
    assert!(said.contains("lines 2"), "{said}");

    // Without the other stages and the mounts there is less of it, and nothing else is left.
    let blobs = || fs::read_dir(local.join("blobs/sha256")).unwrap().count();
    let all = blobs();
    build(&w, "one", &["--cache-to", &format!("{to},mode=min,mounts=false")]);
    assert_eq!((all, blobs()), (6, 4));
    let said = build(&w, "six", &["--cache-from", &from]);
    assert!(said.contains("lines 1") && said.contains("1 steps done, 2 from the cache"), "{said}");

    // What is damaged, or no cache, is not used, and the build goes on.
    for entry in fs::read_dir(local.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(b"{") {
            continue;
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let said = build(&w, "seven", &["--cache-from", &from]);
    assert!(said.contains("WARNING: the build cache") || said.contains("WARNING"), "{said}");
    assert!(said.contains("3 steps done"), "{said}");
    w.ok_in("one", &["tag", "x", &r.name("image:1")]);
    w.ok_in("one", &["push", &r.name("image:1")]);
    let said = build(&w, "eight", &["--cache-from", &r.name("image:1")]);
    assert!(said.contains("it is not one that --cache-to has written"), "{said}");
    let path = dir.to_str().unwrap();
    let said = w.fails(&["build", "--cache-to", "type=inline", path]);
    assert!(said.contains("type inline is not known"), "{said}");
}
