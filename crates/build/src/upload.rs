//! Contexts that come as archives, unpacked into a directory that ends with the build; and those that go to an engine elsewhere.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use oci::Digest;
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result, io};
use crate::language::dockerignore::Ignore;
use crate::options::{Context, File, Options};
use crate::tree::Tree;

/// Where they are.
pub(crate) fn directory(engine: &engine::Engine) -> PathBuf {
    let [uploads, _] = engine.build_directories();
    uploads
}

/// Makes a directory of this process's own in `parent`, which is made if it is not there.
pub(crate) fn private_directory(parent: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    // A server has many builds under way.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = parent.join(format!("{}-{number}", std::process::id()));
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(parent)?;
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&path)
    };
    make().map_err(io(|| format!("making {}", path.display())))?;
    Ok(path)
}

/// A directory of this build; removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(crate) fn new(engine: &engine::Engine) -> Result<Self> {
        let path = private_directory(&directory(engine))?;
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

/// What the Dockerfile of these options is called in an archive made by [`pack`].
pub fn file_name(options: &Options) -> String {
    match &options.file {
        File::InContext(path) => path.clone(),
        File::Text { text, .. } => format!(".dockerfile.{}", Digest::sha256(text).short()),
    }
}

/// Writes the context of these options as an archive for an engine elsewhere, without what is ignored.
///
/// A Dockerfile that is not in the context is put beside its files, with a list of what is ignored that names it; those that are in it, and are
/// ignored, are sent all the same, since the other engine reads them.
///
/// # Errors
/// Those of reading and writing; a Dockerfile that is wrong, so that nothing is sent for it.
pub fn pack(options: &Options, out: &mut dyn Write) -> Result<()> {
    let (file, tree) = crate::job::open(options)?;
    let what = || "writing the context's archive".to_owned();
    let mut archive = tar::Builder::new(out);
    let mut sent = BTreeSet::new();
    if let Some(tree) = &tree {
        for source in tree.find("/", &Ignore::default())? {
            for item in source.items.iter().filter(|item| !item.path.is_empty()) {
                let mut header = tar::Header::new_gnu();
                header.set_mode(item.stat.st_mode & 0o7777);
                header.set_mtime(u64::try_from(item.stat.st_mtime).unwrap_or(0));
                header.set_size(0);
                let path = Path::new(OsStr::from_bytes(&item.path));
                match item.kind() {
                    FileType::Directory => {
                        header.set_entry_type(tar::EntryType::Directory);
                        archive
                            .append_data(&mut header, path, std::io::empty())
                            .map_err(io(what))?;
                    }
                    FileType::Symlink => {
                        header.set_entry_type(tar::EntryType::Symlink);
                        let link = Path::new(OsStr::from_bytes(&item.link));
                        archive.append_link(&mut header, path, link).map_err(io(what))?;
                    }
                    FileType::RegularFile => {
                        let content = std::fs::File::from(tree.open_item(&source, item)?);
                        let size = content.metadata().map_err(io(what))?.len();
                        header.set_size(size);
                        let content = content.take(size);
                        archive.append_data(&mut header, path, content).map_err(io(what))?;
                    }
                    // Nothing that a COPY of a context would take.
                    _ => continue,
                }
                sent.insert(item.path.clone());
            }
        }
    }
    let mut more = Vec::new();
    match (&options.file, &tree) {
        (File::InContext(path), Some(_)) => {
            // Read past what is ignored.
            let Context::Directory(directory) = &options.context else { return Ok(()) };
            let bare = Tree::open(directory, Ignore::default())?;
            more.push((path.clone(), file.text.clone().into_bytes()));
            for name in [format!("{path}.dockerignore"), ".dockerignore".to_owned()] {
                const MOST: u64 = 8 << 20;
                if let Some(bytes) = bare.read(&name, MOST)? {
                    more.push((name, bytes));
                }
            }
        }
        (File::Text { text, ignore, .. }, tree) => {
            let name = file_name(options);
            if tree.is_some() {
                let own = match (ignore, &options.context) {
                    (Some(ignore), _) => ignore.clone(),
                    (None, Context::Directory(directory)) => {
                        std::fs::read_to_string(directory.join(".dockerignore")).unwrap_or_default()
                    }
                    (None, Context::Empty) => String::new(),
                };
                let list = format!("{own}\n{name}\n{name}.dockerignore\n");
                more.push((format!("{name}.dockerignore"), list.into_bytes()));
            }
            more.push((name, text.clone().into_bytes()));
        }
        (File::InContext(_), None) => {}
    }
    for (name, content) in more {
        if sent.contains(name.as_bytes()) {
            continue;
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, &name, content.as_slice()).map_err(io(what))?;
    }
    archive.finish().map_err(io(what))
}

/// Whether a stream that begins like this is an archive, and not a Dockerfile.
pub fn is_archive(start: &[u8]) -> bool {
    oci::compression::Compression::detect(start) != oci::compression::Compression::None
        || crate::copying::is_tar(start)
}
