//! Recognition of a stream's compression, and the decoders behind it.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use oci::compression::{Compression, Decompressor};

/// What may come out of one input: a small one can stand for gigabytes.
const MOST: u64 = 8 << 20;

fuzz_target!(|raw: &[u8]| {
    let detected = Compression::detect(raw);
    let Ok(stream) = Decompressor::new(raw) else { return };
    assert_eq!(stream.compression(), detected);
    let mut out = Vec::new();
    let read = stream.take(MOST).read_to_end(&mut out);
    if detected == Compression::None {
        assert!(read.is_ok());
        assert_eq!(out, raw);
    }
});
