//! Archives made to do harm: each is refused or contained, nothing is written outside the store, and
//! nothing is left in it.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;

use common::{Scratch, dir, file, link, sh, tar};
use oci::compression::{Compression, Compressor};
use oci::tar::{Entry, Kind};
use store::{Error, ImportOptions, LoadOptions, Store};

fn listing(path: &Path) -> String {
    sh(path, "find . -not -path './root/state.db*' -printf '%p %y %s\\n' | sort")
}

/// Imports something bad: it must fail, and leave everything as it was.
fn refused(scratch: &Scratch, store: &Store, what: &str, archive: &[u8]) -> String {
    store.form().unwrap();
    let before = listing(scratch.path());
    let error = match store.import(&mut &archive[..], &limited(), &mut ()) {
        Ok(image) => panic!("{what} was imported as {}", image.id),
        Err(error) => error.to_string(),
    };
    assert_eq!(listing(scratch.path()), before, "{what}");
    assert!(store.images().unwrap().is_empty(), "{what}");
    error
}

fn limited() -> ImportOptions {
    ImportOptions { limit: Some(64 << 20), ..ImportOptions::default() }
}

#[test]
fn refused_archives() {
    let scratch = Scratch::new();
    let store = scratch.store();
    // Makes the lock file, so that the listings are alike.
    store.gc().unwrap();
    std::fs::write(scratch.path().join("victim"), b"safe").unwrap();
    let good = tar(&[dir("./"), file("a", &[7; 3000]), dir("b"), file("b/c", b"x")]);

    for length in [1, 100, 511, 513, 1500, 4096 + 700] {
        refused(&scratch, &store, &format!("cut at {length}"), &good[..length]);
    }
    refused(&scratch, &store, "nothing", b"");
    refused(&scratch, &store, "text", &[b"hello world\n".as_slice(); 100].concat());
    let mut changed = good.clone();
    changed[2] ^= 1;
    assert!(refused(&scratch, &store, "a changed header", &changed).contains("checksum"));

    for path in ["../victim", "a/../../victim", "..", "b/../../../victim"] {
        let archive = tar(&[dir("./"), dir("a"), file(path, b"bad")]);
        let error = refused(&scratch, &store, path, &archive);
        assert!(error.contains("leads out"), "{error}");
    }
    for target in ["../victim", "../../../../victim", "/../victim", "/etc/passwd", "missing"] {
        let archive = tar(&[dir("./"), dir("d"), link("d/x", Kind::HardLink, target)]);
        refused(&scratch, &store, &format!("hard link to {target}"), &archive);
    }
    refused(
        &scratch,
        &store,
        "hard link to a directory",
        &tar(&[dir("d"), link("x", Kind::HardLink, "d")]),
    );
    refused(&scratch, &store, "name too long", &tar(&[file(&"n".repeat(256), b"")]));
    refused(&scratch, &store, "path too long", &tar(&[file(&"n/".repeat(3000), b"")]));
    refused(&scratch, &store, "nested too deeply", &tar(&[dir(&"n/".repeat(600))]));
    refused(&scratch, &store, "empty link", &tar(&[link("x", Kind::Symlink, "")]));
    refused(&scratch, &store, "whiteout of ..", &tar(&[file(".wh...", b"")]));
    refused(&scratch, &store, "a file below a file", &tar(&[file("a", b""), file("a/b", b"")]));
    refused(&scratch, &store, "root is a file", &tar(&[file("./", b"x")]));
    refused(
        &scratch,
        &store,
        "a link that is its own parent",
        &tar(&[link("l", Kind::Symlink, "l"), file("l/x", b"")]),
    );

    // A header that promises more than there is.
    let mut lie = Entry::new("lie", Kind::File, 0o644);
    lie.size = 10 << 30;
    let mut out = oci::tar::TarWriter::new(Vec::new());
    out.entry(&lie).unwrap();
    assert!(out.finish().is_err());
    let mut header = tar(&[file("lie", b"")]);
    header[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 =
        (0..512).map(|i| u32::from(if (148..156).contains(&i) { b' ' } else { header[i] })).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    refused(&scratch, &store, "a size that lies", &header);

    // Huge metadata: a pax header of 100 MiB.
    let mut pax = header.clone();
    pax[156] = b'x';
    pax[124..136].copy_from_slice(b"00620000000\0");
    let sum: u32 =
        (0..512).map(|i| u32::from(if (148..156).contains(&i) { b' ' } else { pax[i] })).sum();
    pax[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    pax.extend(vec![b'a'; 1 << 20]);
    assert!(refused(&scratch, &store, "huge metadata", &pax).contains("metadata"));

    // Compressed streams that are damaged at their end.
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut out = Compressor::new(compression, Vec::new()).unwrap();
        out.write_all(&good).unwrap();
        let packed = out.finish().unwrap();
        refused(&scratch, &store, "a cut compressed stream", &packed[..packed.len() - 5]);
        let mut changed = packed.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 0x55;
        if store.import(&mut &changed[..], &limited(), &mut ()).is_ok() {
            // zstd without a checksum may not notice; then it is simply another file.
            let id = store.images().unwrap()[0].id.to_string();
            store.remove_image(&id, true, false).unwrap();
        }
    }
    assert_eq!(std::fs::read(scratch.path().join("victim")).unwrap(), b"safe");
    // After all this the store works.
    store.import(&mut &good[..], &limited(), &mut ()).unwrap();
}

#[test]
fn a_bomb_of_zeros_is_refused_in_time() {
    let scratch = Scratch::new();
    let store = scratch.store();
    store.gc().unwrap();
    let cases = [
        ("in a file", 2_u64 << 30, "larger than 67108864 bytes"),
        ("behind the end", 0, "more than 16 MiB follow the end"),
    ];
    for (what, header_size, said) in cases {
        let mut out = Compressor::new(Compression::Gzip, Vec::new()).unwrap();
        let mut entry = Entry::new("zeros", Kind::File, 0o644);
        entry.size = header_size;
        let mut head = oci::tar::TarWriter::new(Vec::new());
        head.entry(&entry).unwrap();
        let mut header = Vec::new();
        if header_size == 0 {
            header.extend(head.finish().unwrap());
        } else {
            // The header alone: the writer refuses to end before the data came.
            let mut probe = tar(&[file("zeros", b"")]);
            probe.truncate(512);
            probe[124..136].copy_from_slice(format!("{header_size:011o}\0").as_bytes());
            let sum: u32 = (0..512)
                .map(|i| u32::from(if (148..156).contains(&i) { b' ' } else { probe[i] }))
                .sum();
            probe[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            header.extend(probe);
        }
        out.write_all(&header).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..200 {
            out.write_all(&zeros).unwrap();
        }
        let bomb = out.finish().unwrap();
        let error = refused(&scratch, &store, what, &bomb);
        assert!(error.contains(said), "{what}: {error}");
    }
    // A sparse file that takes no data at all.
    sh(scratch.path(), "truncate -s 1T hole; tar -S -cf hole.tar hole; rm hole");
    let hole = std::fs::read(scratch.path().join("hole.tar")).unwrap();
    assert!(refused(&scratch, &store, "a huge hole", &hole).contains("larger than"));
}

#[test]
fn links_and_devices_are_contained() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_str().unwrap();
    let mut device = Entry::new("dev/sda", Kind::BlockDevice, 0o600);
    device.device = (8, 0);
    let mut hidden = Entry::new("opaque", Kind::Directory, 0o755);
    hidden.xattrs.push((b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()));
    let archive = tar(&[
        dir("./"),
        // Through a link to a directory outside, absolute and relative.
        link("abs", Kind::Symlink, outside_text),
        file("abs/file", b"bad"),
        link("rel", Kind::Symlink, &format!("../../../../../../../../..{outside_text}")),
        file("rel/file2", b"bad"),
        // The link itself replaced by what follows.
        link("l", Kind::Symlink, &format!("{outside_text}/x")),
        file("l", b"mine"),
        file("/absolute/name", b"inside"),
        (device, Vec::new()),
        (hidden, Vec::new()),
        // A hard link to a link does not follow it.
        link("hard", Kind::HardLink, "abs"),
    ]);
    let image = store.import(&mut &archive[..], &limited(), &mut ()).unwrap();
    assert_eq!(sh(&outside, "find . -mindepth 1"), "");
    let lower = store.image_fs().unwrap().lower(&image).unwrap();
    let diff = common::proc_path(&lower.directories[0]);
    assert_eq!(
        sh(&diff, &format!("cat l .{outside_text}/file .{outside_text}/file2 absolute/name")),
        "minebadbadinside"
    );
    assert_eq!(
        sh(&diff, "stat -c '%F %t' dev/sda; stat -c %F hard"),
        "block special file 8\nsymbolic link\n"
    );
    assert_eq!(sh(&diff, "getfattr -m - opaque"), "");
}

#[test]
fn hostile_image_archives() {
    let scratch = Scratch::new();
    let store = scratch.store();
    store.gc().unwrap();
    let layer = tar(&[dir("./"), file("a", b"1")]);
    let hex = oci::Digest::sha256(&layer).hex();
    let config = |diff: &str| {
        format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["sha256:{diff}"]}}}}"#
        )
    };
    let bad_layer = tar(&[file("../x", b"1")]);
    let bad_hex = oci::Digest::sha256(&bad_layer).hex();
    let manifest =
        |layer: &str| format!(r#"[{{"Config":"c.json","RepoTags":["x:1"],"Layers":["{layer}"]}}]"#);
    let zeros = "0".repeat(64);
    let right = config(&hex);
    type Files = Vec<(String, Vec<u8>)>;
    let cases: Vec<(&str, Files)> = vec![
        (
            "a wrong diff ID",
            vec![
                ("l.tar".into(), layer.clone()),
                ("c.json".into(), config(&zeros).into()),
                ("manifest.json".into(), manifest("l.tar").into()),
            ],
        ),
        (
            "a wrong blob name",
            vec![
                (format!("blobs/sha256/{zeros}"), layer.clone()),
                ("c.json".into(), right.clone().into()),
                ("manifest.json".into(), manifest(&format!("blobs/sha256/{zeros}")).into()),
            ],
        ),
        (
            "a layer that is missing",
            vec![
                ("c.json".into(), right.clone().into()),
                ("manifest.json".into(), manifest("l.tar").into()),
            ],
        ),
        (
            "a layer that leads out",
            vec![
                ("l.tar".into(), bad_layer.clone()),
                ("c.json".into(), config(&bad_hex).into()),
                ("manifest.json".into(), manifest("l.tar").into()),
            ],
        ),
        (
            "a config that is a list",
            vec![
                ("l.tar".into(), layer.clone()),
                ("c.json".into(), b"[]".to_vec()),
                ("manifest.json".into(), manifest("l.tar").into()),
            ],
        ),
        (
            "an upper-case name",
            vec![
                ("l.tar".into(), layer.clone()),
                ("c.json".into(), right.clone().into()),
                ("manifest.json".into(), manifest("l.tar").replace("x:1", "X:1").into()),
            ],
        ),
        ("no image", vec![("manifest.json".into(), b"[]".to_vec())]),
        ("a root filesystem", vec![("etc/passwd".into(), b"x".to_vec())]),
        ("a name that leads out", vec![("../../l.tar".into(), layer.clone())]),
    ];
    for (what, files) in cases {
        store.form().unwrap();
        let before = listing(scratch.path());
        let entries: Vec<_> = files.iter().map(|(name, data)| file(name, data)).collect();
        let archive = tar(&entries);
        let result = store.load(&mut &archive[..], &LoadOptions::default(), &mut ());
        assert!(result.is_err(), "{what}");
        assert_eq!(listing(scratch.path()), before, "{what}");
        assert!(store.images().unwrap().is_empty(), "{what}");
    }
    // A link that leads nowhere, and one to itself.
    for target in ["nowhere", "manifest.json", "../../../etc/passwd"] {
        let archive = tar(&[link("manifest.json", Kind::Symlink, target)]);
        assert!(store.load(&mut &archive[..], &LoadOptions::default(), &mut ()).is_err());
    }
    // 65,537 entries.
    let many: Vec<_> = (0..65_537).map(|i| file(&i.to_string(), b"")).collect();
    let error = store.load(&mut &tar(&many)[..], &LoadOptions::default(), &mut ()).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
}

#[test]
fn a_full_disk_gives_one_clear_error_and_leaves_nothing() {
    let scratch = Scratch::new();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=80m none {d} && exec {exe} --exact --ignored --nocapture {test}",
        d = disk.display(),
        test = common::test_name(module_path!(), "on_a_small_disk"),
        exe = std::env::current_exe().unwrap().display()
    );
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-ec", &script])
        .env("WHERRY_TEST_DISK", &disk)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Run by the test above in a mount namespace of its own.
#[test]
#[ignore = "needs a small disk: run by a_full_disk_gives_one_clear_error_and_leaves_nothing"]
fn on_a_small_disk() {
    let disk = std::env::var("WHERRY_TEST_DISK").unwrap();
    let root = Path::new(&disk).join("root");
    let options = store::OpenOptions {
        read_only: false,
        durability: store::Durability::Full,
        form: common::form(),
    };
    let store = Store::open(&root, options).unwrap();
    store.gc().unwrap();
    // More than the disk has, also for the archive alone.
    let data: Vec<u8> =
        (0..90_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let archive = tar(&[dir("./"), file("big", &data)]);
    let error = store.import(&mut &archive[..], &ImportOptions::default(), &mut ()).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    let used = store.disk_usage().unwrap();
    assert_eq!((used.layers.len(), used.temporary, used.trash), (0, 0, 0));
    let small = tar(&[dir("./"), file("small", b"x")]);
    store.import(&mut &small[..], &ImportOptions::default(), &mut ()).unwrap();
}
