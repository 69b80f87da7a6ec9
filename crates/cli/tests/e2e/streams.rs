//! Output, input, terminals, journals.

use std::io::{Read, Write};

use crate::harness::{Engine, text, until};

#[test]
fn streams_are_kept_apart_and_whole() {
    let e = Engine::new();
    let output = e.run(["run", "--rm", "bb", "sh", "-c", "echo o; echo e >&2; printf tail"]);
    assert_eq!((output.stdout, output.stderr), (b"o\ntail".to_vec(), b"e\n".to_vec()));
    let output = e.run(["run", "--rm", "bb", "sh", "-c", "head -c 3000000 /dev/zero"]);
    assert_eq!(output.stdout.len(), 3_000_000);
    e.finish();
}

#[test]
fn input_reaches_the_container_and_ends() {
    let e = Engine::new();
    let output = e.with_input(["run", "--rm", "-i", "bb", "wc", "-c"], &vec![7; 1_000_000]);
    assert_eq!(text(&output.stdout), "1000000");
    // Without -i there is nothing to read.
    let output = e.with_input(["run", "--rm", "bb", "wc", "-c"], b"ignored");
    assert_eq!(text(&output.stdout), "0");
    e.finish();
}

#[test]
fn a_reader_that_leaves_ends_the_pipe() {
    let e = Engine::new();
    let mut child = e.spawn(["run", "--rm", "--name", "y1", "bb", "yes"]);
    let mut first = [0; 1000];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    child.wait().unwrap();
    e.ok(["rm", "-f", "y1"]);
    e.finish();
}

#[test]
fn logs_tail_since_timestamps_and_follow() {
    let e = Engine::new();
    e.ok(["run", "--name", "l1", "bb", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done"]);
    assert_eq!(e.ok(["logs", "-n", "2", "l1"]), "line 4\nline 5");
    assert_eq!(e.ok(["logs", "--tail", "0", "l1"]), "");
    let stamped = e.ok(["logs", "-t", "-n", "1", "l1"]);
    assert!(stamped.starts_with("20") && stamped.ends_with("Z line 5"), "{stamped}");
    assert_eq!(e.ok(["logs", "--since", "1h", "l1"]).lines().count(), 5);
    assert_eq!(e.ok(["logs", "--until", "1h", "l1"]), "");
    // Following a container ends with it and has every line.
    e.ok([
        "run",
        "-d",
        "--name",
        "f1",
        "bb",
        "sh",
        "-c",
        "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done; sleep 0.2; echo last",
    ]);
    let followed = e.ok(["logs", "-f", "f1"]);
    assert_eq!(followed.lines().count(), 201);
    assert!(followed.ends_with("last"));
    e.finish();
}

#[test]
fn a_journal_is_bounded() {
    let e = Engine::new();
    let id = e.ok([
        "run",
        "-d",
        "--log-opt",
        "max-size=50k",
        "--log-opt",
        "max-file=2",
        "bb",
        "sh",
        "-c",
        "i=0; while [ $i -lt 20000 ]; do echo some line number $i; i=$((i+1)); done",
    ]);
    e.ok(["wait", &id]);
    let dir = e.data_root().join("containers").join(&id);
    let size: u64 = std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("journal"))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(size < 2 * (50 * 1024 + 3 * 64 * 1024), "{size}");
    assert!(e.ok(["logs", &id]).ends_with("some line number 19999"));
    e.finish();
}

#[test]
fn log_drivers() {
    let e = Engine::new();
    e.ok(["run", "--name", "n1", "--log-driver", "none", "bb", "echo", "x1"]);
    assert!(e.fails(1, ["logs", "n1"]).contains("does not support reading"));
    assert_eq!(e.ok(["run", "--rm", "--log-driver", "none", "bb", "echo", "seen"]), "seen");
    assert_eq!(
        e.ok(["run", "--rm", "--log-driver", "passthrough", "bb", "echo", "direct"]),
        "direct"
    );
    assert!(
        e.fails(125, ["run", "--rm", "--log-driver", "syslog", "bb", "true"]).contains("syslog")
    );
    assert!(
        e.fails(125, ["run", "--rm", "--log-opt", "max-size=x", "bb", "true"]).contains("max-size")
    );
    e.finish();
}

#[test]
fn several_clients_attach_to_one_container() {
    let e = Engine::new();
    e.ok(["run", "-di", "--name", "a1", "bb", "sh", "-c", "while read l; do echo got $l; done"]);
    let mut first = e.spawn(["attach", "a1"]);
    let mut second = e.spawn(["attach", "--no-stdin", "a1"]);
    let mut input = first.stdin.take().unwrap();
    // Both must be attached before the line that both are to see.
    let mut seen = String::new();
    let mut output = second.stdout.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut block = [0; 4096];
        while let Ok(n) = output.read(&mut block) {
            if n == 0 || sender.send(String::from_utf8_lossy(&block[..n]).into_owned()).is_err() {
                break;
            }
        }
    });
    until("the second client hears the first", || {
        input.write_all(b"hello\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        seen.extend(receiver.try_iter());
        seen.contains("got hello")
    });
    e.ok(["kill", "a1"]);
    assert_eq!(first.wait().unwrap().code(), Some(137));
    assert_eq!(second.wait().unwrap().code(), Some(137));
    reader.join().unwrap();
    e.finish();
}

/// Runs a command under script(1), which gives it a terminal.
fn on_terminal(e: &Engine, command: &str, input: &[u8]) -> String {
    let line = format!("stty rows 33 cols 77; {} {command}", env!("CARGO_BIN_EXE_wherry"));
    let mut child = e
        .host
        .command("script")
        .args(["-qec", &line, "/dev/null"])
        .env("WHERRY_DATA_ROOT", e.data_root())
        .env("WHERRY_RUN_ROOT", e.run_root())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

/// Runs a command on a terminal and types the same again and again until it ends: what is
/// typed before it has set the terminal to raw mode is lost, as with any program.
fn typed_until_it_ends(e: &Engine, command: &str, keys: &[u8]) {
    let line = format!("{} {command}", env!("CARGO_BIN_EXE_wherry"));
    let mut child = e
        .host
        .command("script")
        .args(["-qec", &line, "/dev/null"])
        .env("WHERRY_DATA_ROOT", e.data_root())
        .env("WHERRY_RUN_ROOT", e.run_root())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    until("the command ends", || {
        let _ = input.write_all(keys);
        std::thread::sleep(std::time::Duration::from_millis(100));
        child.try_wait().unwrap().is_some()
    });
}

#[test]
fn a_terminal_has_a_size_and_a_name() {
    let e = Engine::new();
    let out = on_terminal(&e, "run --rm -it bb sh -c 'tty; stty size; test -t 1 && echo yes'", b"");
    assert!(out.contains("/dev/pts/0") || out.contains("/dev/console"), "{out}");
    assert!(out.contains("33 77") && out.contains("yes"), "{out}");
    let out = on_terminal(&e, "run --rm -it bb sh", b"echo $((6*7))\nexit\n");
    assert!(out.contains("42"), "{out}");
    e.ok(["run", "-d", "--name", "x1", "bb", "sleep", "1000"]);
    let out = on_terminal(&e, "exec -it x1 sh -c 'stty size; tty'", b"");
    assert!(out.contains("33 77"), "{out}");
    // Without a terminal on our side there is none to give.
    let output = e.with_input(["run", "--rm", "-it", "bb", "true"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the input device is not a TTY"));
    e.finish();
}

#[test]
fn detach_keys_leave_the_container_running() {
    let e = Engine::new();
    typed_until_it_ends(&e, "run -it --name d1 bb sh", b"\x10\x11");
    assert_eq!(e.inspect("{{.State.Running}}", "d1"), "true");
    typed_until_it_ends(&e, "attach --detach-keys ctrl-x,x d1", b"\x18x");
    assert_eq!(e.inspect("{{.State.Running}}", "d1"), "true");
    e.finish();
}

#[test]
fn signals_are_passed_on() {
    let e = Engine::new();
    let mut child = e.spawn([
        "run",
        "--rm",
        "--name",
        "s1",
        "bb",
        "sh",
        "-c",
        "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    until("it is up", || text(&e.run(["logs", "s1"]).stdout).contains("up"));
    std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    e.finish();
}
