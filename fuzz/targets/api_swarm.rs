//! Requests of the HTTP API: what is a cluster's.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let resources =
        ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/volumes/v"];
    door::ask(&resources, raw);
});
