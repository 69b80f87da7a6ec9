//! One 512-byte tar header.

use super::BLOCK;

/// Offsets and lengths of the fields.
pub(super) mod field {
    pub(in crate::tar) type Field = std::ops::Range<usize>;
    pub(in crate::tar) const NAME: Field = 0..100;
    pub(in crate::tar) const MODE: Field = 100..108;
    pub(in crate::tar) const UID: Field = 108..116;
    pub(in crate::tar) const GID: Field = 116..124;
    pub(in crate::tar) const SIZE: Field = 124..136;
    pub(in crate::tar) const MTIME: Field = 136..148;
    pub(in crate::tar) const CHECKSUM: Field = 148..156;
    pub(in crate::tar) const KIND: usize = 156;
    pub(in crate::tar) const LINK: Field = 157..257;
    pub(in crate::tar) const MAGIC: Field = 257..265;
    pub(in crate::tar) const MAJOR: Field = 329..337;
    pub(in crate::tar) const MINOR: Field = 337..345;
    pub(in crate::tar) const PREFIX: Field = 345..500;
    pub(in crate::tar) const STAR_PREFIX: Field = 345..476;
    pub(in crate::tar) const STAR_MAGIC: Field = 508..512;
    pub(in crate::tar) const GNU_EXTENDED: usize = 482;
    pub(in crate::tar) const GNU_REAL_SIZE: Field = 483..495;
    pub(in crate::tar) const GNU_SPARSE: Field = 386..482;
}

pub(super) type Block = [u8; BLOCK];

/// Text up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number: octal digits with blanks around, or big-endian binary where the top bit is set.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    let first = *bytes.first()?;
    if first & 0x80 != 0 {
        // Two's complement over the whole field but its top bit.
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (i, byte) in bytes.iter().enumerate() {
            let byte = match (i, negative) {
                (0, true) => *byte,
                (0, false) => *byte & 0x7f,
                _ => *byte,
            };
            // Whatever is shifted out must have been sign.
            let high = value >> 55;
            if high != 0 && high != -1 {
                return None;
            }
            value = value << 8 | i64::from(byte);
        }
        if (value < 0) != negative {
            return None;
        }
        return Some(value);
    }
    let trimmed = text(bytes).trim_ascii();
    let mut value: i64 = 0;
    for byte in trimmed {
        let digit = match byte {
            b'0'..=b'7' => byte - b'0',
            _ => return None,
        };
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

/// The checksum of a header, with the bytes taken as unsigned and, as some old programs did,
/// signed.
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    let mut unsigned = 0;
    let mut signed = 0;
    for (i, byte) in block.iter().enumerate() {
        let byte = if field::CHECKSUM.contains(&i) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

/// Whether a block starts like a tar archive: a header with a right checksum.
pub(crate) fn looks_like_header(block: &Block) -> bool {
    let Some(sum) = block.get(field::CHECKSUM).and_then(number) else { return false };
    let (unsigned, signed) = checksums(block);
    block.iter().any(|b| *b != 0) && (sum == unsigned || sum == signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), Some(65536));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
