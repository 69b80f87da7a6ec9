//! Contexts that come as archives: unpacked into a directory that ends with the build.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, io};

/// Where they are.
pub(crate) fn directory(engine: &engine::Engine) -> PathBuf {
    engine.data_root().join("cache/uploads")
}

/// A directory of this build; removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(crate) fn new(engine: &engine::Engine) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = directory(engine);
        remove_stale(&parent);
        let path = parent.join(format!("{}-{number}", std::process::id()));
        let make = || -> std::io::Result<()> {
            std::fs::create_dir_all(&parent)?;
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            std::fs::DirBuilder::new().mode(0o700).create(&path)
        };
        make().map_err(io(|| format!("making {}", path.display())))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The next build tries again.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A context that was unpacked; removed when dropped.
#[derive(Debug)]
pub struct Unpacked(Temporary);

impl Unpacked {
    /// Unpacks an archive, compressed or not, below the engine's data root.
    ///
    /// # Errors
    /// An archive that is damaged or refused; a full disk.
    pub fn new(engine: &engine::Engine, archive: &mut dyn Read) -> Result<Self> {
        let unpacked = Self(Temporary::new(engine)?);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(unpacked.path(), flags, Mode::empty())
            .map_err(io(|| format!("opening {}", unpacked.path().display())))?;
        let options = store::copy::UntarOptions::default();
        store::copy::untar_into(root.as_fd(), b"", archive, options)
            .map_err(|e| Error::Invalid(format!("the context's archive: {e}")))?;
        Ok(unpacked)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Removes what killed builds left.
fn remove_stale(parent: &Path) {
    let Ok(list) = std::fs::read_dir(parent) else { return };
    for entry in list.flatten() {
        let name = entry.file_name();
        let pid = name.to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        let lives = pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
        if !lives {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a stream that begins like this is an archive, and not a Dockerfile.
pub fn is_archive(start: &[u8]) -> bool {
    oci::compression::Compression::detect(start) != oci::compression::Compression::None
        || crate::copying::is_tar(start)
}
