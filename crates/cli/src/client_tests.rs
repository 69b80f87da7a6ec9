//! The whole command line against what Docker's client does.

use std::ffi::OsString;
use std::process::Command;

use proptest::prelude::*;

use crate::app::{group_help, root_help_text};
use crate::failure::Failure;
use crate::flags;
use crate::registry::{GROUPS, VERBS, find};

/// Docker's client, where there is one; its help needs no engine.
fn docker(args: &[&str]) -> Option<String> {
    let out = Command::new("docker")
        .args(args)
        .arg("--help")
        .env("DOCKER_HOST", "unix:///nonexistent")
        .output()
        .ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Short letter, long name and kind of every option in a help text of Docker's.
fn options(help: &str) -> Vec<(Option<char>, String, bool)> {
    help.lines()
        .skip_while(|l| !l.starts_with("Options:"))
        .skip(1)
        .filter_map(|line| {
            let (short, rest) = match line.strip_prefix("  -") {
                Some(rest) if !rest.starts_with('-') => {
                    (rest.chars().next(), rest.get(1..)?.strip_prefix(", --")?)
                }
                _ => (None, line.strip_prefix("      --")?),
            };
            let (name, after) = rest.split_once(' ').unwrap_or((rest, ""));
            // One space and a word is the kind of value; more spaces are the description.
            let takes_value = !after.starts_with(' ') && !after.is_empty();
            Some((short, name.to_owned(), takes_value))
        })
        .collect()
}

#[test]
fn every_option_of_dockers_client_is_known_here() {
    if docker(&["run"]).is_none() {
        eprintln!("skipped: no docker client was found");
        return;
    }
    let ours = ["doctor", "show", "man", "completion", "copy", "serve", "du"];
    let mut looked_at = 0;
    let mut problems = Vec::new();
    for entry in VERBS {
        let path = entry.spec.paths[0];
        if ours.contains(path.last().unwrap()) {
            continue;
        }
        let help = docker(path).unwrap_or_else(|| panic!("docker has no {path:?}"));
        let command = entry.command();
        for (short, long, takes_value) in options(&help) {
            looked_at += 1;
            let Some(arg) = command.get_arguments().find(|a| a.get_long() == Some(&long)) else {
                problems.push(format!("{path:?}: --{long} is missing"));
                continue;
            };
            if arg.get_short() != short && long != "help" {
                problems.push(format!(
                    "{path:?}: --{long} has the letter {:?}, not {short:?}",
                    arg.get_short()
                ));
            }
            if flags::is_switch(arg) == takes_value && long != "help" {
                problems.push(format!("{path:?}: --{long} takes a value: {takes_value}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(looked_at > 200, "{looked_at}");
}

#[test]
fn every_spelling_of_dockers_client_is_known_here() {
    for group in ["container", "image", "volume", "system"] {
        let Some(help) = docker(&[group]) else { return };
        let verbs = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1);
        for verb in verbs.filter_map(|l| l.strip_prefix("  ")?.split(' ').next()) {
            // `volume update` is for clusters only.
            if (group, verb) == ("volume", "update") {
                continue;
            }
            assert!(find(&[group, verb]).is_some_and(|(_, n)| n == 2), "{group} {verb}");
        }
    }
}

fn parse(args: &[&str]) -> Result<clap::ArgMatches, Failure> {
    let (entry, used) = find(args).unwrap();
    let rest: Vec<OsString> = args[used..].iter().map(Into::into).collect();
    flags::parse("docker", &args[..used].join(" "), &mut entry.command(), &entry.spec, &rest)
}

#[test]
fn mistakes_are_answered_as_docker_answers() {
    for (args, code, message) in [
        ("run --foo x", 125, "unknown flag: --foo"),
        ("run --foo=1 x", 125, "unknown flag: --foo"),
        ("run -Z x", 125, "unknown shorthand flag: 'Z' in -Z"),
        ("run -itdx i", 125, "unknown shorthand flag: 'x' in -x"),
        ("run --memory", 125, "flag needs an argument: --memory"),
        ("run -m", 125, "flag needs an argument: 'm' in -m"),
        ("run -itm", 125, "flag needs an argument: 'm' in -m"),
        (
            "run --memory x i",
            125,
            "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'",
        ),
        ("run -mx i", 125, "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
        (
            "run --cpus=x i",
            125,
            "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
        ),
        (
            "run --rm=x i",
            125,
            "invalid argument \"x\" for \"--rm\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "run --blkio-weight 99999999 i",
            125,
            "invalid argument \"99999999\" for \"--blkio-weight\" flag: strconv.ParseUint: parsing \"99999999\": value out of range",
        ),
        (
            "run --ulimit a i",
            125,
            "invalid argument \"a\" for \"--ulimit\" flag: invalid ulimit argument: a",
        ),
        (
            "run --health-interval x i",
            125,
            "invalid argument \"x\" for \"--health-interval\" flag: time: invalid duration \"x\"",
        ),
        (
            "run --mount foo i",
            125,
            "invalid argument \"foo\" for \"--mount\" flag: invalid field 'foo' must be a key=value pair",
        ),
        (
            "run --sysctl a i",
            125,
            "invalid argument \"a\" for \"--sysctl\" flag: sysctl 'a' is not allowed",
        ),
        (
            "run --device-read-bps a i",
            125,
            "invalid argument \"a\" for \"--device-read-bps\" flag: bad format: a",
        ),
        (
            "run --link a:b:c i",
            125,
            "invalid argument \"a:b:c\" for \"--link\" flag: bad format for links: a:b:c",
        ),
        (
            "run --dns x i",
            125,
            "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x",
        ),
        (
            "run --add-host x i",
            125,
            "invalid argument \"x\" for \"--add-host\" flag: bad format for add-host: \"x\"",
        ),
        (
            "run -a foo i",
            125,
            "invalid argument \"foo\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
        ),
        (
            "run --device-cgroup-rule x i",
            125,
            "invalid argument \"x\" for \"--device-cgroup-rule\" flag: invalid device cgroup format 'x'",
        ),
        (
            "ps --last x",
            125,
            "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "ps -f x",
            125,
            "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
        ),
        ("ps extra", 1, "'docker ps' accepts no arguments"),
        ("rm", 1, "'docker rm' requires at least 1 argument"),
        ("logs", 1, "'docker logs' requires 1 argument"),
        ("cp a", 1, "'docker cp' requires 2 arguments"),
        ("container rename a", 1, "'docker container rename' requires 2 arguments"),
        ("exec a", 1, "'docker exec' requires at least 2 arguments"),
        ("commit a b c", 1, "'docker commit' requires at least 1 and at most 2 arguments"),
        ("images a b", 1, "'docker images' requires at most 1 argument"),
    ] {
        let words: Vec<&str> = args.split(' ').collect();
        let failure = parse(&words).expect_err(args);
        assert_eq!((failure.code, failure.message.as_str()), (code, message), "{args}");
    }
}

#[test]
fn options_are_read_as_docker_reads_them() {
    // Options end at the image; what follows is the command's.
    let m = parse(&[
        "run",
        "-itd",
        "--rm=false",
        "-e=A=1",
        "-eB=2",
        "--name",
        "x",
        "image",
        "ls",
        "-l",
        "--",
        "--rm",
    ])
    .unwrap();
    assert!(m.get_flag("interactive") && m.get_flag("tty") && m.get_flag("detach"));
    assert!(!m.get_flag("rm"));
    let list = |m: &clap::ArgMatches, id: &str| -> Vec<String> {
        m.get_many::<String>(id).map(|v| v.cloned().collect()).unwrap_or_default()
    };
    assert_eq!(list(&m, "env"), ["A=1", "B=2"]);
    assert_eq!(list(&m, "args"), ["image", "ls", "-l", "--", "--rm"]);
    // The last of a repeated option counts; a value may look like an option.
    let m = parse(&["run", "--memory-swap", "-1", "--name", "a", "--name", "--rm", "i"]).unwrap();
    assert_eq!(m.get_one::<i64>("memory_swap"), Some(&-1));
    assert_eq!(m.get_one::<String>("name").map(String::as_str), Some("--rm"));
    // The first double dash ends the options and is dropped.
    let m = parse(&["run", "--rm", "--rootfs", "/", "--", "ls", "/"]).unwrap();
    assert_eq!(list(&m, "args"), ["ls", "/"]);
    // Elsewhere options may follow arguments.
    let m = parse(&["rm", "a", "-f", "b"]).unwrap();
    assert!(m.get_flag("force"));
    assert_eq!(list(&m, "args"), ["a", "b"]);
    // Switches that are on by default can be turned off.
    assert!(!parse(&["run", "--sig-proxy=false", "i"]).unwrap().get_flag("sig_proxy"));
    assert!(parse(&["run", "i"]).unwrap().get_flag("sig_proxy"));
    assert_eq!(parse(&["run", "--init", "i"]).unwrap().get_one::<bool>("init"), Some(&true));
    // Options of ps(1) are not ours.
    assert_eq!(list(&parse(&["top", "a", "-eo", "pid"]).unwrap(), "args"), ["a", "-eo", "pid"]);
}

#[test]
fn both_spellings_are_one_verb() {
    for (short, long) in [
        (&["ps"][..], ["container", "ls"]),
        (&["ps"], ["container", "list"]),
        (&["ps"], ["container", "ps"]),
        (&["images"], ["image", "ls"]),
        (&["rmi"], ["image", "rm"]),
        (&["rmi"], ["image", "remove"]),
        (&["info"], ["system", "info"]),
        (&["events"], ["system", "events"]),
        (&["run"], ["container", "run"]),
    ] {
        let (a, b) = (find(short).unwrap().0, find(&long).unwrap().0);
        assert_eq!(a.spec.paths, b.spec.paths);
    }
    let mut all: Vec<_> = VERBS.iter().flat_map(|e| e.spec.paths).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a spelling belongs to two verbs");
}

#[test]
fn helps() {
    insta::assert_snapshot!("help", root_help_text("wherry"));
    for (group, about) in GROUPS {
        insta::assert_snapshot!(format!("help-{group}"), group_help("wherry", group, about));
    }
    for entry in VERBS {
        let path = entry.spec.paths[0];
        let mut command = entry.command();
        command.build();
        let text = flags::help("wherry", &path.join(" "), &command, &entry.spec, 80);
        insta::assert_snapshot!(format!("help-{}", path.join("-")), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_command_line_panics(
        verb in 0..VERBS.len(),
        args in proptest::collection::vec("(--?[a-z-]{0,12}(=[a-z0-9:/,.-]{0,6})?|[a-z0-9:/=.,-]{0,8})", 0..6),
    ) {
        let entry = &VERBS[verb];
        let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
        let _ = flags::parse("wherry", "x", &mut entry.command(), &entry.spec, &args);
    }
}
