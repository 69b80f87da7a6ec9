//! Images as files: what `save` writes and `load` reads.
//!
//! Two forms exist. The *docker-archive* is a tar with a `manifest.json`; the *OCI image layout* is a
//! tar or a directory with an `index.json` and content-addressed blobs. Since Docker 25 `docker save`
//! writes both into one tar. [`read_tar`] reads any of them in one pass from a stream that need not
//! be seekable: documents are kept in memory, layers are handed to a [`LayerSink`] as they come by.
//! [`Contents::images`] then finds out what was in it and checks every digest.

mod contents;
mod write;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

pub use contents::FoundImage;
pub use write::{ImageToWrite, LayerToWrite, Plan, plan_docker, plan_oci};

use crate::compression::{Compression, Decompressor};
use crate::tar::{self, Kind, TarReader};
use crate::{DiffId, Digest, Error, limits};

/// What is known of a layer after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFacts {
    /// Digest of the uncompressed archive.
    pub diff_id: DiffId,
    /// Digest of the bytes as they stand in the image archive.
    pub blob: Digest,
    /// Number of those bytes.
    pub size: u64,
}

/// Takes the layers of an image archive as they come by.
pub trait LayerSink {
    /// The error of the sink.
    type Error: From<Error>;

    /// Reads a layer from `data`, possibly compressed. `name` is its name in the archive; `expected`
    /// the digest that this name promises. A sink that has a layer of that diff ID need not read
    /// anything.
    ///
    /// # Errors
    /// Whatever ends the reading of the whole archive.
    fn layer(
        &mut self,
        name: &str,
        expected: Option<Digest>,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<LayerFacts, Self::Error>;
}

#[derive(Clone, Debug)]
enum Node {
    Document(Vec<u8>),
    Layer(LayerFacts),
    /// Another name of the entry with this name.
    Link(String),
    /// Neither; named in errors only.
    Other,
}

/// What was found in an archive.
#[derive(Debug, Default)]
pub struct Contents {
    nodes: BTreeMap<String, Node>,
    document_bytes: u64,
}

/// Reads a whole archive, compressed or not.
///
/// # Errors
/// A damaged archive or one beyond [`limits`]; those of the sink.
pub fn read_tar<S: LayerSink>(source: &mut dyn Read, sink: &mut S) -> Result<Contents, S::Error> {
    let io = |source| Error::Io { what: "reading the image archive".to_owned(), source };
    let source = Decompressor::new(source).map_err(io)?;
    let mut tar = TarReader::new(BufReader::with_capacity(1 << 20, source));
    let contents = read_entries(&mut tar, |tar, contents, name, size| {
        contents.add(name, size, &mut EntryReader { tar }, sink)
    })?;
    // What follows the end of the tar belongs to the compressed stream, whose check sums stand at
    // its end.
    std::io::copy(tar.get_mut(), &mut std::io::sink()).map_err(io)?;
    Ok(contents)
}

/// A layer in an archive that is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlace {
    /// Its name in the archive.
    pub name: String,
    /// The digest that the name promises.
    pub expected: Option<Digest>,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Looks through an uncompressed archive without reading its layers, which `skip` passes over (see
/// [`TarReader::skip_data`]). They are to be read from their places, in any order, and then made known
/// by [`Contents::add_layer`].
///
/// # Errors
/// A damaged archive or one beyond [`limits`].
pub fn scan_tar<R: BufRead>(
    source: R,
    mut skip: impl FnMut(&mut R, u64) -> std::io::Result<()>,
) -> Result<(Contents, Vec<LayerPlace>), Error> {
    let mut tar = TarReader::new(source);
    let mut places: Vec<LayerPlace> = Vec::new();
    let contents = read_entries(&mut tar, |tar, contents, name, size| {
        let offset = tar.position();
        let mut data = EntryReader { tar };
        let start = read_start(name, &mut data)?;
        if is_layer(&start) {
            let (name, expected) = (name.to_owned(), promised_digest(name));
            places.push(LayerPlace { name, expected, offset, size });
            tar.skip_data(&mut skip)
        } else {
            contents.add_other(name, size, start, &mut data)
        }
    })?;
    Ok((contents, places))
}

/// Reads the entries of an archive of images; `file` is given each regular file.
fn read_entries<R: BufRead, E: From<Error>>(
    tar: &mut TarReader<R>,
    mut file: impl FnMut(&mut TarReader<R>, &mut Contents, &str, u64) -> Result<(), E>,
) -> Result<Contents, E> {
    let mut contents = Contents::default();
    let mut entries = 0_usize;
    while let Some(entry) = tar.next_entry()? {
        entries += 1;
        if entries > limits::MAX_ARCHIVE_ENTRIES {
            return Err(Error::limit("image archive", "it has too many entries").into());
        }
        let name = clean_name(&entry.path)?;
        match entry.kind {
            Kind::File if entry.sparse.is_some() => {
                return Err(Error::Archive(format!("{name} is a sparse file")).into());
            }
            Kind::File => file(tar, &mut contents, &name, entry.size)?,
            Kind::Symlink => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = String::from_utf8_lossy(&entry.link);
                let target = match target.strip_prefix('/') {
                    Some(absolute) => clean_name(absolute.as_bytes())?,
                    None => clean_name(format!("{parent}/{target}").as_bytes())?,
                };
                contents.insert(name, Node::Link(target))?;
            }
            Kind::HardLink => {
                let target = clean_name(&entry.link)?;
                contents.insert(name, Node::Link(target))?;
            }
            Kind::Directory => {}
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                return Err(Error::Archive(format!("{name} is a device or a pipe")).into());
            }
        }
    }
    Ok(contents)
}

/// Enough to tell what a file is.
fn read_start(name: &str, data: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut start = Vec::new();
    let read = data.take(512).read_to_end(&mut start);
    read.map_err(|source| Error::from_read(name, source))?;
    Ok(start)
}

impl Contents {
    /// Adds one file. For layouts that are directories, whose files the caller opens.
    ///
    /// # Errors
    /// As [`read_tar`].
    pub fn add<S: LayerSink>(
        &mut self,
        name: &str,
        size: u64,
        data: &mut dyn Read,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let start = read_start(name, data)?;
        if is_layer(&start) {
            let mut whole = std::io::Cursor::new(start).chain(data);
            let facts = sink.layer(name, promised_digest(name), size, &mut whole)?;
            self.add_layer(name.to_owned(), facts)?;
        } else {
            self.add_other(name, size, start, data)?;
        }
        Ok(())
    }

    /// Makes a layer known that was read by somebody else.
    ///
    /// # Errors
    /// [`Error::Limit`] for too many files.
    pub fn add_layer(&mut self, name: String, facts: LayerFacts) -> Result<(), Error> {
        self.insert(name, Node::Layer(facts))
    }

    /// What is not a layer; its first bytes are in `start`.
    fn add_other(
        &mut self,
        name: &str,
        size: u64,
        mut start: Vec<u8>,
        data: &mut dyn Read,
    ) -> Result<(), Error> {
        let io = |source| Error::from_read(name, source);
        if size <= limits::MAX_JSON {
            data.take(limits::MAX_JSON).read_to_end(&mut start).map_err(io)?;
            self.document_bytes = self.document_bytes.saturating_add(start.len() as u64);
            if self.document_bytes > limits::MAX_DOCUMENT_BYTES {
                return Err(Error::limit("image archive", "its documents are too large"));
            }
            self.insert(name.to_owned(), Node::Document(start))
        } else {
            let is_json = matches!(start.trim_ascii_start().first(), Some(b'{' | b'['));
            if is_json {
                return Err(Error::limit(name, "a JSON document larger than 4 MiB"));
            }
            self.insert(name.to_owned(), Node::Other)
        }
    }

    fn insert(&mut self, name: String, node: Node) -> Result<(), Error> {
        if self.nodes.len() >= limits::MAX_DOCUMENTS {
            return Err(Error::limit("image archive", "it has too many files"));
        }
        self.nodes.insert(name, node);
        Ok(())
    }
}

impl Error {
    fn from_read(name: &str, source: std::io::Error) -> Error {
        // Our own error, on its way through the Read trait.
        match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Io { what: format!("reading {name}"), source },
        }
    }
}

/// Recovers an error of this crate that travelled inside an [`std::io::Error`].
#[must_use]
pub fn unwrap_io(what: &str, source: std::io::Error) -> Error {
    Error::from_read(what, source)
}

struct EntryReader<'a, R> {
    tar: &'a mut TarReader<R>,
}

impl<R: std::io::BufRead> Read for EntryReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.tar.read_data(buffer).map_err(std::io::Error::other)
    }
}

/// A tar archive, compressed or not; an empty one is all zeros.
fn is_layer(start: &[u8]) -> bool {
    match start.first_chunk::<512>() {
        Some(block) if tar::looks_like_header(block) || block.iter().all(|b| *b == 0) => true,
        _ => Compression::detect(start) != Compression::None,
    }
}

/// `blobs/sha256/<hex>` names its content.
fn promised_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn clean_name(path: &[u8]) -> Result<String, Error> {
    let shown = || {
        String::from_utf8_lossy(path.get(..path.len().min(200)).unwrap_or_default()).into_owned()
    };
    let text = std::str::from_utf8(path)
        .map_err(|_| Error::Archive(format!("the name {:?} is not UTF-8", shown())))?;
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::Archive(format!("the name {:?} leads out of it", shown())));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
