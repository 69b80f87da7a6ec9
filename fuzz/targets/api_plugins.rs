//! Requests of the HTTP API: plugins, of which there are none.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/plugins"], raw));
