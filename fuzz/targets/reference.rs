//! Names of images, digests and platforms as people write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::manifest::Platform;
use oci::{Digest, Reference};

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let complete = reference.to_string();
        assert_eq!(Reference::parse(&complete).ok(), Some(reference.clone()), "{complete:?}");
        // The short form may be all that a person sees: it must name the same image.
        let familiar = reference.familiar();
        if let Ok(again) = Reference::parse(&familiar) {
            assert_eq!(again, reference, "{familiar:?}");
        }
        let _ = reference.or_latest();
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest));
    }
    if let Ok(platform) = Platform::parse(text) {
        assert!(platform.satisfies(&platform), "{platform}");
    }
});
