//! Image filesystems: EROFS images that hold metadata only, while the data of files stays in the
//! layers' tar archives.
//!
//! [`LayerTree`] collects the entries of one layer as its archive is read; [`merge`] puts layers on
//! top of each other, whiteouts applied; [`Tree::write`] gives the bytes of the image. The kernel
//! mounts them with the archives as extra devices. `docs/format-erofs.md` says which parts of the
//! format are used and how.
//!
//! Nothing here touches files: this crate turns entries into bytes. The same layers always give
//! the same bytes.
//!
//! Start reading at [`LayerTree`] in `layer.rs`, then `merge.rs`, then `write.rs`.

mod error;
mod layer;
mod merge;
mod node;
mod read;
mod sparse;
mod write;

pub use error::{Error, Result};
pub use layer::LayerTree;
pub use merge::{DeviceFile, Layer, Root, Tree, merge};
pub use read::{Indexed, Visitor};
pub use sparse::{Piece, SideFile, SparseFile};

/// Bytes of a block: that of tar, so that every file's data begins with one.
pub const BLOCK: u64 = 512;

/// Most nodes (files, directories, links) in one layer. Held in memory while an image is made.
pub const MAX_NODES: usize = 4 << 20;

/// Most bytes of names, link targets, attributes and chunk maps in one layer.
pub const MAX_METADATA: usize = 512 << 20;

/// Largest file, largest archive and largest side file: what block numbers of 32 bits reach.
pub const MAX_DEVICE: u64 = (u32::MAX as u64) * BLOCK;
