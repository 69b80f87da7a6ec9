//! Commands that change the store, killed at random moments. After each the store is whole: every layer is what its
//! name says, every image can be saved and mounted, `system df` accounts for every byte, and the next
//! commands work and leave nothing of the dead behind.
//!
//! `WHERRY_TEST_KILLS=1000` does it as often as that, `WHERRY_TEST_SEED` as it was done before:
//!
//! ```text
//! WHERRY_TEST_KILLS=1000 cargo nextest run -p wherry --test registries --run-ignored all \
//!     --no-capture many_kills
//! ```

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::Registry;
use crate::world::{World, list, noise, sha256, tar_of, text};

/// Of a command: how it is called here, and how long it took when it was left alone.
const COMMANDS: [&str; 6] = ["pull", "load", "commit", "prune", "rmi", "migrate"];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// Names of files and the digests of their content.
type Files = BTreeMap<String, String>;

struct Kills {
    w: World,
    r: Registry,
    random: Random,
    /// What each name's files must be.
    expected: BTreeMap<String, Files>,
    /// An archive on the disk for each name that is loaded.
    archives: Vec<String>,
    commits: u64,
    form: &'static str,
    /// How long the last one of each kind took that was not killed.
    took: BTreeMap<&'static str, Duration>,
}

fn layers(seed: u64, count: u64, size: usize) -> (Vec<Vec<u8>>, Files) {
    let mut files = Files::new();
    let layers = (0..count)
        .map(|number| {
            let name = format!("file-{seed}-{number}");
            // One of them compresses, so that a pull has something to do for it.
            let content = match number % 2 {
                0 => noise(seed * 100 + number + 1, size),
                _ => b"not much in it ".repeat(size / 15),
            };
            files.insert(name.clone(), sha256(&content));
            tar_of(&[(&name, &content)])
        })
        .collect();
    (layers, files)
}

impl Kills {
    fn new(seed: u64) -> Self {
        let w = World::new();
        let r = Registry::plain(&w.dir);
        let mut expected = BTreeMap::new();
        let mut archives = Vec::new();
        for number in 0..3 {
            let (layers, files) = layers(number, 4, 1_500_000);
            // The one that stays for commits; one to be pulled; one to be loaded, which shares layers with it.
            let name = ["base", "pulled", "loaded"][number as usize];
            w.image_in("source", name, &layers);
            std::fs::rename(w.path("image.tar"), w.path(&format!("{name}.tar"))).unwrap();
            expected.insert(name.to_owned(), files);
            archives.push(name.to_owned());
        }
        let target = r.name("pulled:1");
        w.ok_in("source", &["tag", "pulled", &target]);
        w.ok_in("source", &["push", "-q", &target]);
        let files = expected["pulled"].clone();
        expected.insert(target, files);
        let mut kills = Self {
            w,
            r,
            random: Random(seed | 1),
            expected,
            archives,
            commits: 0,
            form: "directories",
            took: BTreeMap::new(),
        };
        kills.load("base");
        kills.w.ok(&["create", "--name", "box", "base"]);
        let content = noise(77, 2_000_000);
        std::fs::write(kills.w.path("big"), &content).unwrap();
        let big = kills.w.path("big");
        kills.w.ok(&["cp", big.to_str().unwrap(), "box:/big"]);
        // Once each, to know how long they take.
        for command in COMMANDS {
            let begun = Instant::now();
            kills.whole(command);
            kills.took.insert(command, begun.elapsed());
        }
        kills
    }

    fn archive(&self, name: &str) -> String {
        self.w.path(&format!("{name}.tar")).to_str().unwrap().to_owned()
    }

    fn load(&self, name: &str) {
        self.w.ok(&["load", "-q", "-i", &self.archive(name)]);
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.w.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Sees to it that the command has something to do, and starts it.
    fn start(&mut self, command: &str) -> Child {
        let pulled = self.r.name("pulled:1");
        match command {
            "pull" => {
                let _ = self.w.run(&["rmi", &pulled]);
                // Now and then from the start, else from where an earlier one was killed.
                if self.random.below(3) == 0 {
                    self.w.ok(&["image", "prune", "-f"]);
                }
                self.spawn(&["pull", "-q", &pulled])
            }
            "load" => {
                let name = self.archives[self.random.below(3) as usize].clone();
                if name != "base" {
                    let _ = self.w.run(&["rmi", &name]);
                }
                self.spawn(&["load", "-q", "-i", &self.archive(&name)])
            }
            "commit" => {
                self.commits += 1;
                let name = format!("commit:{}", self.commits % 4);
                let mut files = self.expected["base"].clone();
                files.insert("big".to_owned(), sha256(&noise(77, 2_000_000)));
                self.expected.insert(name.clone(), files);
                self.spawn(&["commit", "box", &name])
            }
            "prune" => {
                self.load("loaded");
                if self.random.below(2) == 0 {
                    self.w.ok(&["pull", "-q", &pulled]);
                }
                let all: [&[&str]; 3] = [
                    &["image", "prune", "-af"],
                    &["image", "prune", "-f"],
                    &["image", "prune", "-af", "--keep-storage", "9m"],
                ];
                let which = self.random.below(3) as usize;
                self.spawn(all[which])
            }
            "rmi" => {
                self.load("loaded");
                self.spawn(&["rmi", "-f", "loaded"])
            }
            _ => {
                self.form = if self.form == "erofs" { "directories" } else { "erofs" };
                self.spawn(&["storage", "migrate", "--to", self.form])
            }
        }
    }

    /// Runs a command to its end.
    fn whole(&mut self, command: &str) {
        let out = self.start(command).wait_with_output().unwrap();
        assert!(out.status.success(), "{command}: {}", text(&out.stderr));
    }

    /// Kills one command; true if it was alive then.
    fn kill_one(&mut self, command: &'static str) -> bool {
        let mut child = self.start(command);
        let took = self.took[command].as_micros() as u64;
        let wait = Duration::from_micros(self.random.below(took * 11 / 10));
        // Somebody else works at the same time, and must not notice.
        let companion = match self.random.below(4) {
            0 if command != "migrate" => {
                let mut load = self.w.command(&["load", "-q", "-i", &self.archive("loaded")]);
                Some(load.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
            }
            _ => None,
        };
        std::thread::sleep(wait);
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(companion) = companion {
            let out = companion.wait_with_output().unwrap();
            assert!(out.status.success(), "beside {command}: {}", text(&out.stderr));
        }
        alive
    }

    /// Everything that is visible is whole, and every byte is known.
    fn check(&mut self) {
        let w = &self.w;
        w.layers_are_whole("data");
        self.every_byte_is_known();
        let images = w.ok(&["images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]);
        let images: Vec<_> = images.lines().map(|line| line.split_once(' ').unwrap()).collect();
        for (id, name) in &images {
            // Reads and verifies each layer.
            let out = w.command(&["save", id]).output().unwrap();
            assert!(out.status.success(), "saving {name}: {}", text(&out.stderr));
        }
        let (id, name) = images[self.random.below(images.len() as u64) as usize];
        // One without a name was a commit whose name a later one took.
        let key = if name == "<none>:<none>" { "commit:1" } else { name };
        let key = key.strip_suffix(":latest").unwrap_or(key);
        w.ok(&["create", "--name", "probe", id]);
        let out = w.command(&["export", "probe"]).output().unwrap();
        assert!(out.status.success(), "exporting {name}: {}", text(&out.stderr));
        assert_eq!(files_in(&out.stdout), self.expected[key], "{name}");
        w.ok(&["rm", "probe"]);
    }

    fn every_byte_is_known(&self) {
        // A helper that outlived the killed command may be changing something between the two looks.
        let mut looks = (0..50).map(|_| self.known_and_there());
        let (usage, sum, du) =
            looks.find(|(_, sum, du)| sum == du).unwrap_or_else(|| self.known_and_there());
        assert_eq!(sum, du, "{usage}");
    }

    /// What `df` says, its sum, and what `du` says.
    fn known_and_there(&self) -> (serde_json::Value, u64, u64) {
        let usage = self.w.ok(&["system", "df", "-v", "--format", "json"]);
        let usage: serde_json::Value = serde_json::from_str(&usage).unwrap();
        let others = usage["Other"].as_object().unwrap();
        assert!(others.keys().all(|key| !key.contains('/')), "not ours: {usage}");
        let sum: u64 = others.values().map(|bytes| bytes.as_u64().unwrap()).sum();
        let root = self.w.path("data");
        let out = Command::new("du").args(["-s", "-B1"]).arg(&root).output().unwrap();
        let du: u64 = text(&out.stdout).split_whitespace().next().unwrap().parse().unwrap();
        let sum = sum + usage["LayersSize"].as_u64().unwrap();
        (usage, sum, du)
    }

    /// The same command works now, and what was left of the dead is gone.
    fn repair(&mut self, command: &'static str) {
        if command == "migrate" {
            // To the form that it was to be.
            self.form = if self.form == "erofs" { "directories" } else { "erofs" };
        }
        let begun = Instant::now();
        self.whole(command);
        self.took.insert(command, begun.elapsed());
        let pulled = self.r.name("pulled:1");
        match self.random.below(2) {
            0 => drop(self.w.ok(&["pull", "-q", &pulled])),
            _ => self.load("loaded"),
        }
        for directory in ["tmp", "trash"] {
            let mut left = list(&self.w.path("data").join(directory));
            // For the next pull.
            left.retain(|name| !name.starts_with("part-"));
            assert!(left.is_empty(), "{directory} after {command}: {left:?}");
        }
    }

    fn end(&self) {
        self.w.ok(&["rm", "-f", "box"]);
        self.w.ok(&["image", "prune", "-af"]);
        for directory in ["layers", "chains", "blobs/sha256", "containers", "tmp", "trash"] {
            let left = list(&self.w.path("data").join(directory));
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
    }
}

fn files_in(archive: &[u8]) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        // What containers get from the engine is not the image's.
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() && !name.contains('/') && name != ".dockerenv" {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(name, sha256(&content));
        }
    }
    files
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Kills so many commands; says what it did.
fn kill(count: u64) {
    let seed = number("WHERRY_TEST_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 ^ u64::from(std::process::id())
    });
    eprintln!("WHERRY_TEST_SEED={seed}");
    let begun = Instant::now();
    let mut kills = Kills::new(seed);
    // Of each command: how often it was killed, and how often it had ended before.
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut done = 0;
    let mut turn = 0;
    while done < count {
        let command = COMMANDS[turn % COMMANDS.len()];
        turn += 1;
        let entry = counts.entry(command).or_default();
        if kills.kill_one(command) {
            entry.0 += 1;
            done += 1;
        } else {
            entry.1 += 1;
        }
        kills.check();
        kills.repair(command);
        if done % 100 == 0 {
            eprintln!("{done} kills, {} s: {counts:?}", begun.elapsed().as_secs());
        }
        assert!((turn as u64) < count * 20, "they are too fast to be killed: {counts:?}");
    }
    kills.end();
    eprintln!("{done} kills in {} s (killed, ended before): {counts:?}", begun.elapsed().as_secs());
}

#[test]
fn a_few_kills() {
    kill(36);
}

#[test]
#[ignore = "takes long: WHERRY_TEST_KILLS says how many"]
fn many_kills() {
    kill(number("WHERRY_TEST_KILLS").unwrap_or(1000));
}
