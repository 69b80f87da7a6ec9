//! In which form layers are kept, and how that is chosen.

use std::os::fd::AsFd;
use std::path::Path;

use oci::DiffId;
use oci::tar::{Entry, Kind, TarWriter};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::error::io;
use crate::image_mount::{self, From};
use crate::overlay::{self, Upper};
use crate::{Error, Lower, Result, Store, files};

/// What a caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormChoice {
    /// The best that this host can do.
    #[default]
    Auto,
    /// Unpacked directories.
    Directories,
    /// Image filesystems; an error where they cannot be mounted.
    Erofs,
}

/// How the layers of images are presented to overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An unpacked directory for each layer.
    Directories,
    /// One EROFS index for each image, over the layers' archives, mounted straight from the files.
    ErofsFiles,
    /// The same, mounted through loop devices.
    ErofsLoop,
}

impl Form {
    /// A name for `info`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Form::Directories => "directories",
            Form::ErofsFiles => "erofs",
            Form::ErofsLoop => "erofs through loop devices",
        }
    }

    /// Layers are not unpacked.
    #[must_use]
    pub fn is_erofs(self) -> bool {
        self != Form::Directories
    }

    pub(crate) fn from(self) -> Option<From> {
        match self {
            Form::Directories => None,
            Form::ErofsFiles => Some(From::Files),
            Form::ErofsLoop => Some(From::LoopDevices),
        }
    }
}

/// `form`: what was found out, which holds until the kernel is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    boot: String,
    /// `files`, `loop` or `none`.
    erofs: String,
    /// Why not `files`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

const CACHE: &str = "form";

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

impl Store {
    /// The form in which this store presents images, and keeps new layers.
    ///
    /// # Errors
    /// [`Error::Invalid`] if image filesystems are asked for and this host cannot mount them.
    pub fn form(&self) -> Result<Form> {
        if let Some(form) = self.form.get() {
            return Ok(*form);
        }
        let choice = match self.options.form {
            FormChoice::Auto => self.chosen_form(),
            choice => choice,
        };
        let form = match choice {
            FormChoice::Directories => Form::Directories,
            choice => {
                let (form, reason) = self.erofs_form();
                if choice == FormChoice::Erofs && form == Form::Directories {
                    return Err(Error::Invalid(format!(
                        "image filesystems are asked for (storage = \"erofs\", or a migration to them), \
                         but this host cannot mount them: {reason}; use a kernel of 6.12 or newer with \
                         EROFS, or storage = \"directories\""
                    )));
                }
                form
            }
        };
        Ok(*self.form.get_or_init(|| form))
    }

    /// The best form on this host, whatever was asked for, and why it is not a better one.
    pub fn erofs_form(&self) -> (Form, String) {
        let boot = boot_id();
        let path = self.root.join(CACHE);
        let cached = files::read_small(&path, 4096).ok();
        let cached = cached.and_then(|raw| serde_json::from_slice::<Found>(&raw).ok());
        let found = match cached.filter(|found| found.boot == boot) {
            Some(found) => found,
            None if self.options.read_only => {
                return (Form::Directories, "the data root cannot be written".to_owned());
            }
            None => {
                let found = self.probe(boot);
                // Only a cache: without it the next one asks the kernel again.
                let _ = self.write_cache(&path, &found);
                found
            }
        };
        let form = match found.erofs.as_str() {
            "files" => Form::ErofsFiles,
            "loop" => Form::ErofsLoop,
            _ => Form::Directories,
        };
        (form, found.reason)
    }

    fn write_cache(&self, path: &Path, found: &Found) -> Result<()> {
        let what = || format!("writing {}", path.display());
        let temporary = self.temporary()?;
        let new = temporary.path().join(CACHE);
        let raw = serde_json::to_vec(found).unwrap_or_default();
        std::fs::write(&new, raw).map_err(io(what))?;
        std::fs::rename(&new, path).map_err(io(what))
    }

    /// Asks the kernel, with a small image and an overlay upon it, in the data root itself.
    fn probe(&self, boot: String) -> Found {
        let mut reasons = Vec::new();
        for (from, name) in [(From::Files, "files"), (From::LoopDevices, "loop")] {
            match self.try_mount(from) {
                Ok(()) => {
                    return Found { boot, erofs: name.to_owned(), reason: reasons.join("; ") };
                }
                Err(error) => reasons.push(format!("from {name}: {error}")),
            }
        }
        Found { boot, erofs: "none".to_owned(), reason: reasons.join("; ") }
    }

    fn try_mount(&self, from: From) -> Result<()> {
        const CONTENT: &[u8] = b"an image filesystem";
        let what = || "trying an image filesystem".to_owned();
        let temporary = self.temporary()?;
        let mut entry = Entry::new("file", Kind::File, 0o644);
        entry.size = CONTENT.len() as u64;
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&entry).map_err(io(what))?;
        tar.write_data(CONTENT).map_err(io(what))?;
        let archive = tar.finish().map_err(io(what))?;
        let mut tree = erofs::LayerTree::new();
        // One header lies before the data.
        tree.add(&entry, 512, None)?;
        let diff_id = DiffId(oci::Digest::sha256(&archive));
        let size = archive.len() as u64;
        let layer = erofs::Layer { diff_id, tree: &tree, archive: size, side: 0 };
        let index = erofs::merge(&[layer])?.write([0; 16])?;
        let place = |name: &str| temporary.path().join(name);
        for (name, bytes) in [("index", &index), ("tar", &archive)] {
            std::fs::write(place(name), bytes).map_err(io(what))?;
        }
        for name in ["upper", "work"] {
            rustix::fs::mkdirat(CWD, place(name), Mode::from_raw_mode(0o700)).map_err(io(what))?;
        }
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, place(name), flags, Mode::empty()).map_err(io(what))
        };
        let mount = image_mount::mount(from, &open("index")?, &[open("tar")?])?;
        let lower = Lower::of_mount(mount, place("index"))?;
        let (upper, work) = (open("upper")?, open("work")?);
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), volatile: false };
        let mount = overlay::mount(&lower, Some(upper), MountAttrFlags::empty())?;
        let file = rustix::fs::openat(&mount, "file", OFlags::RDONLY, Mode::empty());
        let mut content = Vec::new();
        let mut file = std::fs::File::from(file.map_err(io(what))?);
        std::io::Read::read_to_end(&mut file, &mut content).map_err(io(what))?;
        if content != CONTENT {
            return Err(Error::Invalid("a file in it reads as something else".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of mounting, not only the one that is chosen.
    #[test]
    fn an_image_is_mounted_from_files_and_from_loop_devices() {
        let root = std::env::temp_dir().join(format!("wherry-form-{}", std::process::id()));
        let store = Store::open(&root, crate::OpenOptions::default()).unwrap();
        for from in [From::Files, From::LoopDevices] {
            store.try_mount(from).unwrap();
        }
        assert_eq!(store.form().unwrap(), Form::ErofsFiles);
        // What was found out is kept for the boot, and only for it.
        let cache = root.join(CACHE);
        let found: Found = serde_json::from_slice(&std::fs::read(&cache).unwrap()).unwrap();
        assert_eq!(found.erofs, "files");
        let write = |boot: &str| {
            let found =
                Found { boot: boot.to_owned(), erofs: "none".to_owned(), reason: "x".to_owned() };
            std::fs::write(&cache, serde_json::to_vec(&found).unwrap()).unwrap();
        };
        write(&found.boot);
        assert_eq!(store.erofs_form(), (Form::Directories, "x".to_owned()));
        write("another");
        assert_eq!(store.erofs_form(), (Form::ErofsFiles, String::new()));
        drop(store);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
