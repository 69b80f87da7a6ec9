//! Requests of the HTTP API: networks' paths, queries and bodies.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/networks"], raw));
