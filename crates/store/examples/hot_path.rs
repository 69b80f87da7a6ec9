//! Times what a container's start asks of the store: open, find the image, make a writable layer, mount.
//!
//! Usage: `hot_path DATA_ROOT ARCHIVE [ROUNDS]`

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use store::{Base, ImportOptions, MountOptions, OpenOptions, Store, WritableOptions};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: hot_path DATA_ROOT ARCHIVE [ROUNDS]")?;
    let archive = arguments.next().ok_or("an archive is missing")?;
    let rounds: usize = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let root = std::path::Path::new(&root);
    {
        let store = Store::open(root, OpenOptions::default())?;
        let start = Instant::now();
        let options = ImportOptions {
            reference: Some(oci::Reference::parse("hot")?),
            ..ImportOptions::default()
        };
        store.import(&mut std::fs::File::open(archive)?, &options, &mut ())?;
        println!("import {:?}", start.elapsed());
    }
    let mut times: Vec<[Duration; 6]> = Vec::new();
    for round in 0..rounds {
        let id = format!("hot-{round}");
        let start = Instant::now();
        let store = Store::open(root, OpenOptions::default())?;
        let opened = start.elapsed();
        let image = store.image("hot")?;
        let found = start.elapsed();
        let layer = store.create_writable(
            &id,
            &Base::Image(image.id),
            WritableOptions { volatile: true, base: false },
        )?;
        let made = start.elapsed();
        let mount = layer.mount(MountOptions::default())?;
        let mounted = start.elapsed();
        drop(mount);
        drop(layer);
        let closed = start.elapsed();
        store.remove_container_directory(&id)?;
        store.empty_trash_now()?;
        let removed = start.elapsed();
        times.push([
            opened,
            found.saturating_sub(opened),
            made.saturating_sub(found),
            mounted.saturating_sub(made),
            mounted,
            removed.saturating_sub(closed),
        ]);
    }
    let names = ["open", "image", "create_writable", "mount", "together", "remove"];
    for (index, name) in names.iter().enumerate() {
        let mut column: Vec<Duration> =
            times.iter().filter_map(|t| t.get(index).copied()).collect();
        column.sort();
        println!(
            "{name:16} median {:?}",
            column.get(column.len() / 2).copied().unwrap_or_default()
        );
    }
    Ok(())
}
