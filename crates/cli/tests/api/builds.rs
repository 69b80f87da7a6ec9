//! `docker build` as the classic builder's client.

use std::fs;
use std::process::{Output, Stdio};

use crate::harness::{text, until};
use crate::server::Served;

/// `docker` without BuildKit; none here is nothing tested.
fn docker(served: &Served, args: &[&str]) -> Option<Output> {
    let mut command = served.client("docker");
    command.env("DOCKER_BUILDKIT", "0").args(args);
    match command.output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("not tested: there is no docker client here");
            None
        }
    }
}

fn context(served: &Served, files: &[(&str, &str)]) -> String {
    let dir = served.engine.path("ctx");
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

const FILE: &str = "\
FROM bb AS build
ARG V=1
WORKDIR /src
COPY . .
RUN ls | sort | tr '\\n' ' '; echo \"v is $V\"; echo problem >&2
FROM bb
COPY --from=build /src/a /a
LABEL x=y
CMD [\"cat\", \"/a\"]
";

#[test]
fn docker_builds() {
    let served = Served::new();
    let files = [
        ("Dockerfile", FILE),
        ("a", "content\n"),
        ("ignored", "x"),
        (".dockerignore", "ignored\n.dockerignore\nDockerfile\n"),
        ("other/Dockerfile.two", "FROM bb\nRUN exit 7\n"),
    ];
    let dir = context(&served, &files);
    let id = served.engine.path("iid");
    let all = ["build", "--network", "none", "-t", "one", "-t", "two:2", "--build-arg", "V=9"];
    let more = ["--label", "k=v", "--iidfile", id.to_str().unwrap(), &dir];
    let Some(built) = docker(&served, &[&all[..], &more].concat()) else { return };
    let said = text(&built.stdout);
    assert!(built.status.success(), "{said}\n{}", text(&built.stderr));
    for part in [
        "Step 1/9 : FROM bb AS build",
        "Step 9/9 : CMD",
        "a other v is 9",
        "problem",
        "Successfully built ",
        "Successfully tagged one:latest",
        "Successfully tagged two:2",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let e = &served.engine;
    assert_eq!(
        e.ok(["image", "inspect", "-f", "{{.Id}}", "two:2"]),
        fs::read_to_string(&id).unwrap()
    );
    assert_eq!(
        e.ok(["image", "inspect", "-f", "{{json .Config.Labels}}", "one"]),
        r#"{"k":"v","x":"y"}"#
    );
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "one"]), "content");
    // Nothing of it is anybody's: no containers, no events of any.
    assert_eq!(e.ok(["info", "--format", "{{.Containers}}"]), "0");
    let events = e.ok(["events", "--since", "1h", "--until", "0s", "--filter", "type=container"]);
    assert!(!events.contains("image=bb"), "{events}");

    // What is there is said to be, instructions that change no file included; of an image that is not there
    // there is no cache.
    let cached = |more: &[&str]| {
        let again = docker(&served, &[&all[..], more, &["--label", "k=v", &dir]].concat()).unwrap();
        text(&again.stdout).matches("Using cache").count()
    };
    assert!(cached(&["--cache-from", "two:2"]) > 3);
    assert_eq!(cached(&["--cache-from", "nosuch"]), 0);

    let again = docker(
        &served,
        &["build", "-q", "--network", "none", "--build-arg", "V=9", "--label", "k=v", &dir],
    );
    assert_eq!(text(&again.unwrap().stdout), fs::read_to_string(&id).unwrap());

    let file = format!("{dir}/other/Dockerfile.two");
    let failed = docker(&served, &["build", "--network", "none", "-f", &file, &dir]).unwrap();
    assert_eq!(failed.status.code(), Some(7), "{}", text(&failed.stderr));
    let words = "The command '/bin/sh -c exit 7' returned a non-zero code: 7";
    assert!(text(&failed.stderr).contains(words), "{}", text(&failed.stderr));
    assert!(text(&failed.stdout).contains("    2 > RUN exit 7"), "{}", text(&failed.stdout));

    fs::write(&file, "FROM bb\nCOPY nosuch /\n").unwrap();
    let failed = docker(&served, &["build", "-f", &file, &dir]).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("nosuch"), "{}", text(&failed.stderr));

    let pruned = docker(&served, &["builder", "prune", "-a", "-f"]).unwrap();
    assert!(text(&pruned.stdout).contains("Total"), "{pruned:?}");
    assert!(!e.ok(["builder", "du"]).contains("COPY"));
    served.finish();
}

#[test]
fn a_client_that_goes_away_ends_the_build() {
    let served = Served::new();
    let dir = context(&served, &[("Dockerfile", "FROM bb\nRUN echo begun; sleep 1000\n")]);
    let mut command = served.client("docker");
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--network", "none", &dir]);
    let Ok(mut client) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        eprintln!("not tested: there is no docker client here");
        return;
    };
    let running = served.engine.run_root().join("running");
    let runs = || running.read_dir().is_ok_and(|list| list.count() > 0);
    until("the step", runs);
    client.kill().unwrap();
    client.wait().unwrap();
    until("the step's end", || !runs());
    until("nothing unpacked is left", || {
        let uploads = served.engine.data_root().join("cache/uploads");
        uploads.read_dir().is_ok_and(|list| list.count() == 0)
    });
    served.finish();
}

#[test]
fn our_own_client_builds_elsewhere() {
    let served = Served::new();
    let files = [
        ("Dockerfile", FILE),
        ("a", "content\n"),
        ("ignored", "x"),
        ("deep/b", "deep\n"),
        (".dockerignore", "ignored\nDockerfile\n"),
    ];
    let dir = context(&served, &files);
    std::os::unix::fs::symlink("a", format!("{dir}/link")).unwrap();
    let host = format!("unix://{}", served.socket().display());
    let there = |args: &[&str]| {
        let mut all = vec!["-H", &host, "build", "--network", "none"];
        all.extend(args);
        served.engine.run(all)
    };
    // The same image as here, whichever way the files came.
    let elsewhere = served.engine.path("Elsewhere");
    fs::write(&elsewhere, FILE).unwrap();
    let here = |args: &[&str]| {
        let mut all = vec!["build", "-q", "--network", "none", "--build-arg", "V=2"];
        all.extend(args);
        served.engine.ok(all)
    };
    let file = ["-f", elsewhere.to_str().unwrap()];
    for more in [&[][..], &file[..]] {
        let args =
            [&["--no-cache", "--build-arg", "V=2", "-t", "x:1"], more, &[dir.as_str()]].concat();
        let output = there(&args);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("v is 2") && said.contains("problem"), "{said}");
        assert!(!said.contains("ignored") && !said.contains(".dockerfile"), "{said}");
        assert_eq!(text(&output.stdout), "");
        let id = here(&[more, &[dir.as_str()]].concat());
        assert_eq!(served.engine.ok(["inspect", "-f", "{{.Id}}", "x:1"]), id);
        let output = there(&[&["-q", "--build-arg", "V=2"], more, &[dir.as_str()]].concat());
        assert!(id.contains(&text(&output.stdout)) && output.stderr.is_empty(), "{output:?}");
    }
    // From standard input: a Dockerfile, an archive.
    let host = ["-H", host.as_str(), "build", "--network", "none", "-"];
    let output = served.engine.with_input(host, b"FROM bb\nRUN echo piped\n");
    assert!(text(&output.stderr).contains("piped"), "{}", text(&output.stderr));
    let tar = std::process::Command::new("tar").args(["-C", &dir, "-c", "."]).output().unwrap();
    let output = served.engine.with_input(host, &tar.stdout);
    assert!(text(&output.stderr).contains("v is 1"), "{}", text(&output.stderr));

    fs::write(format!("{dir}/Dockerfile"), "FROM bb\nRUN exit 3\n").unwrap();
    let output = there(&[&dir]);
    assert!(!output.status.success() && text(&output.stderr).contains("exit code: 3"));
    fs::write(format!("{dir}/Dockerfile"), "FROM bb\nRUNN x\n").unwrap();
    let output = there(&[&dir]);
    assert!(text(&output.stderr).contains("Dockerfile:2"), "{}", text(&output.stderr));
    let output = there(&["--secret", "id=x", &dir]);
    assert!(text(&output.stderr).contains("--secret: the API"), "{}", text(&output.stderr));
}
