//! Containers really started.
#![allow(clippy::unwrap_used)]
mod common;

use common::{run_spec, spec};

#[test]
fn a_container_runs() {
    let output = run_spec(&spec(&[
        "sh",
        "-c",
        "echo $$; hostname; ls / ; id -u; mount; ls -l /dev; exit 3",
    ]))
    .unwrap();
    println!("{}", output.text);
    assert_eq!(output.code, 3);
    assert!(output.text.starts_with("1\ninside\n"), "{}", output.text);
}

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use common::{Temp, null, plan, rootfs, run};
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::{Descriptors, ExecPlan, Kind, Progress, exec, launch};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use serde_json::json;

fn tree(path: &std::path::Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags).unwrap()
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// An overlay and a tmpfs, both detached, as the engine makes them.
#[test]
fn mounts_by_descriptor() {
    let dir = Temp::new();
    rootfs(&dir.0.join("lower"));
    for name in ["upper", "work"] {
        std::fs::create_dir(dir.0.join(name)).unwrap();
    }
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        let path = dir.0.join(name);
        rustix::mount::fsconfig_set_string(&context, key, path.to_str().unwrap()).unwrap();
    }
    rustix::mount::fsconfig_create(&context).unwrap();
    let overlay =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .unwrap();
    let volume = dir.0.join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut spec = spec(&["sh", "-c", "touch /made /data/made; mkdir /x && echo fine"]);
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/data", "source": "/does/not/exist", "options": ["rbind"]
    }));
    let plan = plan(&spec, std::path::Path::new("/nonexistent-bundle")).unwrap();
    let mut d = Descriptors { rootfs: Some(overlay), ..Descriptors::default() };
    d.mounts.insert(plan.mounts.len() - 1, tree(&volume));
    let output = run(&plan, None, d).unwrap();
    assert_eq!((output.code, output.text.as_str()), (0, "fine\n"));
    assert!(dir.0.join("upper/made").exists() && volume.join("made").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.0.to_str().unwrap()), "never on the host");
}

#[test]
fn the_plan_survives_its_journey() {
    let plan = plan(&spec(&["true"]), std::path::Path::new("/bundle")).unwrap();
    let mut json = serde_json::to_value(&plan).unwrap();
    json["a field of the future"] = 1.into();
    assert_eq!(serde_json::from_value::<runtime::Plan>(json).unwrap(), plan);
    let empty: runtime::Plan = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, runtime::Plan::default());
}

#[test]
fn a_gate_an_exec_and_cgroups() {
    let dir = Temp::new();
    rootfs(&dir.0.join("rootfs"));
    let plan = plan(&spec(&["sh", "-c", "echo started; read x; exit 5"]), &dir.0).unwrap();
    let root = CgroupRoot::detect().unwrap();
    let path = format!("/wherry-tests/{}", common::unique());
    let resources = serde_json::from_value(json!({"pids": {"limit": 30}})).unwrap();
    let cgroup = Cgroup::create(&root, &path, &resources).unwrap();
    let (gate, opener) = pipe();
    let (input, input_end) = pipe();
    let (output_end, output) = pipe();
    let stdio = Some([input, output.try_clone().unwrap(), output]);
    let d = Descriptors { gate: Some(gate), stdio, ..Descriptors::default() };
    let mut launching = launch(&plan, Some(&cgroup), d).unwrap();
    assert!(launching.wait_ready().unwrap().is_none());
    assert!(matches!(launching.on_report().unwrap(), Progress::Pending));
    assert!(cgroup.pids().unwrap().contains(&launching.pid));
    rustix::io::write(&opener, b"x").unwrap();
    while !matches!(launching.wait_started().unwrap(), Progress::Ready) {}
    let mut buffer = [0; 64];
    let count = rustix::io::read(&output_end, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"started\n");

    let mut process = plan.process.clone();
    process.args = vec!["sh".into(), "-c".into(), "hostname; exit 6".into()];
    let (exec_end, exec_out) = pipe();
    let stdio = Some([null(), exec_out.try_clone().unwrap(), exec_out]);
    let d = Descriptors { stdio, ..Descriptors::default() };
    let exec_plan = ExecPlan::new(process, &plan);
    let mut second = exec(&exec_plan, launching.pidfd.as_fd(), Some(&cgroup), d).unwrap();
    second.wait_ready().unwrap();
    let count = rustix::io::read(&exec_end, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"inside\n");
    let exit = sys::pidfd::wait(second.pidfd.as_fd(), true).unwrap().unwrap();
    assert_eq!(exit, sys::pidfd::Exit::Code(6));

    assert_eq!(cgroup.stats().pids.limit, Some(30));
    rustix::io::write(&input_end, b"\n").unwrap();
    let exit = sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap().unwrap();
    assert_eq!(exit, sys::pidfd::Exit::Code(5));
    // Known also to those who did not reap it, on kernels that tell.
    match sys::pidfd::exit_of_reaped(launching.pidfd.as_fd()) {
        Ok(exit) => assert_eq!(exit, Some(sys::pidfd::Exit::Code(5))),
        Err(errno) => assert!(matches!(errno, sys::Errno::NOTTY | sys::Errno::INVAL)),
    }
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(!Cgroup::open(&root, &path).unwrap().exists());
}

#[test]
fn limits_that_are_not_required_become_notes() {
    let dir = Temp::new();
    rootfs(&dir.0.join("rootfs"));
    let mut wanted = plan(&spec(&["true"]), &dir.0).unwrap();
    let (_, hard) =
        sys::privilege::get_rlimit(0, runtime::rlimit::number("NOFILE").unwrap()).unwrap();
    let raise = runtime::plan::Rlimit {
        name: "RLIMIT_NOFILE".into(),
        soft: hard.saturating_add(1),
        hard: hard.saturating_add(1),
        required: false,
    };
    let resource = 1 << 24;
    let able = sys::privilege::capget().unwrap().effective & resource != 0;
    wanted.process.rlimits = vec![raise.clone()];
    let stdio = Some([null(), null(), null()]);
    let mut launching =
        launch(&wanted, None, Descriptors { stdio, ..Descriptors::default() }).unwrap();
    launching.wait_ready().unwrap();
    sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap();
    assert_eq!(launching.notes.is_empty(), able, "{:?}", launching.notes);
    if !able {
        wanted.process.rlimits = vec![runtime::plan::Rlimit { required: true, ..raise }];
        let error = run(&wanted, None, Descriptors::default()).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
    }
}

#[test]
fn errors_come_back_with_their_kind() {
    for (program, kind, code) in [
        ("nope", Kind::NotFound, 127),
        ("/nope", Kind::NotFound, 127),
        ("/bin", Kind::NotExecutable, 126),
    ] {
        let error = run_spec(&spec(&[program])).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, code), "{error}");
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<runtime::Error>(&json).unwrap(), error);
    }
    let mut missing = spec(&["true"]);
    missing["root"]["path"] = "/does/not/exist".into();
    let error = run_spec(&missing).unwrap_err();
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).unwrap();
    let count = rustix::fs::Dir::read_from(&open).unwrap().count();
    let _ = run_spec(&spec(&["nope"]));
    let again = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).unwrap();
    drop(open);
    let now = rustix::fs::Dir::read_from(&again).unwrap().count();
    assert!(now <= count, "descriptors are closed after a failure: {count} {now}");
}

/// What a hook that runs in the child before it closes anything finds of the caller's descriptors.
#[test]
fn high_descriptors_are_not_copied() {
    let dir = Temp::new();
    rootfs(&dir.0.join("rootfs"));
    let list = dir.0.join("list");
    let mut spec = spec(&["sh", "-c", "exit 4"]);
    let look = format!("ls /proc/self/fd >{}", list.display());
    spec["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]});
    let plan = plan(&spec, &dir.0).unwrap();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&null, 1500).unwrap();
    // A program that a hook executes inherits it.
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
    let found = |own_from| {
        let d = Descriptors { own_from, ..Descriptors::default() };
        assert_eq!(run(&plan, None, d).unwrap().code, 4);
        let list = std::fs::read_to_string(&list).unwrap();
        list.lines().any(|number| number.parse::<u32>().unwrap() >= 1500)
    };
    assert!(found(None), "the hook sees what the child has");
    assert!(!found(Some(1500)));
    // One that the child needs lies there: it has copies of all.
    assert!(found(Some(4)));
    rustix::io::fcntl_getfd(&high).unwrap();

    // The first process of the container, of which an exec is told by a descriptor up there.
    let (gate, opener) = pipe();
    let stdio = Some([common::null(), common::null(), common::null()]);
    let d = Descriptors { gate: Some(gate), stdio, own_from: Some(1500), ..Default::default() };
    let mut launching = launch(&plan, None, d).unwrap();
    launching.wait_ready().unwrap();
    let pidfd = rustix::io::fcntl_dupfd_cloexec(&launching.pidfd, 1500).unwrap();
    let mut process = plan.process.clone();
    process.args = vec!["sh".into(), "-c".into(), "hostname; exit 6".into()];
    let (read, write) = pipe();
    let stdio = Some([common::null(), write.try_clone().unwrap(), write]);
    let d = Descriptors { stdio, own_from: Some(1500), ..Descriptors::default() };
    let mut second = exec(&ExecPlan::new(process, &plan), pidfd.as_fd(), None, d).unwrap();
    second.wait_ready().unwrap();
    let exit = sys::pidfd::wait(second.pidfd.as_fd(), true).unwrap().unwrap();
    assert_eq!(exit, sys::pidfd::Exit::Code(6));
    let mut buffer = [0; 64];
    let count = rustix::io::read(&read, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"inside\n");
    drop(opener);
    // The closed gate ends it.
    sys::pidfd::wait(launching.pidfd.as_fd(), true).unwrap();
}

/// Which keyrings there are with the container's name; the user sees all of them, joined or not.
#[test]
fn an_exec_shares_the_containers_session_keyring() {
    let dir = Temp::new();
    rootfs(&dir.0.join("rootfs"));
    let mut spec = spec(&["sh", "-c", "read x"]);
    spec["linux"]["maskedPaths"] = json!([]);
    let mut plan = plan(&spec, &dir.0).unwrap();
    plan.id = common::unique();
    let (input, end) = pipe();
    let d = Descriptors { stdio: Some([input, null(), null()]), ..Descriptors::default() };
    let mut first = launch(&plan, None, d).unwrap();
    first.wait_ready().unwrap();
    let mut process = plan.process.clone();
    process.args = vec!["cat".into(), "/proc/keys".into()];
    let look = |container: &str| {
        let (read, write) = pipe();
        let stdio = Some([null(), write.try_clone().unwrap(), write]);
        let d = Descriptors { stdio, ..Descriptors::default() };
        let plan =
            ExecPlan { container: container.into(), ..ExecPlan::new(process.clone(), &plan) };
        let mut second = exec(&plan, first.pidfd.as_fd(), None, d).unwrap();
        second.wait_ready().unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        sys::pidfd::wait(second.pidfd.as_fd(), true).unwrap();
        text
    };
    let named = |text: &str, name: &str| {
        text.lines().filter(|line| line.contains(&format!(" _ses.{name}: "))).count()
    };
    let text = look(&plan.id);
    assert_eq!(named(&text, &plan.id), 1, "{text}");
    let other = format!("{}-other", plan.id);
    let text = look(&other);
    assert_eq!((named(&text, &plan.id), named(&text, &other)), (1, 1), "{text}");
    drop(end);
    sys::pidfd::wait(first.pidfd.as_fd(), true).unwrap();
}

/// Each filesystem of a container costs something in every cgroup of the host.
#[test]
fn masks_and_groups_need_no_filesystems_of_their_own() {
    let root = CgroupRoot::detect().unwrap();
    let path = format!("/wherry-tests/{}", common::unique());
    let resources = serde_json::from_value(json!({})).unwrap();
    let cgroup = Cgroup::create(&root, &path, &resources).unwrap();
    let device = |text: &str, at: &str| {
        let line = text.lines().find(|line| line.split(' ').nth(4) == Some(at));
        line.map(|line| line.split(' ').nth(2).unwrap().to_owned())
    };
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = device(&host, "/sys/fs/cgroup").unwrap();
    let show = "cat /proc/self/mountinfo; ls -A /sys/firmware; mkdir /sys/firmware/new 2>/dev/null && echo made; cd /sys/fs/cgroup; \
                for d in *; do test -e $d/tasks -o -e $d/cgroup.procs || test -f $d || echo no group in $d; done; \
                mkdir new 2>/dev/null && rmdir new && echo made in it; exit 3";
    for (admin, options) in [(false, "ro"), (true, "ro"), (false, "rw")] {
        let dir = Temp::new();
        rootfs(&dir.0.join("rootfs"));
        let mut spec = spec(&["sh", "-c", show]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", options]
        }));
        if admin {
            let bounding = spec["process"]["capabilities"]["bounding"].as_array_mut().unwrap();
            bounding.push("CAP_SYS_ADMIN".into());
        }
        let plan = plan(&spec, &dir.0).unwrap();
        let output = run(&plan, Some(&cgroup), Descriptors::default()).unwrap();
        let text = &output.text;
        assert_eq!(output.code, 3, "{text}");
        assert_eq!(device(text, "/sys/firmware"), device(text, "/sys"), "{text}");
        let groups = device(text, "/sys/fs/cgroup").unwrap();
        let version_1 = !root.v1.is_empty();
        assert_eq!(groups == host, !version_1 || (!admin && options == "ro"), "{options}: {text}");
        let lines = text.lines().filter(|line| !line.contains(" - "));
        let made = if options == "rw" { vec!["made in it"] } else { vec![] };
        assert_eq!(lines.collect::<Vec<_>>(), made, "{options}: {text}");
        let line = |at: &str| text.lines().find(|line| line.contains(at)).unwrap().to_owned();
        for hierarchy in
            root.mount_points().filter(|at| at.parent() == Some("/sys/fs/cgroup".as_ref()))
        {
            let line = line(&format!(" {} ", hierarchy.display()));
            assert!(line.contains(&format!(" {options},nosuid,nodev,noexec")), "{line}");
        }
    }
    cgroup.remove().unwrap();
}
