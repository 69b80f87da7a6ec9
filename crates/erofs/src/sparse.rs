//! Sparse files: their data lies in the archive piece after piece, with lengths of any size and
//! without the holes, so blocks of the image cannot point at it. It is written a second time into a
//! *side file* of the layer, in chunks that are laid out as in the file itself.

use crate::{BLOCK, Error, MAX_DEVICE, Result};

/// Most chunks of one file, as long as chunks can be made larger.
const MAX_CHUNKS: u64 = 16_384;
/// Smallest chunk: a page.
const MIN_BITS: u8 = 3;
/// Largest chunk the format knows.
const MAX_BITS: u8 = 31;

/// Gives places in a layer's side file. The same files in the same order get the same places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideFile {
    blocks: u64,
}

/// Where the data of one sparse file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseFile {
    pub(crate) bits: u8,
    pub(crate) chunks: Vec<Option<u32>>,
}

/// One piece of data and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the side file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl SideFile {
    /// Bytes of the side file so far; 0 if none is needed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Finds room for a file of `size` bytes with data in `pieces` (offset, length), which are in
    /// order and do not overlap.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond what block numbers can say.
    pub fn place(&mut self, size: u64, pieces: &[(u64, u64)]) -> Result<SparseFile> {
        let too_large = || Error::TooLarge("a sparse file that is too large");
        let mut bits = MIN_BITS;
        while bits < MAX_BITS && size.div_ceil(BLOCK << bits) > MAX_CHUNKS {
            bits += 1;
        }
        let chunk = BLOCK << bits;
        let count = size.div_ceil(chunk);
        if count > MAX_CHUNKS {
            return Err(too_large());
        }
        let mut chunks = vec![None; usize::try_from(count).map_err(|_| too_large())?];
        for (offset, length) in pieces.iter().filter(|(_, length)| *length > 0) {
            let last = offset.saturating_add(*length).saturating_sub(1) / chunk;
            for number in offset / chunk..=last {
                let number = usize::try_from(number).map_err(|_| too_large())?;
                if let Some(slot @ None) = chunks.get_mut(number) {
                    *slot = Some(u32::try_from(self.blocks).map_err(|_| too_large())?);
                    self.blocks = self.blocks.saturating_add(1 << bits);
                }
            }
        }
        // So that a file's last chunk is there as a whole.
        if self.size() > MAX_DEVICE {
            return Err(too_large());
        }
        Ok(SparseFile { bits, chunks })
    }
}

impl SparseFile {
    /// The place of the data at `offset` of the file, at most `length` bytes that lie together.
    /// None in a hole.
    #[must_use]
    pub fn locate(&self, offset: u64, length: u64) -> Option<Piece> {
        let chunk = BLOCK << self.bits;
        let number = usize::try_from(offset / chunk).ok()?;
        let block = (*self.chunks.get(number)?)?;
        let inside = offset % chunk;
        let start = u64::from(block).saturating_mul(BLOCK).saturating_add(inside);
        Some(Piece { offset: start, length: length.min(chunk - inside) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_with_data_take_room() {
        let mut side = SideFile::default();
        let file = side.place(100_000, &[(1000, 10), (4090, 10), (99_999, 1)]).unwrap();
        assert_eq!(side.size(), 3 * 4096);
        assert_eq!(file.locate(1000, 10), Some(Piece { offset: 1000, length: 10 }));
        assert_eq!(file.locate(4090, 10), Some(Piece { offset: 4090, length: 6 }));
        assert_eq!(file.locate(4096, 4), Some(Piece { offset: 4096, length: 4 }));
        assert_eq!(file.locate(99_999, 1), Some(Piece { offset: 8192 + 1695, length: 1 }));
        assert_eq!(file.locate(20_000, 1), None);
        // The next one comes after it.
        let next = side.place(4096, &[(0, 4096)]).unwrap();
        assert_eq!(next.locate(0, 4096), Some(Piece { offset: 3 * 4096, length: 4096 }));
    }

    #[test]
    fn a_huge_file_has_large_chunks() {
        let mut side = SideFile::default();
        let file = side.place(1 << 50, &[(1 << 49, 5)]).unwrap();
        assert!(file.chunks.len() <= 16_384);
        assert_eq!(file.locate(1 << 49, 5), Some(Piece { offset: 0, length: 5 }));
        assert!(side.place(u64::MAX >> 1, &[]).is_err());
    }
}
