//! Requests of the HTTP API: the system's paths, queries and bodies.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| door::ask(
    &["/info", "/version", "/_ping", "/auth", "/events", "/system", "/plugins", "/swarm"],
    raw
));
