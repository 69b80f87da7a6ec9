//! A process that is killed at any point leaves a store that works and from which everything can be
//! cleaned up.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, dir, file, tar};
use oci::Reference;
use oci::compression::Compression;
use store::{
    ArchiveFormat, Base, ImportOptions, LoadOptions, MountOptions, Store, WritableOptions,
};

/// What the killed process does, over and over: every verb that writes.
fn work(root: &std::path::Path, archive: &[u8], seed: u32) {
    let options = store::OpenOptions {
        read_only: false,
        durability: store::Durability::Full,
        form: common::form(),
    };
    let store = Store::open(root, options).unwrap();
    for round in 0.. {
        let name = Reference::parse(&format!("i{seed}:{round}")).unwrap();
        let import = ImportOptions {
            reference: Some(name.clone()),
            message: format!("{seed} {round}"),
            ..ImportOptions::default()
        };
        let image = store.import(&mut &archive[..], &import, &mut ()).unwrap();
        let id = format!("c-{seed}-{round}");
        let layer =
            store.create_writable(&id, &Base::Image(image.id), WritableOptions::default()).unwrap();
        std::fs::write(layer.upper_path().join("file"), format!("{seed}-{round}")).unwrap();
        let second = name.with_tag("second").unwrap();
        store.commit(&layer, Some(&image), image.config.clone(), Some(&second), &mut ()).unwrap();
        let mut saved = Vec::new();
        let second = second.familiar();
        store.save(&[&second], ArchiveFormat::Docker, Compression::None, &mut saved).unwrap();
        store.remove_image(&second, true, false).unwrap();
        let load = LoadOptions::default();
        if round % 2 == 0 {
            store.load(&mut &saved[..], &load, &mut ()).unwrap();
        } else {
            // By several threads.
            let path = std::env::temp_dir().join(format!("wherry-killed-{}", std::process::id()));
            std::fs::write(&path, &saved).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            store.load_file(&file, &load, &mut ()).unwrap();
        }
        store.remove_image(&second, true, false).unwrap();
        store.remove_container_directory(&id).unwrap();
        let volume = store.volume_create(None, &store::VolumeOptions::default()).unwrap();
        store.volume_remove(&volume.name, false).unwrap();
        store.remove_image(&name.familiar(), true, false).unwrap();
        store.prune_images(false, &mut |_| false).unwrap();
    }
}

fn archive() -> Vec<u8> {
    let mut entries = vec![dir("./")];
    for i in 0..60 {
        entries.push(dir(&format!("d{i}")));
        entries.push(file(&format!("d{i}/f"), &vec![i as u8; 4000]));
    }
    tar(&entries)
}

/// Run by the test below in processes of its own.
#[test]
#[ignore = "never ends: run by killed_at_any_point"]
fn child() {
    let Ok(root) = std::env::var("WHERRY_TEST_ROOT") else { return };
    work(root.as_ref(), &archive(), std::process::id());
}

#[test]
fn killed_at_any_point() {
    let scratch = Scratch::new();
    let root = scratch.root();
    let child = common::test_name(module_path!(), "child");
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", &child])
            .env("WHERRY_TEST_ROOT", &root)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut random = std::process::id();
    for _ in 0..25 {
        // Two at once, so that one is killed while the other works.
        let mut children = [spawn(), spawn()];
        for child in &mut children {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let until = Instant::now() + Duration::from_micros(u64::from(random % 200_000));
            while Instant::now() < until {
                if let Some(status) = child.try_wait().unwrap() {
                    let mut text = String::new();
                    let mut stderr = child.stderr.take().unwrap();
                    std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
                    panic!("the child ended by itself: {status}\n{text}");
                }
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        check(&scratch);
    }
}

/// Everything that is visible is whole, and everything else can go.
fn check(scratch: &Scratch) {
    if !scratch.root().exists() {
        return;
    }
    let store = scratch.store();
    let images = store.images().unwrap();
    for image in &images {
        let id = image.id.to_string();
        // Reads and verifies every layer.
        store.save(&[&id], ArchiveFormat::Docker, Compression::None, &mut std::io::sink()).unwrap();
        let name = format!("check-{}", image.id.short());
        let layer = store
            .create_writable(
                &name,
                &Base::Image(image.id),
                WritableOptions { volatile: true, base: false },
            )
            .unwrap();
        let mount = layer.mount(MountOptions::default()).unwrap();
        assert_eq!(common::in_mount(&mount, "cat d*/f | wc -c").trim(), "240000");
        drop(mount);
        drop(layer);
        store.remove_container_directory(&name).unwrap();
    }
    // The engine's part: containers that no record knows.
    for entry in std::fs::read_dir(store.root().join("containers")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        store.remove_container_directory(&name).unwrap();
    }
    for volume in store.volumes().unwrap() {
        store.volume_remove(&volume.name, false).unwrap();
    }
    store.prune_images(true, &mut |_| false).unwrap();
    let report = store.gc().unwrap();
    assert!(!report.busy);
    for name in ["tmp", "trash", "layers", "chains", "blobs/sha256", "containers"] {
        let left: Vec<_> = std::fs::read_dir(store.root().join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    let usage = store.disk_usage().unwrap();
    assert!(usage.other.iter().all(|other| other.path.starts_with(store.root().join("volumes"))));
}
