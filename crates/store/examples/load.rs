//! Times loading an archive of images, and removing what it had.
//!
//! Usage: `load DATA_ROOT ARCHIVE [ROUNDS]`

#![allow(clippy::print_stdout)]

use std::time::Instant;

use store::{LoadOptions, OpenOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: load DATA_ROOT ARCHIVE [ROUNDS]")?;
    let archive = arguments.next().ok_or("an archive is missing")?;
    let rounds: usize = arguments.next().map_or(Ok(5), |n| n.parse())?;
    for _ in 0..rounds {
        let store = Store::open(root.as_ref(), OpenOptions::default())?;
        let start = Instant::now();
        let file = std::fs::File::open(&archive)?;
        let loaded = store.load_file(&file, &LoadOptions::default(), &mut ())?;
        let load = start.elapsed();
        for image in loaded {
            store.remove_image(&image.id.to_string(), true, false)?;
        }
        println!("load {load:?}, remove {:?}", start.elapsed().saturating_sub(load));
    }
    Ok(())
}
