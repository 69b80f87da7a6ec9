//! Against GNU tar: what it archives and what it unpacks is what the mounted image shows.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{OnDisk, Scratch, Seen, fsck, image, mount, same_as_mkfs, sh, walk};
use oci::tar::{Entry, Kind, TarWriter};
use rustix::fs::{Mode, OFlags};

/// Archives `tree` with GNU tar in the given format, makes an image of it, and compares.
fn round(scratch: &Scratch, tree: &str, format: &str) -> BTreeMap<Vec<u8>, Seen> {
    let path = scratch.path();
    let attributes = if format == "pax" { "--xattrs --xattrs-include='*' --acls" } else { "" };
    let options = format!("{attributes} --numeric-owner --sparse");
    sh(path, &format!("tar {options} --format={format} -C {tree} -cf {format}.tar ."));
    sh(path, &format!("mkdir out-{format}; tar {options} -C out-{format} -xpf {format}.tar"));
    let layer = OnDisk::of_file(&path.join(format!("{format}.tar"))).unwrap();
    let (index, devices) = image(path, &[layer]);
    fsck(&index, &devices);
    let mounted = walk(&mount(&index, &devices));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let unpacked = rustix::fs::open(path.join(format!("out-{format}")), flags, Mode::empty());
    let unpacked = walk(&unpacked.unwrap());
    assert_eq!(
        mounted.keys().map(|k| String::from_utf8_lossy(k)).collect::<Vec<_>>(),
        unpacked.keys().map(|k| String::from_utf8_lossy(k)).collect::<Vec<_>>()
    );
    for (name, seen) in &unpacked {
        assert_eq!(&mounted[name], seen, "{}", String::from_utf8_lossy(name));
    }
    mounted
}

#[test]
fn every_kind_of_file() {
    let scratch = Scratch::new();
    sh(
        scratch.path(),
        r#"
        mkdir -p tree/dir/deep tree/empty; cd tree
        printf hello > file; : > nothing; head -c 100000 /dev/urandom > large
        head -c 512 /dev/urandom > block; head -c 513 /dev/urandom > over
        ln file hard; ln file dir/harder; ln -s file link; ln -s /absolute/target dir/absolute
        ln -s "$(head -c 600 /dev/zero | tr '\0' x)" long-link
        ln -s "$(head -c 1500 /dev/zero | tr '\0' y)" longer-link
        ln -s "$(head -c 470 /dev/zero | tr '\0' z)" half-link
        mknod char c 1 3; mknod block-device b 259 1048575; mkfifo pipe
        mknod big c 4095 70000
        chmod 6755 file; chmod 1777 empty; chmod 000 large; chown 70000:80000 large
        chown -h 12:13 link; chown 65535:65536 block
        touch -d @0 nothing; touch -d '1969-12-31 23:00:00.25 UTC' over
        touch -hd '2030-01-01 00:00:00.123456789 UTC' link
        touch -d '2040-01-01 00:00:00.000000001 UTC' dir
        setfattr -n user.one -v value file; setfattr -n trusted.two -v "$(head -c 900 /dev/zero | tr '\0' v)" file
        setfattr -n user.on -v 'a directory' dir; setfattr -n user.empty over
        setfacl -m u:1234:rwx,g:99:r large; setfacl -d -m u:1234:rx dir
        printf x > "$(printf '%0255d' 0)"; printf y > ' !before the dot'; printf z > -dash
        printf u > ünïcödé; printf n > "$(printf 'new\nline')"; : > .hidden; : > ...; : > .-
        mkdir -p "$(for i in $(seq 40); do printf 'a-long-component-%s/' $i; done)"
        cp /bin/true capable; setcap cap_net_raw+ep capable
        "#,
    );
    // Each format can say only some of it.
    let mounted = round(&scratch, "tree", "pax");
    same_as_mkfs(scratch.path(), &scratch.path().join("pax.tar"), &mounted);
    sh(
        scratch.path(),
        "rm -rf tree/ünïcödé; setfacl -Rb tree; find tree -exec touch -hd @1000000000 {} +; \
         cp -a --no-preserve=xattr tree plain; chmod -R -x+X plain/nothing",
    );
    let mounted = round(&scratch, "plain", "gnu");
    same_as_mkfs(scratch.path(), &scratch.path().join("gnu.tar"), &mounted);
}

#[test]
fn sparse_files() {
    let scratch = Scratch::new();
    sh(
        scratch.path(),
        r#"
        mkdir tree; cd tree
        truncate -s 5G huge; printf here | dd of=huge bs=1 seek=4500000001 conv=notrunc status=none
        truncate -s 100000 holes
        for at in 3 5000 40960 99990; do printf "at $at" | dd of=holes bs=1 seek=$at conv=notrunc status=none; done
        truncate -s 1M only-a-hole; truncate -s 12345 end; printf start | dd of=end conv=notrunc status=none
        head -c 20000 /dev/urandom > plain; ln holes another-name
        "#,
    );
    round(&scratch, "tree", "gnu");
    sh(scratch.path(), "rm gnu.tar");
    round(&scratch, "tree", "pax");
    let layer = OnDisk::of_file(&scratch.path().join("pax.tar")).unwrap();
    let (index, devices) = image(scratch.path(), &[layer]);
    let mounted = mount(&index, &devices);
    let script = "stat -c %s huge; dd if=huge bs=1 skip=4500000000 count=6 status=none | od -An -c";
    assert_eq!(
        sh(&common::proc_path(&mounted), script),
        "5368709120\n  \\0   h   e   r   e  \\0\n"
    );
    for version in ["0.0", "0.1", "1.0"] {
        let tar = format!("tar --format=posix --sparse-version={version} -S -C tree -cf v.tar .");
        sh(scratch.path(), &tar);
        let layer = OnDisk::of_file(&scratch.path().join("v.tar")).unwrap();
        let (index, devices) = image(scratch.path(), &[layer]);
        let mounted = mount(&index, &devices);
        let place = common::proc_path(&mounted);
        sh(
            scratch.path(),
            &format!("for f in holes end plain; do cmp tree/$f {}/$f; done", place.display()),
        );
    }
}

#[test]
fn many_files_in_one_directory() {
    let scratch = Scratch::new();
    let mut tar = TarWriter::new(Vec::new());
    for number in (0..70_000).rev() {
        let mut entry = Entry::new(format!("file number {number}"), Kind::File, 0o600);
        entry.size = 3;
        entry.mtime.seconds = number;
        tar.entry(&entry).unwrap();
        tar.write_data(b"abc").unwrap();
    }
    let layer = OnDisk::new(scratch.path(), "many", &tar.finish().unwrap()).unwrap();
    let (index, devices) = image(scratch.path(), &[layer]);
    fsck(&index, &devices);
    let mounted = mount(&index, &devices);
    let seen = walk(&mounted);
    assert_eq!(seen.len(), 70_001);
    for number in [0, 1, 9999, 35_000, 69_999] {
        let file = &seen[format!("file number {number}").as_bytes()];
        assert_eq!((file.size, file.mtime.0), (3, number));
    }
    let place = common::proc_path(&mounted);
    assert!(sh(&place, "ls 'file number 70001' 2>&1 || true").contains("No such file"));
}
