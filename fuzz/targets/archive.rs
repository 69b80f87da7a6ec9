//! Whole image archives, of `docker save` and as OCI image layout, down to the images in them.
#![no_main]

mod checksums;

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use oci::archive::{self, LayerFacts, LayerSink};
use oci::compression::Decompressor;
use oci::digest::Hasher;
use oci::{DiffId, Digest, Error};

fuzz_target!(|raw: &[u8]| {
    images(raw);
    images(&checksums::with_checksums(raw));
});

fn images(mut archive: &[u8]) {
    let Ok(contents) = archive::read_tar(&mut archive, &mut Sink) else { return };
    for image in contents.images(None).unwrap_or_default() {
        assert_eq!(image.layers.len(), image.config.rootfs.diff_ids.len());
    }
    let _ = contents.images(Some(&oci::manifest::Platform::host()));
}

/// Reads layers as a store does and keeps nothing.
struct Sink;

impl LayerSink for Sink {
    type Error = Error;

    fn layer(
        &mut self,
        name: &str,
        _expected: Option<Digest>,
        _size: u64,
        data: &mut dyn Read,
    ) -> Result<LayerFacts, Error> {
        // A small input can stand for gigabytes.
        const MOST: u64 = 1 << 20;
        let mut blob = Vec::new();
        data.read_to_end(&mut blob).map_err(|error| archive::unwrap_io(name, error))?;
        let mut content = Vec::new();
        Decompressor::new(blob.as_slice())
            .and_then(|stream| stream.take(MOST).read_to_end(&mut content))
            .map_err(|error| archive::unwrap_io(name, error))?;
        let digest = |bytes: &[u8]| {
            let mut hasher = Hasher::sha256();
            hasher.update(bytes);
            hasher.finish()
        };
        Ok(LayerFacts {
            diff_id: DiffId(digest(&content)),
            blob: digest(&blob),
            size: blob.len() as u64,
        })
    }
}
