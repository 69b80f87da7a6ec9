//! Requests of the HTTP API: volumes' paths, queries and bodies.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/volumes"], raw));
