//! Namespaces: own, the host's, another container's.

use crate::harness::{Engine, until};

fn link(path: &str) -> String {
    std::fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

#[test]
fn each_kind_is_own_or_the_hosts() {
    let e = Engine::new();
    for (kind, option) in [
        ("pid", "--pid=host"),
        ("uts", "--uts=host"),
        ("ipc", "--ipc=host"),
        ("net", "--network=host"),
        ("cgroup", "--cgroupns=host"),
    ] {
        let host = match kind {
            "net" => e.host.link(),
            kind => link(&format!("/proc/self/ns/{kind}")),
        };
        let path = format!("/proc/self/ns/{kind}");
        assert_ne!(e.ok(["run", "--rm", "bb", "readlink", &path]), host, "{kind}");
        assert_eq!(e.ok(["run", "--rm", option, "bb", "readlink", &path]), host, "{kind}");
    }
    e.finish();
}

#[test]
fn namespaces_of_another_container() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "a1", "--ipc", "shareable", "bb", "sleep", "1000"]);
    for (kind, option) in [
        ("pid", "--pid=container:a1"),
        ("net", "--network=container:a1"),
        ("ipc", "--ipc=container:a1"),
    ] {
        let path = format!("/proc/self/ns/{kind}");
        assert_eq!(
            e.ok(["run", "--rm", option, "bb", "readlink", &path]),
            e.ok(["exec", "a1", "readlink", &path]),
            "{kind}"
        );
    }
    assert!(e.ok(["run", "--rm", "--pid=container:a1", "bb", "ps"]).contains("sleep 1000"));
    e.ok(["exec", "a1", "touch", "/dev/shm/shared"]);
    e.ok(["run", "--rm", "--ipc=container:a1", "bb", "ls", "/dev/shm/shared"]);
    e.ok(["run", "-d", "--name", "b1", "bb", "sleep", "1000"]);
    assert!(
        e.fails(125, ["run", "--rm", "--ipc=container:b1", "bb", "true"]).contains("non-shareable")
    );
    assert!(
        e.fails(125, ["run", "--rm", "--pid=container:nope", "bb", "true"])
            .contains("No such container: nope")
    );
    e.finish();
}

#[test]
fn host_names_and_files() {
    let e = Engine::new();
    let id = e.ok(["run", "-d", "bb", "sleep", "1000"]);
    assert_eq!(e.ok(["exec", &id, "hostname"]), id[..12]);
    let out = e.ok([
        "run",
        "--rm",
        "--hostname",
        "box",
        "--domainname",
        "example.test",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "10.9.9.9",
        "bb",
        "sh",
        "-c",
        "hostname; cat /etc/hosts /etc/hostname /etc/resolv.conf",
    ]);
    for part in ["box", "10.1.2.3\tdb", "box.example.test", "nameserver 10.9.9.9"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert_eq!(e.ok(["run", "--rm", "--network", "none", "bb", "ls", "/sys/class/net"]), "lo");
    e.ok(["run", "--rm", "bb", "ping", "-c", "1", "127.0.0.1"]);
    e.finish();
}

#[test]
fn no_mount_of_a_container_is_seen_by_the_host() {
    let e = Engine::new();
    e.ok(["run", "-d", "--name", "c1", "-v", "vol:/v", "--tmpfs", "/t", "bb", "sleep", "1000"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(e.dir.to_str().unwrap()), "{mounts}");
    e.finish();
}

#[test]
fn leftover_processes_of_the_hosts_pid_namespace_are_killed() {
    let e = Engine::new();
    let id =
        e.ok(["run", "-d", "--pid", "host", "bb", "sh", "-c", "sleep 4321 & echo $!; sleep 0.2"]);
    e.ok(["wait", &id]);
    let pid = e.ok(["logs", &id]);
    until("the background process is gone", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "))
    });
    e.finish();
}
