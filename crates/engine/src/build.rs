//! What building images needs of the engine: containers that lie upon layers instead of an image and are
//! nobody's but the build's, and layers made of what was changed in them.
//!
//! A build holds the store ([`Engine::hold`]) so that no layer goes under its feet. Its containers carry the
//! identity of its process: what a killed build left is found and removed by the next one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::compression::Compression;
use oci::config::ImageConfig;
use oci::{DiffId, Reference};
use runtime::state::ProcessIdentity;
use store::{CachedStep, Hold, ImageRecord, MountOptions};

use crate::engine::{Engine, RemoveOptions};
use crate::error::{Error, Result};
use crate::record;
use crate::types::{Config, CreateRequest, HostConfig};

/// What a step's container lies upon.
#[derive(Debug)]
pub(crate) struct Upon {
    pub(crate) layers: Vec<DiffId>,
    pub(crate) builder: ProcessIdentity,
    /// Something will run in it, so that it needs the places that are mounted over.
    pub(crate) runs: bool,
}

fn me() -> Result<ProcessIdentity> {
    Ok(ProcessIdentity::of(rustix::process::getpid().as_raw_nonzero().get())?)
}

impl Engine {
    /// Keeps every layer in the store until it is dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn hold(&self) -> Result<Hold> {
        Ok(self.store().hold()?)
    }

    /// The image with this name, or with an ID that begins with these twelve digits or more, if it is here.
    /// Fewer would be an image by chance: what `b` means must not depend on which images are here.
    ///
    /// # Errors
    /// A name that is none; those of the store.
    pub fn build_base(&self, name: &str, platform: Option<&str>) -> Result<Option<ImageRecord>> {
        if !self.has_image(name, platform)? {
            return Ok(None);
        }
        let image = self.store().image(name)?;
        let by_name = name
            .parse::<Reference>()
            .is_ok_and(|reference| image.references.contains(&reference.or_latest()));
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let by_chance = digits.len() < 12 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        Ok((by_name || !by_chance).then_some(image))
    }

    /// Makes the container of a step upon these layers; its ID. Without `runs` it is a place to
    /// put files, see [`Engine::mount_step`].
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub fn create_step(
        &self,
        layers: &[DiffId],
        config: Config,
        host_config: HostConfig,
        runs: bool,
    ) -> Result<String> {
        let request = CreateRequest { config, host_config, ..CreateRequest::default() };
        let upon = Upon { layers: layers.to_vec(), builder: me()?, runs };
        Ok(self.create_upon(request, Some(upon))?.id)
    }

    /// Makes the container of a service that steps reach: of an image, and the build's as steps are.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub fn create_service(
        &self,
        image: &ImageRecord,
        mut config: Config,
        host_config: HostConfig,
    ) -> Result<String> {
        crate::create::merge(&mut config, &image.config);
        self.create_step(&image.layers, config, host_config, true)
    }

    /// The files of a step's container, mounted for writing and detached.
    ///
    /// # Errors
    /// Those of mounting.
    pub fn mount_step(&self, id: &str) -> Result<OwnedFd> {
        let layer = self.store().writable(id)?;
        Ok(layer.mount(MountOptions { read_only: false, volatile: true })?)
    }

    /// The files of these layers, mounted read-only and detached.
    ///
    /// # Errors
    /// Those of mounting.
    pub fn mount_layers(&self, layers: &[DiffId]) -> Result<OwnedFd> {
        Ok(self.store().mount_layers(layers)?)
    }

    /// Writes the files of these layers as an archive.
    ///
    /// # Errors
    /// Those of mounting, reading and writing.
    pub fn export_layers(&self, layers: &[DiffId], out: &mut dyn std::io::Write) -> Result<()> {
        let root = self.store().mount_layers(layers)?;
        Ok(self.store().export_tar(root.as_fd(), out)?)
    }

    /// Takes a layer in that is to lie upon others.
    ///
    /// # Errors
    /// As [`store::Store::import_layer`].
    pub fn import_layer(
        &self,
        below: &[DiffId],
        source: &mut dyn std::io::Read,
        expected: &DiffId,
    ) -> Result<()> {
        Ok(self.store().import_layer(below, source, expected)?)
    }

    /// A layer as it travels; the same bytes each time.
    ///
    /// # Errors
    /// As [`store::Store::pack_layer`].
    pub fn pack_layer(
        &self,
        layer: &DiffId,
        compression: Compression,
    ) -> Result<store::PackedLayer> {
        Ok(self.store().pack_layer(layer, compression, false, &mut |_| Ok(()))?)
    }

    /// Makes the changes of a layer to the files below a directory.
    ///
    /// # Errors
    /// A layer that is not here; those of writing.
    pub fn apply_layer(&self, root: BorrowedFd<'_>, layer: &DiffId) -> Result<()> {
        Ok(self.store().apply_layer(root, layer)?)
    }

    /// Opens the archive of a layer.
    ///
    /// # Errors
    /// A layer that is not here.
    pub fn open_layer(&self, layer: &DiffId) -> Result<std::fs::File> {
        Ok(self.store().open_layer(layer)?)
    }

    /// Makes a layer of what a step's container changed; its diff ID and the bytes of its files. It fails as soon as `wanted` says no.
    ///
    /// # Errors
    /// As [`store::Store::commit_layer`].
    pub fn commit_step(
        &self,
        id: &str,
        epoch: i64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(DiffId, u64)> {
        let layer = self.store().writable(id)?;
        Ok(self.store().commit_layer(&layer, epoch, wanted)?)
    }

    /// Removes a step's container, whatever state it is in.
    ///
    /// # Errors
    /// As [`Engine::remove`].
    pub fn remove_step(&self, id: &str) -> Result<()> {
        self.remove(id, RemoveOptions { force: true, volumes: true })
    }

    /// Removes what builds have left whose processes are no more: containers and directories.
    ///
    /// # Errors
    /// The first one, after having gone on with the rest.
    pub fn sweep_steps(&self) -> Result<()> {
        self.remove_steps(&|builder| !builder.alive(), &|pid| {
            !Path::new(&format!("/proc/{pid}")).exists()
        })
    }

    /// Removes what the builds of this process have begun: containers and directories. It is to end at once.
    ///
    /// # Errors
    /// The first one, after having gone on with the rest.
    pub fn abandon_steps(&self) -> Result<()> {
        let me = me()?;
        self.remove_steps(&|builder| *builder == me, &|pid| pid == me.pid)
    }

    fn remove_steps(
        &self,
        whose: &dyn Fn(&ProcessIdentity) -> bool,
        number: &dyn Fn(i32) -> bool,
    ) -> Result<()> {
        let mut first = Ok(());
        for record in record::all(self.db())? {
            let left = record.definition.builder.as_ref().is_some_and(whose);
            if left
                && let Err(error) = self.remove_step(&record.id)
                // The steward and the next build may be at the same.
                && record::by_id(self.db(), &record.id)?.is_some()
            {
                first = first.and(Err(error));
            }
        }
        for parent in self.build_directories() {
            // Most engines have never built.
            let Ok(list) = std::fs::read_dir(&parent) else { continue };
            for entry in list.flatten() {
                let name = entry.file_name();
                let pid = name.to_str().and_then(|name| name.split('-').next()?.parse().ok());
                if pid.is_none_or(number)
                    && let Err(error) = std::fs::remove_dir_all(entry.path())
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    let doing = format!("remove {}", entry.path().display());
                    first = first.and(Err(Error::system(doing, error)));
                }
            }
        }
        first
    }

    /// Where builds have directories of their own, with names that begin with the number of the process and `-`: contexts that
    /// were sent or fetched, and what steps are given, secrets among it.
    pub fn build_directories(&self) -> [PathBuf; 2] {
        [self.data_root().join("cache/uploads"), self.run_root().join("build")]
    }

    /// The result of the step with this key.
    ///
    /// # Errors
    /// Those of the store.
    pub fn cached_step(&self, key: &str) -> Result<Option<CachedStep>> {
        Ok(self.store().cached_step(key)?)
    }

    /// All results of steps, the one used last first.
    ///
    /// # Errors
    /// Those of the store.
    pub fn cached_steps(&self) -> Result<Vec<CachedStep>> {
        Ok(self.store().cached_steps()?)
    }

    /// Notes which step made a layer.
    ///
    /// # Errors
    /// Those of the store.
    pub fn remember_step(&self, step: &CachedStep) -> Result<()> {
        Ok(self.store().remember_step(step)?)
    }

    /// Notes that results were used.
    ///
    /// # Errors
    /// Those of the store.
    pub fn used_steps(&self, keys: &[String]) -> Result<()> {
        Ok(self.store().used_steps(keys)?)
    }

    /// Forgets results for which `keep` says no.
    ///
    /// # Errors
    /// Those of the store.
    pub fn forget_steps(
        &self,
        keep: &mut dyn FnMut(&CachedStep) -> bool,
    ) -> Result<Vec<CachedStep>> {
        let gone = self.store().forget_steps(keep)?;
        self.store().db().checkpoint_if_large()?;
        Ok(gone)
    }

    /// Adds the image that a build made. The names go over to it.
    ///
    /// # Errors
    /// Names that are none; those of the store.
    pub fn add_built_image(
        &self,
        config: ImageConfig,
        layers: Vec<DiffId>,
        parent: Option<oci::ImageId>,
        names: &[String],
    ) -> Result<ImageRecord> {
        let mut references = Vec::new();
        for name in names {
            let reference = Reference::parse(name).map_err(|e| {
                Error::invalid(format!("\"{name}\" is not a valid repository/tag: {e}"))
            })?;
            if reference.digest().is_some() {
                return Err(Error::invalid("refusing to create a tag with a digest reference"));
            }
            references.push(reference.or_latest());
        }
        let image = self.store().add_built_image(config, layers, parent, &references)?;
        let id = image.id.to_string();
        for reference in &references {
            self.note_image("tag", &id, &reference.familiar())?;
        }
        Ok(image)
    }
}
