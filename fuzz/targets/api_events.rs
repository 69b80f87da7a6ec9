//! Requests of the HTTP API: moments and filters of the events, whose stream ends.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    // Without an end it would be waited for.
    let (line, rest) = raw.split_at(raw.iter().position(|b| *b == b'\n').unwrap_or(raw.len()));
    let ends = line.windows(6).any(|part| part == b"until=");
    let end: &[u8] = match (ends, line.contains(&b'?')) {
        (true, _) => b"",
        (false, true) => b"&until=1",
        (false, false) => b"?until=1",
    };
    door::ask(&["/events"], &[line, end, rest].concat());
});
