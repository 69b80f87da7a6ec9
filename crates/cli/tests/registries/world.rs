//! An engine of its own for each test, and images made without containers.

#[path = "../../../../tests/common/scratch.rs"]
mod scratch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use scratch::noise;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two folders and a home, removed at the end.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Waits until something is true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn have(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok();
    if !found {
        eprintln!("skipped: no {program} here");
    }
    found
}

/// A tar with files of these names and contents.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    oci::Digest::sha256(bytes).to_string()
}

/// A configuration for layers with these tars.
pub(crate) fn config(architecture: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|l| sha256(l)).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/x"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    }))
    .unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("wherry-reg-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let world = Self { dir };
        world.configure("");
        world
    }

    /// Writes the registries' configuration: quick tries, and nobody outside.
    pub(crate) fn configure(&self, more: &str) {
        let certificates = self.dir.join("certs.d");
        let text = format!(
            "retry-delay-ms = 5\nretries = 4\nread-timeout-seconds = 3\ncertificates = [{certificates:?}]\n{more}\n\
             [[registry]]\nprefix = \"docker.io\"\nblocked = true\n"
        );
        fs::write(self.dir.join("registries.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_in("data", args)
    }

    pub(crate) fn command_in(&self, data: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
        command
            .args(args)
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.display()))
            .env("HOME", &self.dir)
            .env("WHERRY_DATA_ROOT", self.dir.join(data))
            .env("WHERRY_RUN_ROOT", self.dir.join(format!("{data}-run")))
            .env("WHERRY_REGISTRIES", self.dir.join("registries.toml"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok_in(&self, data: &str, args: &[&str]) -> String {
        let out = self.command_in(data, args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {:?}\n{}\n{}",
            out.status.code(),
            text(&out.stdout),
            text(&out.stderr)
        );
        text(&out.stdout)
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.ok_in("data", args)
    }

    /// Standard error of a command that must fail with 1.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}\n{error}", text(&out.stdout));
        assert!(!error.contains("panicked"), "{error}");
        error
    }

    /// Loads an image of these layers.
    pub(crate) fn image(&self, name: &str, layers: &[Vec<u8>]) {
        self.image_in("data", name, layers);
    }

    pub(crate) fn image_in(&self, data: &str, name: &str, layers: &[Vec<u8>]) {
        let config = config("amd64", layers);
        let config_name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
        let names: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
        let manifest = serde_json::to_vec(&serde_json::json!([
            {"Config": config_name, "RepoTags": [name], "Layers": names}
        ]))
        .unwrap();
        let mut files: Vec<(&str, &[u8])> =
            vec![("manifest.json", &manifest), (&config_name, &config)];
        for (name, layer) in names.iter().zip(layers) {
            files.push((name, layer));
        }
        let path = self.path("image.tar");
        fs::write(&path, tar_of(&files)).unwrap();
        self.ok_in(data, &["load", "-q", "-i", path.to_str().unwrap()]);
    }

    /// Nothing that should not be there: no image, no layer, no temporary file but the parts of a transfer.
    #[track_caller]
    pub(crate) fn nothing_visible(&self) {
        assert_eq!(self.ok(&["images", "-aq"]), "");
        for name in list(&self.path("data/tmp")) {
            assert!(name.starts_with("part-") || name.starts_with("lock-"), "left: {name}");
        }
    }

    /// The image with this name, and no other.
    #[track_caller]
    pub(crate) fn nothing_but(&self, name: &str) {
        let id = self.ok(&["images", "-q", name]);
        let mut all: Vec<String> = self.ok(&["images", "-aq"]).lines().map(str::to_owned).collect();
        all.dedup();
        assert_eq!(all, [id]);
    }

    /// Each layer in the store is what its name says.
    #[track_caller]
    pub(crate) fn layers_are_whole(&self, data: &str) {
        for name in list(&self.path(data).join("layers")) {
            let tar =
                fs::read(self.path(data).join("layers").join(&name).join("layer.tar")).unwrap();
            assert_eq!(sha256(&tar), format!("sha256:{name}"));
        }
    }
}

pub(crate) fn list(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
