//! `system df`: every byte under the data root, by what it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::rfc3339;
use crate::engine::{Engine, ListOptions};
use crate::error::Result;
use crate::types::{DiskUsage, VolumeUsage};

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A build's result as the API's `BuildCache`. Results with the same layer are counted once.
fn cache_record(
    step: &store::CachedStep,
    measured: &store::DiskUsage,
    seen: &mut BTreeSet<oci::DiffId>,
) -> serde_json::Value {
    let layer = measured.layers.get(&step.diff_id);
    let size = layer.map_or(step.size, |layer| layer.unpacked.saturating_add(layer.tar));
    let first = seen.insert(step.diff_id);
    serde_json::json!({
        "ID": step.key,
        "Parents": null,
        "Type": "regular",
        "Description": step.description,
        "InUse": false,
        "Shared": step.shared || !first,
        "Size": size,
        "CreatedAt": rfc3339(step.created_ns),
        "LastUsedAt": rfc3339(step.used_ns),
        "UsageCount": step.uses,
    })
}

impl Engine {
    /// The directory of a cache mount as the API's `BuildCache`.
    fn mount_record(&self, name: &str, bytes: u64) -> serde_json::Value {
        let directory = self.data_root().join("cache/mounts").join(name);
        let id = std::fs::read_to_string(directory.join("id")).unwrap_or_default();
        let time = |path: &str| {
            let time = std::fs::metadata(directory.join(path)).and_then(|m| m.modified()).ok();
            let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            rfc3339(since.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX)))
        };
        serde_json::json!({
            "ID": name,
            "Parents": null,
            "Type": "exec.cachemount",
            "Description": format!("cache mount {id}"),
            "InUse": false,
            "Shared": false,
            "Size": bytes,
            "CreatedAt": time("id"),
            "LastUsedAt": time("lock"),
            "UsageCount": 1,
        })
    }

    /// Measures the data root; takes as long as `du`.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let containers =
            self.list(ListOptions { all: true, size: true, ..ListOptions::default() })?;
        let measured = self.store().disk_usage()?;
        let mut images = self.images(true, &BTreeMap::new())?;
        for image in &mut images {
            let users = containers.iter().filter(|c| c.image_id == image.id).count();
            image.containers = i64::try_from(users).unwrap_or(i64::MAX);
            if let Ok(id) = image.id.parse()
                && let Some((shared, own)) = measured.images.get(&id)
            {
                image.shared_size = signed(*shared);
                image.size = signed(shared.saturating_add(*own));
            }
        }
        let mut volumes = self.volumes(&BTreeMap::new())?;
        for volume in &mut volumes {
            let users = self.store().volume_users(&volume.name)?.len();
            volume.usage_data = Some(VolumeUsage {
                ref_count: i64::try_from(users).unwrap_or(i64::MAX),
                size: signed(measured.volumes.get(&volume.name).copied().unwrap_or(0)),
            });
        }
        let steps = self.cached_steps()?;
        let mut seen = BTreeSet::new();
        let mut build_cache: Vec<_> =
            steps.iter().map(|step| cache_record(step, &measured, &mut seen)).collect();
        build_cache.extend(
            measured.cache_mounts.iter().map(|(name, bytes)| self.mount_record(name, *bytes)),
        );
        // What only builds keep is not images'.
        let of_images = |diff_id: &oci::DiffId| {
            !steps.iter().any(|step| step.diff_id == *diff_id && !step.shared)
        };
        let layers: u64 = measured
            .layers
            .iter()
            .filter(|(diff_id, _)| of_images(diff_id))
            .map(|(_, layer)| layer.unpacked + layer.tar)
            .sum();
        let mut other = BTreeMap::new();
        let files: u64 = measured.container_files.values().sum();
        let writable: u64 = measured.writable_layers.values().sum();
        for (what, bytes) in [
            ("blobs", measured.blobs),
            ("indexes of images", measured.indexes),
            ("journals and files of containers", files),
            ("writable layers", writable),
            ("database", measured.database),
            ("temporary", measured.temporary),
            ("trash", measured.trash),
            ("directories", measured.structure),
        ] {
            other.insert(what.to_owned(), signed(bytes));
        }
        for unknown in &measured.other {
            other.insert(unknown.path.to_string_lossy().into_owned(), signed(unknown.bytes));
        }
        Ok(DiskUsage {
            layers_size: signed(layers),
            images,
            containers,
            volumes,
            build_cache,
            other,
        })
    }
}
