//! Image filesystems: how the layers of an image become the lower part of an overlay.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use oci::DiffId;

use crate::layer::DIFF;
use crate::tree::is_opaque;
use crate::{Error, Form, ImageRecord, Result, Store, files};

/// The directories an overlay is put upon, the topmost first.
#[derive(Debug)]
pub struct Lower {
    /// Open directories, the topmost first; at least one.
    pub directories: Vec<OwnedFd>,
    /// Where they are, for messages; for an image filesystem its index.
    pub paths: Vec<PathBuf>,
    /// Detached mounts that the directories are in. Without an overlay they end with these.
    pub mounts: Vec<OwnedFd>,
    /// The mounts had to be attached for the overlay, and serve no other.
    pub(crate) spent: AtomicBool,
}

impl Lower {
    pub(crate) fn of_directories(directories: Vec<OwnedFd>, paths: Vec<PathBuf>) -> Lower {
        Lower { directories, paths, mounts: Vec::new(), spent: AtomicBool::new(false) }
    }

    /// The root of a detached mount.
    pub(crate) fn of_mount(mount: OwnedFd, path: PathBuf) -> Result<Lower> {
        let what = || "opening the root of an image filesystem".to_owned();
        let directory = files::open_dir(&mount, c".").map_err(crate::error::io(what))?;
        Ok(Lower {
            directories: vec![directory],
            paths: vec![path],
            mounts: vec![mount],
            spent: AtomicBool::new(false),
        })
    }
}

/// A way of presenting an image's layers.
pub trait ImageFs {
    /// A name for `info`.
    fn name(&self) -> &'static str;

    /// What an overlay for this image lies upon.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a layer is missing.
    fn lower(&self, image: &ImageRecord) -> Result<Lower>;
}

/// One unpacked directory per layer: works everywhere.
#[derive(Clone, Copy, Debug)]
pub struct UnpackedDirectories<'a> {
    store: &'a Store,
}

/// One mount per image, of an index over the layers' archives.
#[derive(Clone, Copy, Debug)]
pub struct ImageFilesystems<'a> {
    store: &'a Store,
    form: Form,
}

impl Store {
    /// The image filesystem this store uses.
    ///
    /// # Errors
    /// As [`Store::form`].
    pub fn image_fs(&self) -> Result<Box<dyn ImageFs + '_>> {
        Ok(match self.form()? {
            Form::Directories => Box::new(UnpackedDirectories { store: self }),
            form => Box::new(ImageFilesystems { store: self, form }),
        })
    }

    /// The lower directories of an image of these layers. Makes what is missing of the form in use:
    /// the caller holds the lease, or something that refers to the layers.
    pub(crate) fn lower_of(&self, layers: &[DiffId]) -> Result<Lower> {
        if layers.is_empty() {
            let path = self.root.join("empty");
            let directories = vec![files::open_path(&path)?];
            return Ok(Lower::of_directories(directories, vec![path]));
        }
        match self.form()? {
            Form::Directories => self.lower_directories(layers),
            form => self.image_files(form, layers)?.mount(),
        }
    }

    fn lower_directories(&self, layers: &[DiffId]) -> Result<Lower> {
        let mut lower = Lower::of_directories(vec![], vec![]);
        let mut seen = std::collections::HashSet::new();
        for diff_id in layers.iter().rev() {
            // The same layer twice changes nothing, but the kernel refuses it.
            if !seen.insert(diff_id) {
                continue;
            }
            self.unpack_layer(diff_id)?;
            let path = self.layer_path(diff_id).join(DIFF);
            let fd = files::open_path(&path).map_err(|error| {
                Error::Damaged(format!("the layer {diff_id} is missing: {error}"))
            })?;
            // While a start is under way the directory must not be converted away.
            let _ = rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockShared);
            // Overlay does not ask a layer's root whether it hides what is below.
            let opaque = is_opaque(&fd);
            lower.directories.push(fd);
            lower.paths.push(path);
            if opaque {
                break;
            }
        }
        Ok(lower)
    }
}

impl ImageFs for UnpackedDirectories<'_> {
    fn name(&self) -> &'static str {
        Form::Directories.name()
    }

    fn lower(&self, image: &ImageRecord) -> Result<Lower> {
        if image.layers.is_empty() {
            return self.store.lower_of(&[]);
        }
        self.store.lower_directories(&image.layers)
    }
}

impl ImageFs for ImageFilesystems<'_> {
    fn name(&self) -> &'static str {
        self.form.name()
    }

    fn lower(&self, image: &ImageRecord) -> Result<Lower> {
        if image.layers.is_empty() {
            return self.store.lower_of(&[]);
        }
        self.store.image_files(self.form, &image.layers)?.mount()
    }
}
