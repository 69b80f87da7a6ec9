//! Writing a tar archive. The same entries give the same bytes: ustar headers, with a pax header
//! only where a value does not fit.

use std::io::{self, Write};

use super::header::{self, Block, field};
use super::{BLOCK, Entry, Kind, pax};

/// Writes entries to a stream.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
    /// Data the current entry still owes.
    remaining: u64,
    pad: u64,
}

impl<W: Write> TarWriter<W> {
    /// A writer at the start of an archive.
    pub fn new(inner: W) -> TarWriter<W> {
        TarWriter { inner, remaining: 0, pad: 0 }
    }

    /// Writes the header of `entry`. For a file its `size` bytes must follow through
    /// [`TarWriter::write_data`]; holes of sparse files are written as zeros by the caller.
    ///
    /// # Errors
    /// Those of writing; `InvalidInput` if the previous entry's data is incomplete.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_data()?;
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut block: Block = [0; BLOCK];
        let mut records = Vec::new();

        let (prefix, name) = split_name(&path).unwrap_or_else(|| {
            pax::push_record(&mut records, b"path", &path);
            // Programs that do not know pax, and some that do, take a slash at the end of the name
            // for a directory.
            let mut short = path.get(..path.len().min(100)).unwrap_or_default();
            while let (true, Some(rest)) = (entry.kind != Kind::Directory, short.strip_suffix(b"/"))
            {
                short = rest;
            }
            (&[], short)
        });
        put(&mut block, field::NAME, name);
        put(&mut block, field::PREFIX, prefix);
        if entry.link.len() > 100 {
            pax::push_record(&mut records, b"linkpath", &entry.link);
        }
        put(
            &mut block,
            field::LINK,
            entry.link.get(..entry.link.len().min(100)).unwrap_or_default(),
        );
        octal(&mut block, field::MODE, u64::from(entry.mode & 0o7777));
        for (range, key, id) in [(field::UID, b"uid", entry.uid), (field::GID, b"gid", entry.gid)] {
            if !octal(&mut block, range, u64::from(id)) {
                pax::push_record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if !octal(&mut block, field::SIZE, size) {
            pax::push_record(&mut records, b"size", size.to_string().as_bytes());
        }
        let seconds = u64::try_from(entry.mtime.seconds).ok();
        let fits = octal(&mut block, field::MTIME, seconds.unwrap_or(0)) && seconds.is_some();
        if !fits || entry.mtime.nanoseconds != 0 {
            pax::push_record(&mut records, b"mtime", format_time(entry).as_bytes());
        }
        let kind = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        block[field::KIND] = kind;
        put(&mut block, field::MAGIC, b"ustar\x0000");
        octal(&mut block, field::MAJOR, u64::from(entry.device.0));
        octal(&mut block, field::MINOR, u64::from(entry.device.1));
        for (name, value) in &entry.xattrs {
            pax::push_record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }

        if !records.is_empty() {
            let mut extended: Block = [0; BLOCK];
            // The name of this header is seen only by programs that do not know pax.
            let base =
                name.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or(b"entry");
            let shown =
                [b"PaxHeaders.0/", base.get(..base.len().min(80)).unwrap_or_default()].concat();
            put(&mut extended, field::NAME, &shown);
            octal(&mut extended, field::MODE, 0o644);
            octal(&mut extended, field::UID, 0);
            octal(&mut extended, field::GID, 0);
            octal(&mut extended, field::SIZE, records.len() as u64);
            octal(&mut extended, field::MTIME, 0);
            extended[field::KIND] = b'x';
            put(&mut extended, field::MAGIC, b"ustar\x0000");
            self.header(&mut extended)?;
            self.inner.write_all(&records)?;
            self.zeros(super::padding(records.len() as u64))?;
        }
        self.header(&mut block)?;
        self.remaining = size;
        self.pad = super::padding(size);
        Ok(())
    }

    fn header(&mut self, block: &mut Block) -> io::Result<()> {
        let (sum, _) = header::checksums(block);
        put(block, field::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.inner.write_all(block)
    }

    /// Writes a piece of the current file's content.
    ///
    /// # Errors
    /// Those of writing; `InvalidInput` if it is more than was announced.
    pub fn write_data(&mut self, data: &[u8]) -> io::Result<()> {
        let length = data.len() as u64;
        let Some(rest) = self.remaining.checked_sub(length) else {
            let message = "more data than the size of the tar entry";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        self.inner.write_all(data)?;
        self.remaining = rest;
        Ok(())
    }

    /// Data the current entry still owes, in bytes.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.remaining != 0 {
            let message = "less data than the size of the tar entry";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let pad = std::mem::take(&mut self.pad);
        self.zeros(pad)
    }

    fn zeros(&mut self, n: u64) -> io::Result<()> {
        let zeros = [0; BLOCK];
        let n = usize::try_from(n).unwrap_or(BLOCK);
        self.inner.write_all(zeros.get(..n).unwrap_or(&zeros))
    }

    /// Writes the end of the archive and gives the stream back.
    ///
    /// # Errors
    /// As [`TarWriter::entry`].
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

fn format_time(entry: &Entry) -> String {
    let (seconds, nanoseconds) = (entry.mtime.seconds, entry.mtime.nanoseconds);
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, n) => ("", seconds, n),
        (true, 0) => ("", seconds, 0),
        // -2 s + 0.5 s is written -1.5.
        (true, n) => ("-", -(seconds + 1), 1_000_000_000_u32.saturating_sub(n)),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// Splits a name into the header's prefix and name fields.
fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The slash between the two parts is not stored; the name must not be empty.
    let earliest = path.len().checked_sub(101)?;
    let window = path.get(earliest..path.len().min(156).saturating_sub(1))?;
    let slash = earliest + window.iter().position(|b| *b == b'/')?;
    let (prefix, name) = (path.get(..slash)?, path.get(slash + 1..)?);
    (!prefix.is_empty() && prefix.len() <= 155 && !name.is_empty()).then_some((prefix, name))
}

fn put(block: &mut Block, range: field::Field, bytes: &[u8]) {
    if let Some(to) = block.get_mut(range) {
        for (to, from) in to.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

/// Writes a number with its closing NUL; false, and zero written, if it does not fit.
fn octal(block: &mut Block, range: field::Field, value: u64) -> bool {
    let width = range.len() - 1;
    let text = format!("{value:0width$o}");
    let fits = text.len() <= width;
    let text = if fits { text } else { "0".repeat(width) };
    put(block, range, text.as_bytes());
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::TarReader;

    #[test]
    fn a_name_cut_off_after_a_slash_stays_that_of_a_file() {
        // Too long a component to be split between prefix and name; byte 99 is a slash.
        let path = format!("{}/{}", "a".repeat(99), "b".repeat(200));
        let mut entry = Entry::new(path, Kind::File, 0o644);
        entry.size = 3;
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&entry).unwrap();
        writer.write_data(b"abc").unwrap();
        let mut archive = writer.finish().unwrap();
        let read = |archive: &[u8]| TarReader::new(archive).next_entry().unwrap();
        assert_eq!(read(&archive), Some(entry.clone()));

        // The header after the pax header and its data. Others leave the slash there.
        let block: &mut [u8; BLOCK] = archive.get_mut(1024..1536).unwrap().try_into().unwrap();
        assert_eq!(block.get(98..100), Some(b"a\0".as_slice()));
        block[99] = b'/';
        let (sum, _) = header::checksums(block);
        put(block, field::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(read(&archive), Some(entry));
    }
}
