//! An engine of its own for each test.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Registries' configuration of a test that needs none.
pub(crate) const NOBODY: &str = "[[registry]]\nprefix = \"docker.io\"\nblocked = true\n";

#[path = "../world/namespace.rs"]
mod namespace;

pub(crate) use namespace::Namespace;

/// An engine in two folders and a network namespace of its own. Dropping it removes its containers, waits for its
/// keeper to leave, and checks that nothing is left on the host.
pub(crate) struct Engine {
    pub(crate) dir: PathBuf,
    /// What is the host's for it.
    pub(crate) host: Namespace,
    clean: bool,
}

/// Waits until something is true; fails with `what` if it never is.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command printed, trimmed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The host's busybox.
pub(crate) fn busybox() -> &'static str {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .expect("install busybox-static: the tests make their images of it")
}

/// The root filesystem every test image is made of: busybox with all its applets.
pub(crate) fn busybox_root(dir: &Path) {
    let busybox = busybox();
    for sub in ["bin", "etc", "tmp", "home/ann", "root", "var"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::copy(busybox, dir.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines() {
        if applet != "busybox" {
            std::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).unwrap();
        }
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n",
    )
    .unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\nann:x:1000:\nstaff:x:50:ann\n").unwrap();
}

impl Engine {
    /// An engine with nothing in it.
    pub(crate) fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            Command::new("id").arg("-u").output().is_ok_and(|o| text(&o.stdout) == "0"),
            "these tests make namespaces and mounts: run them as root"
        );
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("wherry-e2e-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        // Tests ask nobody but this machine.
        fs::write(dir.join("registries.toml"), NOBODY).unwrap();
        Self { dir, host: Namespace::new(), clean: false }
    }

    /// An engine with the image `bb`.
    pub(crate) fn new() -> Self {
        let engine = Self::empty();
        let root = engine.dir.join("bb");
        busybox_root(&root);
        let tar = engine.dir.join("bb.tar");
        let done = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(done.unwrap().success());
        engine.ok(["image", "import", tar.to_str().unwrap(), "bb"]);
        engine
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A path for a file of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The binary, for this engine.
    pub(crate) fn command(&self) -> Command {
        self.command_as(env!("CARGO_BIN_EXE_wherry"))
    }

    /// The binary by another path, for this engine.
    pub(crate) fn command_as(&self, program: &str) -> Command {
        let mut command = self.host.command(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.dir)
            .env("WHERRY_DATA_ROOT", self.data_root())
            .env("WHERRY_RUN_ROOT", self.run_root())
            .env("WHERRY_REGISTRIES", self.dir.join("registries.toml"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command; whatever comes of it.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output, trimmed.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let output = self.run(&args);
        assert!(
            output.status.success(),
            "{args:?} failed with {:?}:\n{}\n{}",
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a command that must fail with this exit code; its standard error.
    #[track_caller]
    pub(crate) fn fails<S: AsRef<OsStr>>(
        &self,
        code: i32,
        args: impl IntoIterator<Item = S>,
    ) -> String {
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let output = self.run(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}:\n{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stderr)
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let mut child = self.spawn(args);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Starts a command with its three streams piped.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// `inspect -f`.
    #[track_caller]
    pub(crate) fn inspect(&self, format: &str, name: &str) -> String {
        self.ok(["inspect", "-f", format, name])
    }

    /// What has happened, a line each, the oldest first; with filters, of that.
    #[track_caller]
    pub(crate) fn past_events(&self, format: &str, filters: &[&str]) -> String {
        let all = ["events", "--since", "1h", "--until", "0s", "--format", format];
        self.ok(all.into_iter().chain(filters.iter().flat_map(|filter| ["--filter", filter])))
    }

    /// Pids of the keeper and its standby, if they run.
    pub(crate) fn keepers(&self) -> Vec<(i32, String)> {
        let run_root = self.run_root();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = line.split(|b| *b == 0);
            let helper = words.nth(1).is_some_and(|w| w.starts_with(b"__"));
            if helper
                && line.split(|b| *b == 0).any(|w| w == run_root.as_os_str().as_encoded_bytes())
            {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push((pid, name.trim().to_owned()));
            }
        }
        found
    }

    /// The pid of the process of this name among [`Engine::keepers`].
    pub(crate) fn keeper(&self, name: &str) -> i32 {
        let mut pid = 0;
        until(name, || {
            pid = self.keepers().into_iter().find(|(_, n)| n == name).map_or(0, |(p, _)| p);
            pid != 0
        });
        pid
    }

    /// Removes everything and checks that nothing is left; what dropping does, too, but
    /// with the test's own line in the message.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.tear_down();
    }

    fn tear_down(&mut self) {
        if self.clean {
            return;
        }
        self.clean = true;
        let ids = self.run(["ps", "-aq"]);
        let ids: Vec<String> = text(&ids.stdout).lines().map(str::to_owned).collect();
        if !ids.is_empty() {
            let output = self.run(["rm", "-fv"].into_iter().chain(ids.iter().map(String::as_str)));
            if !std::thread::panicking() {
                assert!(output.status.success(), "{}", text(&output.stderr));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.keepers().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The kernel takes its time with interfaces.
        while !self.interfaces().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.leftovers();
        for (pid, _) in self.keepers() {
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }

    /// Host's ends of containers' interfaces.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let links = net::link::Links::open_in(self.host.fd()).unwrap().list().unwrap();
        let of_container = |alias: &str| {
            net::name::read_alias(alias).is_some_and(|(_, container, _)| container != "-")
        };
        links.into_iter().filter(|l| of_container(&l.alias)).map(|l| l.name).collect()
    }

    /// What of this engine is still on the host although nothing runs.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.keepers().into_iter().map(|(pid, name)| format!("process {pid} {name}")).collect();
        left.extend(self.interfaces().iter().map(|name| format!("interface {name}")));
        let dir = self.dir.to_string_lossy();
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            if line.contains(dir.as_ref()) {
                left.push(format!("mount {line}"));
            }
        }
        for part in ["running", "exits", "io"] {
            for entry in fs::read_dir(self.run_root().join(part)).into_iter().flatten().flatten() {
                left.push(format!("file {}", entry.path().display()));
            }
        }
        let containers = fs::read_dir(self.data_root().join("containers"));
        for entry in containers.into_iter().flatten().flatten() {
            left.push(format!("file {}", entry.path().display()));
        }
        left
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.tear_down();
    }
}

/// The root of every cgroup hierarchy.
pub(crate) fn all_cgroups() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    if top.join("cgroup.procs").exists() {
        return vec![top];
    }
    let below = fs::read_dir(top).into_iter().flatten().flatten().map(|e| e.path());
    below.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Cgroup directories named after a container.
pub(crate) fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let named = all_cgroups().into_iter().map(|root| root.join("wherry").join(id));
    named.filter(|path| path.is_dir()).collect()
}
