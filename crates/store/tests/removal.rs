//! Removing images, counting bytes, cleaning up.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, dir, file, sh, tar};
use oci::{ChainId, Reference};
use store::{Base, Error, ImageRecord, ImportOptions, Removed, Store, WritableOptions};

fn import(store: &Store, name: Option<&str>, content: &[u8]) -> ImageRecord {
    let archive = tar(&[dir("./"), file("content", content)]);
    let reference = name.map(|name| Reference::parse(name).unwrap());
    let options = ImportOptions { reference, ..ImportOptions::default() };
    store.import(&mut &archive[..], &options, &mut ()).unwrap()
}

fn add_container(store: &Store, id: &str, image: &ImageRecord, state: &str) {
    store
        .db()
        .transaction(|tx| {
            tx.execute(
                "INSERT INTO containers(id, name, created_ns, state, image_id, config) \
                 VALUES (?1, ?1, 0, ?3, ?2, '{}')",
                [id, &image.id.to_string(), state],
            )?;
            Ok::<_, Error>(())
        })
        .unwrap();
}

fn layers(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("layers")).unwrap().count()
}

#[test]
fn names_go_first_and_the_image_with_the_last() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = import(&store, Some("a:1"), b"1");
    store.tag("a:1", &Reference::parse("a:2").unwrap()).unwrap();
    store.tag(&image.id.short(), &Reference::parse("b").unwrap()).unwrap();
    let remove = |name: &str, force| store.remove_image(name, force, false);
    assert_eq!(remove("a:1", false).unwrap(), [Removed::Untagged("a:1".to_owned(), image.id)]);
    let error = remove(&image.id.short(), false).unwrap_err().to_string();
    let short = image.id.short();
    assert_eq!(
        error,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(remove("a:2", false).unwrap().len(), 1);
    let removed = remove("b", false).unwrap();
    assert_eq!(removed[0], Removed::Untagged("b:latest".to_owned(), image.id));
    assert_eq!(removed[1], Removed::Image(image.id));
    assert_eq!(removed[2], Removed::Layers(ChainId::of(&image.layers).unwrap()));
    assert_eq!(layers(&store), 0);
    assert_eq!(remove("b", false).unwrap_err().to_string(), "No such image: b:latest");
}

#[test]
fn containers_hold_their_image() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = import(&store, Some("a"), b"1");
    let short = image.id.short();
    add_container(&store, "0123456789abcdef", &image, "exited");
    let layer = store
        .create_writable("0123456789abcdef", &Base::Image(image.id), WritableOptions::default())
        .unwrap();
    let error = store.remove_image("a", false, false).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "conflict: unable to remove repository reference \"a\" (must force) - container 0123456789ab \
             is using its referenced image {short}"
        )
    );
    let error = store.remove_image(&short, false, false).unwrap_err().to_string();
    assert!(
        error.ends_with("(must be forced) - image is being used by stopped container 0123456789ab")
    );
    // By force the image goes; the layers stay for the container.
    store.remove_image(&short, true, false).unwrap();
    assert_eq!(layers(&store), 1);
    assert!(store.images().unwrap().is_empty());
    drop(layer);
    let layer = store.writable("0123456789abcdef").unwrap();
    layer.mount(store::MountOptions::default()).unwrap();
    drop(layer);
    store.remove_container_directory("0123456789abcdef").unwrap();
    let report = store.gc().unwrap();
    assert_eq!(report.layers, image.layers);
    assert_eq!(layers(&store), 0);

    let image = import(&store, Some("a"), b"1");
    add_container(&store, "running", &image, "running");
    for name in ["a", &image.id.short()] {
        let error = store.remove_image(name, true, false).unwrap_err().to_string();
        assert!(
            error.contains("(cannot be forced) - image is being used by running container running")
        );
    }
}

#[test]
fn prune_takes_what_has_no_name() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let named = import(&store, Some("named"), b"1");
    let unnamed = import(&store, None, b"2");
    let kept = import(&store, None, b"3");
    let (removed, bytes) = store.prune_images(false, &mut |image| image.id == kept.id).unwrap();
    assert_eq!(removed[0], Removed::Image(unnamed.id));
    assert!(bytes > 0);
    assert_eq!(store.images().unwrap().len(), 2);
    // A name that moves leaves its image without one.
    import(&store, Some("named"), b"4");
    assert!(store.image_by_id(&named.id).unwrap().references.is_empty());
    store.prune_images(false, &mut |_| false).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    store.prune_images(true, &mut |_| false).unwrap();
    assert_eq!(store.images().unwrap().len(), 0);
    assert_eq!(layers(&store), 0);
}

#[test]
fn every_byte_is_accounted_for() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let data: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let image = import(&store, Some("a"), &data);
    let layer =
        store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(store::MountOptions::default()).unwrap();
    common::in_mount(&mount, "mkdir d; head -c 100000 /dev/urandom > d/f; ln d/f d/g; rm content");
    drop(mount);
    std::fs::write(scratch.root().join("containers/c/journal"), vec![1; 9000]).unwrap();
    store.volume_create(Some("vol"), &store::VolumeOptions::default()).unwrap();
    std::fs::write(scratch.root().join("volumes/vol/_data/x"), vec![1; 70_000]).unwrap();
    std::fs::write(scratch.root().join("stranger"), vec![1; 5000]).unwrap();
    std::fs::create_dir(scratch.root().join("layers/strange")).unwrap();
    let usage = store.disk_usage().unwrap();
    let du: u64 = sh(scratch.path(), "du -s --block-size=1 root | cut -f1").trim().parse().unwrap();
    assert_eq!(usage.total(), du, "{usage:?}");
    let others: Vec<_> = usage.other.iter().map(|o| o.path.file_name().unwrap()).collect();
    assert_eq!(others, ["strange", "stranger"]);
    assert!(usage.layers[&image.layers[0]].tar >= 300_000);
    assert_eq!(usage.layers[&image.layers[0]].unpacked >= 300_000, common::unpacked());
    assert_eq!(usage.indexes > 4096, !common::unpacked());
    assert!(usage.writable_layers["c"] >= 100_000 && usage.writable_layers["c"] < 200_000);
    assert!(usage.container_files["c"] >= 9000);
    assert_eq!(usage.layers[&image.layers[0]].writable_layers, 1);
}

#[test]
fn clean_up_spares_the_living() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = import(&store, Some("a"), b"1");
    let tmp = scratch.root().join("tmp");
    // A process that exists but started at another time, one that does not exist, and this one.
    let pid = std::process::id();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap();
    for name in [
        format!("{pid}-1-7"),
        "4194303-5-0".to_owned(),
        format!("{pid}-{start}-777"),
        "junk".to_owned(),
    ] {
        std::fs::create_dir(tmp.join(name)).unwrap();
    }
    std::fs::create_dir_all(scratch.root().join("trash/x/y")).unwrap();
    // A layer whose load was killed before the database knew of it.
    let stray = scratch.root().join(format!("layers/{}", "a".repeat(64)));
    std::fs::create_dir_all(stray.join("diff")).unwrap();
    // Trees deeper than a process has descriptors.
    let mut path = "d/".repeat(900);
    sh(&stray.join("diff"), &format!("mkdir -p {path}; cd {path}; mkdir -p {path}"));
    path.clear();
    let report = store.gc().unwrap();
    assert_eq!(report.layers.len(), 1);
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [std::ffi::OsString::from(format!("{pid}-{start}-777"))]);
    assert_eq!(std::fs::read_dir(scratch.root().join("trash")).unwrap().count(), 0);
    assert_eq!(store.image("a").unwrap().id, image.id);
    store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
}

#[test]
fn a_read_only_data_root_can_be_read() {
    let scratch = Scratch::new();
    let image = import(&scratch.store(), Some("a"), b"1");
    let options = store::OpenOptions { read_only: true, ..store::OpenOptions::default() };
    let store = Store::open(&scratch.root(), options).unwrap();
    assert_eq!(store.image("a").unwrap().id, image.id);
    assert!(matches!(store.gc(), Err(Error::ReadOnly(_))));
    let mut out = Vec::new();
    let none = oci::compression::Compression::None;
    store.save(&["a"], store::ArchiveFormat::Docker, none, &mut out).unwrap();
    assert!(!out.is_empty());
    let missing = scratch.path().join("missing");
    assert!(Store::open(&missing, options).is_err());
    assert!(!missing.exists());
}

#[test]
fn another_layout_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.store());
    std::fs::write(scratch.root().join("version"), "99\n").unwrap();
    let error = Store::open(&scratch.root(), store::OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("layout version \"99\""), "{error}");
}

#[test]
fn many_open_a_new_data_root_at_once() {
    for _ in 0..5 {
        let scratch = Scratch::new();
        std::thread::scope(|scope| {
            for n in 0..12 {
                let scratch = &scratch;
                scope.spawn(move || {
                    let options = store::OpenOptions::default();
                    let store = Store::open(&scratch.root(), options).unwrap();
                    store.volume_create(Some(&format!("v{n}")), &Default::default()).unwrap();
                });
            }
        });
        let store = scratch.store();
        assert_eq!(store.volumes().unwrap().len(), 12);
        store.gc().unwrap();
        assert_eq!(store.disk_usage().unwrap().other, []);
        assert_eq!(std::fs::read_dir(scratch.root().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn a_record_torn_by_a_crash_does_not_stop_the_cleaning() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = import(&store, Some("a"), b"1");
    store.create_writable("c", &Base::Image(image.id), WritableOptions::default()).unwrap();
    std::fs::write(scratch.root().join("containers/c/layer.json"), b"").unwrap();
    assert!(matches!(store.writable("c"), Err(Error::Damaged(_))));
    store.remove_image("a", false, false).unwrap();
    assert_eq!(layers(&store), 0);
    store.remove_container_directory("c").unwrap();
    store.gc().unwrap();
}

/// Opens and reads a data root on a read-only file system, in a mount namespace of its own.
#[test]
fn a_read_only_file_system_can_be_read() {
    for closed in [true, false] {
        let scratch = Scratch::new();
        let store = scratch.store();
        let image = import(&store, Some("ro"), b"1");
        // With the log's shared memory gone, as after a restart of the machine, or with it there.
        if closed {
            drop(store);
            std::fs::remove_file(scratch.root().join("state.db-shm")).unwrap();
        }
        let script = format!(
            "mount --bind {r} {r} && mount -o remount,bind,ro {r} && \
             exec {exe} --exact --ignored {test}",
            r = scratch.root().display(),
            test = common::test_name(module_path!(), "on_a_read_only_file_system"),
            exe = std::env::current_exe().unwrap().display()
        );
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-ec", &script])
            .env("WHERRY_TEST_ROOT", scratch.root())
            .env("WHERRY_TEST_IMAGE", image.id.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{closed}: {text}");
    }
}

/// Run by the test above.
#[test]
#[ignore = "needs a read-only file system: run by a_read_only_file_system_can_be_read"]
fn on_a_read_only_file_system() {
    let Ok(root) = std::env::var("WHERRY_TEST_ROOT") else { return };
    let id = std::env::var("WHERRY_TEST_IMAGE").unwrap();
    let root = std::path::Path::new(&root);
    let error = Store::open(root, store::OpenOptions::default())
        .and_then(|store| store.gc().map(|_| ()))
        .unwrap_err();
    assert!(!error.to_string().is_empty());
    let options = store::OpenOptions { read_only: true, ..store::OpenOptions::default() };
    let store = Store::open(root, options).unwrap();
    assert_eq!(store.image("ro").unwrap().id.to_string(), id);
}

/// What a container has written is given back when it is removed, but for the few files of a short run.
#[test]
fn much_is_deleted_with_its_container_and_little_later() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = import(&store, Some("a"), b"1");
    let trash = || std::fs::read_dir(store.root().join("trash")).unwrap().count();
    let written: [(&str, usize, usize, usize); 3] =
        [("little", 10, 10_000, 1), ("large", 1, 2_000_000, 0), ("many", 100, 1, 0)];
    for (id, files, bytes, left) in written {
        store.create_writable(id, &Base::Image(image.id), WritableOptions::default()).unwrap();
        let directory = store.container_directory(id);
        std::fs::create_dir(directory.join("upper/d")).unwrap();
        for number in 0..files {
            std::fs::write(directory.join(format!("upper/d/{number}")), vec![1; bytes]).unwrap();
        }
        store.remove_container_directory(id).unwrap();
        assert!(!directory.exists());
        assert_eq!(trash(), left, "{id}");
        store.empty_trash_now().unwrap();
        assert_eq!(trash(), 0);
    }
    store.remove_container_directory("little").unwrap();
}
