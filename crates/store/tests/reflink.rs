//! Where the file system can share bytes between files, a layer shares those of the file it came from.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scratch, dir, file, noise, sh, tar};
use oci::compression::Compression;
use oci::{DiffId, Digest};
use store::{
    ArchiveFormat, Durability, FormChoice, ImportOptions, LoadOptions, OpenOptions, Store,
};

/// A file system in a file, mounted below a scratch directory.
struct Mounted {
    scratch: Scratch,
}

impl Mounted {
    /// None if it can't be made here.
    fn new(kind: &str) -> Option<Mounted> {
        let scratch = Scratch::new();
        let program = format!("mkfs.{kind}");
        let image = scratch.path().join("disk");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let Ok(made) = Command::new(&program).arg("-q").arg(&image).output() else {
            eprintln!("skipped: no {program} here");
            return None;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mounted = Mounted { scratch };
        let known = std::fs::read_to_string("/proc/filesystems").unwrap();
        if !known.lines().any(|line| line.trim() == kind) {
            eprintln!("skipped: this kernel has no {kind}");
            return None;
        }
        sh(mounted.scratch.path(), "mkdir fs; mount -o loop disk fs");
        Some(mounted)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join("fs").join(name)
    }

    fn store(&self) -> Store {
        let form = FormChoice::Directories;
        let options = OpenOptions { read_only: false, durability: Durability::Full, form };
        Store::open(&self.path("root"), options).unwrap()
    }

    /// Bytes in use, when everything is written.
    fn used(&self) -> u64 {
        let fd = File::open(self.path("")).unwrap();
        rustix::fs::syncfs(&fd).unwrap();
        let stat = rustix::fs::statvfs(self.path("")).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.scratch.path().join("fs")).output();
    }
}

const SIZE: usize = 15 << 20;

/// The layer's archive, as it is in the store.
fn kept(store: &Store, layer: &DiffId) -> Vec<u8> {
    std::fs::read(store.root().join("layers").join(layer.hex()).join("layer.tar")).unwrap()
}

fn shares(kind: &str) {
    let Some(fs) = Mounted::new(kind) else { return };
    let store = fs.store();
    // The unpacked files would hide what the archive costs: one that is larger than all of them together.
    let archive = |seed: u64| {
        let mut bytes = tar(&[dir("./"), file("small", b"x")]);
        let content = noise(seed, SIZE);
        // After its end an archive may have anything, up to 16 MiB.
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(b"an odd length");
        bytes
    };
    let first = archive(1);
    std::fs::write(fs.path("first.tar"), &first).unwrap();
    let before = fs.used();
    let source = File::options().read(true).write(true).open(fs.path("first.tar")).unwrap();
    let image = store.import_file(&source, &ImportOptions::default(), &mut ()).unwrap();
    let cost = fs.used().saturating_sub(before);
    assert!(cost < SIZE as u64 / 4, "{kind}: it cost {cost} bytes");
    assert_eq!(image.layers[0].digest(), Digest::sha256(&first));
    // What happens to the source afterwards does not matter.
    source.write_all_at(&[0; 8192], 4096).unwrap();
    source.set_len(100_000).unwrap();
    drop(source);
    assert!(kept(&store, &image.layers[0]) == first);

    // In an archive of images a layer shares what it can if it lies where a block begins.
    let second = archive(2);
    let id = store.import(&mut &second[..], &ImportOptions::default(), &mut ()).unwrap().id;
    let mut saved = Vec::new();
    let format = ArchiveFormat::Docker;
    store.save(&[&id.to_string()], format, Compression::None, &mut saved).unwrap();
    store.remove_image(&id.to_string(), true, false).unwrap();
    let at = saved.windows(4096).position(|window| *window == second[..4096]).unwrap();
    // Entries before it move it to where it should be.
    let mut moved = tar(&[file("padding", &vec![0; (4096 - (at + 512) % 4096) % 4096])]);
    moved.truncate(moved.len() - 1024);
    moved.extend_from_slice(&saved);
    let at = moved.windows(4096).position(|window| *window == second[..4096]).unwrap();
    assert_eq!(at % 4096, 0);
    std::fs::write(fs.path("moved.tar"), &moved).unwrap();
    let before = fs.used();
    let source = File::open(fs.path("moved.tar")).unwrap();
    let loaded = store.load_file(&source, &LoadOptions::default(), &mut ()).unwrap();
    assert_eq!(loaded[0].id, id);
    let cost = fs.used().saturating_sub(before);
    assert!(cost < SIZE as u64 / 4, "{kind}: it cost {cost} bytes");
    assert!(kept(&store, &DiffId(Digest::sha256(&second))) == second);

    // What is compressed is read as ever, and so is what lies elsewhere.
    std::fs::write(fs.path("first.tar"), &first).unwrap();
    sh(&fs.path(""), "gzip -1 first.tar");
    let packed = File::open(fs.path("first.tar.gz")).unwrap();
    store.remove_image(&image.id.to_string(), true, false).unwrap();
    let again = store.import_file(&packed, &ImportOptions::default(), &mut ()).unwrap();
    assert_eq!(again.layers, image.layers);
    let elsewhere = copy_of(&fs, &first);
    let third = store.import_file(&elsewhere, &ImportOptions::default(), &mut ()).unwrap();
    assert_eq!(third.layers, image.layers);
}

/// The same on another file system.
fn copy_of(fs: &Mounted, bytes: &[u8]) -> File {
    let path: &Path = &fs.scratch.path().join("elsewhere.tar");
    std::fs::write(path, bytes).unwrap();
    File::open(path).unwrap()
}

#[test]
fn xfs_shares() {
    shares("xfs");
}

#[test]
fn btrfs_shares() {
    shares("btrfs");
}
