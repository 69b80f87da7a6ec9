//! The runtime specification's `config.json`, down to the plan of a container and its device rules.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;
use runtime::{Plan, devices};

fuzz_target!(|raw: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(raw) else { return };
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    if let Some(rules) = resources.and_then(|resources| resources.devices().as_ref()) {
        assert!(!devices::compile_v2(&devices::with_defaults(rules)).is_empty());
    }
    let Ok(plan) = Plan::from_spec(&spec, Path::new("/bundle")) else { return };
    // The engine hands the plan to the keeper as JSON.
    let text = serde_json::to_vec(&plan).expect("a plan can be written");
    let again: Plan = serde_json::from_slice(&text).expect("a plan can be read");
    assert_eq!(again, plan);
});
