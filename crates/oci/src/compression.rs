//! Compression of archives and layers: recognised by their first bytes, never by a name or a media
//! type.

use std::io::{self, BufRead, BufReader, Read, Write};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952; several members one after the other are read as one stream.
    Gzip,
    /// RFC 8878; several frames are read as one stream.
    Zstd,
    /// Several streams are read as one; only read.
    Bzip2,
    /// Several streams are read as one; only read.
    Xz,
}

impl Compression {
    /// Recognises the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Compression {
        if start.starts_with(&[0x1f, 0x8b, 0x08]) {
            Compression::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_zstd_skippable(start) {
            Compression::Zstd
        } else if start.starts_with(b"BZh") && start.get(4..10) == Some(b"1AY&SY") {
            Compression::Bzip2
        } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Compression::Xz
        } else {
            Compression::None
        }
    }
}

/// KiB that a stream of xz may ask for: `xz -9` asks for a quarter of it, a hostile one for 4 GiB.
const XZ_MEMORY: u32 = 256 << 10;

/// A zstd file may begin with a frame to be skipped (as zstd:chunked writes).
fn is_zstd_skippable(start: &[u8]) -> bool {
    matches!(start.get(..4), Some([low, 0x2a, 0x4d, 0x18]) if low & 0xf0 == 0x50)
}

/// Reads a stream of any known compression.
pub struct Decompressor<'a> {
    inner: Box<dyn Read + 'a>,
    compression: Compression,
}

impl std::fmt::Debug for Decompressor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("compression", &self.compression).finish()
    }
}

impl<'a> Decompressor<'a> {
    /// Looks at the first bytes of `source` and sets up the right decoder.
    ///
    /// # Errors
    /// Those of reading.
    pub fn new(source: impl Read + 'a) -> io::Result<Decompressor<'a>> {
        let mut source = BufReader::with_capacity(256 << 10, source);
        // A pipe may deliver less than four bytes at a time; the chain puts them back.
        let mut start = [0; 10];
        let mut have = 0;
        while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let start = start.get(..have).unwrap_or_default().to_vec();
        let compression = Compression::detect(&start);
        let source = io::Cursor::new(start).chain(source);
        let inner: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(source),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Compression::Zstd => {
                Box::new(ZstdReader { inner: zstd::stream::read::Decoder::with_buffer(source)? })
            }
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
            Compression::Xz => {
                Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY))
            }
        };
        Ok(Decompressor { inner, compression })
    }

    /// What was recognised.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

struct ZstdReader<R: BufRead> {
    inner: zstd::stream::read::Decoder<'static, R>,
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

/// A writer that compresses with settings that do not depend on the machine, so that the same
/// input gives the same bytes.
pub enum Compressor<W: Write> {
    /// Passes through.
    None(W),
    /// Level 6, no name, no time.
    Gzip(Box<flate2::write::GzEncoder<W>>),
    /// Level 3, one thread.
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl<W: Write> Compressor<W> {
    /// A compressor that writes to `out`.
    ///
    /// # Errors
    /// `Unsupported` for what is only recognised.
    pub fn new(compression: Compression, out: W) -> io::Result<Compressor<W>> {
        match compression {
            Compression::None => Ok(Compressor::None(out)),
            Compression::Gzip => {
                let encoder =
                    flate2::GzBuilder::new().mtime(0).write(out, flate2::Compression::new(6));
                Ok(Compressor::Gzip(Box::new(encoder)))
            }
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(out, 3)?;
                Ok(Compressor::Zstd(Box::new(encoder)))
            }
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{other:?} cannot be written"),
            )),
        }
    }

    /// Writes the trailer and gives the underlying writer back.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(out) => Ok(out),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(out) => out.write(bytes),
            Compressor::Gzip(out) => out.write(bytes),
            Compressor::Zstd(out) => out.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(out) => out.flush(),
            Compressor::Gzip(out) => out.flush(),
            Compressor::Zstd(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_recognised_and_read_back() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut out = Compressor::new(compression, Vec::new()).unwrap();
            out.write_all(&data).unwrap();
            let bytes = out.finish().unwrap();
            let mut reader = Decompressor::new(&bytes[..]).unwrap();
            assert_eq!(reader.compression(), compression);
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert!(back == data);
            if compression != Compression::None {
                let half = &bytes[..bytes.len() / 2];
                assert!(Decompressor::new(half).unwrap().read_to_end(&mut Vec::new()).is_err());
            }
        }
    }

    // Written by bzip2 and xz.
    /// `wherry ` a thousand times.
    const BZIP2: &[u8] =
        b"\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x44\x93\x1c\xd2\x00\x0b\xb7\x91\x80\x40\x00\x02\
        \x40\x10\xa0\x20\x00\x50\x60\x02\x6a\xa8\xcf\x53\x54\x83\x95\x20\xd5\x20\xed\x48\x35\x48\
        \x35\x48\x3e\xa9\x07\x85\xdc\x91\x4e\x14\x24\x11\x24\xc7\x34\x80";
    /// The same.
    const XZ: &[u8] =
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\
        \xe5\xa3\xe0\x1b\x57\x00\x2b\x5d\x00\x3b\x9a\x08\xd4\x8d\xa3\xa5\x10\xcf\xac\xcd\x7b\x45\
        \xe6\x4c\xee\x46\x0f\xad\x9c\x3a\xee\x8d\xd1\x44\x72\x79\x21\x82\xc7\x8e\xef\x05\x59\xd3\
        \xdd\x19\xc2\xa9\x33\x9b\x7d\x00\x00\x00\x42\x91\x3f\x69\x90\xe9\x70\x6d\x00\x01\x47\xd8\
        \x36\x00\x00\x00\xec\x7d\xcd\xbd\xb1\xc4\x67\xfb\x02\x00\x00\x00\x00\x04\x59\x5a";
    /// One byte, with a window of 1.5 GiB.
    const VAST: &[u8] =
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x25\x00\x00\x00\x3b\x78\
        \x7b\x41\x01\x00\x00\x78\x00\x00\x00\x00\x45\xae\xef\x83\xf8\xee\x16\x0a\x00\x01\x19\x01\
        \xa5\x2c\x81\xcc\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a";

    #[test]
    fn bzip2_and_xz_are_read() {
        let data = b"wherry ".repeat(1000);
        for (compression, bytes) in [(Compression::Bzip2, BZIP2), (Compression::Xz, XZ)] {
            let mut reader = Decompressor::new(bytes).unwrap();
            assert_eq!(reader.compression(), compression);
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert!(back == data);
            let twice = [bytes, bytes].concat();
            assert_eq!(
                Decompressor::new(&twice[..]).unwrap().read_to_end(&mut Vec::new()).unwrap(),
                14_000
            );
            for end in [bytes.len() / 2, bytes.len() - 1] {
                let half = Decompressor::new(&bytes[..end]).unwrap().read_to_end(&mut Vec::new());
                assert!(half.is_err(), "{compression:?} {end}");
            }
        }
        assert!(Decompressor::new(VAST).unwrap().read_to_end(&mut Vec::new()).is_err());
    }
}
