//! `wherry oci`: what the program sees, and what it must not reach.
#![allow(clippy::unwrap_used)]
mod oci_common;

use oci_common::{Bundle, run, sh, spec};
use serde_json::{Value, json};

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn masked_and_read_only_paths() {
    let output = run(&sh(
        "cat /proc/kcore | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
         echo x > /proc/sys/kernel/hostname || echo ro; touch /sys/firmware/x || echo ro; echo h > /proc/sysrq-trigger || echo ro",
    ));
    assert_eq!(output.out, "0\n0\n0\nro\nro\nro\n", "{output:?}");
}

#[test]
fn default_devices_work_and_others_are_refused() {
    let output = run(&sh(
        "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null && echo ok; \
         mknod /tmp/d b 254 0; mknod /tmp/m c 1 1 && cat /tmp/m >/dev/null; ls -l /dev/fd /dev/ptmx | wc -l; stat -c %a /dev/null",
    ));
    assert!(output.out.starts_with("3\n3\nok\n2\n666"), "{output:?}");
    assert!(
        output.err.contains("/tmp/m': Operation not permitted")
            || output.err.contains("/tmp/m: Operation not permitted"),
        "{output:?}"
    );
    // Another device, allowed.
    let mut wanted = sh("head -c 4 /dev/mine | wc -c; stat -c '%a %u %g' /dev/mine /dev/sub/fifo");
    wanted["linux"]["devices"] = json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/sub/fifo", "type": "p", "fileMode": 0o600}
    ]);
    wanted["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}
    ]);
    let output = run(&wanted);
    assert_eq!(output.out, "4\n640 3 4\n600 0 0\n", "{output:?}");
}

#[test]
fn read_only_root_and_binds() {
    let bundle = Bundle::new(&spec(&["true"]));
    let outside = bundle.dir.join("outside");
    std::fs::create_dir_all(outside.join("sub")).unwrap();
    std::fs::write(outside.join("file"), "content").unwrap();
    let mut wanted = sh(
        "touch /x || echo root; touch /ro/x || echo ro; touch /rw/written; cat /deep/er/file; touch /tmp/t && echo tmp; \
         /noexec/program || echo noexec",
    );
    std::os::unix::fs::symlink("/bin/true", outside.join("program")).unwrap();
    wanted["root"]["readonly"] = true.into();
    let source = outside.to_str().unwrap();
    for (to, options) in [
        ("/ro", json!(["rbind", "ro"])),
        ("/rw", json!(["rbind", "rprivate"])),
        ("/noexec", json!(["bind", "rro", "noexec"])),
    ] {
        std::fs::create_dir_all(bundle.rootfs().join(&to[1..])).unwrap();
        add_mount(&mut wanted, json!({"destination": to, "source": source, "options": options}));
    }
    add_mount(
        &mut wanted,
        json!({"destination": "/deep/er/file", "source": outside.join("file"), "options": ["bind", "ro"]}),
    );
    add_mount(
        &mut wanted,
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
    );
    std::fs::copy("/bin/busybox", outside.join("busybox")).unwrap();
    std::fs::remove_file(outside.join("program")).unwrap();
    std::os::unix::fs::symlink("busybox", outside.join("program")).unwrap();
    wanted["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
    bundle.write_spec(&wanted);
    let output = bundle.run();
    assert_eq!(output.out, "root\nro\ncontenttmp\nnoexec\n", "{output:?}");
    assert!(outside.join("written").exists());
    assert!(!bundle.rootfs().join("tmp/t").exists());
    bundle.assert_clean();
}

#[test]
fn tmpfs_that_begins_with_a_copy() {
    let mut wanted = sh(
        "cat /data/a/f; readlink /data/l; stat -c '%a %u' /data /data/a/f; echo new > /data/a/f",
    );
    add_mount(
        &mut wanted,
        json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}),
    );
    let bundle = Bundle::new(&wanted);
    let data = bundle.rootfs().join("data");
    std::fs::create_dir_all(data.join("a")).unwrap();
    std::fs::write(data.join("a/f"), "old").unwrap();
    std::os::unix::fs::symlink("/elsewhere", data.join("l")).unwrap();
    std::os::unix::fs::chown(data.join("a/f"), Some(12), None).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o711)).unwrap();
    let output = bundle.run();
    assert_eq!(output.out, "old/elsewhere\n711 0\n644 12\n", "{output:?}");
    assert_eq!(std::fs::read_to_string(data.join("a/f")).unwrap(), "old");
    bundle.assert_clean();
}

#[test]
fn hostile_links_stay_inside() {
    let bundle = Bundle::new(&spec(&["true"]));
    let outside = bundle.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let absolute = outside.to_str().unwrap();
    let link =
        |name: &str, to: &str| std::os::unix::fs::symlink(to, bundle.rootfs().join(name)).unwrap();
    link("absolute", absolute);
    link("up", "../../../../../../../../../../tmp");
    link("relative", "../outside");
    link("magic", "/proc/self/root");
    link("loop", "loop");
    for (destination, fine) in [
        ("/absolute/new/dir", true),
        ("/relative/new", true),
        ("/up/wherry-hostile", true),
        ("/../../../../escape", true),
        ("/loop/x", false),
    ] {
        let mut wanted = sh("true");
        wanted["mounts"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
        wanted["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
        bundle.write_spec(&wanted);
        let output = bundle.run();
        assert_eq!(output.code == 0, fine, "{destination}: {output:?}");
        assert_eq!(
            std::fs::read_dir(&outside).unwrap().count(),
            0,
            "{destination} reached the host"
        );
        assert!(!std::path::Path::new("/tmp/wherry-hostile").exists());
        assert!(!std::path::Path::new("/escape").exists());
        bundle.assert_clean();
    }
    // The directories came to be inside, where the links lead from there.
    assert!(bundle.rootfs().join(absolute.trim_start_matches('/')).join("new/dir").is_dir());
    // A /proc that is a link would take the masks somewhere else.
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    link("proc", "/tmp");
    let output = bundle.run();
    assert!(output.code != 0 && output.err.contains("symbolic link"), "{output:?}");
    bundle.assert_clean();
}

#[test]
fn a_file_in_the_place_of_a_device_is_refused() {
    let mut wanted = sh("true");
    wanted["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    let bundle = Bundle::new(&wanted);
    std::fs::write(bundle.rootfs().join("dev/null"), "trap").unwrap();
    let output = bundle.run();
    assert!(output.code != 0 && output.err.contains("/dev/null"), "{output:?}");
}

#[test]
fn sysctls_and_names() {
    let mut wanted = sh(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni; hostname; dnsdomainname 2>/dev/null; cat /proc/sys/kernel/domainname; ip link show lo | head -1",
    );
    wanted["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "99"});
    wanted["domainname"] = "example".into();
    let before = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let output = run(&wanted);
    assert!(output.out.starts_with("1\n99\ninside\n"), "{output:?}");
    assert!(output.out.contains("example\n"), "{output:?}");
    assert!(output.out.contains("LOOPBACK,UP"), "{output:?}");
    assert_eq!(before, std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap());
}

fn user_namespace(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}

fn give(path: &std::path::Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

#[test]
fn user_namespace_with_maps() {
    let mut wanted = sh(
        "id -u; cat /proc/self/uid_map; touch /tmp/mine; echo x > /dev/null && echo null; stat -c %u /tmp/mine; \
         chown 33:33 /tmp/mine; grep CapEff /proc/self/status; ls /dev/mqueue /sys/fs/cgroup > /dev/null && echo mounts; sleep 1000 & echo $! >/tmp/pid; wait",
    );
    user_namespace(&mut wanted);
    let bundle = Bundle::new(&wanted);
    give(&bundle.rootfs(), 100_000);
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    oci_common::wait_for("the program", || {
        bundle.rootfs().join("tmp/pid").metadata().is_ok_and(|m| m.len() > 0)
    });
    let text = std::fs::read_to_string(bundle.dir.join("out-0")).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..6], ["0", "0", "100000", "65536", "null", "0"], "{text}");
    assert!(text.ends_with("mounts\n"), "{text}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(bundle.rootfs().join("tmp/mine").metadata().unwrap().uid(), 100_033);
    let output = bundle.ok(&["exec", id, "sh", "-c", "id -u; readlink /proc/self/ns/user"]);
    let pid = bundle.state()["pid"].to_string();
    let user = std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(output.out, format!("0\n{}\n", user.display()));
    // Another container may live in the same user namespace.
    let mut second =
        sh("id -u; readlink /proc/self/ns/user; echo $$; cat /proc/1/cmdline | tr '\\0' ' '");
    second["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    let other = Bundle::new(&second);
    give(&other.rootfs(), 100_000);
    let output = other.run();
    assert!(output.out.starts_with(&format!("0\n{}\n1\nsh -c", user.display())), "{output:?}");
    other.assert_clean();
    bundle.ok(&["delete", "-f", id]);
    bundle.assert_clean();
}

#[test]
fn id_mapped_mounts() {
    let bundle = Bundle::new(&spec(&["true"]));
    let outside = bundle.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("f"), "x").unwrap();
    std::os::unix::fs::chown(outside.join("f"), Some(1000), Some(1000)).unwrap();
    let mut wanted = sh("stat -c '%u %g' /m/f; touch /m/new; chown 7:7 /m/new");
    let map = json!([{"containerID": 0, "hostID": 7, "size": 1}, {"containerID": 1000, "hostID": 7, "size": 1}]);
    let map = json!([{"containerID": 1000, "hostID": 7, "size": 1}, {"containerID": 0, "hostID": 0, "size": 1}, map[0]])
        .as_array()
        .unwrap()[..2]
        .to_vec();
    add_mount(
        &mut wanted,
        json!({
            "destination": "/m", "source": outside, "options": ["bind", "idmap"],
            "uidMappings": map, "gidMappings": map
        }),
    );
    wanted["linux"]["cgroupsPath"] = format!("/wherry-tests/{}", bundle.id).into();
    bundle.write_spec(&wanted);
    let output = bundle.run();
    assert_eq!(output.out, "7 7\n", "{output:?}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(outside.join("new").metadata().unwrap().uid(), 1000);
    bundle.assert_clean();
}

#[test]
fn joined_namespaces() {
    let bundle = Bundle::new(&spec(&["sleep", "1000"]));
    let id = bundle.id.as_str();
    bundle.ok(&["run", "-d", id]);
    let pid = bundle.state()["pid"].to_string();
    let mut wanted = sh("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; echo $$");
    for item in wanted["linux"]["namespaces"].as_array_mut().unwrap() {
        let name = match item["type"].as_str().unwrap() {
            "network" => "net",
            "mount" | "cgroup" => continue,
            other => other,
        }
        .to_owned();
        item["path"] = format!("/proc/{pid}/ns/{name}").into();
    }
    let output = run(&wanted);
    let lines: Vec<&str> = output.out.lines().collect();
    for (line, name) in lines.iter().zip(["net", "ipc", "uts", "pid"]) {
        let expected = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(*line, expected.to_str().unwrap(), "{output:?}");
    }
    assert_ne!(lines[4], "1");
}

/// Until it executes, the process is the runtime's, with the runtime's descriptors: a container
/// must not get at them by naming them as its directory or program.
#[test]
fn no_way_out_through_descriptors() {
    let bundle = Bundle::new(&spec(&["sleep", "1000"]));
    let id = bundle.id.as_str();
    bundle.ok(&["create", id]);
    let pid = bundle.state()["pid"].to_string();
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).unwrap();
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        if number > 2 {
            open.push(target);
        }
    }
    let harmless = |path: &std::path::PathBuf| {
        path.starts_with(bundle.dir.join("state")) || path.to_str().unwrap().starts_with("socket:")
    };
    assert!(open.len() <= 2 && open.iter().all(harmless), "{open:?}");
    bundle.ok(&["start", id]);
    for number in 3..30 {
        let mut wanted = sh("pwd; ls ../../../../..");
        wanted["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        let other = Bundle::new(&wanted);
        let output = other.run();
        assert!(output.code != 0 && output.out.is_empty(), "{number}: {output:?}");
        let cwd = format!("/proc/self/fd/{number}");
        let output = bundle.oci(&["exec", "--cwd", &cwd, id, "pwd"]);
        assert!(output.code != 0 && output.out.is_empty(), "{number}: {output:?}");
        let program = format!("/proc/self/fd/{number}/../../../../../../bin/busybox");
        let output = bundle.oci(&["exec", id, &program, "true"]);
        assert!(matches!(output.code, 126 | 127), "{number}: {output:?}");
    }
}
