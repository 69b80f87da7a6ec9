//! What happens to a container's files: diff, size, export, commit, cp, volumes.

mod common;

use std::os::fd::{AsFd, OwnedFd};

use common::{Scratch, dir, file, in_mount, link, sh, tar};
use oci::Reference;
use oci::config::ImageConfig;
use oci::tar::Kind;
use store::copy::{UntarOptions, stat_in_root, tar_from, untar_into};
use store::{
    Base, ImageRecord, ImportOptions, MountOptions, Store, VolumeOptions, WritableLayer,
    WritableOptions,
};

fn image(store: &Store) -> ImageRecord {
    let archive = tar(&[
        dir("./"),
        dir("bin"),
        file("bin/sh", b"#!"),
        dir("etc"),
        file("etc/a", b"a"),
        file("etc/b", b"b"),
        dir("srv"),
        dir("srv/deep"),
        file("srv/deep/x", b"x"),
        file("srv/deep/y", b"y"),
        link("link", Kind::Symlink, "etc/a"),
    ]);
    let options = ImportOptions {
        reference: Some(Reference::parse("test").unwrap()),
        ..ImportOptions::default()
    };
    store.import(&mut &archive[..], &options, &mut ()).unwrap()
}

fn container(store: &Store, id: &str, image: &ImageRecord) -> (WritableLayer, OwnedFd) {
    let layer =
        store.create_writable(id, &Base::Image(image.id), WritableOptions::default()).unwrap();
    let mount = layer.mount(MountOptions::default()).unwrap();
    (layer, mount)
}

fn in_root(mount: &OwnedFd, name: &str) -> OwnedFd {
    rustix::fs::openat(mount, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap()
}

fn diff(layer: &WritableLayer) -> Vec<String> {
    let changes = layer.diff().unwrap();
    changes
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), String::from_utf8_lossy(&change.path)))
        .collect()
}

#[test]
fn diff_follows_dockers_rules() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (layer, mount) = container(&store, "c", &image);
    assert_eq!(diff(&layer), Vec::<String>::new());
    // Copied up, but the same.
    in_mount(&mount, "touch -r etc/b ref; chown 0:0 etc/b; touch -r ref etc/b; rm ref");
    assert_eq!(diff(&layer), Vec::<String>::new());
    in_mount(&mount, "echo more >> etc/a; mkdir -p new/dir; echo n > new/dir/f; rm -r bin");
    let expected = ["D /bin", "C /etc", "C /etc/a", "A /new", "A /new/dir", "A /new/dir/f"];
    assert_eq!(diff(&layer), expected);
    // Removed and made anew: what is not there again is gone.
    in_mount(
        &mount,
        "rm -r srv; mkdir -p srv/deep; echo z > srv/deep/z; echo y2 > srv/deep/y; chmod 700 new",
    );
    let tail = ["C /srv", "C /srv/deep", "D /srv/deep/x", "C /srv/deep/y", "A /srv/deep/z"];
    assert_eq!(diff(&layer), [&expected[..], &tail[..]].concat());
    // Made and removed again.
    in_mount(&mount, "rm -r new; rm link; ln -s etc/b link");
    assert_eq!(diff(&layer)[3..], [&["C /link"][..], &tail[..]].concat());
}

#[test]
fn the_size_counts_a_file_once() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (layer, mount) = container(&store, "c", &image);
    assert_eq!(layer.size().unwrap(), 0);
    in_mount(&mount, "head -c 5000 /dev/zero > f; ln f g; mkdir d; head -c 70 /dev/zero > d/h");
    assert_eq!(layer.size().unwrap(), 5070);
}

#[test]
fn a_commit_has_everything_and_lies_on_its_parent() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (layer, mount) = container(&store, "c", &image);
    in_mount(
        &mount,
        "rm etc/a; rm -r srv; mkdir srv; echo s > srv/s; ln srv/s srv/s2; mkfifo pipe; mknod null c 1 3; \
         chown 7:8 srv/s; chmod 4750 srv/s; touch -d '2001-02-03 04:05:06.789012345' srv/s; \
         chmod 711 .",
    );
    let (at, flags) = (|name: &str| in_root(&mount, name), rustix::fs::XattrFlags::empty());
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::fsetxattr(at("srv/s"), "user.note", b"\0\xff", flags).unwrap();
    rustix::fs::fsetxattr(at("srv/s"), "security.capability", &capability, flags).unwrap();
    std::os::unix::net::UnixListener::bind(layer.upper_path().join("srv/sock")).unwrap();
    let mut config = image.config.clone();
    config.config.cmd = Some(vec!["/x".to_owned()]);
    let name = Reference::parse("new").unwrap();
    let new = store.commit(&layer, Some(&image), config, Some(&name), &mut ()).unwrap();
    assert_eq!(new.layers[0], image.layers[0]);
    assert_eq!(new.parent, Some(image.id));
    assert_eq!(new.config.config.cmd.as_deref(), Some(&["/x".to_owned()][..]));
    let script = "stat -c '%n %F %u:%g %a %h %y' etc/* srv/* pipe null . | sort";
    let (_, second) = container(&store, "c2", &new);
    let there = in_mount(&second, script);
    in_mount(&mount, "rm srv/sock");
    assert_eq!(there, in_mount(&mount, script));
    for (name, value) in [("user.note", &b"\0\xff"[..]), ("security.capability", &capability)] {
        let mut buffer = [0; 64];
        let n = rustix::fs::fgetxattr(in_root(&second, "srv/s"), name, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], value);
    }
    in_mount(&mount, "touch -d '2001-02-03' srv");
    let times = store.commit(&layer, Some(&image), ImageConfig::default(), None, &mut ()).unwrap();
    assert_ne!(times.layers, new.layers);
    // The same changes are the same layer, whoever makes them and when.
    let again = store.commit(&layer, Some(&image), ImageConfig::default(), None, &mut ()).unwrap();
    assert_eq!(again.layers, times.layers);
}

#[test]
fn an_export_is_the_whole_tree() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (_, mount) = container(&store, "c", &image);
    in_mount(&mount, "rm etc/a; echo n > new; ln new hard");
    let mut out = Vec::new();
    store.export_tar(mount.as_fd(), &mut out).unwrap();
    let there = scratch.path().join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::write(scratch.path().join("export.tar"), &out).unwrap();
    sh(&there, "tar xf ../export.tar");
    let script = "find . -mindepth 1 -printf '%p %y %m %U %s %n %T@\\n' | grep -v ' d ' | sort";
    assert_eq!(sh(&there, script), in_mount(&mount, script));
    let mut twice = Vec::new();
    store.export_tar(mount.as_fd(), &mut twice).unwrap();
    assert!(out == twice);
}

#[test]
fn copies_stay_in_the_root() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (_, mount) = container(&store, "c", &image);
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"secret").unwrap();
    let outside = outside.to_str().unwrap();
    in_mount(
        &mount,
        &format!(
            "ln -s {outside} evil; ln -s ../../../..{outside} evil2; ln -s /etc abs; ln -s a etc/la"
        ),
    );
    let root = mount.as_fd();

    let stat = |path: &str, follow| stat_in_root(root, path.as_bytes(), follow).unwrap();
    assert!(stat("/evil/secret", true).is_none());
    assert!(stat("evil2/secret", true).is_none());
    assert!(stat("../../..", true).unwrap().is_directory());
    assert!(stat("/abs", true).unwrap().is_directory());
    let link = stat("/abs", false).unwrap();
    assert!(link.is_symlink());
    assert_eq!(link.link_target, b"/etc");
    assert!(stat("/abs/", false).unwrap().is_directory());
    assert_eq!(stat("/", true).unwrap().name, b"/");
    assert!(stat("/etc/a/b", true).is_none());

    let read = |path: &str, name: &str, follow| {
        let mut out = Vec::new();
        tar_from(root, path.as_bytes(), name.as_bytes(), follow, &mut out).map(|()| {
            std::fs::write(scratch.path().join("cp.tar"), &out).unwrap();
            sh(scratch.path(), "tar tf cp.tar")
        })
    };
    assert_eq!(read("/etc", "etc", false).unwrap(), "etc/\netc/a\netc/b\netc/la\n");
    assert_eq!(
        read("/abs/.", ".", false).unwrap(),
        "./\n./a\n./b\n./la\n".replace("./a", "a").replace("./b", "b").replace("./la", "la")
    );
    assert_eq!(read("/etc/la", "x", false).unwrap(), "x\n");
    assert!(sh(scratch.path(), "tar tvf cp.tar").starts_with('l'));
    read("/etc/la", "x", true).unwrap();
    assert!(sh(scratch.path(), "tar tvf cp.tar").starts_with('-'));
    assert!(read("/evil/secret", "x", true).is_err());

    // Writing through links.
    let write = |path: &str, archive: &[u8], options| {
        untar_into(root, path.as_bytes(), &mut &archive[..], options)
    };
    let archive = tar(&[file("new", b"n"), dir("d"), file("d/e", b"e")]);
    write("/abs", &archive, UntarOptions { owner: Some((5, 6)), ..UntarOptions::default() })
        .unwrap();
    assert_eq!(
        in_mount(&mount, "cat etc/new etc/d/e; stat -c %u:%g etc/new etc/d"),
        "ne5:6\n5:6\n"
    );
    assert!(write("/evil", &archive, UntarOptions::default()).is_err());
    assert!(write("/etc/a", &archive, UntarOptions::default()).is_err());
    let through = tar(&[file("evil/planted", b"bad")]);
    write("/", &through, UntarOptions::default()).unwrap();
    assert_eq!(sh(std::path::Path::new(outside), "ls"), "secret\n");
    assert!(write("/", &tar(&[file("../x", b"bad")]), UntarOptions::default()).is_err());

    let strict = UntarOptions { no_overwrite_dir_nondir: true, ..UntarOptions::default() };
    let error = write("/", &tar(&[file("etc", b"f")]), strict).unwrap_err().to_string();
    assert_eq!(error, "cannot overwrite directory \"etc\" with non-directory \"etc\"");
    let error = write("/etc", &tar(&[dir("a")]), strict).unwrap_err().to_string();
    assert_eq!(error, "cannot overwrite non-directory \"a\" with directory \"a\"");
}

#[test]
fn volumes() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let image = image(&store);
    let (_, rootfs) = container(&store, "c", &image);
    in_mount(&rootfs, "chown 9:9 srv; chmod 1770 srv; ln srv/deep/x srv/deep/hard");

    let volume = store.volume_create(Some("data"), &VolumeOptions::default()).unwrap();
    assert!(!volume.anonymous);
    assert_eq!(store.volume_create(Some("data"), &VolumeOptions::default()).unwrap(), volume);
    let mount = store.volume_mount("data").unwrap();
    assert!(store.volume_seed("data", rootfs.as_fd(), b"/srv").unwrap());
    let listing = "stat -c '%n %u:%g %a %h' . deep/*";
    assert_eq!(
        in_mount(&mount, listing),
        ". 9:9 1770 3\ndeep/hard 0:0 644 2\ndeep/x 0:0 644 2\ndeep/y 0:0 644 1\n"
    );
    in_mount(&mount, "rm -r deep; echo mine > mine");
    assert!(!store.volume_seed("data", rootfs.as_fd(), b"/srv").unwrap());
    assert!(!store.volume_seed("data", rootfs.as_fd(), b"/nowhere").unwrap());
    // Interrupted: done again.
    std::fs::write(scratch.root().join("volumes/data/seeding"), b"").unwrap();
    assert!(store.volume_seed("data", rootfs.as_fd(), b"/srv").unwrap());
    assert_eq!(in_mount(&mount, "ls"), "deep\n");

    let anonymous = store.volume_create(None, &VolumeOptions::default()).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    let names: Vec<_> = store.volumes().unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(names.len(), 2);

    store
        .db()
        .transaction(|tx| {
            tx.execute_batch(
                "INSERT INTO containers(id, name, created_ns, state, config) VALUES ('cid', 'n', 0, 'exited', '{}'); \
                 INSERT INTO container_volumes VALUES ('cid', 'data');",
            )?;
            Ok::<_, store::Error>(())
        })
        .unwrap();
    let error = store.volume_remove("data", true).unwrap_err().to_string();
    assert_eq!(error, "remove data: volume is in use - [cid]");
    store
        .db()
        .transaction(|tx| {
            tx.execute("DELETE FROM containers", [])?;
            Ok::<_, store::Error>(())
        })
        .unwrap();
    store.volume_remove("data", false).unwrap();
    assert!(!scratch.root().join("volumes/data").exists());
    assert_eq!(
        store.volume_remove("data", false).unwrap_err().to_string(),
        "get data: no such volume"
    );
    store.volume_remove("data", true).unwrap();

    for (name, message) in
        [("x", "too short"), ("a/b", "invalid characters"), ("-ab", "invalid characters")]
    {
        let error = store.volume_create(Some(name), &VolumeOptions::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn volumes_with_options() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let options = |list: &[(&str, &str)]| VolumeOptions {
        options: list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..VolumeOptions::default()
    };
    let tmpfs =
        options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=1700,noexec,uid=7")]);
    store.volume_create(Some("tmp"), &tmpfs).unwrap();
    let mount = store.volume_mount("tmp").unwrap();
    assert_eq!(in_mount(&mount, "stat -f -c %T .; stat -c %a:%u ."), "tmpfs\n1700:7\n");
    assert!(
        store
            .volume_create(
                Some("tmp"),
                &options(&[("type", "none"), ("device", "/"), ("o", "bind")])
            )
            .is_err()
    );

    let path = scratch.path().join("host");
    std::fs::create_dir(&path).unwrap();
    let bind = options(&[("type", "none"), ("device", path.to_str().unwrap()), ("o", "bind")]);
    store.volume_create(Some("host"), &bind).unwrap();
    in_mount(&store.volume_mount("host").unwrap(), "echo x > file");
    assert!(path.join("file").exists());
    store.volume_remove("host", false).unwrap();
    assert!(path.join("file").exists());

    store.volume_create(Some("bad"), &options(&[("type", "nosuchfs"), ("device", "x")])).unwrap();
    let error = store.volume_mount("bad").unwrap_err().to_string();
    assert!(error.contains("nosuchfs"), "{error}");
    assert!(store.volume_create(Some("worse"), &options(&[("color", "x")])).is_err());
    assert!(store.volume_create(Some("worse"), &options(&[("type", "tmpfs")])).is_err());
}
