//! Archives of images: what is loaded is saved again; what other programs write is read, and they read
//! what we write.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Scratch, dir, file, link, sh, tar};
use oci::compression::Compression;
use oci::tar::Kind;
use oci::{DiffId, Digest, Reference};
use store::{
    ArchiveFormat, Base, ImageRecord, ImportOptions, LoadOptions, MountOptions, Store,
    WritableOptions,
};

/// An image of two layers with a whiteout in the second, called `two:1`.
fn two_layers(store: &Store) -> ImageRecord {
    let archive = tar(&[
        dir("./"),
        dir("etc"),
        file("etc/one", b"1"),
        file("etc/gone", b"gone"),
        dir("srv"),
        file("srv/old", b"old"),
        link("etc/link", Kind::Symlink, "one"),
    ]);
    let options = ImportOptions {
        reference: Some(Reference::parse("base").unwrap()),
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV A=b".to_owned()],
        ..ImportOptions::default()
    };
    let base = store.import(&mut &archive[..], &options, &mut ()).unwrap();
    let layer =
        store.create_writable("w", &Base::Image(base.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions::default()).unwrap();
    common::in_mount(
        &mount,
        "rm etc/gone; rm -r srv; mkdir srv; echo new > srv/new; ln etc/one etc/hard",
    );
    drop(mount);
    let name = Reference::parse("two:1").unwrap();
    let image =
        store.commit(&layer, Some(&base), base.config.clone(), Some(&name), &mut ()).unwrap();
    store.remove_container_directory("w").unwrap();
    image
}

fn save(store: &Store, names: &[&str], format: ArchiveFormat, compress: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    store.save(names, format, compress, &mut out).unwrap();
    out
}

fn tree(store: &Store, name: &str) -> String {
    let image = store.image(name).unwrap();
    let id = format!("tree-{}", &image.id.short());
    let layer =
        store.create_writable(&id, &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions { read_only: true, volatile: false }).unwrap();
    let listing = common::in_mount(
        &mount,
        "find . -mindepth 1 -printf '%P %y %m %U:%G %s %n %l %T@\\n' | grep -v ' d ' | sort; cat etc/one srv/new",
    );
    drop(mount);
    drop(layer);
    store.remove_container_directory(&id).unwrap();
    listing
}

#[test]
fn what_was_saved_is_loaded_elsewhere_and_saved_again_the_same() {
    let (first, second) = (Scratch::new(), Scratch::new());
    let (from, to) = (first.store(), second.store());
    let image = two_layers(&from);
    for format in [ArchiveFormat::Docker, ArchiveFormat::OciLayout] {
        for compress in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let archive = save(&from, &["two:1"], format, compress);
            let loaded = to.load(&mut &archive[..], &LoadOptions::default(), &mut ()).unwrap();
            assert_eq!(loaded[0].id, image.id);
            assert_eq!(loaded[0].references, [Reference::parse("two:1").unwrap()]);
            let there = to.image("two:1").unwrap();
            assert_eq!(there.config_raw, image.config_raw);
            assert_eq!(there.layers, image.layers);
            assert_eq!(save(&to, &["two:1"], format, compress), archive);
            assert_eq!(tree(&to, "two:1"), tree(&from, "two:1"));
            // The outer archive may be compressed too.
            let mut packed =
                oci::compression::Compressor::new(Compression::Gzip, Vec::new()).unwrap();
            std::io::Write::write_all(&mut packed, &archive).unwrap();
            let packed = packed.finish().unwrap();
            to.load(&mut &packed[..], &LoadOptions::default(), &mut ()).unwrap();
            to.remove_image("two:1", false, false).unwrap();
            assert_eq!(to.disk_usage().unwrap().layers.len(), 0);
        }
    }
    let listing = tree(&from, "two:1");
    assert!(
        listing.contains("etc/hard") && !listing.contains("gone") && !listing.contains("srv/old")
    );
}

#[test]
fn each_layers_archive_is_kept_bit_for_bit() {
    let scratch = Scratch::new();
    let store = scratch.store();
    // As GNU tar writes it: records of 10 KiB, GNU long names.
    let long = "n".repeat(120);
    sh(
        scratch.path(),
        &format!(
            "mkdir t; echo a > t/{long}; truncate -s 1M t/sparse; echo x >> t/sparse; \
                  tar -S --format=gnu -cf t.tar -C t ."
        ),
    );
    let bytes = std::fs::read(scratch.path().join("t.tar")).unwrap();
    let image = store.import(&mut &bytes[..], &ImportOptions::default(), &mut ()).unwrap();
    assert_eq!(image.layers, [DiffId(Digest::sha256(&bytes))]);
    let kept = scratch.root().join("layers").join(image.layers[0].hex()).join("layer.tar");
    assert!(std::fs::read(kept).unwrap() == bytes);
}

#[test]
fn skopeo_and_umoci_understand_both_forms() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = two_layers(&store);
    let path = scratch.path();
    std::fs::write(
        path.join("docker.tar"),
        save(&store, &["two:1"], ArchiveFormat::Docker, Compression::None),
    )
    .unwrap();
    std::fs::write(
        path.join("oci.tar"),
        save(&store, &["two:1"], ArchiveFormat::OciLayout, Compression::Gzip),
    )
    .unwrap();
    let config =
        sh(path, "skopeo --insecure-policy inspect --raw --config docker-archive:docker.tar:two:1");
    assert_eq!(Digest::sha256(config.as_bytes()), image.id.digest());
    sh(
        path,
        "skopeo --insecure-policy copy oci-archive:oci.tar:1 oci:layout:x; umoci raw unpack --image layout:x rootfs",
    );
    assert_eq!(
        sh(&path.join("rootfs"), "cat srv/new; ls etc srv; stat -c %h etc/one"),
        "new\netc:\nhard\nlink\none\n\nsrv:\nnew\n2\n"
    );

    // What they write is read.
    sh(
        path,
        "skopeo --insecure-policy copy oci:layout:x docker-archive:again.tar:again:2; \
              skopeo --insecure-policy copy oci:layout:x oci:zstd:z --dest-compress-format zstd; \
              tar -C layout -cf layout.tar .",
    );
    let other = Scratch::new();
    let other_store = other.store();
    for (archive, name) in [("again.tar", Some("again:2")), ("layout.tar", None)] {
        let mut open = std::fs::File::open(path.join(archive)).unwrap();
        let loaded = other_store.load(&mut open, &LoadOptions::default(), &mut ()).unwrap();
        let id = loaded[0].id.to_string();
        assert_eq!(other_store.image(name.unwrap_or(&id)).unwrap().layers, image.layers);
        other_store.remove_image(name.unwrap_or(&id), true, false).unwrap();
    }
    for layout in ["layout", "zstd"] {
        let loaded = other_store
            .load_directory(&path.join(layout), &LoadOptions::default(), &mut ())
            .unwrap();
        assert_eq!(other_store.image_by_id(&loaded[0].id).unwrap().layers, image.layers);
    }
}

#[test]
fn several_loads_of_the_same_image_at_once() {
    let first = Scratch::new();
    let image = two_layers(&first.store());
    let archive =
        save(&first.store(), &["two:1", "base"], ArchiveFormat::Docker, Compression::None);
    let second = Scratch::new();
    second.store();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let store = second.store();
                let loaded =
                    store.load(&mut &archive[..], &LoadOptions::default(), &mut ()).unwrap();
                assert_eq!(loaded.len(), 2);
                assert_eq!(store.image("two:1").unwrap().id, image.id);
            });
        }
    });
    assert_clean(&second.store(), 2);
}

/// Nothing under `tmp`, `trash`, and no layer that no image has.
fn assert_clean(store: &Store, layers: usize) {
    for name in ["tmp", "trash"] {
        let left: Vec<_> = std::fs::read_dir(store.root().join(name)).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!(count(&store.root().join("layers")), layers);
}

#[test]
fn names_in_archives() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = two_layers(&store);
    store.tag("two:1", &Reference::parse("two:2").unwrap()).unwrap();
    let all = save(&store, &["two"], ArchiveFormat::Docker, Compression::None);
    let by_id = save(&store, &[&image.id.short()], ArchiveFormat::Docker, Compression::None);
    let other = Scratch::new();
    let other = other.store();
    let loaded = other.load(&mut &by_id[..], &LoadOptions::default(), &mut ()).unwrap();
    assert!(loaded[0].references.is_empty());
    let loaded = other.load(&mut &all[..], &LoadOptions::default(), &mut ()).unwrap();
    let names: Vec<_> = loaded[0].references.iter().map(Reference::familiar).collect();
    assert_eq!(names, ["two:1", "two:2"]);
    let error = store.save(&["nix"], ArchiveFormat::Docker, Compression::None, &mut Vec::new());
    assert_eq!(error.unwrap_err().to_string(), "No such image: nix:latest");
}

/// Where the middle of the first layer in an archive lies: bytes that a digest covers, which those between
/// two files and those of the other form's manifest are not.
fn within_a_layer(archive: &[u8]) -> usize {
    let text = String::from_utf8_lossy(archive);
    let (_, rest) = text.split_once("\"Layers\":[\"").unwrap();
    let name = rest.split_once('"').unwrap().0.as_bytes();
    let header = archive.chunks(512).position(|block| block.starts_with(name)).unwrap() * 512;
    let size = std::str::from_utf8(&archive[header + 124..header + 135]).unwrap();
    header + 512 + usize::from_str_radix(size, 8).unwrap() / 2
}

/// An archive that is a file gives what the same bytes from a pipe give.
#[test]
fn an_archive_that_is_a_file() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut parent: Option<ImageRecord> = None;
    for number in 0..6 {
        let archive = tar(&[file(&format!("f{number}"), &vec![number; 200_000])]);
        let reference = Reference::parse(&format!("i:{number}")).unwrap();
        let image = match &parent {
            None => {
                let options = ImportOptions { reference: Some(reference), ..Default::default() };
                store.import(&mut &archive[..], &options, &mut ()).unwrap()
            }
            Some(image) => {
                let id = format!("c{number}");
                let layer = store
                    .create_writable(&id, &Base::Image(image.id), WritableOptions::default())
                    .unwrap();
                std::fs::write(layer.upper_path().join(&id), vec![number; 300_000]).unwrap();
                let config = image.config.clone();
                store.commit(&layer, Some(image), config, Some(&reference), &mut ()).unwrap()
            }
        };
        parent = Some(image);
    }
    for compress in [Compression::None, Compression::Gzip] {
        let saved = save(&store, &["i:5"], ArchiveFormat::Docker, compress);
        let path = scratch.path().join("saved.tar");
        std::fs::write(&path, &saved).unwrap();
        let open = || std::fs::File::open(&path).unwrap();
        let other = Scratch::new();
        let to = other.store();
        let mut steps = 0;
        let mut progress = |_: &str, _: u64, _: Option<u64>| steps += 1;
        let loaded = to.load_file(&open(), &LoadOptions::default(), &mut progress).unwrap();
        assert_eq!(loaded[0].id, parent.as_ref().unwrap().id);
        assert!(steps >= 6);
        assert!(save(&to, &["i:5"], ArchiveFormat::Docker, compress) == saved);
        // Again, with everything there.
        to.load_file(&open(), &LoadOptions::default(), &mut ()).unwrap();
        assert_clean(&to, 6);
        // Compressed as a whole.
        sh(scratch.path(), "gzip -kf saved.tar");
        let file = std::fs::File::open(scratch.path().join("saved.tar.gz")).unwrap();
        to.load_file(&file, &LoadOptions::default(), &mut ()).unwrap();

        // Damaged or cut off: an error, and nothing is left.
        let other = Scratch::new();
        let to = other.store();
        let mut changed = saved.clone();
        changed[within_a_layer(&saved)] ^= 1;
        for bytes in [&changed[..], &saved[..saved.len() / 2], &saved[..600]] {
            std::fs::write(&path, bytes).unwrap();
            to.load_file(&open(), &LoadOptions::default(), &mut ()).unwrap_err();
            assert_clean(&to, 0);
        }
    }
}
