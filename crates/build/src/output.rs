//! What a build made, as files.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use engine::Engine;
use oci::DiffId;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, io};

/// Writes the files of layers as an archive.
///
/// # Errors
/// Those of reading and writing.
pub fn tar(engine: &Engine, layers: &[DiffId], out: &mut dyn Write) -> Result<()> {
    Ok(engine.export_layers(layers, out)?)
}

/// Puts the files of layers into a directory of the host, which is made if it is missing. What is there stays, unless a file
/// has its name.
///
/// # Errors
/// Those of reading and writing.
pub fn local(engine: &Engine, layers: &[DiffId], to: &Path) -> Result<()> {
    let what = || format!("writing into {}", to.display());
    std::fs::create_dir_all(to).map_err(io(what))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(to, flags, Mode::empty()).map_err(io(what))?;
    let (mut reader, mut writer) = std::io::pipe().map_err(io(what))?;
    let other = engine.another()?;
    std::thread::scope(|scope| {
        let unpacker = scope.spawn(move || {
            let options = store::copy::UntarOptions::default();
            store::copy::untar_into(root.as_fd(), b"", &mut reader, options)
        });
        let written = other.export_layers(layers, &mut writer);
        drop(writer);
        match unpacker.join() {
            Ok(result) => result.map_err(|e| Error::Invalid(format!("{}: {e}", what())))?,
            Err(_) => return Err(Error::Invalid(format!("{}: a thread failed", what()))),
        }
        Ok(written?)
    })
}
