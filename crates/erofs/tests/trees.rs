//! Generated trees, next to what others make of them: `mkfs.erofs` makes the same tree of an archive, `fsck.erofs`
//! accepts ours. Layers upon each other are tested by the store, next to unpacked directories.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{OnDisk, Scratch, fsck, image, mount, same_as_mkfs, walk};
use oci::tar::{Entry, Kind, TarWriter, Time};
use proptest::prelude::*;

/// One file: where, what, and with which attributes.
#[derive(Clone, Debug)]
struct Made {
    path: Vec<String>,
    kind: u8,
    data: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-d]",
        2 => "[ -.0-~]{1,12}".prop_filter("a name", |name| name != "." && name != ".."),
        1 => "[a-zäöü]{100,120}",
        1 => "[a-z]{255}",
    ]
    .prop_filter("whiteouts have a meaning", |name| !name.starts_with(".wh."))
}

fn made() -> impl Strategy<Value = Made> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        Just(Vec::new()),
        Just(vec![7; 512]),
        Just(vec![8; 4096]),
        (4000..70_000_usize).prop_map(|length| vec![9; length]),
    ];
    let owner = prop_oneof![Just((0, 0)), (0..70_000_u32, 0..70_000_u32), Just((u32::MAX - 1, 1))];
    let mtime = prop_oneof![
        Just((0, 0)),
        (-1000..4_000_000_000_i64, 0..1_000_000_000_u32),
        (0..2_000_000_000_i64, Just(0)),
    ];
    let xattrs = prop::collection::btree_map(
        "(user|trusted)\\.[a-z]{1,30}",
        prop::collection::vec(any::<u8>(), 0..700),
        0..4,
    );
    (prop::collection::vec(names(), 1..5), 0..12_u8, data, 0..0o10000_u32, owner, mtime, xattrs)
        .prop_map(|(path, kind, data, mode, owner, mtime, xattrs)| Made {
            path,
            kind,
            data,
            mode,
            owner,
            mtime,
            xattrs,
        })
}

/// An archive as any program may write it: a directory before what is in it, no name twice.
fn archive(all: &[Made]) -> Vec<u8> {
    let mut out = TarWriter::new(Vec::new());
    // The root as both make it without an entry would differ.
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    let mut root = Entry::new("./", Kind::Directory, 0o755);
    root.mtime = Time { seconds: 5, nanoseconds: 0 };
    out.entry(&root).unwrap();
    let mut files: Vec<String> = Vec::new();
    for made in all {
        let mut parent = String::new();
        let (name, above) = made.path.split_last().unwrap();
        let mut fits = true;
        for part in above {
            parent.push_str(part);
            match kinds.get(&parent) {
                Some(Kind::Directory) => {}
                Some(_) => fits = false,
                None => {
                    let mut entry = Entry::new(parent.clone(), Kind::Directory, 0o750);
                    entry.mtime = Time { seconds: 7, nanoseconds: 0 };
                    out.entry(&entry).unwrap();
                    kinds.insert(parent.clone(), Kind::Directory);
                }
            }
            if !fits {
                break;
            }
            parent.push('/');
        }
        let path = format!("{parent}{name}");
        if !fits || kinds.contains_key(&path) || path.len() > 2000 {
            continue;
        }
        let kind = match made.kind {
            0..4 => Kind::File,
            4..6 => Kind::Directory,
            6..8 => Kind::Symlink,
            8 if !files.is_empty() => Kind::HardLink,
            9 => Kind::Fifo,
            10 => Kind::CharDevice,
            _ => Kind::BlockDevice,
        };
        let mut entry = Entry::new(path.clone(), kind, made.mode);
        (entry.uid, entry.gid) = made.owner;
        entry.mtime = Time { seconds: made.mtime.0, nanoseconds: made.mtime.1 };
        match kind {
            Kind::File => {
                entry.size = made.data.len() as u64;
                files.push(path.clone());
            }
            Kind::Symlink => {
                let length = (made.data.len() % 1500).max(1);
                entry.link = vec![b'l'; length];
                entry.mode = 0o777;
            }
            Kind::HardLink => {
                entry.link = files[made.data.len() % files.len()].clone().into_bytes()
            }
            Kind::CharDevice | Kind::BlockDevice => {
                entry.device = (made.owner.0 % 4096, 1 + made.owner.1);
            }
            _ => {}
        }
        if matches!(kind, Kind::File | Kind::Directory) {
            let all = made.xattrs.iter();
            entry.xattrs = all.map(|(n, v)| (n.clone().into_bytes(), v.clone())).collect();
        }
        out.entry(&entry).unwrap();
        if kind == Kind::File {
            out.write_data(&made.data).unwrap();
        }
        kinds.insert(path, kind);
    }
    out.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::cases(40), ..ProptestConfig::default() })]

    #[test]
    fn others_see_the_same(all in prop::collection::vec(made(), 0..40)) {
        let scratch = Scratch::new();
        let layer = OnDisk::new(scratch.path(), "layer", &archive(&all)).unwrap();
        let tar = layer.tar.clone();
        let (index, devices) = image(scratch.path(), &[layer]);
        fsck(&index, &devices);
        same_as_mkfs(scratch.path(), &tar, &walk(&mount(&index, &devices)));
    }
}
