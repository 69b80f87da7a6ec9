//! `load`: images from an archive of images.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use erofs::Indexed;
use oci::archive::{Contents, LayerFacts, LayerSink, read_tar, unwrap_io};
use oci::digest::{Hasher, HashingReader};
use oci::manifest::Platform;
use oci::{DiffId, Digest, ImageId, Reference, limits};
use rustix::fs::{Mode, OFlags};

use crate::error::io;
use crate::image::NewImage;
use crate::{Error, Progress, Result, Store, files};

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Of an image for several platforms, which one; this machine's if not given.
    pub platform: Option<Platform>,
    /// Most bytes a layer may have when uncompressed.
    pub limit: Option<u64>,
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its ID.
    pub id: ImageId,
    /// The names it got from the archive.
    pub references: Vec<Reference>,
}

struct Sink<'a> {
    store: &'a Store,
    limit: Option<u64>,
    progress: &'a mut dyn Progress,
    /// Layers that were read just now, for the indexes of the images.
    indexed: HashMap<DiffId, Indexed>,
}

impl LayerSink for Sink<'_> {
    type Error = Error;

    fn layer(
        &mut self,
        name: &str,
        expected: Option<Digest>,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<LayerFacts> {
        // Two loads of the same layer: the second waits here and finds it done.
        let _lock = match expected {
            Some(digest) => Some(self.store.named_lock(&format!("layer-{}", digest.hex()))?),
            None => None,
        };
        if let Some(digest) = expected
            && let Some(info) = self.store.layer_info(&DiffId(digest))
            && info.tar_size == size
        {
            self.progress.update(name, size, Some(size));
            return Ok(LayerFacts { diff_id: DiffId(digest), blob: digest, size });
        }
        // A compressed blob has a digest of its own.
        let mut start = [0; 4];
        let have = read_start(data, &mut start).map_err(|error| unwrap_io(name, error))?;
        let plain = oci::compression::Compression::detect(&start)
            == oci::compression::Compression::None
            && expected.is_none_or(|digest| digest.algorithm() == "sha256");
        let mut whole = start.get(..have).unwrap_or_default().chain(data);
        let (layer, blob) = if plain {
            let layer = self.store.stage_layer(&mut whole, name, self.limit, self.progress)?;
            let blob = layer.diff_id.digest();
            (layer, blob)
        } else {
            let hasher = expected.map_or_else(Hasher::sha256, |digest| digest.hasher());
            let mut raw = HashingReader::new(whole, hasher);
            let layer = self.store.stage_layer(&mut raw, name, self.limit, self.progress)?;
            let (blob, _) = raw.finish().map_err(|error| unwrap_io(name, error))?;
            (layer, blob)
        };
        if let Some(expected) = expected.filter(|expected| *expected != blob) {
            let what = name.to_owned();
            return Err(oci::Error::digest_mismatch(what, expected, blob).into());
        }
        self.store.sync_layer(&layer)?;
        self.store.publish_layer(&layer)?;
        let diff_id = layer.diff_id;
        if let Some(indexed) = layer.indexed {
            self.indexed.insert(diff_id, indexed);
        }
        Ok(LayerFacts { diff_id, blob, size })
    }
}

fn read_start(data: &mut dyn Read, start: &mut [u8]) -> std::io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match data.read(rest) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

impl Store {
    /// Adds the images of an archive: what `docker save` writes in any of its forms since Docker 1.10, or
    /// an OCI image layout as a tar; compressed or not. The stream is read once, to its end, and need
    /// not be seekable.
    ///
    /// # Errors
    /// An archive that is damaged, refused, or no image archive; a full disk. Nothing is left behind then.
    pub fn load(
        &self,
        archive: &mut dyn Read,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>> {
        self.load_with(options, progress, |sink| read_tar(archive, sink))
    }

    /// Adds the images of an OCI image layout that is a directory.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_directory(
        &self,
        path: &Path,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let root = files::open_path(path)?;
        self.load_with(options, progress, |sink| {
            let mut contents = Contents::default();
            let mut names = vec!["index.json".to_owned(), "oci-layout".to_owned()];
            for algorithm in ["sha256", "sha512"] {
                let directory = format!("blobs/{algorithm}");
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let Ok(fd) = files::open_in_root(
                    std::os::fd::AsFd::as_fd(&root),
                    directory.as_bytes(),
                    flags,
                ) else {
                    continue;
                };
                let what = || format!("reading {directory}");
                for name in files::names(&fd).map_err(io(what))? {
                    names.push(format!("{directory}/{}", name.to_string_lossy()));
                }
            }
            if names.len() > limits::MAX_ARCHIVE_ENTRIES {
                return Err(Error::Invalid(format!("{} has too many files", path.display())));
            }
            for name in names {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&root, name.as_str(), flags, Mode::empty())
                    .map(std::fs::File::from)
                    .map_err(io(|| format!("opening {}/{name}", path.display())))?;
                let metadata =
                    file.metadata().map_err(io(|| format!("reading {}/{name}", path.display())))?;
                if metadata.is_file() {
                    contents.add(&name, metadata.len(), &mut &file, sink)?;
                }
            }
            Ok(contents)
        })
    }

    fn load_with(
        &self,
        options: &LoadOptions,
        progress: &mut dyn Progress,
        read: impl FnOnce(&mut Sink<'_>) -> Result<Contents>,
    ) -> Result<Vec<Loaded>> {
        self.writable_store()?;
        self.remove_stale_temporaries();
        let lease = self.lease()?;
        let indexed = HashMap::new();
        let mut sink = Sink { store: self, limit: options.limit, progress, indexed };
        let result = read(&mut sink).and_then(|contents| {
            let images = contents.images(options.platform.as_ref())?;
            if images.is_empty() {
                let reason = "it names no image".to_owned();
                return Err(Error::Oci(oci::Error::Archive(reason)));
            }
            let mut loaded = Vec::new();
            for image in images {
                let mut layers = Vec::new();
                for facts in &image.layers {
                    let info = self.layer_info(&facts.diff_id).ok_or_else(|| {
                        Error::Damaged(format!("the layer {} vanished", facts.diff_id))
                    })?;
                    layers.push((facts.diff_id, info));
                }
                if self.form()?.is_erofs() && !image.layers.is_empty() {
                    let diff_ids: Vec<_> = image.layers.iter().map(|l| l.diff_id).collect();
                    let known = sink.indexed.iter().map(|(id, indexed)| (*id, indexed)).collect();
                    let chain = self.stage_chain(&diff_ids, &known)?;
                    self.sync_chain(&chain)?;
                    self.publish_chain(&chain)?;
                }
                let record = self.add_image(&NewImage {
                    config: &image.config,
                    config_raw: &image.config_raw,
                    parent: None,
                    references: &image.references,
                    layers: &layers,
                })?;
                loaded.push(Loaded { id: record.id, references: image.references });
            }
            Ok(loaded)
        });
        drop(lease);
        // Layers that no image of the archive names, or all of them if it was refused.
        self.collect_layers()?;
        result
    }
}
