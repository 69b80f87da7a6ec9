//! OCI image layouts: as directories, and as the archives that are laid out into one and packed from one. Image
//! specification, "Image Layout".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oci::archive::{LayerFacts, LayerSink, read_tar};
use oci::compression::{Compression, Decompressor};
use oci::digest::{Hasher, HashingReader};
use oci::limits::{MAX_ARCHIVE_ENTRIES, MAX_JSON};
use oci::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest, media_type,
};
use oci::tar::{Entry, Kind, TarReader, TarWriter};
use oci::{DiffId, Digest};
use registry::Document;

use crate::error::{Error, ErrorKind, Result};

pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |e| Error::system(what, e)
}

pub(crate) fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm()).join(digest.hex())
}

pub(crate) fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let what = format!("reading {}", path.display());
    let mut raw = Vec::new();
    let file = File::open(path).map_err(io_error(&what))?;
    file.take(MAX_JSON.saturating_add(1)).read_to_end(&mut raw).map_err(io_error(&what))?;
    if raw.len() as u64 > MAX_JSON {
        return Err(Error::invalid(format!("{} is larger than 4 MiB", path.display())));
    }
    Ok(raw)
}

pub(crate) fn write_whole(path: &Path, raw: &[u8]) -> Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    fs::write(&part, raw)
        .and_then(|()| fs::rename(&part, path))
        .map_err(io_error(format!("writing {}", path.display())))
}

/// Makes an empty layout, or finds one.
pub(crate) fn make_layout(root: &Path) -> Result<()> {
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
pub(crate) fn find(root: &Path, name: Option<&str>) -> Result<Descriptor> {
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
pub(crate) fn set_name(
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
    let mut annotations = BTreeMap::new();
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
pub(crate) fn lay_out(archive: &Path, root: &Path) -> Result<bool> {
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
pub(crate) fn lay_out_docker(archive: &Path, root: &Path) -> Result<()> {
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
            let kind = match Compression::detect(start.get(..n).unwrap_or_default()) {
                Compression::Gzip => media_type::LAYER_GZIP,
                Compression::Zstd => media_type::LAYER_ZSTD,
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
pub(crate) fn pack(root: &Path, extra: Option<(&str, Vec<u8>)>, to: &Path) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
