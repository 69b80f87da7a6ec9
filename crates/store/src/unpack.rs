//! Writing the entries of a tar archive into a directory, by descriptor.
//!
//! Used for layers, for `cp` into a container, and for filling volumes. Whatever an archive says,
//! nothing outside the root directory is touched: a name is cleaned as text first and one that
//! leads out is refused; what remains is resolved by the kernel with the root as its `/`, so links
//! planted by earlier entries, or by a running container, stay inside.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use oci::limits;
use oci::tar::path::{checked, clean, clean_in_root, join, shown, split};
use oci::tar::{Entry, Kind, TarReader, Time};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::io;
use crate::{Error, Result, files};

/// How to unpack.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnpackOptions {
    /// `.wh.` files become overlay whiteouts; otherwise they are files like any other.
    pub(crate) whiteouts: bool,
    /// Only the `.wh.` files are looked at: what they hide is removed. Nothing is followed.
    pub(crate) remove_hidden: bool,
    /// `.wh.` files are left out.
    pub(crate) skip_whiteouts: bool,
    /// A directory is not replaced by something else nor the other way round: an error instead.
    pub(crate) no_replace_kind: bool,
    /// Everything belongs to this user and group instead of the archive's.
    pub(crate) owner: Option<(u32, u32)>,
    /// Most bytes of file content to write, holes of sparse files counted.
    pub(crate) limit: Option<u64>,
    /// The directory, within the root, that the archive's names are relative to.
    pub(crate) base: Vec<u8>,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unpacked {
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// Entries.
    pub(crate) entries: u64,
}

const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Directories kept open, since the next entry is most often in one of them.
const OPEN_DIRECTORIES: usize = 64;
/// Links followed by hand when a missing parent is created.
const MAX_LINKS: usize = 40;

/// Reads all entries of `tar` and writes them below `root`. The stream is left after the end of the
/// archive. `seen` is called with each entry's count of content bytes so far.
pub(crate) fn unpack<R: BufRead>(
    tar: &mut TarReader<R>,
    root: BorrowedFd<'_>,
    options: &UnpackOptions,
    seen: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker {
        root,
        options,
        open: HashMap::new(),
        times: Vec::new(),
        done: Unpacked::default(),
    };
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(tar, &entry)?;
        unpacker.done.entries += 1;
        seen(unpacker.done.bytes)?;
    }
    unpacker.set_directory_times();
    Ok(unpacker.done)
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    options: &'a UnpackOptions,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Of directories: path, identity, and the time it shall have in the end.
    times: Vec<(Vec<u8>, (u64, u64), Time)>,
    done: Unpacked,
}

fn refused(path: &[u8], reason: impl Into<String>) -> Error {
    Error::Refused { path: shown(path), reason: reason.into() }
}

impl Unpacker<'_> {
    fn entry<R: BufRead>(&mut self, tar: &mut TarReader<R>, entry: &Entry) -> Result<()> {
        let cleaned = checked(&entry.path).map_err(|reason| refused(&entry.path, reason))?;
        let path = join(&self.options.base, &cleaned);
        let (parent_path, name) = split(&path);
        if path.is_empty() || cleaned.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(refused(&entry.path, "the root must be a directory"));
            }
            // What `cp` unpacks into exists already and keeps its attributes.
            if self.options.base.is_empty() {
                let root = self.root;
                self.directory_attributes(root, &path, entry)?;
            }
            return Ok(());
        }
        if self.options.remove_hidden {
            return self.remove_hidden(entry, parent_path, name);
        }
        if self.options.skip_whiteouts && name.starts_with(WHITEOUT) {
            return Ok(());
        }
        if self.options.whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(entry, parent_path, name);
        }
        let parent = self.directory(entry, parent_path)?;
        let name_c = self.name(entry, name)?;
        match entry.kind {
            Kind::Directory => self.make_directory(entry, &path, &parent, &name_c),
            Kind::File => self.make_file(tar, entry, &parent, &name_c),
            Kind::HardLink => self.make_hard_link(entry, &parent, &name_c),
            Kind::Symlink => self.make_symlink(entry, &parent, &name_c),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.make_node(entry, &parent, &name_c)
            }
        }
    }

    fn name(&self, entry: &Entry, name: &[u8]) -> Result<CString> {
        files::c_string(name).map_err(|_| refused(&entry.path, "its name contains a NUL"))
    }

    fn fail<'b>(&self, entry: &'b Entry, what: &'b str) -> impl FnOnce(Errno) -> Error + 'b {
        io(move || format!("{what} {:?}", shown(&entry.path)))
    }

    /// The directory at `path`, made if it is missing.
    fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.open.get(path) {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(self.find_directory(entry, path, 0)?);
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&fd));
        Ok(fd)
    }

    fn find_directory(&self, entry: &Entry, path: &[u8], links: usize) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match files::open_in_root(self.root, path, flags) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(refused(&entry.path, format!("{:?} is not a directory", shown(path))));
            }
            Err(error) => return Err(self.fail(entry, "opening the directory of")(error)),
        }
        if path.is_empty() || links > MAX_LINKS {
            return Err(refused(&entry.path, "too many links, or its root is gone"));
        }
        let (parent_path, name) = split(path);
        let parent = self.find_directory(entry, parent_path, links)?;
        let name = self.name(entry, name)?;
        match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let fd = files::open_dir(&parent, &name)
                    .map_err(self.fail(entry, "opening the directory of"))?;
                // The process's umask is not the archive's business.
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
                    .map_err(self.fail(entry, "creating the directory of"))?;
                if let Some((uid, gid)) = self.options.owner {
                    rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .map_err(self.fail(entry, "creating the directory of"))?;
                }
                Ok(fd)
            }
            // A link to something that is missing: make what it points to, inside the root.
            Err(Errno::EXIST) => {
                // Or a directory, and it was a link on the way to it that points to nothing.
                if let Ok(fd) = files::open_dir(&parent, &name) {
                    return Ok(fd);
                }
                let target = match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
                    Err(Errno::INVAL) => {
                        let reason = format!("{:?} is not a directory", shown(path));
                        return Err(refused(&entry.path, reason));
                    }
                    target => {
                        target.map_err(self.fail(entry, "reading the link to the directory of"))?
                    }
                };
                let target = target.as_bytes();
                let full = match target.strip_prefix(b"/") {
                    Some(absolute) => absolute.to_vec(),
                    None => join(parent_path, target),
                };
                self.find_directory(entry, &clean_in_root(&full), links + 1)
            }
            Err(error) => Err(self.fail(entry, "creating the directory of")(error)),
        }
    }

    /// Removes whatever is at a name that something else is to take.
    fn clear(&mut self, entry: &Entry, parent: &OwnedFd, name: &CString) -> Result<()> {
        if self.options.no_replace_kind {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_directory =
                stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_directory != (entry.kind == Kind::Directory) {
                let (old, new) = if is_directory {
                    ("directory", "non-directory")
                } else {
                    ("non-directory", "directory")
                };
                let path = shown(entry.path.strip_suffix(b"/").unwrap_or(&entry.path));
                return Err(Error::Invalid(format!(
                    "cannot overwrite {old} {path:?} with {new} {path:?}"
                )));
            }
        }
        // Descriptors of what is removed must not be used again.
        self.open.clear();
        files::remove_tree(parent.as_fd(), name).map_err(self.fail(entry, "replacing"))
    }

    /// Runs `make`; if something is in the way, removes that and tries again.
    fn replace<T>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        what: &str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T> {
        // A container that runs may put something there again; not for ever.
        for _ in 0..8 {
            match make() {
                Ok(value) => return Ok(value),
                Err(Errno::EXIST) => self.clear(entry, parent, name)?,
                Err(error) => return Err(self.fail(entry, what)(error)),
            }
        }
        Err(self.fail(entry, what)(Errno::EXIST))
    }

    fn make_directory(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &OwnedFd,
        name: &CString,
    ) -> Result<()> {
        let mut opaque = false;
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(self.fail(entry, "looking at"))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    // The archive hid what was below and now puts its own there.
                    opaque = self.options.whiteouts
                        && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                        && stat.st_rdev == 0;
                    self.clear(entry, parent, name)?;
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                        .map_err(self.fail(entry, "creating"))?;
                }
            }
            Err(error) => return Err(self.fail(entry, "creating")(error)),
        }
        let fd = files::open_dir(parent, name).map_err(self.fail(entry, "opening"))?;
        self.directory_attributes(fd.as_fd(), path, entry)?;
        if opaque {
            rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())
                .map_err(self.fail(entry, "hiding what is below"))?;
        }
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::new(fd));
        Ok(())
    }

    fn directory_attributes(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        self.owner_and_mode(fd, entry)?;
        self.xattrs(entry, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        let stat = rustix::fs::fstat(fd).map_err(self.fail(entry, "looking at"))?;
        self.times.push((path.to_vec(), (stat.st_dev, stat.st_ino), entry.mtime));
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Owner first: changing it clears the set-ID bits and file capabilities.
    fn owner_and_mode(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        if [entry.uid, entry.gid].contains(&u32::MAX) {
            return Err(refused(&entry.path, "its owner is not a valid ID"));
        }
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(fd, uid, gid).map_err(self.fail(entry, "setting the owner of"))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(self.fail(entry, "setting the mode of"))
    }

    fn xattrs(
        &self,
        entry: &Entry,
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        for (name, value) in &entry.xattrs {
            // Overlay's own attributes would let an archive hide or redirect what is below it.
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            match set(name, value) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                // Labels of another security module, or attributes a kind of file cannot have.
                Err(Errno::PERM | Errno::INVAL) if name != b"security.capability" => {}
                Err(error) => {
                    let what = format!("setting the attribute {:?} of", shown(name));
                    return Err(self.fail(entry, &what)(error));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.done.bytes = self.done.bytes.saturating_add(bytes);
        match self.options.limit {
            Some(limit) if self.done.bytes > limit => {
                Err(Error::TooLarge { what: "the unpacked content".to_owned(), limit })
            }
            _ => Ok(()),
        }
    }

    fn make_file<R: BufRead>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
    ) -> Result<()> {
        self.count(entry.size)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.replace(entry, parent, name, "creating", || {
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?;
        match &entry.sparse {
            None => self.copy_data(tar, entry, &fd, 0, entry.size)?,
            Some(pieces) => {
                rustix::fs::ftruncate(&fd, entry.size).map_err(self.fail(entry, "writing"))?;
                for (offset, length) in pieces {
                    self.copy_data(tar, entry, &fd, *offset, *length)?;
                }
            }
        }
        self.owner_and_mode(fd.as_fd(), entry)?;
        self.xattrs(entry, |name, value| {
            rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(&fd, &times(entry.mtime))
            .map_err(self.fail(entry, "setting the time of"))
    }

    fn copy_data<R: BufRead>(
        &self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        fd: &OwnedFd,
        mut offset: u64,
        mut length: u64,
    ) -> Result<()> {
        while length > 0 {
            let data = tar.fill()?;
            if data.is_empty() {
                return Err(refused(&entry.path, "its data is shorter than its size"));
            }
            let take = usize::try_from(length).unwrap_or(usize::MAX).min(data.len());
            let data = data.get(..take).unwrap_or_default();
            let n = match rustix::io::pwrite(fd, data, offset) {
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(self.fail(entry, "writing")(error)),
            };
            tar.consume(n);
            offset = offset.saturating_add(n as u64);
            length = length.saturating_sub(n as u64);
        }
        Ok(())
    }

    fn make_hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &CString) -> Result<()> {
        let Some(target) = clean(&entry.link).filter(|target| !target.is_empty()) else {
            return Err(refused(
                &entry.path,
                "it is a hard link that leads out of the root directory",
            ));
        };
        let target = join(&self.options.base, &target);
        let (target_parent, target_name) = split(&target);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let missing = |errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => refused(
                &entry.path,
                format!("it is a hard link to {:?}, which does not exist", shown(&entry.link)),
            ),
            error => io(|| format!("linking {:?}", shown(&entry.path)))(error),
        };
        // The last component is linked itself even if it is a symbolic link.
        let target_dir = files::open_in_root(self.root, target_parent, flags).map_err(missing)?;
        let target_name = self.name(entry, target_name)?;
        let target_stat = rustix::fs::statat(&target_dir, &target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(missing)?;
        if FileType::from_raw_mode(target_stat.st_mode) == FileType::Directory {
            return Err(refused(&entry.path, "it is a hard link to a directory"));
        }
        for _ in 0..8 {
            let linked =
                rustix::fs::linkat(&target_dir, &target_name, parent, name, AtFlags::empty());
            match linked {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {
                    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                    if stat.is_ok_and(|stat| {
                        (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino)
                    }) {
                        return Ok(());
                    }
                    self.clear(entry, parent, name)?;
                }
                Err(error) => return Err(missing(error)),
            }
        }
        Err(self.fail(entry, "linking")(Errno::EXIST))
    }

    fn make_symlink(&mut self, entry: &Entry, parent: &OwnedFd, name: &CString) -> Result<()> {
        if entry.link.is_empty() || entry.link.len() > limits::MAX_PATH {
            return Err(refused(&entry.path, "the target of the link has a length that cannot be"));
        }
        self.replace(entry, parent, name, "creating the link", || {
            rustix::fs::symlinkat(entry.link.as_slice(), parent, name)
        })?;
        self.node_attributes(entry, parent, name, false)
    }

    fn make_node(&mut self, entry: &Entry, parent: &OwnedFd, name: &CString) -> Result<()> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = match entry.kind {
            Kind::Fifo => 0,
            _ => rustix::fs::makedev(entry.device.0, entry.device.1),
        };
        self.replace(entry, parent, name, "creating the device or pipe", || {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        self.node_attributes(entry, parent, name, true)
    }

    /// For what cannot be opened: links, devices, pipes.
    fn node_attributes(
        &self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        mode: bool,
    ) -> Result<()> {
        if [entry.uid, entry.gid].contains(&u32::MAX) {
            return Err(refused(&entry.path, "its owner is not a valid ID"));
        }
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail(entry, "setting the owner of"))?;
        if mode || !entry.xattrs.is_empty() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())
                .map_err(self.fail(entry, "opening"))?;
            let path = files::proc_path(&fd);
            if mode {
                rustix::fs::chmodat(
                    rustix::fs::CWD,
                    path.as_str(),
                    Mode::from_raw_mode(entry.mode),
                    AtFlags::empty(),
                )
                .map_err(self.fail(entry, "setting the mode of"))?;
            }
            self.xattrs(entry, |name, value| {
                rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
            })?;
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail(entry, "setting the time of"))
    }

    /// Image specification, "Whiteouts".
    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], name: &[u8]) -> Result<()> {
        if name == WHITEOUT_OPAQUE {
            let parent = self.directory(entry, parent_path)?;
            return rustix::fs::fsetxattr(&*parent, OPAQUE, b"y", XattrFlags::empty())
                .map_err(self.fail(entry, "hiding what is below"));
        }
        // Bookkeeping of a file system nobody has any more.
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = name.get(WHITEOUT.len()..).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(&entry.path, "it is a whiteout of nothing"));
        }
        let parent = self.directory(entry, parent_path)?;
        let hidden_c = self.name(entry, hidden)?;
        let made =
            rustix::fs::mknodat(&*parent, &hidden_c, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => Ok(()),
            // A whiteout is about the layers below. Of this layer's own, a file hides them anyway; a
            // directory has to be told to.
            Err(Errno::EXIST) => match files::open_dir(&*parent, &hidden_c) {
                Ok(fd) => rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())
                    .map_err(self.fail(entry, "hiding what is below")),
                Err(_) => Ok(()),
            },
            Err(error) => Err(self.fail(entry, "creating the whiteout")(error)),
        }
    }

    /// Removes what a whiteout hides.
    fn remove_hidden(&mut self, entry: &Entry, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(()) };
        if name.starts_with(WHITEOUT_META) && name != WHITEOUT_OPAQUE {
            return Ok(());
        }
        // A directory that is about to take the place of a link hides nothing behind the link.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let path: &[u8] = if parent_path.is_empty() { b"." } else { parent_path };
        let parent = match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(self.fail(entry, "opening the directory of")(error)),
        };
        let names = if name == WHITEOUT_OPAQUE {
            files::names(&parent).map_err(self.fail(entry, "reading the directory of"))?
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(&entry.path, "it is a whiteout of nothing"));
        } else {
            vec![self.name(entry, hidden)?]
        };
        for name in names {
            match files::remove_tree(parent.as_fd(), &name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(self.fail(entry, "removing what is hidden by")(error)),
            }
        }
        Ok(())
    }

    /// Last, because putting something into a directory changes its time. A directory that was
    /// replaced meanwhile is left alone.
    fn set_directory_times(&mut self) {
        for (path, identity, time) in &self.times {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(fd) = files::open_in_root(self.root, path, flags) else { continue };
            if rustix::fs::fstat(&fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == *identity) {
                let _ = rustix::fs::futimens(&fd, &times(*time));
            }
        }
    }
}

fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
