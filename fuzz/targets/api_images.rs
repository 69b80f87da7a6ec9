//! Requests of the HTTP API: images' paths, queries and bodies.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/images", "/commit", "/distribution"], raw));
