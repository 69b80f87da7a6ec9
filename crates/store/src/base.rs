//! What lies at the bottom of every container: the directories and files that are mounted over.
//!
//! They are there for images that have none. Made at each start they would be changes of the
//! container's, seen by `diff` and written into layers by `commit`.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::io;
use crate::{Result, files};

/// Its name in the data root.
pub(crate) const BASE: &str = "base";

const DIRECTORIES: &[&str] = &["", "dev", "etc", "proc", "sys"];
/// Mounted over, but the first: by that one programs see that they are in a container, as in
/// Docker's.
const FILES: &[(&str, u32)] = &[
    (".dockerenv", 0o755),
    ("etc/hostname", 0o644),
    ("etc/hosts", 0o644),
    ("etc/resolv.conf", 0o644),
];

/// Makes the directory, or what is missing of it.
pub(crate) fn make(root: &Path) -> Result<()> {
    let base = root.join(BASE);
    // Whatever the creation mask of who comes first.
    let made = |path: &Path, result: std::io::Result<()>, mode| match result {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    let make = || -> std::io::Result<()> {
        for name in DIRECTORIES {
            let path = base.join(name);
            made(&path, std::fs::create_dir(&path), 0o755)?;
        }
        for (name, mode) in FILES {
            let path = base.join(name);
            made(&path, File::create_new(&path).map(drop), *mode)?;
        }
        // What is copied up from here into an image's layer must be the same on every machine.
        for name in DIRECTORIES {
            File::open(base.join(name))?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
        }
        Ok(())
    };
    make().map_err(io(|| format!("creating {}", base.display())))
}

/// Opens the directory.
pub(crate) fn open(root: &Path) -> Result<OwnedFd> {
    files::open_path(&root.join(BASE))
}
