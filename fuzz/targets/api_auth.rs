//! Requests of the HTTP API: logins.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/auth"], raw));
