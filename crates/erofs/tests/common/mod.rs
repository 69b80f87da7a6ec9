//! What the tests share: layers from archives, mounting, and walking trees.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, clippy::print_stderr)]

#[path = "../../../../tests/common/scratch.rs"]
mod scratch;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use erofs::{Error, Indexed, Layer, Tree, Visitor};
use oci::tar::TarReader;
use oci::{DiffId, Digest};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
pub use scratch::{Scratch, proc_path, sh};

/// A layer's archive and side file on disk.
pub struct OnDisk {
    pub diff_id: DiffId,
    pub tar: PathBuf,
    pub side: PathBuf,
    pub indexed: Indexed,
    pub size: u64,
}

struct Side(std::fs::File);

impl<R> Visitor<R> for Side {
    type Error = Failed;
    fn side(&mut self, offset: u64, data: &[u8]) -> Result<(), Failed> {
        use std::os::unix::fs::FileExt;
        self.0.write_all_at(data, offset).unwrap();
        Ok(())
    }
    fn entry(&mut self, _: &mut TarReader<R>, _: u64) -> Result<(), Failed> {
        Ok(())
    }
}

#[derive(Debug)]
#[allow(dead_code)]
pub enum Failed {
    Erofs(Error),
    Oci(oci::Error),
}
impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Erofs(error)
    }
}
impl From<oci::Error> for Failed {
    fn from(error: oci::Error) -> Failed {
        Failed::Oci(error)
    }
}

impl OnDisk {
    pub fn new(directory: &Path, name: &str, archive: &[u8]) -> Result<OnDisk, Failed> {
        let tar = directory.join(format!("{name}.tar"));
        std::fs::write(&tar, archive).unwrap();
        OnDisk::of_file(&tar)
    }

    pub fn of_file(tar: &Path) -> Result<OnDisk, Failed> {
        let side = tar.with_extension("side");
        let file = std::fs::File::open(tar).unwrap();
        let size = file.metadata().unwrap().len();
        let mut reader = TarReader::new(std::io::BufReader::new(file));
        let mut visitor = Side(std::fs::File::create(&side).unwrap());
        let indexed = Indexed::read(&mut reader, &mut visitor)?;
        visitor.0.set_len(indexed.side.size()).unwrap();
        let diff_id = DiffId(Digest::sha256(tar.to_str().unwrap()));
        Ok(OnDisk { diff_id, tar: tar.to_owned(), side, indexed, size })
    }
}

pub fn merged(layers: &[OnDisk]) -> Tree {
    let layers: Vec<Layer<'_>> = layers
        .iter()
        .map(|layer| Layer {
            diff_id: layer.diff_id,
            tree: &layer.indexed.tree,
            archive: layer.size,
            side: layer.indexed.side.size(),
        })
        .collect();
    erofs::merge(&layers).unwrap()
}

/// The files of the image's devices, in their order.
pub fn devices<'a>(tree: &Tree, layers: &'a [OnDisk]) -> Vec<&'a Path> {
    let path = |device: &erofs::DeviceFile| {
        let layer = layers.iter().find(|layer| layer.diff_id == device.diff_id).unwrap();
        if device.side { layer.side.as_path() } else { layer.tar.as_path() }
    };
    tree.devices().iter().map(path).collect()
}

pub fn image(directory: &Path, layers: &[OnDisk]) -> (PathBuf, Vec<PathBuf>) {
    let tree = merged(layers);
    let bytes = tree.write(*b"0123456789abcdef").unwrap();
    let path = directory.join("index.erofs");
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    (path, devices(&tree, layers).into_iter().map(Path::to_owned).collect())
}

/// Mounts an image from files, detached.
pub fn mount(image: &Path, devices: &[PathBuf]) -> OwnedFd {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(context.as_fd(), "source", image).unwrap();
    for device in devices {
        fsconfig_set_string(context.as_fd(), "device", device).unwrap();
    }
    if let Err(error) = fsconfig_create(context.as_fd()) {
        let (mut buffer, mut log) = ([0; 1024], String::new());
        while let Ok(n) = rustix::io::read(&context, &mut buffer) {
            log.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        panic!("mounting: {error}: {log}");
    }
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap()
}

/// Everything that can be seen of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub owner: (u32, u32),
    pub size: i64,
    pub mtime: (i64, i64),
    pub links: u64,
    pub device: u64,
    pub target: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Digest of a file's content.
    pub content: Option<Digest>,
    /// First name of a file with several.
    pub same_as: Option<Vec<u8>>,
}

/// A tree by path. Attributes that hold for overlay only are left out.
pub fn walk(top: &OwnedFd) -> BTreeMap<Vec<u8>, Seen> {
    let mut out = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let top = rustix::fs::openat(top, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    visit(&top.unwrap(), b"", &mut out, &mut names);
    out
}

fn visit(
    dir: &OwnedFd,
    path: &[u8],
    out: &mut BTreeMap<Vec<u8>, Seen>,
    inodes: &mut BTreeMap<u64, Vec<u8>>,
) {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let here = rustix::fs::openat(dir, ".", flags, Mode::empty()).unwrap();
    out.insert(path.to_vec(), look(&here, path, inodes));
    let mut names: Vec<_> = Dir::read_from(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..")
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a name is listed twice");
    for name in names {
        let child = if path.is_empty() {
            name.to_bytes().to_vec()
        } else {
            [path, b"/", name.to_bytes()].concat()
        };
        let fd = match rustix::fs::openat(dir, &name, flags, Mode::empty()) {
            Ok(fd) => fd,
            // Overlay lists a whiteout that has nothing to hide, and then does not find it.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => panic!("{name:?}: {error}"),
        };
        let stat = rustix::fs::fstat(&fd).unwrap();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = rustix::fs::openat(dir, &name, flags, Mode::empty()).unwrap();
            visit(&fd, &child, out, inodes);
        } else {
            out.insert(child.clone(), look(&fd, &child, inodes));
        }
    }
}

fn look(fd: &OwnedFd, path: &[u8], inodes: &mut BTreeMap<u64, Vec<u8>>) -> Seen {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).unwrap();
    let kind = FileType::from_raw_mode(stat.st_mode);
    let place = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(place.as_str(), list.as_mut_slice()).unwrap_or(0);
    let mut xattrs = Vec::new();
    for name in list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let n = rustix::fs::getxattr(place.as_str(), name, value.as_mut_slice()).unwrap();
        value.truncate(n);
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort();
    let target = match kind {
        FileType::Symlink => rustix::fs::readlinkat(fd, "", Vec::new()).unwrap().into_bytes(),
        _ => Vec::new(),
    };
    let content = (kind == FileType::RegularFile && stat.st_size < 1 << 30).then(|| {
        let bytes = std::fs::read(&place).unwrap();
        assert_eq!(bytes.len() as i64, stat.st_size);
        Digest::sha256(bytes)
    });
    let first = inodes.entry(stat.st_ino).or_insert_with(|| path.to_vec());
    let directory = kind == FileType::Directory;
    Seen {
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
        size: if directory { 0 } else { stat.st_size },
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
        links: if directory { 0 } else { stat.st_nlink },
        device: stat.st_rdev,
        target,
        xattrs,
        content,
        same_as: (!directory && first != path).then(|| first.clone()),
    }
}

/// The newest `fsck.erofs` there is. Old ones know blocks of 4096 bytes only.
pub fn fsck(image: &Path, devices: &[PathBuf]) {
    let Some(program) = fsck_program() else { return };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {program} \"$@\"")).arg("fsck");
    command.args(devices.iter().map(|device| format!("--device={}", device.display())));
    let output = command.arg(image).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `mkfs.erofs --tar=i` of an archive: an index as ours, by others. False if there is none that can do it.
fn mkfs(image: &Path, tar: &Path) -> bool {
    let Some(program) = program("WHERRY_TEST_MKFS_EROFS", "mkfs.erofs") else { return false };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec {program} --quiet --tar=i \"$@\"")).arg("mkfs");
    let output = command.arg(image).arg(tar).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// What `mkfs.erofs --tar=i` makes of the archive shows the same. It knows no sparse files.
pub fn same_as_mkfs(directory: &Path, tar: &Path, ours: &BTreeMap<Vec<u8>, Seen>) {
    let theirs = directory.join("theirs.erofs");
    if !mkfs(&theirs, tar) {
        return;
    }
    let theirs = walk(&mount(&theirs, &[tar.to_owned()]));
    let names = |tree: &BTreeMap<Vec<u8>, Seen>| {
        tree.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(ours), names(&theirs));
    for (name, seen) in &theirs {
        assert_eq!(&ours[name], seen, "{}", String::from_utf8_lossy(name));
    }
}

fn fsck_program() -> Option<String> {
    program("WHERRY_TEST_FSCK_EROFS", "fsck.erofs")
}

/// The variable names a command; otherwise it is the installed one, if new enough.
fn program(variable: &str, name: &str) -> Option<String> {
    if let Ok(program) = std::env::var(variable) {
        return Some(program);
    }
    let output = Command::new(name).arg("-V").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let version = text.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let new = version.is_some_and(|version| version >= (1, 8));
    if !new {
        eprintln!("skipped: no {name} of 1.8 or newer here; {variable} can name one");
    }
    new.then(|| name.to_owned())
}

/// How many cases a property test tries: `PROPTEST_CASES`, or as many as usual.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
