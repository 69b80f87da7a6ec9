//! Requests of the HTTP API: a connection taken over for BuildKit, and the HTTP/2 on it.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

/// How a client begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|raw: &[u8]| {
    // Frames alone, for the most part.
    let said = |rest: &[u8]| match rest.split_first() {
        Some((b'P', _)) => rest.to_vec(),
        _ => [PREFACE, rest].concat(),
    };
    door::take_over(&["/grpc", "/session"], "h2c", raw, said);
});
