//! docker-py, area by area.

use std::process::Command;

use crate::server::Served;

#[test]
fn docker_py() {
    let python = "python3";
    let there = Command::new(python)
        .args(["-c", "import docker; assert int(docker.__version__.split('.')[0]) >= 7"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("not tested: install docker-py 7 (the PyPI package `docker`)");
        return;
    }
    let served = Served::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/docker_py.py");
    let output =
        served.client("timeout").args(["-s", "KILL", "240", python, script]).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    served.finish();
}
