//! `system df`: every byte under the data root, by what it belongs to.

use std::collections::BTreeMap;

use crate::clock::rfc3339;
use crate::engine::{Engine, ListOptions};
use crate::error::Result;
use crate::types::{DiskUsage, VolumeUsage};

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A build's result as the API's `BuildCache`.
fn cache_record(step: &store::CachedStep) -> serde_json::Value {
    serde_json::json!({
        "ID": step.key,
        "Parents": null,
        "Type": "regular",
        "Description": step.description,
        "InUse": false,
        "Shared": step.shared,
        "Size": step.size,
        "CreatedAt": rfc3339(step.created_ns),
        "LastUsedAt": rfc3339(step.used_ns),
        "UsageCount": step.uses,
    })
}

impl Engine {
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
        let layers: u64 = measured.layers.values().map(|l| l.unpacked + l.tar).sum();
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
        let build_cache = self.cached_steps()?.iter().map(cache_record).collect();
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
