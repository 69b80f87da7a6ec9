//! `system df`: every byte under the data root, and what it is for.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use oci::{DiffId, ImageId};
use rustix::fs::AtFlags;

use crate::error::io;
use crate::gc::directory_bytes;
use crate::layer::{DIFF, SPARSE, TAR};
use crate::{Database, Result, Store, files};

/// What the data root is full of. All numbers are bytes on disk unless they say otherwise; their sum is
/// what `du` says of the data root.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Each layer.
    pub layers: BTreeMap<DiffId, LayerUsage>,
    /// Per image: bytes of layers that other images have too, and of those that it alone has.
    pub images: BTreeMap<ImageId, (u64, u64)>,
    /// Indexes of images whose layers are not unpacked.
    pub indexes: u64,
    /// Configuration documents, and what indexes name besides images.
    pub blobs: u64,
    /// Writable layers: upper and work directories by container.
    pub writable_layers: BTreeMap<String, u64>,
    /// The engine's own files of each container: journal, specification.
    pub container_files: BTreeMap<String, u64>,
    /// Each volume.
    pub volumes: BTreeMap<String, u64>,
    /// The state database with its log.
    pub database: u64,
    /// Temporary files of running and of killed processes.
    pub temporary: u64,
    /// What was removed but is not deleted yet.
    pub trash: u64,
    /// The directories of the store themselves, and its version and lock files.
    pub structure: u64,
    /// Whatever else is there.
    pub other: Vec<OtherUsage>,
    /// Directories of builds' cache mounts, by their names.
    pub cache_mounts: BTreeMap<String, u64>,
}

/// One layer's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerUsage {
    /// The unpacked directory, if there is one.
    pub unpacked: u64,
    /// The archive, and the data of its sparse files if it is kept a second time.
    pub tar: u64,
    /// Number of images that have it.
    pub images: u64,
    /// Number of writable layers upon it.
    pub writable_layers: u64,
}

/// Something in the data root that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherUsage {
    /// Where.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl DiskUsage {
    /// Everything together.
    pub fn total(&self) -> u64 {
        let layers: u64 = self.layers.values().map(|layer| layer.unpacked + layer.tar).sum();
        let sum = |map: &BTreeMap<String, u64>| map.values().sum::<u64>();
        layers
            + self.indexes
            + self.blobs
            + sum(&self.writable_layers)
            + sum(&self.container_files)
            + sum(&self.volumes)
            + self.database
            + self.temporary
            + self.trash
            + self.structure
            + self.cache_mounts.values().sum::<u64>()
            + self.other.iter().map(|other| other.bytes).sum::<u64>()
    }

    /// What `gc` would give back: layers that nothing refers to, and the trash.
    pub fn reclaimable(&self) -> u64 {
        let layers: u64 = self
            .layers
            .values()
            .filter(|layer| layer.images == 0 && layer.writable_layers == 0)
            .map(|layer| layer.unpacked + layer.tar)
            .sum();
        layers + self.trash
    }
}

impl Store {
    /// Measures the data root. Takes as long as `du`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        let mut images: HashMap<DiffId, u64> = HashMap::new();
        let records = self.images()?;
        for image in &records {
            let unique: std::collections::BTreeSet<_> = image.layers.iter().collect();
            for layer in unique {
                *images.entry(*layer).or_default() += 1;
            }
        }
        usage.structure += self.own_bytes("")?;
        let what = || format!("reading {}", self.root.display());
        let root = files::open_path(&self.root)?;
        for name in files::names(&root).map_err(io(what))? {
            let name = name.to_string_lossy().into_owned();
            match name.as_str() {
                "chains" => usage.indexes += self.bytes("chains")?,
                "blobs" => usage.blobs += self.bytes("blobs")?,
                "layers" => self.layer_usage(&mut usage, &images)?,
                "containers" => self.container_usage(&mut usage)?,
                "volumes" => self.volume_usage(&mut usage)?,
                "tmp" => usage.temporary += self.bytes("tmp")?,
                "trash" => usage.trash += self.bytes("trash")?,
                "cache" => {
                    usage.structure += self.bytes("cache")?;
                    for name in self.directory_names("cache/mounts").unwrap_or_default() {
                        let bytes = self.bytes(&format!("cache/mounts/{name}"))?;
                        usage.structure = usage.structure.saturating_sub(bytes);
                        usage.cache_mounts.insert(name, bytes);
                    }
                }
                "base" | "empty" | "version" | "lock" | "form" | "storage" => {
                    usage.structure += self.bytes(&name)?
                }
                name if Database::file_names().contains(&name) => {
                    usage.database += self.bytes(name)?
                }
                name => {
                    let bytes = self.bytes(name)?;
                    usage.other.push(OtherUsage { path: self.root.join(name), bytes });
                }
            }
        }
        for image in records {
            let (mut shared, mut unique) = (0, 0);
            let layers: std::collections::BTreeSet<_> = image.layers.iter().collect();
            for layer in layers {
                let Some(layer) = usage.layers.get(layer) else { continue };
                let bytes = layer.unpacked + layer.tar;
                if layer.images > 1 { shared += bytes } else { unique += bytes }
            }
            usage.images.insert(image.id, (shared, unique));
        }
        Ok(usage)
    }

    /// Bytes of a directory itself, or a file, without what is in it.
    fn own_bytes(&self, name: &str) -> Result<u64> {
        let path = self.root.join(name);
        match rustix::fs::statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(files::blocks(&stat)),
            Err(rustix::io::Errno::NOENT) => Ok(0),
            Err(error) => Err(io(|| format!("looking at {}", path.display()))(error)),
        }
    }

    /// Bytes of a file, or of a directory with all that is in it. Gone meanwhile is nothing.
    fn bytes(&self, name: &str) -> Result<u64> {
        directory_bytes(&self.root.join(name))
    }

    fn layer_usage(&self, usage: &mut DiskUsage, images: &HashMap<DiffId, u64>) -> Result<()> {
        usage.structure += self.own_bytes("layers")?;
        for name in self.directory_names("layers")? {
            let Ok(diff_id) = format!("sha256:{name}").parse::<DiffId>() else {
                let path = self.root.join("layers").join(&name);
                let bytes = directory_bytes(&path)?;
                usage.other.push(OtherUsage { path, bytes });
                continue;
            };
            let all = self.bytes(&format!("layers/{name}"))?;
            let tar = self
                .own_bytes(&format!("layers/{name}/{TAR}"))?
                .saturating_add(self.own_bytes(&format!("layers/{name}/{SPARSE}"))?);
            let unpacked = self.bytes(&format!("layers/{name}/{DIFF}"))?;
            usage.structure += all.saturating_sub(tar).saturating_sub(unpacked);
            let layer = usage.layers.entry(diff_id).or_default();
            layer.unpacked = unpacked;
            layer.tar = tar;
            layer.images = images.get(&diff_id).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn container_usage(&self, usage: &mut DiskUsage) -> Result<()> {
        usage.structure += self.own_bytes("containers")?;
        for name in self.directory_names("containers")? {
            let path = format!("containers/{name}");
            let all = self.bytes(&path)?;
            let layer = self
                .bytes(&format!("{path}/upper"))?
                .saturating_add(self.bytes(&format!("{path}/work"))?);
            let record = crate::writable::read_record(&self.root.join(&path)).ok().flatten();
            if let Some(record) = record {
                for diff_id in &record.layers {
                    usage.layers.entry(*diff_id).or_default().writable_layers += 1;
                }
            }
            usage.container_files.insert(name.clone(), all.saturating_sub(layer));
            usage.writable_layers.insert(name, layer);
        }
        Ok(())
    }

    fn volume_usage(&self, usage: &mut DiskUsage) -> Result<()> {
        usage.structure += self.own_bytes("volumes")?;
        let known: std::collections::BTreeSet<String> =
            self.volumes()?.into_iter().map(|volume| volume.name).collect();
        for name in self.directory_names("volumes")? {
            let path = self.root.join("volumes").join(&name);
            let bytes = directory_bytes(&path)?;
            if known.contains(&name) {
                usage.volumes.insert(name, bytes);
            } else {
                usage.other.push(OtherUsage { path, bytes });
            }
        }
        Ok(())
    }
}
