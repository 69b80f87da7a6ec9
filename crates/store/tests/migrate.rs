//! A data root is brought from one form into the other and back, with its containers.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, dir, file, sh, tar};
use oci::Reference;
use oci::compression::Compression;
use store::{ArchiveFormat, Base, FormChoice, ImportOptions, MountOptions, Store, WritableOptions};

fn import(store: &Store, name: &str, data: &[u8]) -> store::ImageRecord {
    let archive = tar(&[dir("./"), dir("d"), file("d/f", data), file("same", b"same")]);
    let reference = Some(Reference::parse(name).unwrap());
    let options = ImportOptions { reference, ..ImportOptions::default() };
    store.import(&mut &archive[..], &options, &mut ()).unwrap()
}

fn read(store: &Store, name: &str) -> String {
    let layer = store.writable(name).unwrap();
    let mount = layer.mount(MountOptions::default()).unwrap();
    common::in_mount(&mount, "cat d/f same mine")
}

fn save(store: &Store, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.save(&[name], ArchiveFormat::Docker, Compression::None, &mut out).unwrap();
    out
}

#[test]
fn there_and_back() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Directories);
    for name in ["one", "two"] {
        let image = import(&store, name, name.as_bytes());
        let id = format!("c-{name}");
        let layer =
            store.create_writable(&id, &Base::Image(image.id), WritableOptions::default()).unwrap();
        std::fs::write(layer.upper_path().join("mine"), name).unwrap();
        store.commit(&layer, Some(&image), image.config.clone(), None, &mut ()).unwrap();
    }
    let saved = save(&store, "one");
    // The configuration has the last word.
    let error = store.migrate(FormChoice::Erofs, &mut ()).unwrap_err();
    assert!(error.to_string().contains("configuration"), "{error}");
    let found = |what: &str| sh(&scratch.root(), &format!("find {what} | wc -l"));
    let directories = || found("layers -mindepth 2 -name diff");
    let indexes = || found("chains -name index.erofs");
    assert_eq!((directories().as_str(), indexes().as_str()), ("4\n", "0\n"));
    drop(store);

    for (to, made, form, counts) in [
        (FormChoice::Erofs, 4, "erofs", ("0\n", "4\n")),
        (FormChoice::Erofs, 0, "erofs", ("0\n", "4\n")),
        (FormChoice::Directories, 4, "directories", ("4\n", "0\n")),
        (FormChoice::Directories, 0, "directories", ("4\n", "0\n")),
        (FormChoice::Erofs, 4, "erofs", ("0\n", "4\n")),
    ] {
        let report = scratch.store_as(FormChoice::Auto).migrate(to, &mut ()).unwrap();
        assert_eq!((report.layers, report.made), (4, made), "{to:?}");
        assert!(report.in_use.is_empty());
        assert_eq!((directories().as_str(), indexes().as_str()), counts);
        // Kept to, although the host could do otherwise.
        let store = scratch.store_as(FormChoice::Auto);
        assert_eq!(store.form().unwrap().name(), form);
        assert_eq!(read(&store, "c-one"), "onesameone");
        assert_eq!(read(&store, "c-two"), "twosametwo");
        assert!(save(&store, "one") == saved);
        assert!(store.gc().unwrap().layers.is_empty());
    }
}

#[test]
fn what_is_in_use_stays_until_it_is_not() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Directories);
    let image = import(&store, "one", b"one");
    let layer =
        store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    std::fs::write(layer.upper_path().join("mine"), "one").unwrap();
    drop(layer);
    // About to be started: the directories are open.
    let starting = store.writable("c").unwrap();
    let mount = starting.mount(MountOptions::default()).unwrap();
    let store = scratch.store_as(FormChoice::Auto);
    let report = store.migrate(FormChoice::Erofs, &mut ()).unwrap();
    assert_eq!(report.in_use, image.layers);
    assert_eq!(common::in_mount(&mount, "cat d/f same mine"), "onesameone");
    drop(starting);
    let report = store.migrate(FormChoice::Erofs, &mut ()).unwrap();
    assert_eq!((report.in_use.len(), report.removed), (0, 1));
    drop(mount);
    assert_eq!(read(&scratch.store_as(FormChoice::Auto), "c"), "onesameone");
}

#[test]
fn a_damaged_archive_keeps_its_directory() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Directories);
    let image = import(&store, "one", b"one");
    let directory = scratch.root().join("layers").join(image.layers[0].hex());
    sh(&directory, "printf X | dd of=layer.tar bs=1 seek=1536 conv=notrunc status=none");
    let store = scratch.store_as(FormChoice::Auto);
    let error = store.migrate(FormChoice::Erofs, &mut ()).unwrap_err();
    assert!(error.to_string().contains("does not have the digest"), "{error}");
    assert!(directory.join("diff/d/f").exists());
}

#[test]
fn a_damaged_index_is_mended() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Erofs);
    let image = import(&store, "one", b"one");
    let chain = scratch.root().join("chains");
    sh(&chain, "printf X | dd of=$(echo */index.erofs) bs=1 seek=1400 conv=notrunc status=none");
    let report = store.migrate(FormChoice::Erofs, &mut ()).unwrap();
    assert_eq!(report.made, 1);
    store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    std::fs::write(scratch.root().join("containers/c/upper/mine"), "1").unwrap();
    assert_eq!(read(&store, "c"), "onesame1");
}

#[test]
fn a_data_root_of_version_1_is_taken_over() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Directories);
    let image = import(&store, "one", b"one");
    store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    std::fs::write(scratch.root().join("containers/c/upper/mine"), "1").unwrap();
    drop(store);
    std::fs::write(scratch.root().join("version"), "1\n").unwrap();
    std::fs::remove_dir(scratch.root().join("chains")).unwrap();
    let store = scratch.store_as(FormChoice::Auto);
    assert_eq!(std::fs::read(scratch.root().join("version")).unwrap(), b"2\n");
    assert_eq!(read(&store, "c"), "onesame1");
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "never ends: run by killed_while_migrating"]
fn migrating() {
    let Ok(root) = std::env::var("WHERRY_TEST_ROOT") else { return };
    loop {
        for to in [FormChoice::Erofs, FormChoice::Directories] {
            let store = Store::open(root.as_ref(), store::OpenOptions::default()).unwrap();
            store.migrate(to, &mut ()).unwrap();
        }
    }
}

#[test]
fn killed_while_migrating() {
    let scratch = Scratch::new();
    let store = scratch.store_as(FormChoice::Directories);
    let mut names = Vec::new();
    for name in ["one", "two", "three"] {
        let image = import(&store, name, &name.as_bytes().repeat(5000));
        let id = format!("c-{name}");
        store.create_writable(&id, &Base::Image(image.id), WritableOptions::default()).unwrap();
        std::fs::write(scratch.root().join(format!("containers/{id}/upper/mine")), name).unwrap();
        names.push((id, format!("{}same{name}", name.repeat(5000))));
    }
    drop(store);
    let mut random = std::process::id();
    for _ in 0..30 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "migrating"])
            .env("WHERRY_TEST_ROOT", scratch.root())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let time = std::time::Duration::from_micros(u64::from(random % 80_000));
        let until = std::time::Instant::now() + time;
        while std::time::Instant::now() < until {
            assert!(child.try_wait().unwrap().is_none(), "the migration failed");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever it left, in the form it chose and in either.
        for form in [FormChoice::Auto, FormChoice::Erofs, FormChoice::Directories] {
            let store = scratch.store_as(form);
            for (id, content) in &names {
                assert!(read(&store, id) == *content);
            }
        }
        let report =
            scratch.store_as(FormChoice::Auto).migrate(FormChoice::Erofs, &mut ()).unwrap();
        assert_eq!((report.layers, report.in_use.len()), (3, 0));
        assert!(!scratch.store().gc().unwrap().busy);
        assert_eq!(
            sh(&scratch.root(), "find tmp trash layers -mindepth 1 -name diff | wc -l"),
            "0\n"
        );
        assert_eq!(sh(&scratch.root(), "find tmp trash -mindepth 1 | wc -l"), "0\n");
    }
}

/// What is made while an archive is read, and what is made of it later, are the same bytes.
#[test]
fn an_index_follows_from_the_archives() {
    let scratch = Scratch::new();
    sh(
        scratch.path(),
        r#"
        mkdir tree; cd tree; printf plain > plain; ln plain hard; mkdir d; ln -s ../plain d/link
        truncate -s 3M sparse; printf middle | dd of=sparse bs=1 seek=1500001 conv=notrunc status=none
        truncate -s 1M hole; setfattr -n user.x -v y plain
        tar --format=pax --xattrs -S -cf ../tree.tar .
        "#,
    );
    let store = scratch.store_as(FormChoice::Auto);
    let mut archive = std::fs::File::open(scratch.path().join("tree.tar")).unwrap();
    let image = store.import(&mut archive, &ImportOptions::default(), &mut ()).unwrap();
    store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    let sums = "sha256sum $(find chains layers -name index.erofs -o -name sparse | sort)";
    let before = sh(&scratch.root(), sums);
    assert_eq!(before.lines().count(), 2);
    let look = |store: &Store| {
        let layer = store.writable("c").unwrap();
        let mount = layer.mount(MountOptions::default()).unwrap();
        let script =
            "sha256sum sparse hole plain; stat -c '%n %h %s' plain hard sparse hole; cat d/link";
        common::in_mount(&mount, script)
    };
    let expected = look(&store);
    assert!(expected.contains("plain 2 5") && expected.contains("sparse 1 3145728"));
    assert_eq!(store.migrate(FormChoice::Erofs, &mut ()).unwrap().made, 0);
    // All of it again, from the archive alone.
    sh(&scratch.root(), "rm -r chains/* layers/*/sparse");
    assert_eq!(look(&store), expected);
    assert_eq!(sh(&scratch.root(), sums), before);
    store.migrate(FormChoice::Directories, &mut ()).unwrap();
    assert_eq!(look(&scratch.store_as(FormChoice::Auto)), expected);
    store.migrate(FormChoice::Erofs, &mut ()).unwrap();
    assert_eq!(look(&scratch.store_as(FormChoice::Auto)), expected);
    assert_eq!(sh(&scratch.root(), sums), before);
}
