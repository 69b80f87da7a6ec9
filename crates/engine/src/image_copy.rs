//! `image copy`: images between registries, archives and OCI image layouts, without unpacking them
//! and without the store. Every blob is checked on its way; digests stay what they are.
//!
//! Archives can't be read from the middle or written out of order, so they pass through a layout in a
//! temporary directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use oci::convert::in_oci_terms;
use oci::digest::HashingReader;
use oci::limits::MAX_INDEX_DEPTH;
use oci::manifest::{Descriptor, Index, Manifest, Platform};
use oci::{Digest, Reference};
use registry::{Access, Client, Document, Repository, Uploaded};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::{
    blob_path, find, io_error, lay_out, lay_out_docker, make_layout, pack, read_limited, set_name,
    write_whole,
};
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

    /// A manifest or an index as it is kept here: layouts know OCI's types only.
    fn terms(
        &self,
        document: Document,
        converted: &BTreeMap<Digest, Descriptor>,
    ) -> Result<Document> {
        if matches!(self, Self::Registry(_)) {
            return Ok(document);
        }
        Ok(match in_oci_terms(&document.media_type, &document.raw, converted)? {
            Some((media_type, raw)) => Document { media_type, digest: Digest::sha256(&raw), raw },
            None => document,
        })
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

/// What a copy has met.
#[derive(Default)]
struct Walk {
    seen: BTreeSet<Digest>,
    /// What the manifests became whose types the target does not know, by their old digests.
    converted: BTreeMap<Digest, Descriptor>,
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
        let mut walk = Walk::default();
        let top = self.copy_tree(client, &source, &target, top, 0, &mut walk, progress)?;
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

    /// Copies what a document names; the document as it is in the target.
    #[allow(clippy::too_many_arguments, reason = "one step of a walk with all it carries")]
    fn copy_tree(
        &self,
        client: &Client,
        source: &From<'_>,
        target: &To<'_>,
        top: Document,
        depth: usize,
        walk: &mut Walk,
        progress: &mut dyn Transfer,
    ) -> Result<Document> {
        if depth > MAX_INDEX_DEPTH {
            return Err(Error::invalid("indexes are nested too deep"));
        }
        if is_index(&top) {
            for entry in Index::parse(&top.raw)?.manifests {
                if !walk.seen.insert(entry.digest) {
                    continue;
                }
                let document = source.document(&entry)?;
                let document =
                    self.copy_tree(client, source, target, document, depth + 1, walk, progress)?;
                target.document(&document)?;
                if document.digest != entry.digest {
                    let size = document.raw.len() as u64;
                    let new = Descriptor::new(&document.media_type, document.digest, size);
                    walk.converted.insert(entry.digest, new);
                }
            }
            return target.terms(top, &walk.converted);
        }
        let manifest = Manifest::parse(&top.raw)?;
        let mut blobs = Vec::new();
        for blob in manifest.layers.into_iter().chain([manifest.config]) {
            if walk.seen.insert(blob.digest) {
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
        )?;
        target.terms(top, &walk.converted)
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
}
