//! Reading a layer's archive to its end, for its tree.

use std::io::BufRead;

use oci::tar::{Entry, Kind, TarReader};

use crate::{Error, LayerTree, SideFile};

/// What a reader of archives wants to see on the way.
pub trait Visitor<R> {
    /// Its errors.
    type Error: From<Error> + From<oci::Error>;

    /// Data for the layer's side file. Only called for sparse files.
    ///
    /// # Errors
    /// Those of writing.
    fn side(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Called after each entry with the bytes of file content so far, holes counted. What is left
    /// of the entry's data is read and dropped afterwards, unless it is skipped here.
    ///
    /// # Errors
    /// To stop reading.
    fn entry(&mut self, tar: &mut TarReader<R>, bytes: u64) -> Result<(), Self::Error>;
}

/// A layer that was read.
#[derive(Clone, Debug, Default)]
pub struct Indexed {
    /// Its files.
    pub tree: LayerTree,
    /// What its side file has come to.
    pub side: SideFile,
    /// Bytes of file content, holes counted.
    pub bytes: u64,
    /// Bytes of its archive; set by whoever has read it to its end.
    pub archive: u64,
}

impl Indexed {
    /// Reads entries up to the end of the archive.
    ///
    /// # Errors
    /// An archive that is damaged or refused; those of the visitor.
    pub fn read<R: BufRead, V: Visitor<R>>(
        tar: &mut TarReader<R>,
        visitor: &mut V,
    ) -> Result<Indexed, V::Error> {
        let mut out = Indexed::default();
        while let Some(entry) = tar.next_entry()? {
            out.entry(tar, &entry, visitor)?;
            visitor.entry(tar, out.bytes)?;
        }
        Ok(out)
    }

    fn entry<R: BufRead, V: Visitor<R>>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let offset = tar.position();
        if entry.kind == Kind::File {
            self.bytes = self.bytes.saturating_add(entry.size);
        }
        let Some(pieces) = &entry.sparse else {
            self.tree.add(entry, offset, None)?;
            return Ok(());
        };
        let place = self.side.place(entry.size, pieces)?;
        for (offset, length) in pieces {
            let (mut offset, mut left) = (*offset, *length);
            while left > 0 {
                let data = tar.fill()?;
                let want = left.min(data.len() as u64);
                let found = place.locate(offset, want).filter(|piece| piece.length > 0);
                let Some(piece) = found else {
                    return Err(Error::TooLarge("a sparse file that is damaged").into());
                };
                let n = usize::try_from(piece.length).unwrap_or(usize::MAX).min(data.len());
                visitor.side(piece.offset, data.get(..n).unwrap_or_default())?;
                tar.consume(n);
                offset = offset.saturating_add(n as u64);
                left = left.saturating_sub(n as u64);
            }
        }
        self.tree.add(entry, 0, Some(place))?;
        Ok(())
    }
}
