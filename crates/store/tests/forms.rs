//! Image filesystems show what unpacked directories under an overlay show, whatever the layers are.
#![allow(clippy::unwrap_used)]
#![allow(clippy::duplicate_mod, reason = "both helpers have the one below them")]

mod common;
#[path = "../../erofs/tests/common/mod.rs"]
mod walk;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Scratch, file, tar};
use oci::tar::{Entry, Kind, Time};
use oci::{DiffId, Digest};
use proptest::prelude::*;
use store::{Base, FormChoice, ImageRecord, LoadOptions, MountOptions, Store, WritableOptions};

/// An archive of one image with these layers.
fn image_archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("{:?}", DiffId(Digest::sha256(layer)).to_string()))
        .collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"{}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        oci::manifest::Platform::host().architecture,
        ids.join(",")
    );
    let names: Vec<String> = (0..layers.len()).map(|n| format!("\"{n}/layer.tar\"")).collect();
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":["t:1"],"Layers":[{}]}}]"#,
        names.join(",")
    );
    let mut entries =
        vec![file("manifest.json", manifest.as_bytes()), file("config.json", config.as_bytes())];
    for (number, layer) in layers.iter().enumerate() {
        entries.push(file(&format!("{number}/layer.tar"), layer));
    }
    tar(&entries)
}

fn load(store: &Store, layers: &[Vec<u8>]) -> store::Result<ImageRecord> {
    let archive = image_archive(layers);
    let loaded = store.load(&mut &archive[..], &LoadOptions::default(), &mut ())?;
    store.image_by_id(&loaded[0].id)
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "-", "..x", "a b"]).prop_map(str::to_owned)
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(names(), 1..4).prop_map(|parts| parts.join("/"))
}

/// Entries that get in each other's way as much as they can.
fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let targets = prop_oneof![
        paths(),
        paths().prop_map(|path| format!("/{path}")),
        paths().prop_map(|path| format!("../{path}")),
        Just(".".to_owned()),
        Just("a/../../b".to_owned()),
    ];
    let attributes = (0..0o7777_u32, 0..70_000_u32, 1..1_000_000_000_i64, 0..1_000_000_000_u32);
    (paths(), 0..14_u8, targets, prop::collection::vec(any::<u8>(), 0..1200), attributes).prop_map(
        |(path, kind, target, data, (mode, owner, seconds, nanoseconds))| {
            let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(p, n)| (p, n));
            let hidden = |what: &str| {
                let name =
                    if parent.is_empty() { what.to_owned() } else { format!("{parent}/{what}") };
                Entry::new(name, Kind::File, 0)
            };
            let mut entry = match kind {
                0..4 => Entry::new(path.clone(), Kind::File, mode),
                4..7 => Entry::new(path.clone(), Kind::Directory, mode),
                7 => Entry::new(path.clone(), Kind::Symlink, 0o777),
                8 => Entry::new(path.clone(), Kind::HardLink, mode),
                9 => Entry::new(path.clone(), Kind::Fifo, mode),
                10 => Entry::new(path.clone(), Kind::CharDevice, mode),
                11 => hidden(".wh..wh..opq"),
                _ => hidden(&format!(".wh.{name}")),
            };
            (entry.uid, entry.gid) = (owner, owner / 2);
            entry.mtime = Time { seconds, nanoseconds };
            match entry.kind {
                Kind::Symlink => entry.link = target.into_bytes(),
                Kind::HardLink => entry.link = target.trim_start_matches('/').into(),
                // Sometimes 0:0, which is a whiteout for overlay.
                Kind::CharDevice => entry.device = (seconds as u32 % 2, seconds as u32 % 2),
                _ => {}
            }
            let plain = entry.kind == Kind::File && kind < 4;
            if plain || entry.kind == Kind::Directory {
                if nanoseconds % 3 == 0 {
                    entry.xattrs.push((b"user.x".to_vec(), data.clone()));
                }
                if nanoseconds % 5 == 0 {
                    entry.xattrs.push((b"trusted.overlay.opaque".to_vec(), b"y".to_vec()));
                }
                if nanoseconds % 7 == 0 {
                    entry.xattrs.push((b"trusted.y".to_vec(), b"value".to_vec()));
                }
            }
            let data = if plain { data } else { Vec::new() };
            entry.size = data.len() as u64;
            (entry, data)
        },
    )
}

/// Others find nothing wrong with the index, if they are here.
fn check_index(store: &Store, image: &ImageRecord) {
    let mut devices: Vec<std::path::PathBuf> = Vec::new();
    for layer in &image.layers {
        let directory = store.root().join("layers").join(layer.hex());
        for name in ["layer.tar", "sparse"] {
            let device = directory.join(name);
            if device.exists() && !devices.contains(&device) {
                devices.push(device);
            }
        }
    }
    for chain in std::fs::read_dir(store.root().join("chains")).unwrap() {
        walk::fsck(&chain.unwrap().path().join("index.erofs"), &devices);
    }
}

/// What both forms show; None if both refuse.
fn compare(scratch: &Scratch, layers: &[Vec<u8>], began: i64) -> Result<(), TestCaseError> {
    let mut trees = Vec::new();
    for (number, form) in [FormChoice::Directories, FormChoice::Erofs].into_iter().enumerate() {
        let store = scratch.store_as(form);
        match load(&store, layers) {
            Ok(image) => {
                let name = format!("c{number}");
                let layer = store
                    .create_writable(&name, &Base::Image(image.id), WritableOptions::default())
                    .unwrap();
                let mount = layer.mount(MountOptions::default()).unwrap();
                trees.push(Some(walk::walk(&mount)));
                if form == FormChoice::Erofs {
                    check_index(&store, &image);
                }
                // For the other form everything is read anew.
                drop(mount);
                store.remove_container_directory(&name).unwrap();
                store.remove_image("t:1", true, false).unwrap();
                prop_assert!(store.gc().unwrap().layers.is_empty());
            }
            Err(error) => {
                prop_assert!(matches!(error, store::Error::Refused { .. }), "{}", error);
                trees.push(None);
            }
        }
    }
    let (Some(directories), Some(erofs)) = (&trees[0], &trees[1]) else {
        prop_assert!(trees[0].is_none() && trees[1].is_none(), "only one form refuses it");
        return Ok(());
    };
    let listed = |tree: &std::collections::BTreeMap<Vec<u8>, walk::Seen>| {
        tree.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
    };
    prop_assert_eq!(listed(directories), listed(erofs));
    for (path, expected) in directories {
        let (mut expected, mut seen) = (expected.clone(), erofs[path].clone());
        // Overlay counts names that it hides, an index only those there are.
        if expected.mode & 0o170_000 != 0o040_000 {
            let first = seen.same_as.clone().unwrap_or_else(|| path.clone());
            let names = erofs
                .iter()
                .filter(|(name, other)| **name == first || other.same_as.as_ref() == Some(&first));
            prop_assert_eq!(seen.links, names.count() as u64);
            (expected.links, seen.links) = (0, 0);
        } else if expected.mtime.0 >= began {
            // No entry speaks of it: there it is new, here it is as it was below.
            continue;
        }
        prop_assert_eq!(&seen, &expected, "{}", String::from_utf8_lossy(path));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: walk::cases(60), max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_show_the_same(
        layers in prop::collection::vec(prop::collection::vec(entries(), 0..12), 1..5),
    ) {
        let scratch = Scratch::new();
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 - 1;
        // One entry that is refused would hide all the others: those go.
        let mut archives: Vec<Vec<u8>> = Vec::new();
        for layer in layers {
            let mut tree = erofs::LayerTree::new();
            let good = |(entry, _): &(Entry, Vec<u8>)| tree.add(entry, 0, None).is_ok();
            let layer: Vec<_> = layer.into_iter().filter(good).collect();
            archives.push(tar(&layer));
        }
        compare(&scratch, &archives, began)?;
    }

    #[test]
    fn both_forms_refuse_the_same(layer in prop::collection::vec(entries(), 0..6)) {
        let scratch = Scratch::new();
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 - 1;
        compare(&scratch, &[tar(&layer)], began)?;
    }
}

#[test]
fn a_directory_without_an_entry_keeps_what_it_was() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut root = Entry::new("./", Kind::Directory, 0o750);
    root.uid = 7;
    let mut sticky = Entry::new("tmp", Kind::Directory, 0o1777);
    sticky.mtime.seconds = 5;
    let below = tar(&[(root, vec![]), (sticky, vec![])]);
    let above = tar(&[file("tmp/new", b"1")]);
    let image = load(&store, &[below, above]).unwrap();
    let layer =
        store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions::default()).unwrap();
    let script = "stat -c '%a %u' .; stat -c '%a %Y' tmp; cat tmp/new";
    assert_eq!(common::in_mount(&mount, script), "750 7\n1777 5\n1");
}

#[test]
fn a_data_root_changes_its_form() {
    let scratch = Scratch::new();
    let layers = [tar(&[common::dir("d"), file("d/a", b"one"), file("gone", b"x")]), {
        tar(&[file("d/b", b"two"), file(".wh.gone", b"")])
    }];
    let read = |store: &Store, name: &str| {
        let layer = store.writable(name).unwrap();
        let mount = layer.mount(MountOptions::default()).unwrap();
        common::in_mount(&mount, "cat d/a d/b mine; ls")
    };
    let first = scratch.store_as(FormChoice::Directories);
    let image = load(&first, &layers).unwrap();
    let layer =
        first.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    std::fs::write(layer.upper_path().join("mine"), "upper").unwrap();
    for form in [FormChoice::Directories, FormChoice::Erofs, FormChoice::Directories] {
        assert_eq!(read(&scratch.store_as(form), "c"), "onetwoupperd\nmine\n");
    }
}
