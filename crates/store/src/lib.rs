//! Everything Wherry keeps on disk: blobs, layers, writable layers, volumes, and the state database.
//!
//! Start at [`Store`]: one open data root. `docs/format-store.md` specifies the files,
//! `docs/format-database.md` the tables.
//!
//! The rules that hold throughout:
//! - Nothing becomes visible before it is complete and synced. Work happens under `tmp/`; a rename
//!   publishes it; then the database learns of it.
//! - Removal is a rename into `trash/`, then deletion. Being killed at any point leaves only things
//!   that [`Store::gc`] removes.
//! - Inside an image, a writable layer or a volume every path is resolved by descriptor with
//!   `openat2(RESOLVE_IN_ROOT)`.
//! - Mounts are made detached and handed out as descriptors; this crate attaches nothing anywhere.

mod base;
mod build_cache;
mod chain;
mod commit;
pub mod copy;
mod database;
mod diff;
mod error;
mod files;
mod form;
mod gc;
mod image;
mod image_mount;
mod import;
mod incoming;
mod index;
mod ingest;
mod layer;
mod load;
mod log_index;
mod lower;
mod migrate;
pub mod network;
mod overlay;
mod pulled;
mod push;
mod remove;
mod save;
mod tee;
mod temporary;
mod tree;
mod unpack;
mod usage;
mod volume;
mod writable;

use std::path::{Path, PathBuf};

pub use build_cache::CachedStep;
pub use database::Database;
pub use error::{Error, Result};
pub use form::{Form, FormChoice};
pub use gc::GcReport;
pub use image::{HistoryEntry, ImageRecord, Removed};
pub use import::ImportOptions;
pub use ingest::{BlobSource, Hold, IncomingLayer, IngestError, IngestProgress, Opener, Scratch};
pub use load::{LoadOptions, Loaded};
pub use log_index::hold_log_index;
pub use lower::{ImageFilesystems, ImageFs, Lower, UnpackedDirectories};
pub use migrate::MigrateReport;
pub use pulled::{KnownManifest, PulledImage};
pub use push::{KnownBlob, PackedLayer};
pub use save::ArchiveFormat;
pub use usage::{DiskUsage, LayerUsage, OtherUsage};
pub use volume::{Volume, VolumeOptions};
pub use writable::{Base, Change, ChangeKind, MountOptions, WritableLayer, WritableOptions};

use error::io;

/// The version of the layout of files this program writes and reads.
const LAYOUT: u32 = 2;

/// How much work is done so that a loss of power loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Images are synced before they become visible.
    #[default]
    Full,
    /// Nothing is synced: for tests and for data roots that do not outlive the machine.
    None,
}

/// How to open a data root.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Change nothing. Needed where the file system is read-only.
    pub read_only: bool,
    /// What to sync.
    pub durability: Durability,
    /// In which form layers are kept.
    pub form: FormChoice,
}

/// Told how far a long operation has come. `()` ignores it.
pub trait Progress {
    /// `done` bytes of `what` are finished, of `total` if that is known.
    fn update(&mut self, what: &str, done: u64, total: Option<u64>);
}

impl Progress for () {
    fn update(&mut self, _: &str, _: u64, _: Option<u64>) {}
}

impl<F: FnMut(&str, u64, Option<u64>)> Progress for F {
    fn update(&mut self, what: &str, done: u64, total: Option<u64>) {
        self(what, done, total);
    }
}

/// One data root. Opening is cheap; a program with several threads opens one store in each.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    database: Database,
    options: OpenOptions,
    form: std::cell::OnceCell<Form>,
}

impl Store {
    /// Opens the data root at `root`, creating it on first use.
    ///
    /// # Errors
    /// [`Error::Layout`] for a data root of another version; [`Error::Io`] and
    /// [`Error::Database`] if it cannot be read or made.
    pub fn open(root: &Path, options: OpenOptions) -> Result<Store> {
        let version = root.join("version");
        let found = match std::fs::read_to_string(&version) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !options.read_only => {
                create(root, &version)?;
                format!("{LAYOUT}\n")
            }
            Err(error) => return Err(io(|| format!("reading {}", version.display()))(error)),
        };
        if found.trim() == "1" && !options.read_only {
            upgrade(root, &version)?;
        } else if found.trim() != LAYOUT.to_string() && found.trim() != "1" {
            let found = found.trim().chars().take(40).collect();
            return Err(Error::Layout { path: root.to_owned(), found, known: LAYOUT });
        }
        // Absolute, because mounts and other processes are told about paths below it.
        let root = std::path::absolute(root)
            .map_err(io(|| format!("resolving the path {}", root.display())))?;
        let database =
            Database::open(&root.join("state.db"), options.read_only, options.durability)?;
        Ok(Store { root, database, options, form: std::cell::OnceCell::new() })
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The state database.
    pub fn db(&self) -> &Database {
        &self.database
    }

    /// The directory that belongs to a container; the engine's files live there, next to `upper` and
    /// `work` which belong to this crate.
    pub fn container_directory(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    fn writable_store(&self) -> Result<()> {
        if self.options.read_only { Err(Error::ReadOnly(self.root.clone())) } else { Ok(()) }
    }

    fn durable(&self) -> bool {
        self.options.durability == Durability::Full
    }
}

const DIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "layers",
    "chains",
    "containers",
    "volumes",
    "tmp",
    "trash",
    "empty",
];

/// Makes the tree. Several processes may do so at once: each step is idempotent, and the version
/// file comes last, by a rename.
fn create(root: &Path, version: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let make = |path: &Path, mode| {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode);
        builder.create(path).map_err(io(|| format!("creating {}", path.display())))
    };
    // Nobody but the owner may walk in: images hold set-user-ID programs that must not be reachable
    // from the host. Containers get at their files through mounts, not through these paths.
    make(root, 0o700)?;
    for name in DIRECTORIES {
        make(&root.join(name), 0o700)?;
    }
    for name in ["containers", "layers", "tmp", "volumes"] {
        spread(&root.join(name));
    }
    base::make(root)?;
    write_version(root, version)
}

/// Tells the file system that the directories to be made in this one have nothing to do with each other. ext4 keeps a
/// directory's files near it; near a place where thousands of short-lived containers have been it looks, without a
/// journal, at each inode deleted within the last minutes before it finds one. This is a hint that not every file system
/// knows, and nothing is lost without it.
fn spread(directory: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    if let Ok(opened) = std::fs::File::open(directory)
        && let Ok(flags) = ioctl_getflags(&opened)
    {
        let _ = ioctl_setflags(&opened, flags | IFlags::TOPDIR);
    }
}

/// From layout 1, which had no base, no chains, and an unpacked directory for every layer. Both layouts may
/// be used at once until this is done; nothing else changes.
fn upgrade(root: &Path, version: &Path) -> Result<()> {
    let chains = root.join("chains");
    match std::fs::create_dir(&chains) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(io(|| format!("creating {}", chains.display()))(error));
        }
        _ => {}
    }
    base::make(root)?;
    write_version(root, version)
}

fn write_version(root: &Path, version: &Path) -> Result<()> {
    let temporary = root.join(temporary::unique("tmp/version"));
    let write = || {
        std::fs::write(&temporary, format!("{LAYOUT}\n"))?;
        std::fs::rename(&temporary, version)
    };
    write().map_err(io(|| format!("writing {}", version.display())))
}
