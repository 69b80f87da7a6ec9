//! Image filesystems: how the layers of an image become the lower part of an overlay.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci::DiffId;

use crate::layer::DIFF;
use crate::{Error, ImageRecord, Result, Store, files};

/// The directories an overlay is put upon, the topmost first.
#[derive(Debug)]
pub struct Lower {
    /// Open directories, the topmost first; at least one.
    pub directories: Vec<OwnedFd>,
    /// Where they are, for messages.
    pub paths: Vec<PathBuf>,
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

impl Store {
    /// The image filesystem this store uses.
    pub fn image_fs(&self) -> UnpackedDirectories<'_> {
        UnpackedDirectories { store: self }
    }

    pub(crate) fn lower_of(&self, layers: &[DiffId]) -> Result<Lower> {
        let mut lower = Lower { directories: Vec::new(), paths: Vec::new() };
        let mut seen = std::collections::HashSet::new();
        for diff_id in layers.iter().rev() {
            // The same layer twice changes nothing, but the kernel refuses it.
            if !seen.insert(diff_id) {
                continue;
            }
            let path = self.layer_path(diff_id).join(DIFF);
            let fd = files::open_path(&path).map_err(|error| {
                Error::Damaged(format!("the layer {diff_id} is missing: {error}"))
            })?;
            lower.directories.push(fd);
            lower.paths.push(path);
        }
        if lower.directories.is_empty() {
            let path = self.root.join("empty");
            lower.directories.push(files::open_path(&path)?);
            lower.paths.push(path);
        }
        Ok(lower)
    }
}

impl ImageFs for UnpackedDirectories<'_> {
    fn name(&self) -> &'static str {
        "directories"
    }

    fn lower(&self, image: &ImageRecord) -> Result<Lower> {
        self.store.lower_of(&image.layers)
    }
}
