//! Bounds on what is accepted from outside. A document or an archive beyond one of these is refused.

/// Largest JSON document (manifest, configuration, index) in bytes. The distribution specification
/// asks registries to accept manifests of 4 MiB.
pub const MAX_JSON: u64 = 4 << 20;
/// Largest number of layers in an image; Docker's own bound.
pub const MAX_LAYERS: usize = 127;
/// Largest number of JSON documents held in memory while an archive is read.
pub const MAX_DOCUMENTS: usize = 16_384;
/// Largest sum of the sizes of those documents, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;
/// Largest number of entries in an image archive (not in a layer).
pub const MAX_ARCHIVE_ENTRIES: usize = 65_536;
/// Largest pax header or GNU long name in a tar archive, in bytes.
pub const MAX_TAR_METADATA: u64 = 1 << 20;
/// Longest path of a tar entry in bytes (the kernel's PATH_MAX without the final NUL).
pub const MAX_PATH: usize = 4095;
/// Longest component of a path in bytes (the kernel's NAME_MAX).
pub const MAX_NAME: usize = 255;
/// Most components a path may have.
pub const MAX_PATH_DEPTH: usize = 512;
/// Most segments of data in one sparse file.
pub const MAX_SPARSE_SEGMENTS: usize = 65_536;
/// Most manifests in one index, and deepest nesting of an index in an index.
pub const MAX_MANIFESTS: usize = 4096;
/// Deepest nesting of an index in an index.
pub const MAX_INDEX_DEPTH: usize = 4;
