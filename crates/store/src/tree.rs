//! Writing a directory tree as a tar archive, by descriptor and in a fixed order.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oci::limits;
use oci::tar::{Entry, Kind, TarReader, TarWriter, Time};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::io as io_error;
use crate::overlay;
use crate::unpack::{UnpackOptions, Unpacked, unpack};
use crate::{Error, Result, files};

/// How to write a tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TreeOptions {
    /// The tree is an overlay upper directory: whiteouts and opaque directories become `.wh.` files.
    pub(crate) overlay: bool,
    /// Write an entry `./` with the attributes of the root.
    pub(crate) root: bool,
    /// No time is later than this (seconds since 1970) or finer than a second.
    pub(crate) latest: Option<i64>,
}

const OPAQUE: &str = "trusted.overlay.opaque";

/// Writes everything below `dir`, with names that start with `prefix`. Sockets are left out, as in
/// every tar.
pub(crate) fn write_tree<W: Write>(
    dir: BorrowedFd<'_>,
    prefix: &[u8],
    tar: &mut TarWriter<W>,
    options: TreeOptions,
) -> Result<()> {
    let mut writer = TreeWriter { tar, options, links: HashMap::new(), buffer: vec![0; 256 << 10] };
    // The descriptor of a mount can be walked through but not be read.
    let dir = &files::open_dir(dir, c".").map_err(io_error(|| "opening the root".to_owned()))?;
    let dir = dir.as_fd();
    if options.root {
        let stat = rustix::fs::fstat(dir).map_err(io_error(|| "looking at the root".to_owned()))?;
        let name = if prefix.is_empty() { b"./".as_slice() } else { prefix };
        let mut entry = entry_of(name, Kind::Directory, &stat);
        entry.xattrs = writer.xattrs(&files::proc_path(dir))?;
        writer.write_header(&entry)?;
    }
    writer.children(dir, prefix, 0)
}

/// Writes one file that is not a directory, under the name `name` in the archive.
pub(crate) fn write_one<W: Write>(
    parent: BorrowedFd<'_>,
    file: &CStr,
    name: &[u8],
    tar: &mut TarWriter<W>,
) -> Result<()> {
    let options = TreeOptions::default();
    let mut writer = TreeWriter { tar, options, links: HashMap::new(), buffer: vec![0; 256 << 10] };
    writer.child(parent, file, name, 0)
}

struct TreeWriter<'a, W> {
    tar: &'a mut TarWriter<W>,
    options: TreeOptions,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

fn entry_of(path: &[u8], kind: Kind, stat: &Stat) -> Entry {
    let mut entry = Entry::new(path, kind, stat.st_mode & 0o7777);
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.mtime = Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    entry
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl<W: Write> TreeWriter<'_, W> {
    fn children(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        if depth > limits::MAX_PATH_DEPTH {
            return Err(Error::Invalid(format!("{:?} is nested too deeply", shown(path))));
        }
        let names = files::names(dir)
            .map_err(io_error(|| format!("reading the directory {:?}", shown(path))))?;
        for name in names {
            let child = if path.is_empty() || path == b"." {
                name.to_bytes().to_vec()
            } else {
                [path, b"/", name.to_bytes()].concat()
            };
            self.child(dir, &name, &child, depth)?;
        }
        Ok(())
    }

    fn write_header(&mut self, entry: &Entry) -> Result<()> {
        let mut bounded;
        let mut entry = entry;
        if let Some(latest) = self.options.latest {
            bounded = entry.clone();
            bounded.mtime = Time { seconds: entry.mtime.seconds.min(latest), nanoseconds: 0 };
            entry = &bounded;
        }
        self.tar.entry(entry).map_err(io_error(|| "writing the archive".to_owned()))
    }

    fn child(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], depth: usize) -> Result<()> {
        let what = || format!("reading {:?}", shown(path));
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // A running container may remove files while we read.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io_error(what)(error)),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let kind = match file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        if self.options.overlay && overlay::is_whiteout(&stat) {
            let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
                Some(slash) => path.split_at(slash + 1),
                None => (b"".as_slice(), path),
            };
            let hidden = [parent, b".wh.", name].concat();
            return self.write_header(&Entry::new(hidden, Kind::File, 0));
        }
        if kind != Kind::Directory && stat.st_nlink > 1 {
            let first =
                self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                let mut entry = entry_of(path, Kind::HardLink, &stat);
                entry.link.clone_from(first);
                return self.write_header(&entry);
            }
        }
        let mut entry = entry_of(path, kind, &stat);
        match kind {
            Kind::Directory => {
                let fd = match files::open_dir(dir, name) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                    Err(error) => return Err(io_error(what)(error)),
                };
                entry.xattrs = self.xattrs(&files::proc_path(&fd))?;
                self.write_header(&entry)?;
                if self.options.overlay && is_opaque(&fd) {
                    let mark = [path, b"/.wh..wh..opq"].concat();
                    self.write_header(&Entry::new(mark, Kind::File, 0))?;
                }
                self.children(fd.as_fd(), path, depth + 1)
            }
            Kind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
                    Err(error) => return Err(io_error(what)(error)),
                };
                let stat = rustix::fs::fstat(&fd).map_err(io_error(what))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(());
                }
                let mut entry = entry_of(path, kind, &stat);
                entry.size = u64::try_from(stat.st_size).unwrap_or(0);
                entry.xattrs = self.xattrs(&files::proc_path(&fd))?;
                self.write_header(&entry)?;
                self.data(&fd, path)
            }
            _ => {
                if kind == Kind::Symlink {
                    entry.link = match rustix::fs::readlinkat(dir, name, Vec::new()) {
                        Ok(target) => target.into_bytes(),
                        Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                        Err(error) => return Err(io_error(what)(error)),
                    };
                } else if kind != Kind::Fifo {
                    entry.device =
                        (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                }
                // Links have no user attributes, and labels are not taken along: nothing to read but
                // what root set by hand.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(fd) = rustix::fs::openat(dir, name, flags, Mode::empty()) {
                    entry.xattrs = self.xattrs(&files::proc_path(&fd)).unwrap_or_default();
                }
                self.write_header(&entry)
            }
        }
    }

    /// As many bytes as the header says, even if the file changes meanwhile.
    fn data(&mut self, fd: &OwnedFd, path: &[u8]) -> Result<()> {
        while self.tar.remaining() > 0 {
            let want = usize::try_from(self.tar.remaining()).unwrap_or(usize::MAX);
            let want = want.min(self.buffer.len());
            let buffer = self.buffer.get_mut(..want).unwrap_or_default();
            let n = match rustix::io::read(fd, &mut *buffer) {
                Ok(0) => {
                    // It became shorter.
                    buffer.fill(0);
                    want
                }
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(io_error(|| format!("reading {:?}", shown(path)))(error)),
            };
            let data = self.buffer.get(..n).unwrap_or_default();
            self.tar.write_data(data).map_err(io_error(|| "writing the archive".to_owned()))?;
        }
        Ok(())
    }

    /// Attributes that belong to the content: capabilities, access lists, users' own.
    fn xattrs(&self, path: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let what = || "reading extended attributes".to_owned();
        let mut list = vec![0; 4096];
        let length = loop {
            match rustix::fs::listxattr(path, list.as_mut_slice()) {
                Ok(length) => break length,
                Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 4, 0),
                Err(Errno::NOTSUP | Errno::NOENT | Errno::NODATA) => return Ok(Vec::new()),
                Err(error) => return Err(io_error(what)(error)),
            }
        };
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        for name in list.get(..length).unwrap_or_default().split(|b| *b == 0) {
            let kept = name == b"security.capability"
                || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
                || name.starts_with(b"system.posix_acl_")
                || name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.");
            if !kept {
                continue;
            }
            // The kernel's bound for one value.
            let mut value = vec![0; 64 << 10];
            match rustix::fs::getxattr(path, name, value.as_mut_slice()) {
                Ok(n) => {
                    value.truncate(n);
                    out.push((name.to_vec(), value));
                }
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(io_error(what)(error)),
            }
        }
        out.sort();
        Ok(out)
    }
}

pub(crate) fn is_opaque(dir: impl AsFd) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE, &mut value), Ok(1) if value.first() == Some(&b'y'))
}

/// Copies everything below `from` into `to`, with owners, times, attributes and hard links.
pub(crate) fn copy_tree(from: OwnedFd, to: BorrowedFd<'_>) -> Result<Unpacked> {
    let options = TreeOptions { root: true, ..TreeOptions::default() };
    let (mut reader, writer) = tree_stream(from, options);
    let mut tar = TarReader::new(io::BufReader::with_capacity(256 << 10, &mut reader));
    let unpacked = unpack(&mut tar, to, &UnpackOptions::default(), &mut |_| Ok(()));
    drop(tar);
    finish_stream(reader, writer)?;
    unpacked
}

type Writer = std::thread::JoinHandle<Result<()>>;

/// A tree as a stream: another thread writes the archive.
pub(crate) fn tree_stream(from: OwnedFd, options: TreeOptions) -> (ChannelReader, Writer) {
    let (send, receive) = sync_channel(8);
    let thread = std::thread::spawn(move || {
        let out = ChannelWriter { send, buffer: Vec::with_capacity(CHUNK) };
        let mut tar = TarWriter::new(out);
        write_tree(from.as_fd(), b"", &mut tar, options)?;
        tar.finish().map_err(io_error(|| "writing the archive".to_owned()))?;
        Ok(())
    });
    (ChannelReader { receive, chunk: Vec::new(), position: 0 }, thread)
}

/// Waits for the other thread; its error explains why the archive ended early.
pub(crate) fn finish_stream(reader: ChannelReader, writer: Writer) -> Result<()> {
    let complete = reader.at_end();
    drop(reader);
    match writer.join() {
        Ok(Ok(())) => Ok(()),
        // We stopped reading, so its complaint is about us.
        Ok(Err(_)) if !complete => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Invalid("the thread that reads the files failed".to_owned())),
    }
}

const CHUNK: usize = 256 << 10;

struct ChannelWriter {
    send: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The reading end of [`tree_stream`].
pub(crate) struct ChannelReader {
    receive: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
}

impl ChannelReader {
    /// The writer has nothing more to say.
    fn at_end(&self) -> bool {
        self.position >= self.chunk.len()
            && matches!(self.receive.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position >= self.chunk.len() {
            match self.receive.recv() {
                Ok(chunk) => {
                    self.chunk = chunk;
                    self.position = 0;
                }
                Err(_) => return Ok(0),
            }
        }
        let rest = self.chunk.get(self.position..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.position += n;
        Ok(n)
    }
}
