//! An archive becomes an image, the image a writable layer, the layer a mount.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, dir, file, in_mount, link, sh, tar};
use oci::Reference;
use oci::tar::Kind;
use store::{Base, ImportOptions, MountOptions, WritableOptions};

fn options(name: &str) -> ImportOptions {
    ImportOptions { reference: Some(Reference::parse(name).unwrap()), ..ImportOptions::default() }
}

#[test]
fn import_mount_write_and_mount_again() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let archive = tar(&[
        dir("./"),
        dir("./etc/"),
        file("./etc/name", b"wherry\n"),
        link("./etc/link", Kind::Symlink, "name"),
        link("./etc/hard", Kind::HardLink, "./etc/name"),
    ]);
    let image = store.import(&mut &archive[..], &options("test"), &mut ()).unwrap();
    assert_eq!(image.references[0].familiar(), "test:latest");
    assert_eq!(image.size, 7);
    assert_eq!(store.image("test").unwrap().id, image.id);
    assert_eq!(store.image(&image.id.short()).unwrap().id, image.id);
    assert_eq!(store.image("nix").unwrap_err().to_string(), "No such image: nix:latest");

    let layer =
        store.create_writable("c1", &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions::default()).unwrap();
    assert_eq!(
        in_mount(&mount, "cat etc/link; stat -c %h etc/name; echo new > etc/new"),
        "wherry\n2\n"
    );
    drop(mount);
    drop(layer);
    let layer = store.writable("c1").unwrap();
    let mount = layer.mount(MountOptions { read_only: true, volatile: false }).unwrap();
    assert_eq!(in_mount(&mount, "cat etc/new; if touch x 2>/dev/null; then exit 1; fi"), "new\n");
}

#[test]
fn a_volatile_layer_is_mounted_again_after_it_was_left_mounted() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let archive = tar(&[dir("./"), file("a", b"1")]);
    let image = store.import(&mut &archive[..], &options("test"), &mut ()).unwrap();
    let volatile = WritableOptions { volatile: true, base: false };
    let layer = store.create_writable("c1", &Base::Image(image.id), volatile).unwrap();
    let first = layer.mount(MountOptions::default()).unwrap();
    in_mount(&first, "echo 2 > a");
    drop(first);
    let second = layer.mount(MountOptions::default()).unwrap();
    assert_eq!(in_mount(&second, "cat a"), "2\n");
}

#[test]
fn a_directory_can_be_the_base() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let base = scratch.path().join("base");
    std::fs::create_dir(&base).unwrap();
    sh(&base, "echo x > file; chown 5:6 .; chmod 1750 .");
    for (id, base) in [("c1", base.as_path()), ("c2", std::path::Path::new("/"))] {
        let base = Base::Directory(base.to_owned());
        let layer = store.create_writable(id, &base, WritableOptions::default()).unwrap();
        let mount = layer.mount(MountOptions::default()).unwrap();
        in_mount(&mount, "echo y > other-file-of-this-test");
        if id == "c1" {
            assert_eq!(in_mount(&mount, "cat file; stat -c %u:%g:%a ."), "x\n5:6:1750\n");
        }
    }
    assert!(!base.join("other-file-of-this-test").exists());
}
