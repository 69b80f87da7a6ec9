//! What builds make of their results: one layer, figures, caches for elsewhere.

use std::fs;

use crate::builds::{build, context};
use crate::harness::{Engine, text};

#[test]
fn one_layer_shows_the_same_files() {
    let e = Engine::new();
    let file = "FROM bb AS base\nRUN mkdir -p /d/sub /gone /l && echo one > /d/one && echo two > /d/sub/two && ln -s d /link && echo f > /f\n\
        FROM base\n\
        RUN rm -r /d && mkdir /d && echo new > /d/new && rm -r /gone /link && mkdir /link && echo in > /link/in\n\
        COPY a /copied/a\nRUN rm /f && mkdir /f && ln /copied/a /f/hard && chmod 700 /l && echo > /tmp/x\n\
        RUN rm /tmp/x; rm /copied/a; chown ann /f/hard\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file), ("a", "context")]);
    // The base is an image of its own, with layers that stay.
    build(&e, &dir, &["--target", "base", "-t", "base:1"]);
    let file = file.replace("FROM base\n", "FROM base:1\n");
    fs::write(dir.join("Dockerfile"), &file).unwrap();
    build(&e, &dir, &["-t", "many"]);
    let said = build(&e, &dir, &["-t", "one", "--squash"]);
    assert!(said.contains("1 step done, 4 from the cache"), "{said}");
    let layers = |name: &str| e.inspect("{{json .RootFS.Layers}}", name).matches("sha256:").count();
    assert_eq!((layers("base:1"), layers("many"), layers("one")), (2, 6, 3));
    let show = "cd /; find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev -o -path './etc/host*' -o -path ./etc/resolv.conf \\) -prune \
        -o -print | sort | xargs stat -c '%n %F %a %u %g %h %N'; cat /f/hard /d/new /link/in";
    let files = |name: &str| e.ok(["run", "--rm", "--network", "none", name, "sh", "-c", show]);
    let (many, one) = (files("many"), files("one"));
    assert!(many.contains("./f/hard regular file") && !many.contains("./gone"), "{many}");
    assert_eq!(many, one);
    // A file that came and went leaves nothing.
    let list = e.run(["save", "one"]);
    assert!(list.status.success() && !text(&list.stdout).contains("tmp/x\0"));
    let history = e.ok(["history", "--format", "{{.CreatedBy}}", "one"]);
    assert!(history.starts_with("squash 4 layers"), "{history}");
    let said = build(&e, &dir, &["--squash"]);
    assert!(said.contains("0 steps done"), "{said}");
    e.finish();
}

#[test]
fn the_cache_has_its_line_among_what_takes_the_disk() {
    let e = Engine::new();
    let file = "FROM bb\nRUN head -c 5000000 /dev/zero > /zero\nRUN --mount=type=cache,target=/c head -c 3000000 /dev/zero > /c/z\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    let line = || {
        let all = e.ok(["system", "df"]);
        all.lines().find(|line| line.starts_with("Build Cache")).unwrap().to_owned()
    };
    assert!(line().contains("0B"), "{}", line());
    build(&e, &dir, &["-o", "type=tar,dest=/dev/null"]);
    let whole = |size: &str| line().matches(size).count();
    // Layer and cache mount; all of it can go.
    assert_eq!(whole("8.0"), 2, "{}", line());
    let all = e.ok(["system", "df", "-v"]);
    assert!(all.contains("exec.cachemount") && all.contains("Build cache usage: 8.0"), "{all}");
    // What an image has is the image's.
    build(&e, &dir, &["-t", "x"]);
    assert_eq!(whole("3.0"), 2, "{}", line());
    let rest = e.ok(["system", "df", "-v"]);
    assert!(!rest.contains(&format!("{}/cache", e.data_root().display())), "{rest}");
    e.ok(["builder", "prune", "-af"]);
    assert!(line().contains("0B"), "{}", line());
    e.finish();
}

#[test]
fn cache_mounts_are_bounded_by_their_use() {
    let e = Engine::new();
    let mount = |id: &str| {
        format!(
            "FROM bb\nRUN --mount=type=cache,id={id},target=/c head -c 3000000 /dev/zero > /c/z\n"
        )
    };
    let dir = context(&e, "ctx", &[]);
    fs::create_dir_all(&dir).unwrap();
    for id in ["old", "new", "old"] {
        fs::write(dir.join("Dockerfile"), mount(id)).unwrap();
        build(&e, &dir, &["--no-cache"]);
    }
    let there = |id: &str| e.ok(["builder", "du"]).contains(&format!("mount {id}"));
    assert!(there("old") && there("new"));
    e.ok(["builder", "prune", "-af", "--filter", "unused-for=1h"]);
    assert!(there("old") && there("new"));
    // The one that was used last stays.
    let said = e.ok(["builder", "prune", "-f", "--keep-storage", "4000000"]);
    assert!(said.contains("3.0"), "{said}");
    assert!(there("old") && !there("new"));
    e.ok(["builder", "prune", "-f", "--keep-storage", "0"]);
    assert!(!there("old"));
    e.finish();
}
