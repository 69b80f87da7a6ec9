//! The dialects of tar that GNU tar and Python write are all unpacked to the same tree.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, in_mount, sh};
use store::{Base, ImportOptions, MountOptions, Store, WritableOptions};

fn unpacked(store: &Store, id: &str, archive: &std::path::Path) -> String {
    let mut open = std::fs::File::open(archive).unwrap();
    let image = store.import(&mut open, &ImportOptions::default(), &mut ()).unwrap();
    let layer =
        store.create_writable(id, &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions { read_only: true, volatile: false }).unwrap();
    in_mount(&mount, SCRIPT)
}

/// Everything but times finer than a second, which only pax has.
const SCRIPT: &str = "find . -mindepth 1 -printf '%P %y %m %U:%G %s %n %l %Ts\\n' | grep -v ' d ' | sort; \
    find . -type f -exec sha256sum {} + | sort";

#[test]
fn every_dialect_of_gnu_tar() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let long = "l".repeat(200);
    let deep = ["d".repeat(90), "e".repeat(90), "f".repeat(90)].join("/");
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    sh(
        &tree,
        &format!(
            "echo a > file; echo b > '{long}'; mkdir -p '{deep}'; echo c > '{deep}/file'; \
             ln -s '{long}' link; ln -s '{deep}/{deep}' longlink; ln '{long}' hard; mkfifo pipe; \
             truncate -s 3M sparse; printf start | dd of=sparse conv=notrunc status=none; \
             printf middle | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none; \
             cp --sparse=always sparse many; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 \
               21 22 23 24 25 26 27 28 29 30; do printf x | dd of=many bs=1 seek=$((i * 90000)) \
               conv=notrunc status=none; done; \
             truncate -s 1M hole; : > empty; chown 3000000:70000 file; chmod 6755 file; \
             touch -d '1969-12-31 00:00:01' old; touch -d '2300-01-01' future"
        ),
    );
    let expected = sh(&tree, SCRIPT);
    for (name, options) in [
        ("gnu", "--format=gnu"),
        ("gnu-sparse", "--format=gnu -S"),
        ("pax", "--format=pax"),
        ("pax-0.0", "--format=pax -S --sparse-version=0.0"),
        ("pax-0.1", "--format=pax -S --sparse-version=0.1"),
        ("pax-1.0", "--format=pax -S --sparse-version=1.0"),
    ] {
        for compress in ["", "-z", "--zstd"] {
            let file = format!("{name}{compress}.tar");
            sh(scratch.path(), &format!("tar {options} {compress} -cf {file} -C tree ."));
            let id = format!("{name}{compress}");
            let listing = unpacked(&store, &id, &scratch.path().join(&file));
            assert_eq!(listing, expected, "{options} {compress}");
        }
    }
}

#[test]
fn global_headers_old_tar_and_concatenated_gzip() {
    let scratch = Scratch::new();
    let store = scratch.store();
    sh(
        scratch.path(),
        "mkdir t; echo a > t/a; echo b > t/b; chown 5:6 t/a t/b; touch -d @1000000 t/a t/b; \
         tar --format=v7 -cf v7.tar -C t a b; tar --format=ustar -cf ustar.tar -C t a b; \
         tar --format=posix --pax-option=globexthdr.name=x,comment=hello -cf global.tar -C t a b; \
         head -c 700 ustar.tar | gzip > two.gz; tail -c +701 ustar.tar | gzip >> two.gz",
    );
    let listings: Vec<String> = ["v7.tar", "ustar.tar", "global.tar", "two.gz"]
        .iter()
        .enumerate()
        .map(|(n, file)| unpacked(&store, &format!("c{n}"), &scratch.path().join(file)))
        .collect();
    assert!(listings[0].starts_with("a f 644 5:6 2 1  1000000\nb f 644 5:6 2 1  1000000\n"));
    assert!(listings.iter().all(|listing| *listing == listings[0]), "{listings:?}");
}
