//! Where a layer comes from: a stream, or a part of a file, whose bytes the store's own file may share.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use oci::compression::Compression;

/// What a layer is read from.
pub(crate) enum Incoming<'a> {
    Stream(&'a mut dyn Read),
    Part(Part<'a>),
}

/// A part of a file.
pub(crate) struct Part<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

impl<'a> Part<'a> {
    /// All of a file, if it is a regular one.
    pub(crate) fn whole(file: &'a File) -> Option<Self> {
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Part { file, offset: 0, left: metadata.len() })
    }

    /// Its first bytes, as many as there are of those that tell how it is compressed.
    pub(crate) fn start(&self) -> std::io::Result<Vec<u8>> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(10);
        let mut start = vec![0; want];
        let n = self.file.read_at(&mut start, self.offset)?;
        start.truncate(n);
        Ok(start)
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..want).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.file.read_at(buffer, self.offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.offset = self.offset.saturating_add(n as u64);
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

/// The blocks of file systems that share bytes; where they are larger, it is not done.
const BLOCK: u64 = 4096;
/// Less than this is copied as fast.
const LEAST: u64 = 256 << 10;

impl Incoming<'_> {
    /// Has `to` share as many bytes as can be, from the beginning; how many those are. What is to be read
    /// of them must be read from `to` then: the source may be changed meanwhile.
    pub(crate) fn share(&mut self, to: &File) -> u64 {
        let Incoming::Part(part) = self else { return 0 };
        let length = part.left - part.left % BLOCK;
        let plain = || part.start().is_ok_and(|s| Compression::detect(&s) == Compression::None);
        if part.offset % BLOCK != 0 || length < LEAST || !plain() {
            return 0;
        }
        match sys::reflink::share(part.file.as_fd(), part.offset, length, to.as_fd()) {
            Ok(()) => {
                part.offset = part.offset.saturating_add(length);
                part.left -= length;
                length
            }
            // Most file systems cannot, and none can between two.
            Err(_) => 0,
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Incoming::Stream(stream) => stream.read(buffer),
            Incoming::Part(part) => part.read(buffer),
        }
    }
}
