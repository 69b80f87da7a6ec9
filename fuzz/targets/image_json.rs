//! The JSON documents of an image: configuration, manifest, index.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::config::ImageConfig;
use oci::manifest::{Index, Manifest, Platform};

fuzz_target!(|raw: &[u8]| {
    if let Ok(config) = ImageConfig::parse(raw) {
        let written = config.to_bytes().expect("what was read can be written");
        let again = ImageConfig::parse(&written).expect("what was written can be read");
        assert_eq!(again, config);
    }
    let _ = Manifest::parse(raw);
    if let Ok(index) = Index::parse(raw) {
        let host = Platform::host();
        for platform in index.manifests.iter().filter_map(|d| d.platform.as_ref()) {
            let _ = (platform.satisfies(&host), platform.to_string());
        }
    }
});
