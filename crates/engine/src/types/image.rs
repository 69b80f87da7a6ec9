//! What `images`, `image inspect`, `history` and the volume verbs answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::{Config, GraphDriver};
use super::host::List;

/// One row of `images`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageSummary {
    /// Containers that use it; -1 when not counted.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// `sha256:…`
    pub id: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Id of the parent, where it was built here.
    pub parent_id: String,
    /// `name@sha256:…`
    pub repo_digests: Vec<String>,
    /// `name:tag`
    pub repo_tags: Vec<String>,
    /// Bytes of layers that other images use too; -1 when not counted.
    pub shared_size: i64,
    /// Bytes of all layers.
    pub size: i64,
}

/// `docker image inspect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageInspect {
    /// `sha256:…`
    pub id: String,
    /// `name:tag`
    pub repo_tags: Vec<String>,
    /// `name@sha256:…`
    pub repo_digests: Vec<String>,
    /// Id of the parent, where it was built here.
    pub parent: String,
    /// Message of the commit.
    pub comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Engine that made it.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// What a container of it is.
    pub config: Option<Config>,
    /// GOARCH's name for the architecture.
    pub architecture: String,
    /// As `v8`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes of all layers.
    pub size: i64,
    /// Where its files are.
    pub graph_driver: GraphDriver,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What this host knows of it.
    pub metadata: ImageMetadata,
}

/// Layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    pub r#type: String,
    /// Diff IDs, base first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What this host knows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageMetadata {
    /// RFC 3339; `0001-01-01T00:00:00Z` for never.
    pub last_tag_time: String,
}

/// One row of `history`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HistoryEntry {
    /// Image id, or `<missing>`.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// What made the layer.
    pub created_by: String,
    /// Tags of the image at this step.
    pub tags: List<String>,
    /// Bytes of the layer; 0 for one that only changed the configuration.
    pub size: i64,
    /// Message.
    pub comment: String,
}

/// What `rmi` did, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageDelete {
    /// A name is gone.
    Untagged(String),
    /// An image is gone.
    Deleted(String),
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    /// RFC 3339.
    pub created_at: String,
    /// `local`.
    pub driver: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Where its files are.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options of the driver.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// Size and users, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// Size and users of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeUsage {
    /// Containers that name it.
    pub ref_count: i64,
    /// Bytes.
    pub size: i64,
}

/// What a prune verb removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Ids or names of what is gone.
    pub deleted: Vec<String>,
    /// Bytes given back.
    pub space_reclaimed: u64,
}

/// Outcome of `image prune`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagesPruned {
    /// Step by step.
    pub deleted: Vec<ImageDelete>,
    /// Bytes given back.
    pub space_reclaimed: u64,
}
