//! Reading a tar archive from a stream.

use std::io::{self, BufRead};

use super::header::{self, Block, field};
use super::{BLOCK, Entry, Kind, pax};
use crate::{Error, Result, limits};

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads entries one after the other. The data of an entry is read with [`TarReader::fill`] and
/// [`TarReader::consume`]; what is left of it is skipped by the next call of
/// [`TarReader::next_entry`].
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    /// Bytes consumed so far.
    offset: u64,
    /// Offset of the header of the current entry.
    entry_offset: u64,
    /// Data of the current entry not yet consumed.
    remaining: u64,
    /// Padding after it.
    pad: u64,
    global: Records,
    /// Bytes held in `global`.
    global_size: u64,
    done: bool,
}

impl<R: BufRead> TarReader<R> {
    /// A reader at the start of an archive.
    pub fn new(inner: R) -> TarReader<R> {
        TarReader {
            inner,
            offset: 0,
            entry_offset: 0,
            remaining: 0,
            pad: 0,
            global: Vec::new(),
            global_size: 0,
            done: false,
        }
    }

    /// Gives the stream back, wherever it is.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Offset in the archive of the current entry's header; for messages.
    pub fn entry_offset(&self) -> u64 {
        self.entry_offset
    }

    /// Offset in the archive of the next byte to be read. Right after [`TarReader::next_entry`] that
    /// is where the entry's data begins, a multiple of 512: the map of a sparse file lies before it.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// Lets `skip` move the stream past what is left of the current entry, for a stream that can do
    /// so without reading it: the number of bytes to pass is its second argument.
    ///
    /// # Errors
    /// Those of `skip`.
    pub fn skip_data(&mut self, skip: impl FnOnce(&mut R, u64) -> io::Result<()>) -> Result<()> {
        let rest = self.remaining.saturating_add(self.pad);
        if rest > 0 {
            skip(&mut self.inner, rest).map_err(|error| self.read_error(error))?;
            self.remaining = 0;
            self.pad = 0;
            self.offset = self.offset.saturating_add(rest);
        }
        Ok(())
    }

    /// Number of data bytes of the current entry that are still to be read.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Tar { offset: self.entry_offset, reason: reason.into() }
    }

    fn read_error(&self, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Error::Tar {
                offset: self.offset,
                reason: "unexpected end of the archive: it is truncated".to_owned(),
            };
        }
        Error::Io { what: format!("reading the archive at byte {}", self.offset), source }
    }

    /// The next piece of the current entry's data, empty when there is no more.
    ///
    /// # Errors
    /// Those of reading; [`Error::Tar`] if the archive ends within the data.
    pub fn fill(&mut self) -> Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        // Two steps, because the borrow of a buffer that is returned would last too long.
        let available = loop {
            match self.inner.fill_buf() {
                Ok(buffer) => break buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        };
        if available == 0 {
            return Err(self.read_error(io::ErrorKind::UnexpectedEof.into()));
        }
        let take = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
        match self.inner.fill_buf() {
            Ok(buffer) => Ok(buffer.get(..take).unwrap_or_default()),
            Err(source) => Err(Error::Io { what: "reading the archive".to_owned(), source }),
        }
    }

    /// Marks `n` bytes of what [`TarReader::fill`] returned as read.
    pub fn consume(&mut self, n: usize) {
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(n);
        self.inner.consume(n);
        self.remaining -= n as u64;
        self.offset = self.offset.saturating_add(n as u64);
    }

    /// Reads up to `buffer.len()` bytes of the current entry's data; 0 at its end.
    ///
    /// # Errors
    /// As [`TarReader::fill`].
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let data = self.fill()?;
        let n = data.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), data.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }

    fn skip(&mut self, mut n: u64) -> Result<()> {
        while n > 0 {
            let available = match self.inner.fill_buf() {
                Ok([]) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_error(error)),
            };
            let take = usize::try_from(n).unwrap_or(usize::MAX).min(available);
            self.inner.consume(take);
            self.offset = self.offset.saturating_add(take as u64);
            n -= take as u64;
        }
        Ok(())
    }

    /// Reads a block; None at the end of the stream.
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let n = match self.inner.fill_buf() {
                Ok([]) if have == 0 => return Ok(None),
                Ok([]) => return Err(self.read_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(buffer) => {
                    let n = buffer.len().min(BLOCK - have);
                    if let (Some(to), Some(from)) = (block.get_mut(have..have + n), buffer.get(..n))
                    {
                        to.copy_from_slice(from);
                    }
                    n
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_error(error)),
            };
            self.inner.consume(n);
            self.offset = self.offset.saturating_add(n as u64);
            have += n;
        }
        Ok(Some(block))
    }

    /// Reads the data of a metadata entry, which is held in memory and therefore bounded.
    fn metadata(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > limits::MAX_TAR_METADATA {
            return Err(Error::limit(
                format!("tar header at byte {}", self.entry_offset),
                format!("{size} bytes of metadata for one entry"),
            ));
        }
        self.remaining = size;
        self.pad = super::padding(size);
        let mut out = Vec::new();
        loop {
            let data = self.fill()?;
            if data.is_empty() {
                break;
            }
            let n = data.len();
            out.extend_from_slice(data);
            self.consume(n);
        }
        let pad = std::mem::take(&mut self.pad);
        self.skip(pad)?;
        Ok(out)
    }

    /// Goes to the next entry, skipping what is left of the current one. None at the end of the
    /// archive.
    ///
    /// # Errors
    /// [`Error::Tar`] for a damaged archive, [`Error::Limit`] for one beyond our bounds, and those
    /// of reading.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.done {
            return Ok(None);
        }
        let rest = std::mem::take(&mut self.remaining);
        let pad = std::mem::take(&mut self.pad);
        self.skip(rest)?;
        // The padding of the very last entry may be missing in archives cut by careless tools; the
        // data is whole then.
        self.skip(pad)?;

        let mut local = Records::new();
        let mut long_name = None;
        let mut long_link = None;
        let mut seen_metadata = 0_u32;
        self.entry_offset = self.offset;
        loop {
            let Some(block) = self.block()? else {
                if seen_metadata > 0 {
                    return Err(self.read_error(io::ErrorKind::UnexpectedEof.into()));
                }
                self.done = true;
                return Ok(None);
            };
            if block.iter().all(|b| *b == 0) {
                match self.block()? {
                    Some(second) if second.iter().any(|b| *b != 0) => {
                        return Err(self.damaged("a lone block of zeros between entries"));
                    }
                    _ => {}
                }
                self.done = true;
                return Ok(None);
            }
            if !header::looks_like_header(&block) {
                return Err(
                    self.damaged("wrong header checksum: this is not a tar archive, or damaged")
                );
            }
            let raw_size = self.unsigned(&block, field::SIZE, "size")?;
            seen_metadata += 1;
            if seen_metadata > 16 {
                return Err(self.damaged("too many metadata headers for one entry"));
            }
            match block.get(field::KIND).copied().unwrap_or_default() {
                b'x' | b'X' => {
                    let data = self.metadata(raw_size)?;
                    local =
                        pax::parse(&data).ok_or_else(|| self.damaged("malformed pax header"))?;
                }
                b'g' => {
                    let data = self.metadata(raw_size)?;
                    let records = pax::parse(&data)
                        .ok_or_else(|| self.damaged("malformed global pax header"))?;
                    self.merge_global(records)?;
                    // A global header is not about the next entry alone and may stand anywhere.
                    seen_metadata = 0;
                }
                b'L' => long_name = Some(header::text(&self.metadata(raw_size)?).to_vec()),
                b'K' => long_link = Some(header::text(&self.metadata(raw_size)?).to_vec()),
                // A volume label says nothing about files.
                b'V' => self.skip(raw_size.saturating_add(super::padding(raw_size)))?,
                _ => return self.entry(&block, local, long_name, long_link).map(Some),
            }
        }
    }

    fn merge_global(&mut self, records: Records) -> Result<()> {
        for (key, value) in records {
            self.global.retain(|(k, _)| *k != key);
            if !value.is_empty() {
                self.global.push((key, value));
            }
        }
        self.global_size = self.global.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum();
        if self.global_size > limits::MAX_TAR_METADATA {
            return Err(Error::limit("tar archive", "its global headers are too large"));
        }
        Ok(())
    }

    fn signed(&self, block: &Block, range: field::Field, name: &str) -> Result<i64> {
        let bytes = block.get(range).unwrap_or_default();
        header::number(bytes)
            .ok_or_else(|| self.damaged(format!("the field {name} is not a number")))
    }

    fn unsigned(&self, block: &Block, range: field::Field, name: &str) -> Result<u64> {
        let value = self.signed(block, range, name)?;
        u64::try_from(value).map_err(|_| self.damaged(format!("the field {name} is negative")))
    }

    fn id(&self, block: &Block, range: field::Field, name: &str) -> Result<u32> {
        let value = self.signed(block, range, name)?;
        u32::try_from(value).map_err(|_| self.damaged(format!("the field {name} is out of range")))
    }

    fn entry(
        &mut self,
        block: &Block,
        local: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let slice = |range: field::Field| block.get(range).unwrap_or_default();
        let flag = block.get(field::KIND).copied().unwrap_or_default();
        let ustar = slice(field::MAGIC) == b"ustar\x0000";
        let star = ustar && slice(field::STAR_MAGIC) == b"tar\0";
        let mut name = header::text(slice(field::NAME)).to_vec();
        let prefix = match (star, ustar) {
            (true, _) => header::text(slice(field::STAR_PREFIX)),
            (false, true) => header::text(slice(field::PREFIX)),
            (false, false) => b"",
        };
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let kind = match flag {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let reason = format!("entry of unknown type {:?}", char::from(other));
                return Err(self.damaged(reason));
            }
        };
        let mut entry = Entry::new(long_name.unwrap_or(name), kind, 0);
        entry.mode = self.id(block, field::MODE, "mode")? & 0o7777;
        entry.uid = self.id(block, field::UID, "uid")?;
        entry.gid = self.id(block, field::GID, "gid")?;
        entry.mtime.seconds = self.signed(block, field::MTIME, "mtime")?;
        entry.link = long_link.unwrap_or_else(|| header::text(slice(field::LINK)).to_vec());
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let major = self.id(block, field::MAJOR, "devmajor")?;
            entry.device = (major, self.id(block, field::MINOR, "devminor")?);
        }
        let mut data_size = self.unsigned(block, field::SIZE, "size")?;

        let global = std::mem::take(&mut self.global);
        let sparse = self.apply_records(&mut entry, &mut data_size, &global, &local);
        self.global = global;
        let sparse = sparse?;

        // The oldest writers mark a directory by its name alone. It is the whole name that counts:
        // a long one is cut off in the header, perhaps after a slash.
        if matches!(flag, 0 | b'0' | b'7') && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        let kind = entry.kind;

        // A link or a device has no data, whatever its size field says (POSIX leaves it open for
        // hard links; GNU tar writes 0 and so does everyone who makes images).
        let has_data = matches!(kind, Kind::File) || flag == b'D';
        if !has_data {
            data_size = 0;
        }
        self.remaining = data_size;
        self.pad = super::padding(data_size);
        entry.size = if kind == Kind::File { data_size } else { 0 };

        if flag == b'S' {
            self.old_sparse(block, &mut entry)?;
        } else if kind == Kind::File {
            self.pax_sparse(sparse, &mut entry)?;
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(self.damaged("a name contains a NUL"));
        }
        Ok(entry)
    }

    fn apply_records(
        &self,
        entry: &mut Entry,
        data_size: &mut u64,
        global: &Records,
        local: &Records,
    ) -> Result<Sparse> {
        let bad = |key: &[u8]| {
            let key = String::from_utf8_lossy(key);
            self.damaged(format!("the pax record {key} has a wrong value"))
        };
        let mut sparse = Sparse::default();
        for (key, value) in global.iter().chain(local) {
            match key.as_slice() {
                _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
                b"path" => entry.path.clone_from(value),
                b"linkpath" => entry.link.clone_from(value),
                b"size" => *data_size = pax::decimal(value).ok_or_else(|| bad(key))?,
                b"uid" | b"gid" => {
                    let id = pax::decimal(value).and_then(|n| u32::try_from(n).ok());
                    let id = id.ok_or_else(|| bad(key))?;
                    if key == b"uid" { entry.uid = id } else { entry.gid = id }
                }
                b"mtime" => entry.mtime = pax::time(value).ok_or_else(|| bad(key))?,
                b"GNU.sparse.major" => sparse.major = pax::decimal(value),
                b"GNU.sparse.minor" => sparse.minor = pax::decimal(value),
                b"GNU.sparse.name" => sparse.name = Some(value.clone()),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                    sparse.size = Some(pax::decimal(value).ok_or_else(|| bad(key))?);
                }
                b"GNU.sparse.map" => sparse.map = Some(value.clone()),
                b"GNU.sparse.offset" => {
                    sparse.pending = Some(pax::decimal(value).ok_or_else(|| bad(key))?);
                }
                b"GNU.sparse.numbytes" => {
                    let length = pax::decimal(value).ok_or_else(|| bad(key))?;
                    let offset = sparse.pending.take().ok_or_else(|| bad(key))?;
                    sparse.pieces.push((offset, length));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        entry.xattrs.retain(|(k, _)| k != name);
                        entry.xattrs.push((name.to_vec(), value.clone()));
                    }
                }
            }
        }
        Ok(sparse)
    }

    /// GNU's old form: the map in the header and in blocks after it.
    fn old_sparse(&mut self, block: &Block, entry: &mut Entry) -> Result<()> {
        let size = self.unsigned(block, field::GNU_REAL_SIZE, "realsize")?;
        let mut pieces = Vec::new();
        self.sparse_block(block.get(field::GNU_SPARSE).unwrap_or_default(), &mut pieces)?;
        let mut more = block.get(field::GNU_EXTENDED) == Some(&1);
        while more {
            let Some(extension) = self.block()? else {
                return Err(self.read_error(io::ErrorKind::UnexpectedEof.into()));
            };
            self.sparse_block(extension.get(..504).unwrap_or_default(), &mut pieces)?;
            more = extension.get(504) == Some(&1);
        }
        self.set_sparse(entry, size, pieces)
    }

    fn sparse_block(&self, bytes: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<()> {
        for piece in bytes.chunks_exact(24) {
            let (offset, length) = piece.split_at(12);
            if offset.first() == Some(&0) || length.first() == Some(&0) {
                break;
            }
            let parse = |bytes| header::number(bytes).and_then(|n| u64::try_from(n).ok());
            match (parse(offset), parse(length)) {
                (Some(offset), Some(length)) => pieces.push((offset, length)),
                _ => return Err(self.damaged("the sparse map is not made of numbers")),
            }
            if pieces.len() > limits::MAX_SPARSE_SEGMENTS {
                return Err(self.damaged("the sparse map is too long"));
            }
        }
        Ok(())
    }

    /// GNU's pax forms 0.0, 0.1 and 1.0.
    fn pax_sparse(&mut self, sparse: Sparse, entry: &mut Entry) -> Result<()> {
        if let Some(name) = sparse.name {
            entry.path = name;
        }
        let pieces = if sparse.major == Some(1) && sparse.minor.unwrap_or(0) == 0 {
            self.sparse_map_in_data()?
        } else if let Some(map) = sparse.map {
            let numbers: Option<Vec<u64>> = map.split(|b| *b == b',').map(pax::decimal).collect();
            let numbers = numbers.ok_or_else(|| self.damaged("malformed sparse map"))?;
            let (pairs, rest) = numbers.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(self.damaged("malformed sparse map"));
            }
            pairs.iter().map(|[offset, length]| (*offset, *length)).collect()
        } else if sparse.size.is_some() && (!sparse.pieces.is_empty() || self.remaining == 0) {
            sparse.pieces
        } else {
            return Ok(());
        };
        let size = sparse.size.ok_or_else(|| self.damaged("a sparse file without its size"))?;
        self.set_sparse(entry, size, pieces)
    }

    /// Form 1.0: decimal numbers, one a line, in whole blocks before the data.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut line = Vec::new();
        let mut expected = None;
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(self.damaged("the sparse map is truncated"));
            }
            let Some(block) = self.block()? else {
                return Err(self.read_error(io::ErrorKind::UnexpectedEof.into()));
            };
            self.remaining -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(self.damaged("malformed sparse map"));
                    }
                    continue;
                }
                let number = pax::decimal(&std::mem::take(&mut line))
                    .ok_or_else(|| self.damaged("malformed sparse map"))?;
                match expected {
                    None if number > limits::MAX_SPARSE_SEGMENTS as u64 => {
                        return Err(self.damaged("the sparse map is too long"));
                    }
                    None => expected = Some(number * 2),
                    Some(_) => numbers.push(number),
                }
                if expected == Some(numbers.len() as u64) {
                    let (pairs, _) = numbers.as_chunks::<2>();
                    return Ok(pairs.iter().map(|[offset, length]| (*offset, *length)).collect());
                }
            }
        }
    }

    fn set_sparse(&self, entry: &mut Entry, size: u64, mut pieces: Vec<(u64, u64)>) -> Result<()> {
        // Writers close the map with an empty piece at the end of the file.
        pieces.retain(|(_, length)| *length > 0);
        if pieces.len() > limits::MAX_SPARSE_SEGMENTS {
            return Err(self.damaged("the sparse map is too long"));
        }
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for (offset, length) in &pieces {
            let piece_end = offset.checked_add(*length).filter(|end| *end <= size);
            match piece_end {
                Some(piece_end) if *offset >= end => end = piece_end,
                _ => return Err(self.damaged("the sparse map is out of order or beyond the file")),
            }
            sum = sum.saturating_add(*length);
        }
        if sum != self.remaining {
            return Err(self.damaged("the sparse map does not match the data"));
        }
        if i64::try_from(size).is_err() {
            return Err(self.damaged("a file larger than a file can be"));
        }
        entry.size = size;
        entry.sparse = Some(pieces);
        Ok(())
    }
}

#[derive(Default)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    map: Option<Vec<u8>>,
    pending: Option<u64>,
    pieces: Vec<(u64, u64)>,
}
