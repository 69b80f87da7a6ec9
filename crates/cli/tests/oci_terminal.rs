//! `wherry oci`: terminals.
#![allow(clippy::unwrap_used)]
mod oci_common;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use oci_common::{Bundle, sh, spec, wait_for};

fn receive(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 4096];
    let (_, mut fds) = sys::socket::recv_with_fds(&stream, &mut buffer, true).unwrap();
    fds.pop().expect("the terminal's master")
}

/// Everything until the other side is closed (EIO on a terminal).
fn read_all(master: OwnedFd) -> String {
    let mut file = std::fs::File::from(master);
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count) = file.read(&mut buffer) {
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn console_socket_of_create_and_exec() {
    let mut wanted = sh(
        "tty; stty size; test -c /dev/console && echo console; echo hello > /dev/tty; sleep 1000",
    );
    wanted["process"]["terminal"] = true.into();
    wanted["process"]["consoleSize"] = serde_json::json!({"height": 33, "width": 77});
    let bundle = Bundle::new(&wanted);
    let id = bundle.id.as_str();
    let refused = bundle.oci(&["create", id]);
    assert!(refused.code == 1 && refused.err.contains("--console-socket"), "{refused:?}");
    let path = bundle.dir.join("console");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.ok(&["create", "--console-socket", path.to_str().unwrap(), id]);
    let master = receive(&listener);
    bundle.ok(&["start", id]);
    let output = bundle.ok(&[
        "exec",
        "--tty",
        "-d",
        "--console-socket",
        path.to_str().unwrap(),
        id,
        "sh",
        "-c",
        "tty; exit",
    ]);
    assert_eq!(output.out, "");
    let second = receive(&listener);
    assert_eq!(read_all(second), "/dev/pts/1\r\n");
    // Typing ^C reaches the program through its controlling terminal.
    rustix::io::write(&master, &[3]).unwrap();
    wait_for("the end", || {
        bundle.status() == "stopped"
            || {
                let _ = rustix::io::write(&master, &[3]);
                false
            }
            || bundle.oci(&["kill", id, "KILL"]).code == 0
    });
    let text = read_all(master);
    assert!(text.starts_with("/dev/pts/0\r\n33 77\r\nconsole\r\nhello\r\n"), "{text:?}");
    bundle.wait_status("stopped");
    bundle.ok(&["delete", id]);
    bundle.assert_clean();
}

#[test]
fn a_terminal_needs_devpts() {
    let mut wanted = spec(&["true"]);
    wanted["process"]["terminal"] = true.into();
    wanted["mounts"] =
        serde_json::json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    let bundle = Bundle::new(&wanted);
    let output = bundle.run();
    assert!(output.code == 1 && output.err.contains("devpts"), "{output:?}");
    bundle.assert_clean();
}
