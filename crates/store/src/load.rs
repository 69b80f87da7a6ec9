//! `load`: images from an archive of images.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use erofs::Indexed;
use oci::archive::{Contents, LayerFacts, LayerPlace, LayerSink, read_tar, scan_tar, unwrap_io};
use oci::compression::Compression;
use oci::digest::{Hasher, HashingReader};
use oci::manifest::Platform;
use oci::{DiffId, Digest, ImageId, Reference, limits};
use rustix::fs::{Mode, OFlags};

use crate::chain::Seeking;
use crate::error::io;
use crate::image::NewImage;
use crate::incoming::{Incoming, Part};
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
        let source = Source { name, expected, size, data: Incoming::Stream(data) };
        let (facts, indexed) = self.store.load_layer(source, self.limit, self.progress)?;
        self.indexed.extend(indexed.map(|indexed| (facts.diff_id, indexed)));
        Ok(facts)
    }
}

impl Sink<'_> {
    /// Loads layers by several threads, each with a store of its own. The first error ends it.
    fn load_places(
        &mut self,
        file: &File,
        places: &[LayerPlace],
    ) -> Result<Vec<(LayerFacts, Option<Indexed>)>> {
        let load = |store: &Store, place: &LayerPlace, progress: &mut dyn Progress| {
            let data = Incoming::Part(Part { file, offset: place.offset, left: place.size });
            let (name, expected, size) = (&place.name, place.expected, place.size);
            store.load_layer(Source { name, expected, size, data }, self.limit, progress)
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let threads = threads.min(places.len());
        if threads <= 1 {
            return places.iter().map(|place| load(self.store, place, self.progress)).collect();
        }
        let (root, options) = (self.store.root.as_path(), self.store.options);
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let (send, receive) = channel::<Report>();
        let work = |send: Sender<Report>| {
            let mut done = Vec::new();
            let mut work = || {
                let store = Store::open(root, options)?;
                let mut progress = |what: &str, done: u64, total: Option<u64>| {
                    // Nobody listens any more: it does not matter.
                    let _ = send.send((what.to_owned(), done, total));
                };
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = places.get(number) else { break };
                    done.push((number, load(&store, place, &mut progress)?));
                }
                Ok(())
            };
            let result: Result<()> = work();
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            result.map(|()| done)
        };
        let mut all = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let send = send.clone();
                    scope.spawn(|| work(send))
                })
                .collect();
            drop(send);
            for (what, done, total) in receive {
                self.progress.update(&what, done, total);
            }
            let mut all = Vec::new();
            let mut first = Ok(());
            for worker in workers {
                let failed = || Error::Invalid("a thread of the load failed".to_owned());
                match worker.join().unwrap_or_else(|_| Err(failed())) {
                    Ok(done) => all.extend(done),
                    Err(error) if first.is_ok() => first = Err(error),
                    Err(_) => {}
                }
            }
            first.map(|()| all)
        })?;
        all.sort_by_key(|(number, _)| *number);
        Ok(all.into_iter().map(|(_, layer)| layer).collect())
    }
}

/// Layers read at a time, at most. Each has threads of its own for hashing and writing.
const MAX_THREADS: usize = 4;

/// One layer of an archive.
struct Source<'a> {
    name: &'a str,
    expected: Option<Digest>,
    size: u64,
    data: Incoming<'a>,
}

/// What a thread that loads layers tells the others.
type Report = (String, u64, Option<u64>);

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
    /// Reads one layer and puts it in its place.
    fn load_layer(
        &self,
        source: Source<'_>,
        limit: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<(LayerFacts, Option<Indexed>)> {
        let Source { name, expected, size, data } = source;
        // Two loads of the same layer: the second waits here and finds it done.
        let _lock = match expected {
            Some(digest) => Some(self.named_lock(&format!("layer-{}", digest.hex()))?),
            None => None,
        };
        if let Some(digest) = expected
            && let Some(info) = self.layer_info(&DiffId(digest))
            && info.tar_size == size
        {
            progress.update(name, size, Some(size));
            return Ok((LayerFacts { diff_id: DiffId(digest), blob: digest, size }, None));
        }
        // A compressed blob has a digest of its own.
        let (start, data) = match data {
            Incoming::Part(part) => {
                let start = part.start().map_err(|error| unwrap_io(name, error))?;
                (start, Incoming::Part(part))
            }
            Incoming::Stream(stream) => {
                let mut start = [0; 4];
                let have = read_start(stream, &mut start).map_err(|e| unwrap_io(name, e))?;
                (start.get(..have).unwrap_or_default().to_vec(), Incoming::Stream(stream))
            }
        };
        let plain = Compression::detect(&start) == Compression::None
            && expected.is_none_or(|digest| digest.algorithm() == "sha256");
        // What was read of a stream is put before it again.
        let mut whole;
        let mut data = match data {
            Incoming::Stream(stream) => {
                whole = start.as_slice().chain(stream);
                Incoming::Stream(&mut whole)
            }
            part @ Incoming::Part(_) => part,
        };
        let (layer, blob) = if plain {
            let layer = self.stage_layer(data, name, limit, progress)?;
            let blob = layer.diff_id.digest();
            (layer, blob)
        } else {
            let hasher = expected.map_or_else(Hasher::sha256, |digest| digest.hasher());
            let mut raw = HashingReader::new(&mut data, hasher);
            let layer = self.stage_layer(Incoming::Stream(&mut raw), name, limit, progress)?;
            let (blob, _) = raw.finish().map_err(|error| unwrap_io(name, error))?;
            (layer, blob)
        };
        if let Some(expected) = expected.filter(|expected| *expected != blob) {
            let what = name.to_owned();
            return Err(oci::Error::digest_mismatch(what, expected, blob).into());
        }
        self.sync_layer(&layer)?;
        self.publish_layer(&layer)?;
        Ok((LayerFacts { diff_id: layer.diff_id, blob, size }, layer.indexed))
    }

    /// As [`Store::load`], for an archive that is a file: if it is not compressed as a whole, its layers are
    /// read at the same time, as many as there are processors. It is read from its beginning.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_file(
        &self,
        file: &File,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let reading = || "reading the image archive".to_owned();
        let mut start = [0; 10];
        let plain = file.metadata().map_err(io(reading))?.is_file() && {
            let have = file.read_at(&mut start, 0).map_err(io(reading))?;
            let start = start.get(..have).unwrap_or_default();
            Compression::detect(start) == Compression::None
        };
        if !plain {
            return self.load(&mut &*file, options, progress);
        }
        self.load_with(options, progress, |sink| {
            let copy = file.try_clone().map_err(io(reading))?;
            let (mut contents, places) = scan_tar(Seeking::new(copy), Seeking::skip)?;
            for (place, (facts, indexed)) in places.iter().zip(sink.load_places(file, &places)?) {
                contents.add_layer(place.name.clone(), facts)?;
                sink.indexed.extend(indexed.map(|indexed| (facts.diff_id, indexed)));
            }
            Ok(contents)
        })
    }

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
