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
    assert!(said.contains("lines 1") && said.contains("1 step done, 2 from the cache"), "{said}");

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

#[test]
fn a_locked_build_uses_nothing_else() {
    let w = World::new();
    let r = Registry::plain(&w.dir);
    let base = r.name("team/base:1");
    // Two images that had the same name one after the other.
    let publish = |text: &str| {
        context(&w, &format!("FROM scratch\nCOPY sh /bin/sh\nENV PATH=/bin WHICH={text}\n"));
        build(&w, "maker", &["-t", &base]);
        w.ok_in("maker", &["push", &base]);
    };
    publish("one");
    let file = format!(
        "FROM {base} AS a\nRUN echo $WHICH > /which\nFROM {base}\nCOPY --from=a /which /\nRUN echo it is $WHICH\n"
    );
    let dir = context(&w, &file);
    let lock = w.path("build.lock");
    let lock = lock.to_str().unwrap();
    let said = build(&w, "one", &["--lock", lock, "-t", "x"]);
    assert!(said.contains("it is one"), "{said}");
    let id = w.ok_in("one", &["inspect", "-f", "{{.Id}}", "x"]);
    let text = fs::read_to_string(lock).unwrap();
    assert!(text.contains("team/base@sha256:"), "{text}");

    publish("two");
    fs::write(dir.join("Dockerfile"), &file).unwrap();
    // Elsewhere, and where the name is asked for again.
    for (data, pull) in [("one", "--pull=true"), ("two", "--pull=false")] {
        build(&w, data, &["--lock", lock, pull, "-t", "x"]);
        assert_eq!(w.ok_in(data, &["inspect", "-f", "{{.Id}}", "x"]), id, "{data}");
    }
    assert_eq!(fs::read_to_string(lock).unwrap(), text);
    let said = build(&w, "three", &["--lock", lock, "--lock-update"]);
    assert!(said.contains("it is two"), "{said}");
    assert_ne!(fs::read_to_string(lock).unwrap(), text);

    // What is not in it may not be used.
    fs::write(dir.join("Dockerfile"), format!("FROM {base}\nCOPY --from={}:2 / /\n", r.name("x")))
        .unwrap();
    let fails = |data: &str| {
        let args = ["build", "--lock", lock, dir.to_str().unwrap()];
        let out = w.command_in(data, &args).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        crate::world::text(&out.stderr)
    };
    let said = fails("three");
    assert!(said.contains("is not in the lock file") && said.contains("--lock-update"), "{said}");
    // An image that only one engine ever had.
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY sh /bin/sh\n").unwrap();
    build(&w, "three", &["-t", "own:1"]);
    fs::write(dir.join("Dockerfile"), "FROM own:1\n").unwrap();
    fs::remove_file(lock).unwrap();
    build(&w, "three", &["--lock", lock]);
    assert!(fails("four").contains("never in a registry"));
    build(&w, "three", &["-t", "own:1", "--label", "a=b"]);
    w.ok_in("three", &["image", "prune", "-af"]);
    fs::write(lock, "{").unwrap();
    assert!(fails("three").contains("is no lock file"));
}
