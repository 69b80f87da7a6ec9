//! Building images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../screen/mod.rs"]
mod screen;

use crate::harness::{Engine, text, until};
use screen::Screen;

/// A context with these files.
pub(crate) fn context(e: &Engine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = e.path(name);
    for (path, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// Builds without a network; what it reported.
#[track_caller]
pub(crate) fn build(e: &Engine, dir: &Path, more: &[&str]) -> String {
    let mut args = vec!["build", "--network", "none"];
    args.extend(more);
    args.push(dir.to_str().unwrap());
    let output = e.run(&args);
    assert!(output.status.success(), "{args:?}\n{}", text(&output.stderr));
    text(&output.stderr)
}

#[track_caller]
pub(crate) fn build_fails(e: &Engine, dir: &Path, more: &[&str]) -> String {
    let mut args = vec!["build", "--network", "none"];
    args.extend(more);
    args.push(dir.to_str().unwrap());
    e.fails(1, args)
}

/// A file with the modification time it has in every test.
fn age(path: &PathBuf) {
    let done = Command::new("find")
        .arg(path)
        .args(["-exec", "touch", "-h", "-d", "@1500000000", "{}", "+"])
        .status();
    assert!(done.unwrap().success());
}

const STAGES: &str = "\
ARG V=1
FROM bb AS build
ARG V
ENV A=b C=\"d e\"
WORKDIR /src
COPY a.txt dir ./
RUN echo \"$A $C $V\" > out && echo to-stdout && echo to-stderr >&2
RUN <<EOF
set -e
echo in a heredoc > here
EOF
FROM bb AS unused
RUN false
FROM bb
COPY --from=build --chown=ann /src /out
COPY <<EOF /etc/conf
value $PATH
EOF
LABEL x=y
EXPOSE 80 81/udp
USER ann
ENTRYPOINT [\"cat\"]
CMD [\"/out/out\"]
";

#[test]
fn stages_become_an_image_and_a_rebuild_does_nothing() {
    let e = Engine::new();
    let files = [("Dockerfile", STAGES), ("a.txt", "hello\n"), ("dir/sub/x", "deep\n")];
    let dir = context(&e, "ctx", &files);
    let said = build(&e, &dir, &["-t", "one", "-t", "two:2", "--build-arg", "V=7"]);
    assert!(said.contains("to-stdout") && said.contains("to-stderr"), "{said}");
    assert!(said.contains("[build 5/7]") || said.contains("[build 6/7]"), "{said}");
    assert!(!said.contains("false"), "a stage that is not needed: {said}");
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "one"]), "b d e 7");
    let list = ["run", "--rm", "--network", "none", "--entrypoint", "sh", "two:2", "-c"];
    let shown = e.ok(list
        .into_iter()
        .chain(["cat /out/here /out/sub/x /etc/conf; id -un; stat -c %U /out/sub"]));
    assert_eq!(
        shown,
        "in a heredoc\ndeep\nvalue /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nann\nann"
    );
    let id = e.ok(["images", "-q", "--no-trunc", "one"]);
    let config = e.ok(["image", "inspect", "-f", "{{json .Config}}", "one"]);
    for part in ["\"80/tcp\"", "\"81/udp\"", "\"x\":\"y\"", "\"User\":\"ann\"", "\"/out/out\""] {
        assert!(config.contains(part), "{part}: {config}");
    }
    let history = e.ok(["history", "--no-trunc", "--format", "{{.CreatedBy}}", "one"]);
    assert!(history.contains("CMD [\"/out/out\"]") && history.contains("EXPOSE map["), "{history}");

    // Nothing has changed but the times.
    age(&dir);
    let said = build(&e, &dir, &["-t", "again", "--build-arg", "V=7"]);
    assert!(said.contains("0 steps done"), "{said}");
    assert_eq!(e.ok(["images", "-q", "--no-trunc", "again"]), id);
    // What an argument changes is done again; what comes before it is not.
    let said = build(&e, &dir, &["-t", "other", "--build-arg", "V=8"]);
    assert!(said.contains("CACHED") && !said.contains(" 0 steps done"), "{said}");
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "other"]), "b d e 8");
    // A label is no reason to do anything.
    let said = build(&e, &dir, &["--label", "l=m", "--build-arg", "V=7"]);
    assert!(said.contains("0 steps done"), "{said}");
    // No trace of the steps.
    assert_eq!(e.ok(["ps", "-aq"]), "");
    assert_eq!(e.ok(["system", "info", "-f", "{{.Containers}}"]), "0");
    e.finish();
}

#[test]
fn the_same_inputs_give_the_same_image_elsewhere() {
    let file = "FROM scratch AS s\nCOPY . /\nFROM bb\nCOPY --from=s /a /a\n\
        RUN mkdir /d && echo x > /d/y && rm /bin/vi && ln /d/y /d/z\nWORKDIR /w\n";
    let mut ids = Vec::new();
    for n in 0..2 {
        let e = Engine::empty();
        let root = e.path("bb");
        crate::harness::busybox_root(&root);
        age(&root);
        let tar = e.path("bb.tar");
        let mut pack = Command::new("tar");
        pack.args(["--sort=name", "-C"]).arg(&root).arg("-cf").arg(&tar).arg(".");
        assert!(pack.status().unwrap().success());
        e.ok(["image", "import", tar.to_str().unwrap(), "bb"]);
        let dir = context(&e, "ctx", &[("Dockerfile", file), ("a/b", "1"), ("a/c/d", "2")]);
        age(&dir);
        // The base's own time is when it was imported.
        build(&e, &dir, &["-t", "r", "--build-arg", "SOURCE_DATE_EPOCH=1600000000"]);
        // The second one without help of the first's cache, and once more.
        build(&e, &dir, &["-t", "r", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1600000000"]);
        ids.push(e.ok(["image", "inspect", "-f", "{{json .RootFS.Layers}}{{.Created}}", "r"]));
        if n == 1 {
            assert_eq!(ids[0], ids[1]);
            assert!(ids[0].contains("2020-09-13T12:26:40"), "{}", ids[0]);
        }
        e.finish();
    }
}

#[test]
fn mistakes_are_shown_with_their_lines() {
    let e = Engine::new();
    let dir = context(&e, "ctx", &[("a.txt", "x"), ("dir/y", "y"), (".dockerignore", "dir\n")]);
    let cases = [
        ("FROM bb\nRNU x\n", "Dockerfile:2: unknown instruction: RNU", "did you mean RUN?"),
        ("FROM bb\nCOPY a.tx /\n", "\"a.tx\" is not in the build context", "did you mean a.txt?"),
        ("FROM bb\nCOPY dir/y /\n", "left out", ".dockerignore"),
        ("FROM bb\nCOPY a* *.z /d\n", "\"*.z\"", "nothing in the build context matches"),
        ("FROM bb\nRUN echo why; exit 3\n", "exit code: 3", "  why"),
        ("FROM bb\nRUN [\"nosuch\"]\n", "exit code: 127", "not found"),
        ("FROM bb\nCOPY --chown=nobody a.txt /\n", "no user \"nobody\"", "/etc/passwd"),
        ("FROM bb\nCOPY a.txt dir /\nRUN x${\n", "Dockerfile:2", "left out"),
        ("FROM bb\nENV A=${B:?missing}\n", "B: missing", "> ENV"),
        ("FROM bb AS a\nFROM a\nCOPY --from=b x y\n", "blocked", "> COPY"),
        ("FROM nosuch\n", "nosuch", "> FROM"),
        (
            "FROM bb\nRUN --mount=type=secret,id=s,required x\n",
            "secret s: not found",
            "--secret id=s",
        ),
        ("FROM bb\nRUN --mount=type=bind,source=zz,target=/z x\n", "\"zz\" is not in", "there are"),
    ];
    for (file, message, more) in cases {
        fs::write(dir.join("Dockerfile"), file).unwrap();
        let said = build_fails(&e, &dir, &[]);
        assert!(said.contains(message) && said.contains(more), "{file}\n{said}");
    }
    // What is no mistake can be asked for.
    fs::write(dir.join("Dockerfile"), "# check=error=true\nFROM bb as One\nCMD x\n").unwrap();
    let output = e.run(["build", "--check", dir.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(
        said.contains("WARNING: JSONArgsRecommended\nDockerfile:3:") && said.contains("3 warnings"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(build_fails(&e, &dir, &["-f", "/nosuch"]).contains("no such file"));
    fs::write(dir.join("Dockerfile"), "FROM bb AS one\n").unwrap();
    assert!(build_fails(&e, &dir, &["--target", "onee"]).contains("did you mean one?"));
    assert!(build_fails(&e, &e.path("none"), &[]).contains("not found"));
    assert_eq!(e.ok(["ps", "-aq"]), "");
    e.finish();
}

#[test]
fn a_context_shows_nothing_of_what_is_outside() {
    let e = Engine::new();
    fs::write(e.path("secret"), "outside").unwrap();
    let dir = context(&e, "ctx", &[("in/real", "inside"), ("sub/file", "f")]);
    symlink("../secret", dir.join("out")).unwrap();
    symlink("/in/real", dir.join("absolute")).unwrap();
    symlink("../..", dir.join("sub/up")).unwrap();
    symlink(e.path("secret"), dir.join("host")).unwrap();
    let try_copy = |source: &str| {
        fs::write(dir.join("Dockerfile"), format!("FROM bb\nCOPY {source} /x\n")).unwrap();
        let args = ["build", "--network", "none", "-t", "x", dir.to_str().unwrap()];
        e.run(args)
            .status
            .success()
            .then(|| e.ok(["run", "--rm", "--network", "none", "x", "cat", "/x"]))
    };
    assert_eq!(try_copy("absolute"), Some("inside".into()));
    for source in ["out", "host", "sub/up/secret", "../secret", "sub/../../secret"] {
        assert_eq!(try_copy(source), None, "{source}");
    }
    // Nor does a link in an image lead anywhere else.
    let file = "FROM bb\nRUN ln -s /../../../../tmp /esc && ln -s gone /dangling\nCOPY in /esc/\n\
        COPY in /dangling/\nRUN cat /tmp/real /gone/real\n";
    fs::write(dir.join("Dockerfile"), file).unwrap();
    build(&e, &dir, &["-t", "y"]);
    assert!(!Path::new("/tmp/real").exists());
    e.finish();
}

#[test]
fn what_is_ignored_is_neither_copied_nor_read() {
    let e = Engine::new();
    let dir = context(
        &e,
        "ctx",
        &[
            ("Dockerfile", "FROM bb\nCOPY . /c/\nRUN cd /c && find . | sort\n"),
            ("keep", "1"),
            ("node_modules/a/b", "2"),
            ("node_modules/keep/c", "3"),
            ("x.log", "4"),
            (".dockerignore", "# rules\nnode_modules\n!node_modules/keep\n**/*.log\nDockerfile*\n"),
        ],
    );
    let said = build(&e, &dir, &["-t", "i"]);
    let shown = e.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "i",
        "sh",
        "-c",
        "cd /c && find . | sort | xargs",
    ]);
    assert_eq!(
        shown,
        ". ./.dockerignore ./keep ./node_modules ./node_modules/keep ./node_modules/keep/c"
    );
    assert!(said.contains("2 steps done"), "{said}");
    // A change of what is left out changes nothing.
    fs::write(dir.join("x.log"), "5").unwrap();
    assert!(build(&e, &dir, &[]).contains("0 steps done"));
    // A file of its own for another Dockerfile.
    fs::write(dir.join("Other"), "FROM bb\nCOPY . /c/\n").unwrap();
    fs::write(dir.join("Other.dockerignore"), "*\n!keep\n").unwrap();
    let other = dir.join("Other");
    build(&e, &dir, &["-t", "o", "-f", other.to_str().unwrap()]);
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "o", "ls", "-A", "/c"]), "keep");
    e.finish();
}

#[test]
fn steps_get_caches_secrets_and_files_that_leave_no_trace() {
    let e = Engine::new();
    let file = "FROM bb AS tool\nRUN echo from-stage > /made\nFROM bb\n\
        RUN --mount=type=cache,target=/deep/cache echo one >> /deep/cache/log && wc -l < /deep/cache/log\n\
        RUN --mount=type=cache,target=/deep/cache,sharing=locked test -s /deep/cache/log\n\
        RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S test \"$(cat /run/secrets/s)$S\" = geheimgeheim\n\
        RUN --mount=type=bind,target=/b,rw --mount=from=tool,source=/made,target=/m cat /b/a /m; echo > /b/new\n\
        RUN --mount=type=tmpfs,target=/t,size=1m echo > /t/x\n\
        RUN <<E\n#!/bin/sh\necho $0 > /script\nE\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file), ("a", "context")]);
    let secret = e.path("secret");
    fs::write(&secret, "geheim").unwrap();
    let given = format!("id=s,src={}", secret.display());
    let said = build(&e, &dir, &["-t", "m", "--secret", &given]);
    assert!(said.contains("context") && said.contains("from-stage"), "{said}");
    assert!(!dir.join("new").exists());
    // The cache is there the next time.
    let said = build(&e, &dir, &["-t", "m2", "--secret", &given, "--no-cache"]);
    assert!(said.lines().any(|line| line.ends_with(" 2")), "{said}");
    let all =
        e.ok(["run", "--rm", "--network", "none", "m", "find", "/", "-xdev", "-maxdepth", "1"]);
    for place in ["/deep", "/b", "/m", "/t", "/run"] {
        assert!(!all.lines().any(|line| line == place), "{place} is left:\n{all}");
    }
    assert!(e.ok(["builder", "du"]).contains("/deep/cache"));
    e.ok(["builder", "prune", "-af"]);
    assert!(!e.ok(["builder", "du"]).contains("/deep/cache"));
    assert_eq!(fs::read_dir(e.run_root().join("build")).unwrap().count(), 0);
    e.finish();
}

#[test]
fn what_a_base_wants_is_done_in_the_next_build() {
    let e = Engine::new();
    let dir = context(
        &e,
        "ctx",
        &[("Dockerfile", "FROM bb\nONBUILD COPY f /f\nONBUILD RUN cat /f\n"), ("f", "content")],
    );
    build(&e, &dir, &["-t", "base"]);
    fs::write(dir.join("Dockerfile"), "FROM base\nRUN cp /f /g\n").unwrap();
    let said = build(&e, &dir, &["-t", "child"]);
    assert!(said.contains("ONBUILD COPY f /f") && said.contains("content"), "{said}");
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "child", "cat", "/g"]), "content");
    assert_eq!(e.ok(["image", "inspect", "-f", "{{json .Config.OnBuild}}", "child"]), "null");
    e.finish();
}

#[test]
fn contexts_come_in_other_ways_too() {
    let e = Engine::new();
    let output =
        e.with_input(["build", "--network", "none", "-q", "-"], b"FROM bb\nRUN echo hi > /x\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let id = text(&output.stdout);
    assert!(id.starts_with("sha256:") && text(&output.stderr).is_empty());
    assert_eq!(e.ok(["run", "--rm", "--network", "none", &id, "cat", "/x"]), "hi");
    let dir = context(
        &e,
        "ctx",
        &[("sub/Df", "FROM bb\nCOPY f /\nCOPY --from=more g /\nADD t.tar /t/\n"), ("f", "1")],
    );
    let more = context(&e, "more", &[("g", "2"), ("packed/p", "3")]);
    let tar = |from: &PathBuf, what: &str, to: &PathBuf| {
        let done = Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).arg(what).status();
        assert!(done.unwrap().success());
    };
    tar(&more, "packed", &dir.join("t.tar"));
    let all = e.path("all.tar");
    tar(&dir, ".", &all);
    let named = format!("more={}", more.display());
    let bytes = fs::read(&all).unwrap();
    let args = [
        "build",
        "--network",
        "none",
        "-t",
        "tarred",
        "-f",
        "sub/Df",
        "--build-context",
        &named,
        "-",
    ];
    let output = e.with_input(args, &bytes);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        e.ok(["run", "--rm", "--network", "none", "tarred", "cat", "/f", "/g", "/t/packed/p"]),
        "123"
    );
    assert_eq!(fs::read_dir(e.data_root().join("cache/uploads")).unwrap().count(), 0);
    let iid = e.path("iid");
    let dockerfile = dir.join("sub/Df");
    build(
        &e,
        &dir,
        &[
            "--iidfile",
            iid.to_str().unwrap(),
            "-f",
            dockerfile.to_str().unwrap(),
            "--build-context",
            &named,
        ],
    );
    assert!(fs::read_to_string(&iid).unwrap().starts_with("sha256:"));
    let graph =
        e.ok(["build", "--print-graph", "-f", dockerfile.to_str().unwrap(), dir.to_str().unwrap()]);
    assert!(graph.contains("stage 0 upon image bb, the target"), "{graph}");
    e.finish();
}

#[test]
fn the_cache_keeps_its_layers_until_it_is_pruned() {
    let e = Engine::new();
    let dir = context(
        &e,
        "ctx",
        &[("Dockerfile", "FROM bb\nRUN head -c 100000 /dev/zero > /big\nRUN echo x > /y\n")],
    );
    build(&e, &dir, &["-t", "c"]);
    e.ok(["rmi", "c"]);
    e.ok(["image", "prune", "-f"]);
    assert!(e.ok(["builder", "du"]).contains("head -c 100000"));
    assert!(build(&e, &dir, &["-t", "c"]).contains("0 steps done"));
    // What an image has stays in the cache, unless all is to go.
    e.ok(["builder", "prune", "-f"]);
    assert!(build(&e, &dir, &[]).contains("0 steps done"));
    e.ok(["rmi", "-f", "c"]);
    let out = e.ok(["builder", "prune", "-af"]);
    assert!(out.starts_with("Total reclaimed space: 100"), "{out}");
    assert!(build(&e, &dir, &[]).contains("2 steps done"));
    e.finish();
}

#[test]
fn a_killed_build_leaves_only_what_the_next_one_uses() {
    let e = Engine::new();
    let dir = context(
        &e,
        "ctx",
        &[("Dockerfile", "FROM bb\nRUN echo first > /first\nRUN echo begun; sleep 1000\n")],
    );
    let mut child = e.spawn(["build", "--network", "none", dir.to_str().unwrap()]);
    let running = || e.run_root().join("running").read_dir().is_ok_and(|list| list.count() > 0);
    until("the second step", || running() && e.ok(["builder", "du"]).contains("first"));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(dir.join("Dockerfile"), "FROM bb\nRUN echo first > /first\nRUN echo second\n")
        .unwrap();
    let said = build(&e, &dir, &["-t", "k"]);
    assert!(said.contains("1 step done, 1 from the cache"), "{said}");
    until("nothing runs", || !running());
    e.finish();
}

#[test]
fn a_result_can_be_had_as_files() {
    let e = Engine::new();
    let file = "FROM bb AS b\nRUN mkdir /o && echo x > /o/f && chown 5:6 /o/f && ln -s f /o/l\nFROM scratch\nCOPY --from=b /o /\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    let images = e.ok(["images", "-aq"]);
    let out = e.path("out");
    build(&e, &dir, &["-o", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("l")).unwrap(), "x\n");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(out.join("f")).unwrap()), 5);
    let listed = |path: &PathBuf| {
        let output = Command::new("tar").arg("-tf").arg(path).output().unwrap();
        text(&output.stdout)
    };
    let tar = e.path("out.tar");
    build(&e, &dir, &["-o", &format!("type=tar,dest={}", tar.display())]);
    assert_eq!(listed(&tar), "f\nl");
    let output = e.run(["build", "--network", "none", "-o", "-", dir.to_str().unwrap()]);
    assert_eq!(output.stdout, fs::read(&tar).unwrap());
    // Nothing of this made an image.
    assert_eq!(e.ok(["images", "-aq"]), images);
    for kind in ["docker", "oci"] {
        build(&e, &dir, &["-t", "saved", "-o", &format!("type={kind},dest={}", tar.display())]);
        e.ok(["rmi", "saved"]);
        assert!(e.ok(["load", "-i", tar.to_str().unwrap()]).contains("saved"), "{kind}");
    }
    assert!(build_fails(&e, &dir, &["-o", "type=zip"]).contains("the type is"));
    e.finish();
}

#[test]
fn two_builds_are_compared() {
    let e = Engine::new();
    let dir =
        context(&e, "ctx", &[("Dockerfile", "FROM bb\nRUN echo x > /x\nCOPY . /c\n"), ("f", "1")]);
    let said = build(&e, &dir, &["--verify", "-t", "same"]);
    assert!(!said.contains("CACHED"), "{said}");
    let file = "FROM bb\nRUN echo x > /x\nRUN mkdir /d && echo 1 > /d/a && head -c 9 /dev/urandom > /d/b\n";
    fs::write(dir.join("Dockerfile"), file).unwrap();
    let said = build_fails(&e, &dir, &["--verify"]);
    assert!(
        said.contains("[3/3] RUN mkdir /d") && said.contains("/d/b: its content differs"),
        "{said}"
    );
    e.finish();
}

#[test]
fn a_build_that_is_given_up_ends_its_command() {
    let e = Engine::new();
    let dir = context(
        &e,
        "ctx",
        &[("Dockerfile", "FROM bb\nRUN echo first > /first\nRUN echo begun; sleep 1000\n")],
    );
    let mut child = e.spawn(["build", "--network", "none", dir.to_str().unwrap()]);
    let running = || e.run_root().join("running").read_dir().is_ok_and(|list| list.count() > 0);
    // Its output says that the command runs.
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    while !said.ends_with("begun\n") || said.ends_with("echo begun\n") {
        let n = std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        assert!(n > 0, "{said}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    until("nothing runs", || !running());
    // Nobody had to clean up.
    assert_eq!(fs::read_dir(e.data_root().join("containers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(e.run_root().join("build")).map_or(0, |list| list.count()), 0);
    e.finish();
}

/// Two stages of which each waits for what the other one writes.
const BESIDE: &str = "\
FROM bb AS a
RUN --mount=type=cache,id=m,target=/m touch /m/a; for i in $(seq 600); do [ -e /m/b ] && break; sleep 0.1; done; test -e /m/b
FROM bb AS b
RUN --mount=type=cache,id=m,target=/m touch /m/b; for i in $(seq 600); do [ -e /m/a ] && break; sleep 0.1; done; test -e /m/a
RUN echo b > /b
FROM bb
COPY --from=a /bin/sh /a
COPY --from=b /b /b
";

#[test]
fn stages_that_do_not_need_each_other_go_side_by_side() {
    let e = Engine::new();
    let dir = context(&e, "ctx", &[("Dockerfile", BESIDE)]);
    let said = build(&e, &dir, &["-t", "one"]);
    assert!(said.contains("5 steps done, 0 from the cache"), "{said}");
    let said = build(&e, &dir, &["-t", "two"]);
    assert!(said.contains("0 steps done, 5 from the cache"), "{said}");
    assert_eq!(e.inspect("{{.Id}}", "one"), e.inspect("{{.Id}}", "two"));
    build(&e, &dir, &["--verify"]);

    // The failure of one ends the other.
    let file = "FROM bb AS a\nRUN sleep 1000\nFROM bb AS b\nRUN exit 7\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=b /x /\n";
    fs::write(dir.join("Dockerfile"), file).unwrap();
    let said = build_fails(&e, &dir, &[]);
    assert!(said.contains("Dockerfile:4") && said.contains("exit code: 7"), "{said}");

    // As does somebody who has waited long enough.
    fs::write(dir.join("Dockerfile"), file.replace("exit 7", "sleep 1000")).unwrap();
    let mut child = e.spawn(["build", "--network", "none", dir.to_str().unwrap()]);
    let running = || e.run_root().join("running").read_dir().map_or(0, Iterator::count);
    until("both steps", || running() == 2);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(running(), 0);
    e.finish();
}

#[test]
fn a_terminal_shows_what_runs() {
    let e = Engine::new();
    let file = "FROM bb\nRUN echo first\nRUN echo working; sleep 0.7; printf 'at the end'; sleep 0.7\nRUN exit 7\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    let mut screen =
        Screen::new(e.command().args(["build", "--network", "none", dir.to_str().unwrap()]));
    screen.until("| working");
    screen.until("| at the end");
    assert_eq!(screen.end(), 1);
    // The reason stands below what was drawn.
    let (drawn, reason) = screen.seen.split_once("ERROR  [4/4] RUN exit 7").unwrap();
    assert!(
        drawn.contains("s  [3/4] RUN echo working") && reason.contains("exit code: 7"),
        "{}",
        screen.seen
    );
    e.finish();
}

#[test]
fn a_failed_step_can_be_entered() {
    let e = Engine::new();
    let file = "FROM bb\nENV V=value\nWORKDIR /work\n\
        RUN --mount=type=secret,id=s,env=S --mount=type=cache,target=/c echo made > made; echo cached > /c/x; exit 7\n";
    let dir = context(&e, "ctx", &[("Dockerfile", file)]);
    let secret = e.path("secret");
    fs::write(&secret, "geheim").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    let args = [
        "build",
        "--network",
        "none",
        "--debug-on-failure",
        "--secret",
        &secret,
        dir.to_str().unwrap(),
    ];
    let output = e.with_input(args, b"cat made /c/x; echo $V $S; pwd; exit 3\n");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(text(&output.stdout), "made\ncached\nvalue geheim\n/work", "{said}");
    assert!(said.matches("exit code: 7").count() == 2 && said.contains("A shell in"), "{said}");

    let mut screen = Screen::new(e.command().args(args));
    screen.until("the build ends with it");
    screen.until("# ");
    screen.types("tty -s && echo $((6*7)) && exit\n");
    screen.until("42");
    assert_eq!(screen.end(), 1);
    // Who gives it up leaves nothing either.
    let mut screen = Screen::new(e.command().args(args));
    screen.until("# ");
    screen.kill(rustix::process::Signal::TERM);
    screen.end();
    assert_eq!(fs::read_dir(e.data_root().join("containers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(e.run_root().join("build")).map_or(0, |list| list.count()), 0);
    e.fails(1, ["build", "--debug-on-failure", "-"]);
    e.finish();
}
