//! Requests of the HTTP API: execs' paths, queries and bodies.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(&["/exec", "/containers/c1/exec"], raw));
