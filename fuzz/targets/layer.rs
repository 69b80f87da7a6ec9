//! Layers: whatever an archive says, its tree is merged and written as an image without harm, and the
//! same archive gives the same bytes.
#![no_main]

mod checksums;

use std::io::BufReader;

use erofs::{Indexed, Layer, Visitor};
use libfuzzer_sys::fuzz_target;
use oci::tar::TarReader;
use oci::{Digest, DiffId};

fuzz_target!(|raw: &[u8]| {
    let archive = checksums::with_checksums(raw);
    // Two layers of it: the second hides and replaces what the first has.
    let (lower, upper) = archive.split_at(archive.len() / 1024 * 512);
    let image = write(&[lower, upper]);
    assert_eq!(image, write(&[lower, upper]));
    if let Some(image) = image {
        assert!(image.len() % 4096 == 0 && image.len() < 64 << 20);
    }
});

struct Drop;

enum Failed {
    Refused,
}

impl From<erofs::Error> for Failed {
    fn from(_: erofs::Error) -> Failed {
        Failed::Refused
    }
}

impl From<oci::Error> for Failed {
    fn from(_: oci::Error) -> Failed {
        Failed::Refused
    }
}

impl<R> Visitor<R> for Drop {
    type Error = Failed;
    fn side(&mut self, _: u64, _: &[u8]) -> Result<(), Failed> {
        Ok(())
    }
    fn entry(&mut self, _: &mut TarReader<R>, _: u64) -> Result<(), Failed> {
        Ok(())
    }
}

fn write(archives: &[&[u8]]) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    for archive in archives {
        let mut tar = TarReader::new(BufReader::new(*archive));
        read.push(Indexed::read(&mut tar, &mut Drop).ok()?);
    }
    let layers: Vec<Layer<'_>> = read
        .iter()
        .zip(archives)
        .map(|(indexed, archive)| Layer {
            diff_id: DiffId(Digest::sha256(archive)),
            tree: &indexed.tree,
            archive: archive.len() as u64,
            side: indexed.side.size(),
        })
        .collect();
    erofs::merge(&layers).ok()?.write([0; 16]).ok()
}
