//! `save`: images into an archive. The layers come out with the diff IDs they had, and the same
//! images give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use oci::archive::{ImageToWrite, LayerToWrite, plan_docker, plan_oci};
use oci::compression::{Compression, Compressor};
use oci::digest::Measured;
use oci::manifest::{Platform, media_type};
use oci::{DiffId, Digest, ImageId, Reference};

use crate::error::io;
use crate::layer::TAR;
use crate::temporary::Temporary;
use crate::{Error, Result, Store};

/// The form of an archive of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// What `docker save` writes since version 25: `manifest.json` and an OCI image layout in one.
    #[default]
    Docker,
    /// An OCI image layout alone.
    OciLayout,
}

impl Store {
    /// Writes images to an archive. A name without a tag stands for all tags of that repository, as
    /// in Docker; an ID gives an image without a name. With `compress` each layer is compressed.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Damaged`] if a layer is missing; those of writing.
    pub fn save(
        &self,
        names: &[&str],
        format: ArchiveFormat,
        compress: Compression,
        out: &mut dyn Write,
    ) -> Result<()> {
        if names.is_empty() {
            return Err(Error::Invalid("no image to save: name at least one".to_owned()));
        }
        let chosen = self.images_to_save(names)?;
        // Layers must not go while they are being read. A store that cannot be written loses none.
        let _lease = if self.options.read_only { None } else { Some(self.lease()?) };
        let mut sources: BTreeMap<Digest, Source> = BTreeMap::new();
        let mut done: BTreeMap<DiffId, LayerToWrite> = BTreeMap::new();
        let temporary = match compress {
            Compression::None => None,
            _ => Some(self.temporary()?),
        };
        let mut images = Vec::new();
        for (id, references) in chosen {
            let image = self.image_by_id(&id)?;
            let mut layers = Vec::new();
            for diff_id in &image.layers {
                let layer = match done.get(diff_id) {
                    Some(layer) => layer.clone(),
                    None => {
                        let (layer, source) = self.source(diff_id, compress, temporary.as_ref())?;
                        sources.insert(layer.blob, source);
                        done.insert(*diff_id, layer.clone());
                        layer
                    }
                };
                layers.push(layer);
            }
            images.push(ImageToWrite {
                references,
                platform: Platform {
                    architecture: image.config.architecture.clone(),
                    os: image.config.os.clone(),
                    variant: (!image.config.variant.is_empty())
                        .then(|| image.config.variant.clone()),
                    os_version: None,
                },
                config_raw: image.config_raw,
                layers,
            });
        }
        let plan = match format {
            ArchiveFormat::Docker => plan_docker(&images)?,
            ArchiveFormat::OciLayout => plan_oci(&images)?,
        };
        plan.write(out, |digest, tar| {
            let source = sources
                .get(digest)
                .ok_or_else(|| Error::Damaged(format!("the layer {digest} is missing")))?;
            let reading = || format!("reading {}", source.path.display());
            let mut file = File::open(&source.path).map_err(io(reading))?;
            let mut hasher = digest.hasher();
            let mut buffer = vec![0; 512 << 10];
            loop {
                let n = file.read(&mut buffer).map_err(io(reading))?;
                let data = buffer.get(..n).unwrap_or_default();
                if data.is_empty() {
                    break;
                }
                hasher.update(data);
                tar.write_data(data).map_err(io(|| "writing the image archive".to_owned()))?;
            }
            // What leaves the store is what its name says, or the disk has lost something.
            if hasher.finish() != *digest || tar.remaining() != 0 {
                return Err(Error::Damaged(format!(
                    "{} does not have the digest {digest}",
                    source.path.display()
                )));
            }
            Ok(())
        })?;
        Ok(())
    }

    fn images_to_save(&self, names: &[&str]) -> Result<Vec<(ImageId, Vec<Reference>)>> {
        let mut chosen: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        let mut choose = |id: ImageId, references: Vec<Reference>| {
            let at = match chosen.iter().position(|(other, _)| *other == id) {
                Some(at) => at,
                None => {
                    chosen.push((id, Vec::new()));
                    chosen.len() - 1
                }
            };
            if let Some((_, list)) = chosen.get_mut(at) {
                for reference in references {
                    if !list.contains(&reference) {
                        list.push(reference);
                    }
                }
            }
        };
        for name in names {
            let Ok(reference) = Reference::parse(name) else {
                choose(self.resolve(name)?, Vec::new());
                continue;
            };
            if reference.tag().is_none() && reference.digest().is_none() {
                let tags = self.tags_of(&reference)?;
                if !tags.is_empty() {
                    for (tag, id) in tags {
                        choose(id, vec![tag]);
                    }
                    continue;
                }
            }
            let id = self.resolve(name)?;
            let image = self.image_by_id(&id)?;
            let reference = reference.or_latest();
            let known = image.references.contains(&reference);
            choose(id, if known { vec![reference] } else { Vec::new() });
        }
        for (_, references) in &mut chosen {
            references.sort();
        }
        Ok(chosen)
    }

    /// All tags of a repository.
    pub(crate) fn tags_of(&self, repository: &Reference) -> Result<Vec<(Reference, ImageId)>> {
        let mut out = Vec::new();
        let mut statement = self.database.connection().prepare_cached(
            "SELECT reference, image_id FROM image_tags WHERE reference >= ?1 AND reference < ?2",
        )?;
        let name = repository.repository();
        // `;` follows `:`.
        let rows = statement
            .query_map([format!("{name}:"), format!("{name};")], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for (reference, id) in rows {
            out.push((Reference::parse(&reference)?, id.parse()?));
        }
        Ok(out)
    }

    /// Where the bytes of a layer are, and what they are called. Compressed ones are made first,
    /// because a tar header wants to know their size.
    fn source(
        &self,
        diff_id: &DiffId,
        compress: Compression,
        temporary: Option<&Temporary>,
    ) -> Result<(LayerToWrite, Source)> {
        let path = self.layer_path(diff_id).join(TAR);
        let missing = |error| Error::Damaged(format!("the layer {diff_id} is missing: {error}"));
        let file = File::open(&path).map_err(missing)?;
        let size = file.metadata().map_err(missing)?.len();
        let Some(temporary) = temporary else {
            let blob = diff_id.digest();
            return Ok((
                LayerToWrite { blob, size, media_type: media_type::LAYER },
                Source { path },
            ));
        };
        let compressed = temporary.path().join(diff_id.hex());
        let writing = || format!("writing {}", compressed.display());
        let out = File::create_new(&compressed).map_err(io(writing))?;
        let out = Measured::new(out);
        let mut compressor = Compressor::new(compress, out).map_err(io(writing))?;
        std::io::copy(&mut &file, &mut compressor).map_err(io(writing))?;
        let measured = compressor.finish().map_err(io(writing))?;
        let media_type = match compress {
            Compression::Zstd => media_type::LAYER_ZSTD,
            _ => media_type::LAYER_GZIP,
        };
        let layer =
            LayerToWrite { blob: measured.hasher.finish(), size: measured.size, media_type };
        Ok((layer, Source { path: compressed }))
    }
}

struct Source {
    path: std::path::PathBuf,
}
