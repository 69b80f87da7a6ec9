//! Requests of the HTTP API: what registries are asked with a client's login.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let resources = ["/distribution", "/images"];
    door::ask_with(&resources, "X-Registry-Auth", "application/json", raw, <[u8]>::to_vec);
});
