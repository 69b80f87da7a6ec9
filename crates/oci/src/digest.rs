//! Digests, and the names that are digests: diff ID, chain ID, image ID.
//!
//! Image specification, "Descriptors: Digests" and "Image Configuration: Layer DiffID / ChainID /
//! ImageID".

use std::fmt;
use std::io;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Error;

/// The digest of some content. We write sha256 only; sha512 is understood and verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// `sha256:<64 hexadecimal digits>`
    Sha256([u8; 32]),
    /// `sha512:<128 hexadecimal digits>`
    Sha512([u8; 64]),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Digest {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// The digest without its algorithm, in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(self.bytes().len() * 2);
        for byte in self.bytes() {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out
    }

    /// The first 12 hexadecimal digits, as people see them in tables.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// A hasher of the same algorithm.
    pub fn hasher(&self) -> Hasher {
        match self {
            Digest::Sha256(_) => Hasher::sha256(),
            Digest::Sha512(_) => Hasher(Context::new(&SHA512)),
        }
    }

    /// Fails unless `bytes` have this digest; `what` names them in the error.
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        let actual = hasher.finish();
        if actual == *self { Ok(()) } else { Err(Error::digest_mismatch(what, *self, actual)) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = hex.as_bytes();
    if bytes.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (to, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *to = digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?;
    }
    Some(out)
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest, Error> {
        // What comes from outside may be long; an error message should not be.
        let shown = || text.chars().take(160).collect::<String>();
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(Error::InvalidDigest(shown(), "expected algorithm:hex"));
        };
        let bad = || Error::InvalidDigest(shown(), "wrong number or kind of digits");
        match algorithm {
            "sha256" => parse_hex(hex).map(Digest::Sha256).ok_or_else(bad),
            "sha512" => parse_hex(hex).map(Digest::Sha512).ok_or_else(bad),
            _ => Err(Error::InvalidDigest(shown(), "the algorithm is not sha256 or sha512")),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

macro_rules! named_digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The digest itself.
            pub fn digest(&self) -> Digest {
                self.0
            }
            /// The digits without the algorithm.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
            /// The first 12 digits.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                text.parse().map($name)
            }
        }
        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                $name(digest)
            }
        }
    };
}

named_digest! {
    /// The digest of a layer's uncompressed tar archive.
    DiffId
}
named_digest! {
    /// The name of a stack of layers: a layer on all those below it.
    ChainId
}
named_digest! {
    /// The digest of an image's configuration document.
    ImageId
}

impl ChainId {
    /// The chain ID of layers given from the lowest to the highest; none for no layers.
    pub fn of(layers: &[DiffId]) -> Option<ChainId> {
        let (first, rest) = layers.split_first()?;
        let mut chain = first.0;
        for layer in rest {
            chain = Digest::sha256(format!("{chain} {layer}"));
        }
        Some(ChainId(chain))
    }
}

/// Computes a [`Digest`] piece by piece.
pub struct Hasher(Context);

impl Hasher {
    /// A hasher for the algorithm we write.
    pub fn sha256() -> Hasher {
        Hasher(Context::new(&SHA256))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        let digest = self.0.finish();
        // The other length is the only other algorithm a hasher is ever made for.
        match <[u8; 32]>::try_from(digest.as_ref()) {
            Ok(bytes) => Digest::Sha256(bytes),
            Err(_) => {
                let mut bytes = [0; 64];
                for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
                    *to = *from;
                }
                Digest::Sha512(bytes)
            }
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Counts and hashes what is written through it.
#[derive(Debug)]
pub struct Measured<W> {
    /// Where it goes.
    pub out: W,
    /// What was written; SHA-256.
    pub hasher: Hasher,
    /// Bytes that were written.
    pub size: u64,
}

impl<W> Measured<W> {
    /// Nothing was written yet.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Hasher::sha256(), size: 0 }
    }
}

impl<W: io::Write> io::Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.size = self.size.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: io::Read> HashingReader<R> {
    /// Reads from `inner`, hashing with `hasher`.
    pub fn new(inner: R, hasher: Hasher) -> Self {
        HashingReader { inner, hasher, count: 0 }
    }

    /// Reads what is left and returns the digest and the number of bytes of everything.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; 128 << 10];
        while io::Read::read(&mut self, &mut buffer)? != 0 {}
        Ok((self.hasher.finish(), self.count))
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.count = self.count.saturating_add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest, Digest::sha256(""));
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn sha512_is_understood() {
        let text = format!("sha512:{}", "ab".repeat(64));
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert!(digest.verify("nothing", b"").is_err());
        let empty = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                     47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        format!("sha512:{empty}").parse::<Digest>().unwrap().verify("nothing", b"").unwrap();
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for text in ["", "sha256", "sha256:", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = format!("sha256:{}", "A".repeat(64));
        assert!(upper.parse::<Digest>().is_err());
        let traversal = format!("sha256:../../{}", "a".repeat(58));
        assert!(traversal.parse::<Digest>().is_err());
    }

    #[test]
    fn chain_of_one_layer_is_its_diff_id() {
        let a = DiffId(Digest::sha256("a"));
        let b = DiffId(Digest::sha256("b"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        let expected = Digest::sha256(format!("{a} {b}"));
        assert_eq!(ChainId::of(&[a, b]), Some(ChainId(expected)));
    }
}
