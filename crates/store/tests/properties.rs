//! For any tree: archive, layer, mount, export and commit keep it as it is.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use common::Scratch;
use oci::tar::{Entry, Kind, TarReader, TarWriter, Time};
use proptest::prelude::*;
use store::{Base, ImportOptions, MountOptions, WritableOptions};

/// A random tree as entries with data, parents before children and hard links after their targets.
fn trees() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let name = "[a-zA-Z0-9 .é_-]{1,12}".prop_filter("not special", |name| {
        !matches!(name.as_str(), "." | "..") && !name.starts_with(".wh.")
    });
    let path = prop::collection::vec(name, 1..4);
    let node = (
        path,
        0..7_u8,
        0..0o7777_u32,
        (0..70_000_u32, 0..70_000_u32),
        (0..4_000_000_000_i64, 0..1_000_000_000_u32),
        prop::collection::vec(any::<u8>(), 0..1500),
    );
    prop::collection::vec(node, 0..25).prop_map(|nodes| {
        let mut tree: BTreeMap<Vec<u8>, (Entry, Vec<u8>)> = BTreeMap::new();
        let mut files: Vec<Vec<u8>> = Vec::new();
        for (parts, kind, mode, owner, time, data) in nodes {
            let mut path = Vec::new();
            let last = parts.len() - 1;
            let mut fits = true;
            for part in &parts[..last] {
                path.extend_from_slice(part.as_bytes());
                let parent = tree
                    .entry(path.clone())
                    .or_insert_with(|| (Entry::new(path.clone(), Kind::Directory, 0o755), vec![]));
                fits = parent.0.kind == Kind::Directory;
                if !fits {
                    // Nothing may be made below a file.
                    break;
                }
                path.push(b'/');
            }
            path.extend_from_slice(parts[last].as_bytes());
            if !fits || tree.contains_key(&path) {
                continue;
            }
            let kinds = [
                Kind::File,
                Kind::File,
                Kind::Directory,
                Kind::Symlink,
                Kind::Fifo,
                Kind::CharDevice,
                Kind::HardLink,
            ];
            let mut entry = Entry::new(path.clone(), kinds[usize::from(kind)], mode);
            (entry.uid, entry.gid) = owner;
            entry.mtime = Time { seconds: time.0, nanoseconds: time.1 };
            match entry.kind {
                Kind::File => {
                    entry.size = data.len() as u64;
                    if data.len() % 3 == 0 {
                        entry.xattrs.push((b"user.test".to_vec(), data[..data.len() / 3].to_vec()));
                    }
                    files.push(path.clone());
                }
                Kind::Symlink => {
                    entry.link = format!("../{}", "x/".repeat(data.len() / 10 + 1)).into_bytes();
                    entry.mode = 0o777;
                }
                Kind::CharDevice => entry.device = (1, data.len() as u32 + 1),
                Kind::HardLink => match files.iter().rfind(|file| **file < path) {
                    Some(target) => {
                        let (target, _) = &tree[target];
                        entry = Entry {
                            kind: Kind::HardLink,
                            link: target.path.clone(),
                            ..target.clone()
                        };
                        entry.path.clone_from(&path);
                        entry.xattrs.clear();
                        entry.size = 0;
                    }
                    None => continue,
                },
                _ => {}
            }
            let data = if entry.kind == Kind::File { data } else { vec![] };
            tree.insert(path, (entry, data));
        }
        // By components, as a walk goes: parents first.
        let mut all: Vec<_> = tree.into_values().collect();
        all.sort_by(|(a, _), (b, _)| {
            a.path.split(|c| *c == b'/').cmp(b.path.split(|c| *c == b'/'))
        });
        // A link must follow its target, whatever the order of components says.
        let position: BTreeMap<Vec<u8>, usize> =
            all.iter().enumerate().map(|(i, (entry, _))| (entry.path.clone(), i)).collect();
        let good = |i: usize, entry: &Entry| {
            entry.kind != Kind::HardLink || position.get(&entry.link).is_some_and(|at| *at < i)
        };
        let keep: Vec<bool> =
            all.iter().enumerate().map(|(i, (entry, _))| good(i, entry)).collect();
        let mut keep = keep.into_iter();
        all.retain(|_| keep.next().unwrap());
        all
    })
}

fn read(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut tar = TarReader::new(bytes);
    let mut out = Vec::new();
    while let Some(mut entry) = tar.next_entry().unwrap() {
        let mut data = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let n = tar.read_data(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            data.extend_from_slice(&buffer[..n]);
        }
        while entry.path.ends_with(b"/") {
            entry.path.pop();
        }
        out.push((entry, data));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_survives_import_export_and_commit(tree in trees()) {
        let scratch = Scratch::new();
        let store = scratch.store();
        let archive = common::tar(&tree);
        prop_assert_eq!(read(&archive), tree.clone());
        let image = store.import(&mut &archive[..], &ImportOptions::default(), &mut ()).unwrap();
        let layer =
            store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
        let mount = layer.mount(MountOptions::default()).unwrap();
        let mut export = Vec::new();
        store.export_tar(mount.as_fd(), &mut export).unwrap();
        prop_assert_eq!(read(&export), tree.clone());

        // The same tree as changes of an empty container.
        let empty = common::tar(&[common::dir("./")]);
        let base = store.import(&mut &empty[..], &ImportOptions::default(), &mut ()).unwrap();
        let layer =
            store.create_writable("e", &Base::Image(base.id), WritableOptions::default()).unwrap();
        let second = layer.mount(MountOptions::default()).unwrap();
        let options = store::copy::UntarOptions::default();
        store::copy::untar_into(second.as_fd(), b"/", &mut &export[..], options).unwrap();
        let committed =
            store.commit(&layer, Some(&base), base.config.clone(), None, &mut ()).unwrap();
        let layer = store
            .create_writable("f", &Base::Image(committed.id), WritableOptions::default())
            .unwrap();
        let third = layer.mount(MountOptions { read_only: true, volatile: false }).unwrap();
        let mut again = Vec::new();
        store.export_tar(third.as_fd(), &mut again).unwrap();
        prop_assert!(again == export);
    }
}

proptest! {
    /// Whatever bytes come: an answer, no panic, and no endless loop.
    #[test]
    fn the_tar_reader_takes_anything(
        mut bytes in prop::collection::vec(any::<u8>(), 0..3000),
        checksum in any::<bool>(),
        tree in trees(),
        at in any::<prop::sample::Index>(),
    ) {
        if checksum && bytes.len() >= 512 {
            bytes[148..156].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut out = TarWriter::new(Vec::new());
        for (entry, data) in &tree {
            out.entry(entry).unwrap();
            out.write_data(data).unwrap();
        }
        let mut changed = out.finish().unwrap();
        let position = at.index(changed.len());
        changed[position] ^= 0x41;
        for bytes in [&bytes[..], &changed[..]] {
            let mut tar = TarReader::new(bytes);
            for _ in 0..100 {
                match tar.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
