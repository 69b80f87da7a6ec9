//! Shared by the targets that read tar archives.

/// The archive with the right checksum in everything that has the magic of a header. Mutation would
/// otherwise seldom get past the first check of a header.
pub fn with_checksums(raw: &[u8]) -> Vec<u8> {
    let mut archive = raw.to_vec();
    for block in archive.chunks_exact_mut(512) {
        if block.get(257..262) != Some(b"ustar") {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}
