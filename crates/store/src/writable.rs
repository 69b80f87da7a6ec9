//! Writable layers: the overlay upper directory of a container.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use oci::{ChainId, DiffId, ImageId};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::base;
use crate::chain::{ImageFiles, RootInfo};
use crate::error::io;
use crate::overlay::{self, Upper};
use crate::{Error, Lower, Result, Store, files};

/// What a writable layer lies upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// An image.
    Image(ImageId),
    /// Layers, the lowest first; what a build step begins with. None at all is an empty root.
    Layers(Vec<DiffId>),
    /// A directory of the host (`run --rootfs`).
    Directory(PathBuf),
}

/// How to make a writable layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct WritableOptions {
    /// Its content need not survive a crash of the machine: nothing in it is ever synced. For `--rm`
    /// containers and build steps.
    pub volatile: bool,
    /// Have what containers mount over at the bottom, for images that lack it.
    pub base: bool,
}

/// How to mount one.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// Mount it read-only.
    pub read_only: bool,
    /// As [`WritableOptions::volatile`], for this mount.
    pub volatile: bool,
}

/// A writable layer in the store.
#[derive(Debug)]
pub struct WritableLayer {
    id: String,
    directory: PathBuf,
    record: Record,
    below: Below,
    upper: OwnedFd,
    work: OwnedFd,
}

/// What is below a writable layer.
#[derive(Debug)]
enum Below {
    Directories(Lower),
    /// Mounted when it is first wanted; and what goes below it.
    Image(ImageFiles, OnceCell<Lower>, Option<OwnedFd>),
}

impl Below {
    /// Puts a directory below everything else.
    fn put_upon(&mut self, directory: OwnedFd) {
        match self {
            Below::Directories(lower) => lower.directories.push(directory),
            Below::Image(_, _, base) => *base = Some(directory),
        }
    }

    fn root(&self) -> Result<RootInfo> {
        match self {
            Below::Directories(lower) => attributes(lower),
            Below::Image(files, ..) => Ok(files.root),
        }
    }
}

/// `containers/<id>/layer.json`: what must not be removed while this layer exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<DiffId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<PathBuf>,
    #[serde(default)]
    pub(crate) volatile: bool,
    #[serde(default)]
    pub(crate) base: bool,
}

pub(crate) const RECORD: &str = "layer.json";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// One difference between a container's files and its image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path in the container, as raw bytes.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// The kind of a [`Change`], with Docker's letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// `C`
    Modified,
    /// `A`
    Added,
    /// `D`
    Deleted,
}

impl ChangeKind {
    /// `C`, `A` or `D`.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }

    /// The number Docker's API has for it: 0, 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        }
    }
}

/// An ID becomes the name of a directory.
fn check_id(id: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(good) {
        return Err(Error::Invalid(format!("{id:?} cannot be the ID of a writable layer")));
    }
    Ok(())
}

impl Store {
    /// Makes an empty writable layer in `containers/<id>/`. Nothing is synced: a container's start
    /// does not wait for the disk.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Invalid`] if the ID is in use or cannot be a name.
    pub fn create_writable(
        &self,
        id: &str,
        base: &Base,
        options: WritableOptions,
    ) -> Result<WritableLayer> {
        self.writable_store()?;
        check_id(id)?;
        let mut begun = false;
        match self.make_writable(id, base, options, &mut begun) {
            Err(Error::NoSpace { .. }) => {
                // What was removed a moment ago may not be deleted yet.
                for name in [UPPER, WORK].iter().filter(|_| begun) {
                    self.discard(&self.container_directory(id).join(name))?;
                }
                self.empty_trash()?;
                self.make_writable(id, base, options, &mut begun)
            }
            done => done,
        }
    }

    /// `begun` is set when there is an upper directory that was not there before.
    fn make_writable(
        &self,
        id: &str,
        base: &Base,
        options: WritableOptions,
        begun: &mut bool,
    ) -> Result<WritableLayer> {
        // From here until the record is written no layer is removed.
        let _lease = self.lease()?;
        let (record, mut below) = match base {
            Base::Image(image) => {
                let image = self.image_layers(image)?;
                let below = self.below(&image.1)?;
                let record = Record {
                    image: Some(image.0),
                    layers: image.1,
                    directory: None,
                    volatile: options.volatile,
                    base: options.base,
                };
                (record, below)
            }
            Base::Layers(layers) => {
                let below = self.below(layers)?;
                let WritableOptions { volatile, base } = options;
                let layers = layers.clone();
                (Record { image: None, layers, directory: None, volatile, base }, below)
            }
            Base::Directory(path) => {
                let path = std::path::absolute(path)
                    .map_err(io(|| format!("resolving the path {}", path.display())))?;
                let below = Below::Directories(directory_lower(&path)?);
                let directory = Some(path);
                let WritableOptions { volatile, base } = options;
                (Record { image: None, layers: vec![], directory, volatile, base }, below)
            }
        };
        if record.base {
            below.put_upon(base::open(&self.root)?);
        }
        let directory = self.container_directory(id);
        let what = || format!("creating the writable layer {}", directory.display());
        let private = Mode::from_raw_mode(0o700);
        // The engine may have made the directory already, for its own files.
        match rustix::fs::mkdirat(CWD, &directory, private) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io(what)(error)),
        }
        let fd = files::open_path(&directory)?;
        // The record comes first: a directory with `upper` but without it would not protect its layers.
        let raw = serde_json::to_vec(&record)
            .map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
        write_record(&fd, &raw).map_err(io(what))?;
        match rustix::fs::mkdirat(&fd, UPPER, private) {
            Err(Errno::EXIST) => {
                return Err(Error::Invalid(format!("the writable layer {id} exists already")));
            }
            other => other.map_err(io(what))?,
        }
        *begun = true;
        rustix::fs::mkdirat(&fd, WORK, private).map_err(io(what))?;
        let upper = files::open_dir(&fd, c"upper").map_err(io(what))?;
        let work = files::open_dir(&fd, c"work").map_err(io(what))?;
        // The root of an overlay has the attributes of the upper directory.
        let root = match record.directory {
            // Nothing lies below that could say.
            None if record.layers.is_empty() => {
                RootInfo { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) }
            }
            _ => below.root()?,
        };
        if root.uid != 0 || root.gid != 0 {
            let (uid, gid) =
                (rustix::fs::Uid::from_raw(root.uid), rustix::fs::Gid::from_raw(root.gid));
            rustix::fs::fchown(&upper, Some(uid), Some(gid)).map_err(io(what))?;
        }
        rustix::fs::fchmod(&upper, Mode::from_raw_mode(root.mode & 0o7777)).map_err(io(what))?;
        let time = rustix::fs::Timespec { tv_sec: root.mtime.0, tv_nsec: i64::from(root.mtime.1) };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&upper, &times).map_err(io(what))?;
        Ok(WritableLayer { id: id.to_owned(), directory, record, below, upper, work })
    }

    /// Opens a writable layer.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`]; [`Error::Damaged`] if a layer below it is missing.
    pub fn writable(&self, id: &str) -> Result<WritableLayer> {
        check_id(id)?;
        let directory = self.container_directory(id);
        let record =
            read_record(&directory)?.ok_or_else(|| Error::NoSuchWritable(id.to_owned()))?;
        let missing = |_| Error::NoSuchWritable(id.to_owned());
        let upper = files::open_path(&directory.join(UPPER)).map_err(missing)?;
        let work = files::open_path(&directory.join(WORK)).map_err(missing)?;
        let mut below = match &record.directory {
            Some(path) => Below::Directories(directory_lower(path)?),
            None => self.below(&record.layers)?,
        };
        if record.base {
            below.put_upon(base::open(&self.root)?);
        }
        Ok(WritableLayer { id: id.to_owned(), directory, record, below, upper, work })
    }

    fn below(&self, layers: &[DiffId]) -> Result<Below> {
        match self.form()? {
            form if form.is_erofs() && !layers.is_empty() => {
                Ok(Below::Image(self.image_files(form, layers)?, OnceCell::new(), None))
            }
            _ => Ok(Below::Directories(self.lower_of(layers)?)),
        }
    }

    /// The layers of an image without reading its configuration.
    fn image_layers(&self, id: &ImageId) -> Result<(ImageId, Vec<DiffId>)> {
        let connection = self.database.connection();
        let text = id.to_string();
        let mut statement = connection.prepare_cached(
            "SELECT diff_id FROM image_layers WHERE image_id = ?1 ORDER BY position",
        )?;
        let layers = statement
            .query_map([&text], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if layers.is_empty() {
            // An image may have no layers; it must exist though.
            connection
                .prepare_cached("SELECT 1 FROM images WHERE id = ?1")?
                .query_row([&text], |_| Ok(()))
                .map_err(|_| Error::NoSuchImage(text))?;
        }
        let layers = layers.iter().map(|id| id.parse()).collect::<oci::Result<_>>()?;
        Ok((*id, layers))
    }
}

fn with_base(mut lower: Lower, base: Option<&OwnedFd>) -> Result<Lower> {
    let base = base.map(OwnedFd::try_clone).transpose();
    lower.directories.extend(base.map_err(io(|| "duplicating a descriptor".to_owned()))?);
    Ok(lower)
}

fn directory_lower(path: &Path) -> Result<Lower> {
    let directories = vec![files::open_path(path)?];
    Ok(Lower::of_directories(directories, vec![path.to_owned()]))
}

/// Attributes of the topmost directory.
fn attributes(lower: &Lower) -> Result<RootInfo> {
    let Some(top) = lower.directories.first() else {
        return Err(Error::Invalid("no lower directory".to_owned()));
    };
    let stat =
        rustix::fs::fstat(top).map_err(io(|| "looking at the lower directory".to_owned()))?;
    Ok(RootInfo {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    })
}

fn write_record(directory: &OwnedFd, raw: &[u8]) -> rustix::io::Result<()> {
    use rustix::fs::OFlags;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, RECORD, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = raw;
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest)?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// The record in a container's directory; None if it has no writable layer.
pub(crate) fn read_record(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join(RECORD);
    match files::read_small(&path, oci::limits::MAX_JSON) {
        Ok(raw) => serde_json::from_slice(&raw)
            .map(Some)
            .map_err(|error| Error::Damaged(format!("{}: {error}", path.display()))),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl WritableLayer {
    /// The container it belongs to.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The layers below it, the lowest first; none where a directory is.
    pub fn layers(&self) -> &[DiffId] {
        &self.record.layers
    }

    /// The image below it.
    pub fn image(&self) -> Option<ImageId> {
        self.record.image
    }

    /// Whether it was made to be volatile.
    pub fn volatile(&self) -> bool {
        self.record.volatile
    }

    /// The directories below it. Of an image filesystem the root of its mount, which is made now if
    /// it was not wanted before.
    ///
    /// # Errors
    /// [`Error::Mount`].
    pub fn lower(&self) -> Result<&Lower> {
        match &self.below {
            Below::Directories(lower) => Ok(lower),
            Below::Image(files, lower, base) => match lower.get() {
                Some(lower) => Ok(lower),
                None => {
                    let mounted = with_base(files.mount()?, base.as_ref())?;
                    Ok(lower.get_or_init(|| mounted))
                }
            },
        }
    }

    /// The chain ID, in hexadecimal, of an image filesystem below it; none if directories are.
    pub fn chain(&self) -> Option<String> {
        match &self.below {
            Below::Directories(_) => None,
            Below::Image(..) => ChainId::of(&self.record.layers).map(|id| id.hex()),
        }
    }

    /// Takes a mount of the image below it that is there already, as [`WritableLayer::image_mount`]
    /// gave it, instead of making one: what of its files is in memory is shared then.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn use_image_mount(&self, mount: OwnedFd) -> Result<()> {
        if let Below::Image(files, lower, base) = &self.below {
            let mounted = Lower::of_mount(mount, files.path.clone())?;
            let _ = lower.set(with_base(mounted, base.as_ref())?);
        }
        Ok(())
    }

    /// The mount of the image below it, for other layers upon the same image; after
    /// [`WritableLayer::mount`]. None if directories are below, or the kernel (before Linux 6.15)
    /// does not let it be used again.
    pub fn image_mount(&self) -> Option<OwnedFd> {
        let Below::Image(_, lower, _) = &self.below else { return None };
        let lower = lower.get().filter(|lower| !lower.spent.load(Ordering::Relaxed))?;
        lower.mounts.first()?.try_clone().ok()
    }

    /// Where what is below it is, for `inspect`: directories, the topmost first, or an image
    /// filesystem's index.
    pub fn lower_paths(&self) -> Vec<PathBuf> {
        match &self.below {
            Below::Directories(lower) => lower.paths.clone(),
            Below::Image(files, ..) => vec![files.path.clone()],
        }
    }

    /// The upper directory itself.
    pub fn upper(&self) -> std::os::fd::BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// Path of the upper directory, for `inspect`.
    pub fn upper_path(&self) -> PathBuf {
        self.directory.join(UPPER)
    }

    /// Path of overlay's work directory, for `inspect`.
    pub fn work_path(&self) -> PathBuf {
        self.directory.join(WORK)
    }

    /// Mounts it, detached: the descriptor is the mount, and closing it undoes it unless it was
    /// attached somewhere by then. A mark left by an earlier volatile mount is cleared.
    ///
    /// # Errors
    /// [`Error::Mount`] with what the kernel says.
    pub fn mount(&self, options: MountOptions) -> Result<OwnedFd> {
        overlay::clear_volatile_mark(self.work.as_fd())
            .map_err(io(|| format!("clearing {}", self.work_path().display())))?;
        let attributes = if options.read_only {
            MountAttrFlags::MOUNT_ATTR_RDONLY
        } else {
            MountAttrFlags::empty()
        };
        let volatile = options.volatile || self.record.volatile;
        let upper = Upper { upper: self.upper.as_fd(), work: self.work.as_fd(), volatile };
        overlay::mount(self.lower()?, Some(upper), attributes)
    }
}
