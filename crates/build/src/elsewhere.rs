//! `--cache-to` and `--cache-from`: the build cache in a directory or a registry, so that a build elsewhere starts
//! with it.
//!
//! It is an OCI image layout, or a manifest in a repository: the configuration lists steps with their keys and cache mounts with
//! their names, the layers are their contents. A layer is fetched when a step asks for it by its key. `docs/format-build-cache.md`
//! is the page for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use engine::Engine;
use oci::compression::{Compression, Compressor};
use oci::digest::{Hasher, Measured};
use oci::manifest::{Descriptor, Index, Manifest, media_type};
use oci::{DiffId, Digest, Reference};
use registry::{Access, Client, Document, Repository};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use store::CachedStep;

use crate::error::{Error, Result, io as io_error};
use crate::upload::Temporary;

/// Media type of the configuration.
const CONFIG: &str = "application/vnd.wherry.build-cache.v1+json";
/// Media type of a cache mount's archive.
const MOUNT: &str = "application/vnd.wherry.build-cache.mount.v1.tar+zstd";
/// No configuration is larger.
const LARGEST: u64 = 64 << 20;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of the host.
    Directory(PathBuf),
    /// A name in a registry.
    Registry(Reference),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Registry(name) => f.write_str(&name.familiar()),
        }
    }
}

/// What goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Where.
    pub place: Place,
    /// The steps of all stages, not only those of the image's own layers.
    pub all: bool,
    /// The cache mounts of its steps, too.
    pub mounts: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Contents {
    #[serde(default)]
    steps: Vec<SharedStep>,
    #[serde(default)]
    mounts: Vec<SharedMount>,
}

/// A step's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SharedStep {
    key: String,
    pub(crate) diff_id: DiffId,
    pub(crate) epoch: i64,
    pub(crate) description: String,
    pub(crate) size: u64,
    /// Its layer as it travels.
    blob: Digest,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SharedMount {
    id: String,
    blob: Digest,
}

/// A cache that was read: what is in it, without the contents.
#[derive(Debug)]
pub(crate) struct Imported {
    place: Place,
    contents: Contents,
    blobs: BTreeMap<Digest, Descriptor>,
}

fn failed(place: &Place) -> impl Fn(registry::Error) -> Error + '_ {
    move |error| Error::Invalid(format!("the build cache {place}: {error}"))
}

fn damaged(place: &Place, why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("the build cache {place}: {why}"))
}

fn repository<'c>(
    place: &Place,
    name: &Reference,
    client: Option<&'c Client>,
    access: Access,
) -> Result<Repository<'c>> {
    let client = client.ok_or_else(|| damaged(place, "this build asks no registry"))?;
    client.repository(name, access).map_err(failed(place))
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or(("sha256", &text));
    directory.join("blobs").join(algorithm).join(hex)
}

/// Reads at most so much of a file.
fn read_small(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Imported {
    /// Reads what a cache has; None if there is none.
    pub(crate) fn read(place: &Place, client: Option<&Client>) -> Result<Option<Self>> {
        let (manifest, config) = match place {
            Place::Directory(directory) => {
                let index = match read_small(&directory.join("index.json"), LARGEST) {
                    Ok(index) => index,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(damaged(place, error)),
                };
                let index = Index::parse(&index)?;
                let Some(descriptor) = index.manifests.first() else { return Ok(None) };
                let read = |descriptor: &Descriptor| {
                    let bytes = read_small(&blob_path(directory, &descriptor.digest), LARGEST)
                        .map_err(|error| damaged(place, error))?;
                    if Digest::sha256(&bytes) != descriptor.digest {
                        return Err(damaged(place, format!("{} is damaged", descriptor.digest)));
                    }
                    Ok(bytes)
                };
                let manifest = parse(place, &read(descriptor)?)?;
                let config = read(&manifest.config)?;
                (manifest, config)
            }
            Place::Registry(name) => {
                let repository = repository(place, name, client, Access::Pull)?;
                let document = match repository.document() {
                    Ok(document) => document,
                    Err(error) if error.is_not_found() => return Ok(None),
                    Err(error) => return Err(failed(place)(error)),
                };
                let manifest = parse(place, &document.raw)?;
                let config =
                    repository.blob_bytes(&manifest.config, LARGEST).map_err(failed(place))?;
                (manifest, config)
            }
        };
        let contents: Contents =
            serde_json::from_slice(&config).map_err(|error| damaged(place, error))?;
        let blobs = manifest.layers.into_iter().map(|blob| (blob.digest, blob)).collect();
        Ok(Some(Self { place: place.clone(), contents, blobs }))
    }

    /// The result of the step with this key.
    pub(crate) fn step(&self, key: &str) -> Option<&SharedStep> {
        self.contents.steps.iter().find(|step| step.key == key)
    }

    fn mount(&self, id: &str) -> Option<&Descriptor> {
        let mount = self.contents.mounts.iter().find(|mount| mount.id == id)?;
        self.blobs.get(&mount.blob)
    }

    fn layer(&self, diff_id: &DiffId) -> Option<&Descriptor> {
        let step = self.contents.steps.iter().find(|step| step.diff_id == *diff_id)?;
        self.blobs.get(&step.blob)
    }

    fn carry<'c>(&self, client: Option<&'c Client>, blob: &Descriptor) -> Result<Carried<'c>> {
        Ok(match &self.place {
            Place::Directory(directory) => Carried::File(blob_path(directory, &blob.digest)),
            Place::Registry(name) => {
                let repository = repository(&self.place, name, client, Access::Pull)?;
                Carried::Blob(Box::new((repository, blob.clone())))
            }
        })
    }

    /// Gives a blob's bytes to `f`, and fails if they are others than its digest says.
    fn with_blob<T>(
        &self,
        client: Option<&Client>,
        blob: &Descriptor,
        f: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let mut carried = self.carry(client, blob)?;
        let what = |error| damaged(&self.place, error);
        let inner = registry::Source::open(&mut carried, 0).map_err(what)?;
        let mut hashed = Hashed { inner, hasher: blob.digest.hasher() };
        let done = f(&mut hashed)?;
        io::copy(&mut hashed, &mut io::sink()).map_err(what)?;
        if hashed.hasher.finish() != blob.digest {
            return Err(damaged(&self.place, format!("{} is damaged", blob.digest)));
        }
        Ok(done)
    }

    /// Takes the layer of a step into the store.
    pub(crate) fn fetch(
        &self,
        engine: &Engine,
        client: Option<&Client>,
        step: &SharedStep,
        below: &[DiffId],
    ) -> Result<()> {
        let blob = self.blobs.get(&step.blob);
        let blob = blob.ok_or_else(|| damaged(&self.place, "a layer is missing in it"))?;
        self.with_blob(client, blob, |source| {
            Ok(engine.import_layer(below, source, &step.diff_id)?)
        })
    }

    /// Fills the directory of a cache mount; false if this cache has none of that name.
    pub(crate) fn fill(&self, client: Option<&Client>, id: &str, data: &Path) -> Result<bool> {
        let Some(blob) = self.mount(id) else { return Ok(false) };
        let what = || format!("opening {}", data.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(data, flags, Mode::empty()).map_err(io_error(what))?;
        self.with_blob(client, blob, |source| {
            let options = store::copy::UntarOptions::default();
            store::copy::untar_into(root.as_fd(), b"", source, options)
                .map_err(|error| damaged(&self.place, error))
        })?;
        Ok(true)
    }
}

/// A manifest of ours; an image is not one.
fn parse(place: &Place, raw: &[u8]) -> Result<Manifest> {
    // Not `Manifest::parse`: a cache may have more layers than an image.
    let manifest: Manifest = serde_json::from_slice(raw).map_err(|error| damaged(place, error))?;
    if manifest.config.media_type != CONFIG {
        let why = "it is not one that --cache-to has written";
        return Err(damaged(place, why));
    }
    Ok(manifest)
}

struct Hashed<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// Content that is somewhere already.
enum Carried<'c> {
    File(PathBuf),
    Blob(Box<(Repository<'c>, Descriptor)>),
}

impl registry::Source for Carried<'_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::File(path) => {
                let mut file = File::open(path)?;
                file.seek(io::SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            Self::Blob(both) => {
                let (repository, blob) = &**both;
                Ok(Box::new(repository.blob(blob, offset).map_err(io::Error::other)?))
            }
        }
    }
}

/// Content of a file that is open.
struct Open(File);

impl registry::Source for Open {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.0.seek(io::SeekFrom::Start(offset))?;
        Ok(Box::new(&self.0))
    }
}

/// Where a cache is written to.
enum Sink<'c> {
    Directory(PathBuf),
    Registry(Repository<'c>),
}

struct Writer<'a, 'c> {
    engine: &'a Engine,
    client: Option<&'c Client>,
    place: &'a Place,
    sink: Sink<'c>,
    /// Caches that were read, the one that is replaced first.
    known: Vec<&'a Imported>,
    blobs: BTreeMap<Digest, Descriptor>,
}

/// Writes what a build used: its steps by their keys, and its cache mounts by their names.
pub(crate) fn export(
    engine: &Engine,
    client: Option<&Client>,
    export: &Export,
    steps: &[CachedStep],
    mounts: &BTreeSet<String>,
    imported: &[Imported],
) -> Result<()> {
    let place = &export.place;
    // One that is damaged, or something else, is replaced.
    let before = Imported::read(place, client).ok().flatten();
    let sink = match place {
        Place::Directory(directory) => {
            let blobs = directory.join("blobs/sha256");
            std::fs::create_dir_all(&blobs)
                .map_err(io_error(|| format!("making {}", blobs.display())))?;
            Sink::Directory(directory.clone())
        }
        Place::Registry(name) => Sink::Registry(repository(place, name, client, Access::Push)?),
    };
    let known = before.iter().chain(imported).collect();
    let mut writer = Writer { engine, client, place, sink, known, blobs: BTreeMap::new() };
    let mut contents = Contents::default();
    for step in steps {
        let blob = writer.layer(&step.diff_id)?;
        contents.steps.push(SharedStep {
            key: step.key.clone(),
            diff_id: step.diff_id,
            epoch: step.epoch,
            description: step.description.clone(),
            size: step.size,
            blob,
        });
    }
    for id in mounts.iter().filter(|_| export.mounts) {
        if let Some(blob) = writer.mount(id)? {
            contents.mounts.push(SharedMount { id: id.clone(), blob });
        }
    }
    writer.finish(&contents)
}

impl Writer<'_, '_> {
    fn layer(&mut self, diff_id: &DiffId) -> Result<Digest> {
        let known = self.known.iter().find_map(|one| Some((*one, one.layer(diff_id)?)));
        if let Some((imported, blob)) = known
            && self.carry(imported, blob).is_ok()
        {
            return Ok(blob.digest);
        }
        let packed = self.engine.pack_layer(diff_id, Compression::Zstd)?;
        let blob = Descriptor::new(&packed.blob.media_type, packed.blob.blob, packed.blob.size);
        let file = packed.open(0).map_err(|error| damaged(self.place, error))?;
        self.put(&blob, &mut Open(file))?;
        Ok(blob.digest)
    }

    /// The archive of a cache mount: what is here, else what it was filled from or would have been.
    fn mount(&mut self, id: &str) -> Result<Option<Digest>> {
        let path = crate::cache::mounts_directory(self.engine).join(Digest::sha256(id).hex());
        let here = std::fs::read_dir(path.join("data")).is_ok_and(|mut list| list.next().is_some());
        if !here {
            let known = self.known.iter().find_map(|one| Some((*one, one.mount(id)?)));
            let Some((imported, blob)) = known else { return Ok(None) };
            self.carry(imported, blob)?;
            return Ok(Some(blob.digest));
        }
        let what = || format!("packing the cache {id}");
        // A step that has it for itself is waited for.
        let lock = File::options().append(true).open(path.join("lock")).map_err(io_error(what))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).map_err(io_error(what))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.join("data"), flags, Mode::empty());
        let root = root.map_err(io_error(what))?;
        let directory = Temporary::new(self.engine)?;
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true);
        let file = file.open(directory.path().join("mount")).map_err(io_error(what))?;
        let measured = Measured::new(file);
        let mut compressor =
            Compressor::new(Compression::Zstd, measured).map_err(io_error(what))?;
        store::copy::tar_from(root.as_fd(), b"", b".", false, &mut compressor)?;
        let measured = compressor.finish().map_err(io_error(what))?;
        let blob = Descriptor::new(MOUNT, measured.hasher.finish(), measured.size);
        self.put(&blob, &mut Open(measured.out))?;
        Ok(Some(blob.digest))
    }

    fn carry(&mut self, from: &Imported, blob: &Descriptor) -> Result<()> {
        let mut carried = from.carry(self.client, blob)?;
        self.put(blob, &mut carried)
    }

    fn put(&mut self, blob: &Descriptor, source: &mut dyn registry::Source) -> Result<()> {
        match &self.sink {
            Sink::Registry(repository) => {
                repository.upload(blob, &[], source).map_err(failed(self.place))?;
            }
            Sink::Directory(directory) => {
                let path = blob_path(directory, &blob.digest);
                if !path.exists() {
                    let mut source = source.open(0).map_err(|error| damaged(self.place, error))?;
                    write_file(&path, &mut source, Some(blob))?;
                }
            }
        }
        self.blobs.insert(blob.digest, blob.clone());
        Ok(())
    }

    fn finish(mut self, contents: &Contents) -> Result<()> {
        let bad = |error: serde_json::Error| damaged(self.place, error);
        let config = serde_json::to_vec(contents).map_err(bad)?;
        let layers = std::mem::take(&mut self.blobs).into_values().collect();
        let descriptor = Descriptor::new(CONFIG, Digest::sha256(&config), config.len() as u64);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: descriptor.clone(),
            layers,
            annotations: None,
        };
        let raw = serde_json::to_vec(&manifest).map_err(bad)?;
        let digest = Digest::sha256(&raw);
        self.put(&descriptor, &mut config.as_slice())?;
        match (&self.sink, self.place) {
            (Sink::Registry(repository), Place::Registry(name)) => {
                let media_type = media_type::MANIFEST.to_owned();
                let target = name.tag().unwrap_or(oci::reference::DEFAULT_TAG);
                let document = Document { media_type, digest, raw };
                repository.put_document(target, &document).map_err(failed(self.place))
            }
            (Sink::Directory(directory), _) => {
                let own = Descriptor::new(media_type::MANIFEST, digest, raw.len() as u64);
                let mut source = raw.as_slice();
                write_file(&blob_path(directory, &digest), &mut source, Some(&own))?;
                let index = Index {
                    schema_version: 2,
                    media_type: Some(media_type::INDEX.to_owned()),
                    manifests: vec![own],
                    annotations: None,
                };
                let index = serde_json::to_vec(&index).map_err(bad)?;
                let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
                write_file(&directory.join("oci-layout"), &mut layout.as_slice(), None)?;
                write_file(&directory.join("index.json"), &mut index.as_slice(), None)?;
                let mut kept: BTreeSet<Digest> =
                    manifest.layers.iter().map(|blob| blob.digest).collect();
                kept.extend([digest, descriptor.digest]);
                remove_others(directory, &kept)
            }
            _ => Ok(()),
        }
    }
}

/// What nothing refers to any more; the directory is the cache's own.
fn remove_others(directory: &Path, kept: &BTreeSet<Digest>) -> Result<()> {
    let blobs = directory.join("blobs/sha256");
    let what = || format!("cleaning up {}", blobs.display());
    for entry in std::fs::read_dir(&blobs).map_err(io_error(what))? {
        let entry = entry.map_err(io_error(what))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = format!("sha256:{name}").parse::<Digest>();
        if digest.is_ok_and(|digest| !kept.contains(&digest)) {
            std::fs::remove_file(entry.path()).map_err(io_error(what))?;
        }
    }
    Ok(())
}

/// Writes a file whole or not at all.
fn write_file(path: &Path, source: &mut dyn Read, blob: Option<&Descriptor>) -> Result<()> {
    let what = || format!("writing {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut write = || -> Result<()> {
        let out = File::create(&temporary).map_err(io_error(what))?;
        let mut measured = Measured::new(out);
        io::copy(source, &mut measured).map_err(io_error(what))?;
        if let Some(blob) = blob
            && measured.hasher.finish() != blob.digest
        {
            return Err(Error::Invalid(format!("{}: not what it should be", path.display())));
        }
        std::fs::rename(&temporary, path).map_err(io_error(what))
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
