//! Records of the journals in which the keeper holds a container's output.
#![no_main]

use keeper::journal::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        if let Some(record) = Record::parse(line) {
            assert!(record.bytes.len() <= line.len());
        }
    }
});
