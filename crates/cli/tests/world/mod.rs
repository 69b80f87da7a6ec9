//! An engine of its own for each test, used through the binary.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

mod namespace;

pub(crate) use namespace::Namespace;

/// Two folders and a network namespace, removed with all that runs in them.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    namespace: Namespace,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl World {
    pub(crate) fn new() -> Self {
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("wherry-cli-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // Tests ask nobody but this machine.
        let nobody = "[[registry]]\nprefix = \"docker.io\"\nblocked = true\n";
        std::fs::write(dir.join("registries.toml"), nobody).unwrap();
        Self { dir, namespace: Namespace::new() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn program(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_wherry").into()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_wherry"));
        command
            .args(args)
            .env("WHERRY_DATA_ROOT", self.dir.join("data"))
            .env("WHERRY_RUN_ROOT", self.dir.join("run"))
            .env("WHERRY_REGISTRIES", self.dir.join("registries.toml"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Exit code, standard output, standard error.
    pub(crate) fn all(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.run(args);
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
    }

    /// Standard output of a command that must not fail.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.all(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out.trim_end().to_owned()
    }

    /// With this on standard input.
    pub(crate) fn fed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let out = child.wait_with_output().unwrap();
        let _ = feeder.join().unwrap();
        out
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (_, ids, _) = self.all(&["ps", "-aq", "--no-trunc"]);
        let mut args = vec!["rm", "-f", "-v"];
        args.extend(ids.lines());
        if args.len() > 3 {
            let _ = self.run(&args);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Waits for a condition, and fails when it does not come.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a process; its exit code.
pub(crate) fn ended(child: &mut Child) -> i32 {
    let mut code = None;
    wait_for("the end of the command", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    code.unwrap().code().unwrap_or(-1)
}
