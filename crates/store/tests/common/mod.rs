//! What the integration tests share: a data root of their own, and archives.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used)]

#[path = "../../../../tests/common/scratch.rs"]
mod scratch;

use std::path::{Path, PathBuf};

use oci::tar::{Entry, Kind, TarWriter};
pub use scratch::{noise, proc_path, sh};
use store::{Durability, FormChoice, OpenOptions, Store};

/// `directories.rs` has the tests of the other files as modules, for the form with unpacked
/// directories; they themselves test image filesystems.
pub fn form() -> FormChoice {
    if unpacked() { FormChoice::Directories } else { FormChoice::Erofs }
}

pub fn unpacked() -> bool {
    module_path!().starts_with("directories::")
}

/// The name of an ignored test as this program knows it, to run it in a process of its own.
pub fn test_name(module: &str, name: &str) -> String {
    match module.split_once("::") {
        Some((_, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    }
}

/// A directory for a data root, removed at the end of the test.
pub struct Scratch(scratch::Scratch);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(scratch::Scratch::new())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// Opens it, in the form this program tests.
    pub fn store(&self) -> Store {
        self.store_as(form())
    }

    pub fn store_as(&self, form: FormChoice) -> Store {
        let options = OpenOptions { read_only: false, durability: Durability::None, form };
        Store::open(&self.root(), options).unwrap()
    }
}

pub fn file(path: &str, data: &[u8]) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, Kind::File, 0o644);
    entry.size = data.len() as u64;
    (entry, data.to_vec())
}

pub fn dir(path: &str) -> (Entry, Vec<u8>) {
    (Entry::new(path, Kind::Directory, 0o755), Vec::new())
}

pub fn link(path: &str, kind: Kind, target: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, kind, 0o777);
    entry.link = target.into();
    (entry, Vec::new())
}

pub fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut out = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        out.entry(entry).unwrap();
        out.write_data(data).unwrap();
    }
    out.finish().unwrap()
}

/// Attaches a detached mount below the scratch directory in a mount namespace of a shell, runs the
/// script with the mount as its working directory, and returns the output.
pub fn in_mount(mount: &std::os::fd::OwnedFd, script: &str) -> String {
    sh(&proc_path(mount), script)
}
