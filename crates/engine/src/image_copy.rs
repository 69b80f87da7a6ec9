//! `image copy`: images between registries, archives and OCI image layouts, without unpacking them
//! and without the store. Every blob is checked on its way; digests stay what they are.
//!
//! Archives can't be read from the middle or written out of order, so they pass through a layout in a
//! temporary directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use oci::archive::{LayerFacts, LayerSink, read_tar};
use oci::compression::Decompressor;
use oci::digest::{Hasher, HashingReader};
use oci::limits::{MAX_ARCHIVE_ENTRIES, MAX_INDEX_DEPTH, MAX_JSON};
use oci::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest, Platform, media_type,
};
use oci::tar::{Entry, Kind, TarReader, TarWriter};
use oci::{DiffId, Digest, Reference};
use registry::{Access, Client, Document, Repository, Uploaded};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::platforms::{Tree, choose, is_index, no_match};
use crate::transfer::{Message, Meter, Metered, Transfer, from_io, parallel};

/// Where an image is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A registry.
    Registry(Reference),
    /// An OCI image layout that is a directory, and the name in it.
    Layout(PathBuf, Option<String>),
    /// The same as a tar.
    LayoutArchive(PathBuf, Option<String>),
    /// What `save` writes.
    DockerArchive(PathBuf, Option<Reference>),
}

/// What to copy.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// The images of all platforms, and their index.
    pub all: bool,
    /// Of an index, the image for this platform; this machine's if absent.
    pub platform: Option<String>,
}

impl Place {
    /// `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME:TAG]`, `docker://NAME`,
    /// or the name of an image in a registry.
    ///
    /// # Errors
    /// An empty path, a name that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let split = |rest: &str| -> Result<(PathBuf, Option<String>)> {
            let (path, name) = rest.split_once(':').unwrap_or((rest, ""));
            if path.is_empty() {
                return Err(Error::invalid(format!("{text:?} names no path")));
            }
            Ok((path.into(), Some(name.to_owned()).filter(|n| !n.is_empty())))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return split(rest).map(|(path, name)| Self::Layout(path, name));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return split(rest).map(|(path, name)| Self::LayoutArchive(path, name));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = split(rest)?;
            let name = name.map(|n| Reference::parse(&n)).transpose()?;
            return Ok(Self::DockerArchive(path, name.map(Reference::or_latest)));
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        Ok(Self::Registry(Reference::parse(name)?.or_latest()))
    }
}

/// A place to read from.
enum From<'c> {
    Registry(Repository<'c>),
    Layout(PathBuf),
}

/// A place to write to.
enum To<'c> {
    Registry(Box<Repository<'c>>),
    Layout(PathBuf),
}

fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |e| Error::system(what, e)
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm()).join(digest.hex())
}

fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let what = format!("reading {}", path.display());
    let mut raw = Vec::new();
    let file = File::open(path).map_err(io_error(&what))?;
    file.take(MAX_JSON.saturating_add(1)).read_to_end(&mut raw).map_err(io_error(&what))?;
    if raw.len() as u64 > MAX_JSON {
        return Err(Error::invalid(format!("{} is larger than 4 MiB", path.display())));
    }
    Ok(raw)
}

impl From<'_> {
    fn document(&self, entry: &Descriptor) -> Result<Document> {
        match self {
            Self::Registry(repository) => Ok(repository.document_by_digest(&entry.digest)?),
            Self::Layout(root) => {
                let raw = read_limited(&blob_path(root, &entry.digest))?;
                entry.digest.verify(&format!("blob {}", entry.digest), &raw)?;
                Ok(Document { media_type: entry.media_type.clone(), digest: entry.digest, raw })
            }
        }
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Registry(repository) => {
                Ok(Box::new(repository.blob(blob, offset).map_err(io::Error::other)?))
            }
            Self::Layout(root) => {
                let mut file = File::open(blob_path(root, &blob.digest))?;
                file.seek(io::SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
        }
    }
}

struct Source<'s, 'c, 'm, 'a> {
    from: &'s From<'c>,
    blob: &'s Descriptor,
    meter: &'m mut Meter<'a>,
}

impl registry::Source for Source<'_, '_, '_, '_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let inner = self.from.blob(self.blob, offset)?;
        self.meter.done = offset;
        Ok(Box::new(Metered { inner, meter: self.meter }))
    }
}

impl To<'_> {
    /// Takes a blob; says how.
    fn take(
        &self,
        from: &From<'_>,
        blob: &Descriptor,
        mounts: &[String],
        meter: &mut Meter<'_>,
    ) -> Result<String> {
        match self {
            Self::Registry(repository) => {
                let mut source = Source { from, blob, meter };
                Ok(match repository.upload(blob, mounts, &mut source)? {
                    Uploaded::Existed => "Already exists".to_owned(),
                    Uploaded::Mounted(from) => format!("Mounted from {from}"),
                    Uploaded::Sent => "Copied".to_owned(),
                })
            }
            Self::Layout(root) => {
                let path = blob_path(root, &blob.digest);
                if path.exists() {
                    return Ok("Already exists".to_owned());
                }
                let what = format!("blob {}", blob.digest);
                let part = path.with_extension(format!("part-{}", std::process::id()));
                let result = (|| {
                    let mut file = File::create(&part).map_err(io_error(&what))?;
                    let inner = from.blob(blob, 0).map_err(|e| from_io(&what, e))?;
                    let metered = Metered { inner, meter };
                    let mut reader = HashingReader::new(metered, blob.digest.hasher());
                    io::copy(&mut reader, &mut file).map_err(|e| from_io(&what, e))?;
                    let (digest, size) = reader.finish().map_err(io_error(&what))?;
                    if digest != blob.digest || size != blob.size {
                        return Err(oci::Error::digest_mismatch(&*what, blob.digest, digest).into());
                    }
                    file.sync_all().map_err(io_error(&what))?;
                    fs::rename(&part, &path).map_err(io_error(&what))
                })();
                if result.is_err() {
                    let _ = fs::remove_file(&part);
                }
                result.map(|()| "Copied".to_owned())
            }
        }
    }

    /// Takes a manifest or an index that is not the top.
    fn document(&self, document: &Document) -> Result<()> {
        match self {
            Self::Registry(repository) => {
                Ok(repository.put_document(&document.digest.to_string(), document)?)
            }
            Self::Layout(root) => write_whole(&blob_path(root, &document.digest), &document.raw),
        }
    }
}

fn write_whole(path: &Path, raw: &[u8]) -> Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    fs::write(&part, raw)
        .and_then(|()| fs::rename(&part, path))
        .map_err(io_error(format!("writing {}", path.display())))
}

/// Makes an empty layout, or finds one.
fn make_layout(root: &Path) -> Result<()> {
    let what = format!("making the image layout {}", root.display());
    fs::create_dir_all(root.join("blobs/sha256")).map_err(io_error(&what))?;
    fs::create_dir_all(root.join("blobs/sha512")).map_err(io_error(&what))?;
    let marker = root.join("oci-layout");
    if !marker.exists() {
        write_whole(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    }
    Ok(())
}

/// The entry of a layout's index with a name; the only one if no name is given.
fn find(root: &Path, name: Option<&str>) -> Result<Descriptor> {
    let index = Index::parse(&read_limited(&root.join("index.json"))?)?;
    let named = |entry: &&Descriptor| {
        name.is_some_and(|name| {
            entry.annotation(ANNOTATION_REF_NAME) == Some(name)
                || entry.annotation(ANNOTATION_IMAGE_NAME) == Some(name)
        })
    };
    let names = || {
        let all: BTreeSet<&str> =
            index.manifests.iter().filter_map(|m| m.annotation(ANNOTATION_REF_NAME)).collect();
        all.into_iter().collect::<Vec<_>>().join(", ")
    };
    match (name, index.manifests.as_slice()) {
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Error::new(ErrorKind::NotFound, "the layout is empty")),
        (None, _) => Err(Error::invalid(format!(
            "there are several images: name one after a colon; there are {}",
            names()
        ))),
        (Some(name), all) => all.iter().find(named).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no image {name:?}; there are {}", names()))
        }),
    }
}

/// Gives a document a name in a layout.
fn set_name(
    root: &Path,
    document: &Document,
    name: Option<&str>,
    whole: Option<&str>,
) -> Result<()> {
    let path = root.join("index.json");
    let mut index = if path.exists() {
        Index::parse(&read_limited(&path)?)?
    } else {
        Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: None,
        }
    };
    let mut entry =
        Descriptor::new(&document.media_type, document.digest, document.raw.len() as u64);
    let mut annotations = std::collections::BTreeMap::new();
    if let Some(name) = name {
        annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
    }
    if let Some(whole) = whole {
        annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), whole.to_owned());
    }
    entry.annotations = Some(annotations).filter(|a| !a.is_empty());
    index.manifests.retain(|old| match name {
        Some(_) => old.annotation(ANNOTATION_REF_NAME) != name,
        None => old.digest != entry.digest,
    });
    index.manifests.push(entry);
    let raw = serde_json::to_vec(&index).map_err(|e| Error::system("index.json", e))?;
    write_whole(&path, &raw)
}

/// A name for a tar's entry that stays within a layout.
fn layout_name(path: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(path).ok()?;
    let name = name.strip_prefix("./").unwrap_or(name);
    if matches!(name, "index.json" | "oci-layout") {
        return Some(name.to_owned());
    }
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    Some(format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
}

/// Lays an archive of a layout out in a directory. False if it is none.
fn lay_out(archive: &Path, root: &Path) -> Result<bool> {
    let what = format!("reading {}", archive.display());
    make_layout(root)?;
    let file = File::open(archive).map_err(io_error(&what))?;
    let source = Decompressor::new(file).map_err(io_error(&what))?;
    let mut tar = TarReader::new(io::BufReader::with_capacity(256 << 10, source));
    let mut entries = 0;
    let mut buffer = vec![0; 256 << 10];
    while let Some(entry) = tar.next_entry()? {
        entries += 1;
        if entries > MAX_ARCHIVE_ENTRIES {
            return Err(Error::invalid(format!("{} has too many entries", archive.display())));
        }
        let Some(name) = layout_name(&entry.path).filter(|_| entry.kind == Kind::File) else {
            continue;
        };
        let mut out = File::create(root.join(&name)).map_err(io_error(&what))?;
        loop {
            let n = tar.read_data(&mut buffer)?;
            if n == 0 {
                break;
            }
            out.write_all(buffer.get(..n).unwrap_or_default()).map_err(io_error(&what))?;
        }
    }
    Ok(root.join("index.json").exists())
}

/// Keeps the layers of an old archive as they are, under their digests.
struct Keep<'a> {
    root: &'a Path,
    count: u32,
}

impl LayerSink for Keep<'_> {
    type Error = Error;

    fn layer(
        &mut self,
        name: &str,
        _: Option<Digest>,
        _: u64,
        data: &mut dyn Read,
    ) -> Result<LayerFacts> {
        self.count = self.count.saturating_add(1);
        let part = self.root.join(format!("layer-{}", self.count));
        let mut file = File::create_new(&part).map_err(io_error(name))?;
        let mut reader = HashingReader::new(data, Hasher::sha256());
        io::copy(&mut reader, &mut file).map_err(io_error(name))?;
        let (blob, size) = reader.finish().map_err(io_error(name))?;
        let again = File::open(&part).map_err(io_error(name))?;
        let plain = Decompressor::new(again).map_err(io_error(name))?;
        let hashed = HashingReader::new(plain, Hasher::sha256());
        let (diff_id, _) = hashed.finish().map_err(io_error(name))?;
        fs::rename(&part, blob_path(self.root, &blob)).map_err(io_error(name))?;
        Ok(LayerFacts { diff_id: DiffId(diff_id), blob, size })
    }
}

/// Lays an archive out that has no layout in it: manifests are made anew.
fn lay_out_docker(archive: &Path, root: &Path) -> Result<()> {
    let what = format!("reading {}", archive.display());
    let mut file = File::open(archive).map_err(io_error(&what))?;
    let contents = read_tar(&mut file, &mut Keep { root, count: 0 })?;
    for image in contents.images(None)? {
        let config = Digest::sha256(&image.config_raw);
        write_whole(&blob_path(root, &config), &image.config_raw)?;
        let mut layers = Vec::new();
        for facts in &image.layers {
            let mut start = [0; 4];
            let mut file = File::open(blob_path(root, &facts.blob)).map_err(io_error(&what))?;
            let n = file.read(&mut start).map_err(io_error(&what))?;
            let kind =
                match oci::compression::Compression::detect(start.get(..n).unwrap_or_default()) {
                    oci::compression::Compression::Gzip => media_type::LAYER_GZIP,
                    oci::compression::Compression::Zstd => media_type::LAYER_ZSTD,
                    _ => media_type::LAYER,
                };
            layers.push(Descriptor::new(kind, facts.blob, facts.size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: Descriptor::new(media_type::CONFIG, config, image.config_raw.len() as u64),
            layers,
            annotations: None,
        };
        let raw = serde_json::to_vec(&manifest).map_err(|e| Error::system("manifest", e))?;
        let media_type = media_type::MANIFEST.to_owned();
        let document = Document { media_type, digest: Digest::sha256(&raw), raw };
        write_whole(&blob_path(root, &document.digest), &document.raw)?;
        if image.references.is_empty() {
            set_name(root, &document, None, None)?;
        }
        for reference in &image.references {
            let whole = reference.to_string();
            set_name(root, &document, Some(&whole), Some(&whole))?;
        }
    }
    Ok(())
}

/// Writes a layout as a tar; what is not named stands first, sorted, with times of zero.
fn pack(root: &Path, extra: Option<(&str, Vec<u8>)>, to: &Path) -> Result<()> {
    let what = format!("writing {}", to.display());
    let part = to.with_extension(format!("part-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut tar = TarWriter::new(io::BufWriter::with_capacity(256 << 10, File::create(&part)?));
        let mut names = vec!["index.json".to_owned(), "oci-layout".to_owned()];
        for algorithm in ["sha256", "sha512"] {
            for entry in fs::read_dir(root.join("blobs").join(algorithm))? {
                let name = entry?.file_name();
                names.push(format!("blobs/{algorithm}/{}", name.to_string_lossy()));
            }
        }
        names.sort();
        for name in names {
            let mut file = File::open(root.join(&name))?;
            let mut entry = Entry::new(name.as_str(), Kind::File, 0o644);
            entry.size = file.metadata()?.len();
            tar.entry(&entry)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let n = file.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                tar.write_data(buffer.get(..n).unwrap_or_default())?;
            }
        }
        if let Some((name, raw)) = &extra {
            let mut entry = Entry::new(*name, Kind::File, 0o644);
            entry.size = raw.len() as u64;
            tar.entry(&entry)?;
            tar.write_data(raw)?;
        }
        let mut out = tar.finish()?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&part, to)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&part);
        Error::system(what, e)
    })
}

impl Engine {
    /// Copies an image, or with `all` a whole index; the digest of what was copied.
    ///
    /// # Errors
    /// A source that lacks it or is damaged; a target that refuses; those of the connection.
    pub fn copy_image(
        &self,
        client: &Client,
        from: &Place,
        to: &Place,
        options: &CopyOptions,
        progress: &mut dyn Transfer,
    ) -> Result<String> {
        let source_scratch = self.store().scratch()?;
        let target_scratch = self.store().scratch()?;
        let (source, top) = open(client, from, source_scratch.path())?;
        let target = match to {
            Place::Registry(reference) => {
                let repository = client.repository(reference, Access::Push)?;
                To::Registry(Box::new(repository))
            }
            Place::Layout(root, _) => To::Layout(root.clone()),
            _ => To::Layout(target_scratch.path().to_owned()),
        };
        if let To::Layout(root) = &target {
            make_layout(root)?;
        }
        let top = if is_index(&top) && !options.all {
            let explicit = options.platform.is_some();
            let wanted = options.platform.as_deref().map(Platform::parse).transpose()?;
            let wanted = wanted.unwrap_or_else(Platform::host);
            let tree = Tree::read(&top, Some(&wanted), &mut |entry| source.document(entry))?;
            let entry = choose(&tree.entries, &wanted, explicit).ok_or_else(|| {
                let error = no_match(&tree.entries, &wanted);
                let message = format!("{}; --all copies every one there is", error.message);
                Error { message, ..error }
            })?;
            source.document(entry)?
        } else {
            top
        };
        let mut seen = BTreeSet::new();
        self.copy_tree(client, &source, &target, &top, 0, &mut seen, progress)?;
        let name = |given: &Option<String>| given.clone();
        match (to, &target) {
            (Place::Registry(reference), To::Registry(repository)) => {
                let tag = match reference.digest() {
                    Some(digest) if digest == top.digest => digest.to_string(),
                    Some(digest) => {
                        return Err(Error::invalid(format!(
                            "the target names the digest {digest}, the image has {}",
                            top.digest
                        )));
                    }
                    None => reference.tag().unwrap_or_default().to_owned(),
                };
                repository.put_document(&tag, &top)?;
            }
            (Place::Layout(root, given), _) => {
                write_whole(&blob_path(root, &top.digest), &top.raw)?;
                set_name(root, &top, name(given).as_deref(), None)?;
            }
            (Place::LayoutArchive(path, given), To::Layout(root)) => {
                write_whole(&blob_path(root, &top.digest), &top.raw)?;
                set_name(root, &top, name(given).as_deref(), None)?;
                pack(root, None, path)?;
            }
            (Place::DockerArchive(path, given), To::Layout(root)) => {
                if is_index(&top) {
                    return Err(Error::invalid(
                        "a docker-archive holds images of one platform: leave out --all, or write an oci-archive",
                    ));
                }
                write_whole(&blob_path(root, &top.digest), &top.raw)?;
                let whole = given.as_ref().map(ToString::to_string);
                let tag = given.as_ref().and_then(|r| r.tag().map(str::to_owned));
                set_name(root, &top, tag.as_deref(), whole.as_deref())?;
                let manifest = Manifest::parse(&top.raw)?;
                let file = |d: &Digest| format!("blobs/{}/{}", d.algorithm(), d.hex());
                let list = serde_json::json!([{
                    "Config": file(&manifest.config.digest),
                    "RepoTags": given.iter().map(Reference::familiar).collect::<Vec<_>>(),
                    "Layers": manifest.layers.iter().map(|l| file(&l.digest)).collect::<Vec<_>>(),
                }]);
                pack(root, Some(("manifest.json", list.to_string().into_bytes())), path)?;
            }
            _ => return Err(Error::invalid("the target can't be written")),
        }
        progress.report(Message::line(format!("Digest: {}", top.digest)));
        Ok(top.digest.to_string())
    }

    #[allow(clippy::too_many_arguments, reason = "one step of a walk with all it carries")]
    fn copy_tree(
        &self,
        client: &Client,
        source: &From<'_>,
        target: &To<'_>,
        top: &Document,
        depth: usize,
        seen: &mut BTreeSet<Digest>,
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(Error::invalid("indexes are nested too deep"));
        }
        if is_index(top) {
            for entry in Index::parse(&top.raw)?.manifests {
                if !seen.insert(entry.digest) {
                    continue;
                }
                let document = source.document(&entry)?;
                self.copy_tree(client, source, target, &document, depth + 1, seen, progress)?;
                target.document(&document)?;
            }
            return Ok(());
        }
        let manifest = Manifest::parse(&top.raw)?;
        let mut blobs = Vec::new();
        for blob in manifest.layers.into_iter().chain([manifest.config]) {
            if seen.insert(blob.digest) {
                blobs.push(blob);
            }
        }
        let mounts: Vec<String> = match (source, target) {
            (From::Registry(from), To::Registry(to))
                if from.reference().domain() == to.reference().domain() =>
            {
                vec![from.reference().path().to_owned()]
            }
            _ => Vec::new(),
        };
        parallel(
            &blobs,
            client.options().config.max_downloads,
            progress,
            || Ok(()),
            |(), blob, send, stop| {
                let id = blob.digest.short();
                let mut meter = Meter {
                    send,
                    stop,
                    id: &id,
                    status: "Copying",
                    total: blob.size,
                    done: 0,
                    told: None,
                };
                let how = target.take(source, blob, &mounts, &mut meter)?;
                meter.say(&how);
                Ok(())
            },
        )
    }
}

fn open<'c>(client: &'c Client, place: &Place, scratch: &Path) -> Result<(From<'c>, Document)> {
    let layout = |root: PathBuf, name: Option<&str>| {
        let entry = find(&root, name)?;
        let from = From::Layout(root);
        let document = from.document(&entry)?;
        Ok((from, document))
    };
    match place {
        Place::Registry(reference) => {
            let repository = client.repository(reference, Access::Pull)?;
            let top =
                repository.document().map_err(|e| crate::pull::explain(reference, e.into()))?;
            Ok((From::Registry(repository), top))
        }
        Place::Layout(root, name) => layout(root.clone(), name.as_deref()),
        Place::LayoutArchive(path, name) => {
            if !lay_out(path, scratch)? {
                return Err(Error::invalid(format!("{} is no OCI image layout", path.display())));
            }
            layout(scratch.to_owned(), name.as_deref())
        }
        Place::DockerArchive(path, name) => {
            if !lay_out(path, scratch)? {
                lay_out_docker(path, scratch)?;
            }
            layout(scratch.to_owned(), name.as_ref().map(ToString::to_string).as_deref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let registry = |name: &str| Place::Registry(Reference::parse(name).unwrap().or_latest());
        assert_eq!(Place::parse("debian").unwrap(), registry("debian:latest"));
        assert_eq!(Place::parse("docker://a.b/c:1").unwrap(), registry("a.b/c:1"));
        assert_eq!(
            Place::parse("oci:/x/y:tag").unwrap(),
            Place::Layout("/x/y".into(), Some("tag".into()))
        );
        assert_eq!(Place::parse("oci-archive:x").unwrap(), Place::LayoutArchive("x".into(), None));
        assert_eq!(
            Place::parse("docker-archive:x.tar:a/b:1").unwrap(),
            Place::DockerArchive("x.tar".into(), Some(Reference::parse("a/b:1").unwrap()))
        );
        assert!(Place::parse("oci:").is_err());
        assert!(Place::parse("UP").is_err());
    }

    #[test]
    fn names_stay_within_a_layout() {
        let digest = Digest::sha256("x");
        let good = format!("./blobs/sha256/{}", digest.hex());
        assert_eq!(layout_name(good.as_bytes()).as_deref(), good.strip_prefix("./"));
        for bad in ["blobs/sha256/../../x", "/etc/passwd", "blobs/md5/x", "../index.json", "x"] {
            assert_eq!(layout_name(bad.as_bytes()), None, "{bad}");
        }
    }
}
