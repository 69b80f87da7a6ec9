//! Files to copy from: a context on the host, or the files of a stage. Both are read by descriptors below one
//! root, so that no link leads out of it, whoever made it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use oci::Digest;
use oci::digest::Hasher;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::language::dockerignore::{Ignore, Matched, clean};
use crate::language::glob;
use crate::language::problem::nearest;
use crate::stop::Stop;

/// A tree of files.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The root's own name for the kernel, which the names of what is below begin with.
    above: Vec<u8>,
    /// For messages: `the build context`, `stage build`.
    pub(crate) name: String,
    /// What is left out.
    ignore: Ignore,
    /// Owners and attributes belong to the content; in a context of the host they do not.
    pub(crate) identities: bool,
    /// Reading ends when the build does.
    pub(crate) stop: Stop,
}

/// One file below a source.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Path below the source; empty for the source itself.
    pub(crate) path: Vec<u8>,
    pub(crate) stat: Stat,
    /// Where a symbolic link points.
    pub(crate) link: Vec<u8>,
}

impl Item {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

/// One thing to copy, with all that is below it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path below the root, links resolved.
    pub(crate) path: Vec<u8>,
    /// What it is called: the last part of the path it was found by.
    pub(crate) name: Vec<u8>,
    /// The path it was found by.
    pub(crate) asked: Vec<u8>,
    /// What of that `--parents` keeps: what is behind a `/./` in it, else all.
    pub(crate) kept: Vec<u8>,
    /// Itself first, then what is below, in order.
    pub(crate) items: Vec<Item>,
}

impl Source {
    pub(crate) fn is_directory(&self) -> bool {
        self.items.first().is_some_and(Item::is_directory)
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    match (a, b) {
        (b"", b) => b.to_vec(),
        (a, b"") => a.to_vec(),
        (a, b) => [a, b"/", b].concat(),
    }
}

/// Opens below a root as if it were `/`.
pub(crate) fn open_in(
    root: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let relative: &[u8] = match path.iter().position(|b| *b != b'/') {
        Some(at) => path.get(at..).unwrap_or_default(),
        None => b".",
    };
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        {
            // A rename somewhere made the kernel unsure about a `..`.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn name_of(fd: impl AsFd) -> rustix::io::Result<Vec<u8>> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(rustix::fs::readlinkat(CWD, path, Vec::new())?.into_bytes())
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Tree {
    /// A directory of the host.
    pub(crate) fn open(path: &Path, ignore: Ignore) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(io(|| format!("unable to prepare context: {}", path.display())))?;
        Self::new(root, "the build context".to_owned(), ignore, false)
    }

    /// The files of a stage or an image, mounted.
    pub(crate) fn of_mount(mount: OwnedFd, name: String) -> Result<Self> {
        Self::new(mount, name, Ignore::default(), true)
    }

    /// The same files, for another thread.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let root = self.root.try_clone().map_err(io(|| format!("opening {}", self.name)))?;
        let (above, name) = (self.above.clone(), self.name.clone());
        let (ignore, stop) = (self.ignore.clone(), self.stop.clone());
        Ok(Self { root, above, name, ignore, identities: self.identities, stop })
    }

    fn new(root: OwnedFd, name: String, ignore: Ignore, identities: bool) -> Result<Self> {
        let mut above = name_of(&root).map_err(io(|| format!("looking at {name}")))?;
        if above == b"/" {
            above.clear();
        }
        Ok(Self { root, above, name, ignore, identities, stop: Stop::default() })
    }

    /// Reads one small file of the tree, as for a Dockerfile; None if there is none.
    pub(crate) fn read(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let what = || format!("reading {path} of {}", self.name);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = match open_in(&self.root, path.as_bytes(), flags, ResolveFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(io(what)(error)),
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::from(fd).take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(io(what))?;
        if bytes.len() as u64 > most {
            return Err(Error::Invalid(format!("{path} of {} is too large", self.name)));
        }
        Ok(Some(bytes))
    }

    fn is_ignored(&self, path: &[u8]) -> bool {
        !self.ignore.is_empty() && self.ignore.matches_alone(&shown(path))
    }

    /// What a path or pattern of an instruction names, with all that is below.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it names nothing, with names that are near.
    pub(crate) fn find(&self, pattern: &str, exclude: &Ignore) -> Result<Vec<Source>> {
        let cleaned = clean(&format!("/{pattern}"));
        let parts: Vec<&str> = cleaned.split('/').filter(|part| !part.is_empty()).collect();
        let before = pattern
            .split_once("/./")
            .map_or(String::new(), |(before, _)| clean(&format!("/{before}")));
        let before = before.split('/').filter(|part| !part.is_empty()).count();
        let mut found: Vec<Vec<u8>> = vec![Vec::new()];
        let mut any = false;
        for part in &parts {
            if !glob::is_pattern(part) {
                for path in &mut found {
                    *path = join(path, part.as_bytes());
                }
                continue;
            }
            any = true;
            let pieces = glob::path_pattern(part).map_err(Error::Invalid)?;
            let mut next = Vec::new();
            for path in &found {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let dir = match open_in(&self.root, path, flags, ResolveFlags::empty()) {
                    Ok(dir) => dir,
                    Err(_) => continue,
                };
                let what = || format!("reading {} of {}", shown(path), self.name);
                for name in names(&dir).map_err(io(what))? {
                    if glob::matches(&pieces, &name.to_string_lossy()) {
                        next.push(join(path, name.to_bytes()));
                    }
                }
            }
            found = next;
        }
        let mut sources = Vec::new();
        for path in found {
            if let Some(mut source) = self.source(&path, exclude)? {
                // Each part of a pattern has become one of the path.
                let parts = source.kept.split(|b| *b == b'/').skip(before);
                source.kept = parts.collect::<Vec<_>>().join(&b'/');
                sources.push(source);
            }
        }
        if sources.is_empty() {
            return Err(self.missing(pattern, &parts, any));
        }
        Ok(sources)
    }

    /// One path that is no pattern; None if nothing is there, or it is left out.
    fn source(&self, asked: &[u8], exclude: &Ignore) -> Result<Option<Source>> {
        let what = || format!("reading {} of {}", shown(asked), self.name);
        let top = match open_in(&self.root, asked, OFlags::PATH, ResolveFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(io(what)(error)),
        };
        let stat = rustix::fs::fstat(&top).map_err(io(what))?;
        let real = name_of(&top).map_err(io(what))?;
        let Some(real) = real.strip_prefix(self.above.as_slice()) else {
            let message = format!("{} was moved while it was read", self.name);
            return Err(Error::Invalid(message));
        };
        let real = real.strip_prefix(b"/").unwrap_or(real).to_vec();
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let ignored = !real.is_empty() && self.is_ignored(&real);
        if ignored && !(directory && self.ignore.has_exceptions()) {
            return Ok(None);
        }
        let name = asked.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
        let mut items = vec![Item { path: Vec::new(), stat, link: Vec::new() }];
        if directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = open_in(&self.root, &real, flags, ResolveFlags::NO_SYMLINKS);
            let dir = dir.map_err(io(what))?;
            // What the patterns said of the directories above.
            let mut above = None;
            if !self.ignore.is_empty() && !real.is_empty() {
                let text = shown(&real);
                let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
                for end in ends {
                    let prefix = text.get(..end).unwrap_or(&text);
                    above = Some(self.ignore.matches(prefix, above.as_ref()).1);
                }
            }
            let mut walk = Walk { tree: self, exclude, real: &real, items: &mut items };
            walk.directory(&dir, b"", above.as_ref(), None, 0)?;
            if ignored && items.len() == 1 {
                return Ok(None);
            }
        }
        let (asked, kept) = (asked.to_vec(), asked.to_vec());
        Ok(Some(Source { path: real, name, asked, kept, items }))
    }

    /// Says what is missing, and what is near.
    fn missing(&self, pattern: &str, parts: &[&str], is_pattern: bool) -> Error {
        if is_pattern {
            return Error::Invalid(format!("{pattern:?}: nothing in {} matches", self.name));
        }
        let path = parts.join("/");
        if !path.is_empty()
            && self.is_ignored(path.as_bytes())
            && open_in(&self.root, path.as_bytes(), OFlags::PATH, ResolveFlags::empty()).is_ok()
        {
            return Error::Invalid(format!(
                "{pattern:?} is left out of {} by .dockerignore: add a line !{path} to take it in",
                self.name
            ));
        }
        let mut directory = Vec::new();
        for part in parts {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let next = join(&directory, part.as_bytes());
            if open_in(&self.root, &next, OFlags::PATH, ResolveFlags::empty()).is_ok() {
                directory = next;
                continue;
            }
            let dir = open_in(&self.root, &directory, flags, ResolveFlags::empty());
            let names = dir.and_then(|dir| names(&dir)).unwrap_or_default();
            let names: Vec<String> =
                names.iter().map(|n| n.to_string_lossy().into_owned()).collect();
            let near = nearest(part, names.iter().map(String::as_str));
            let near = near.map(|near| shown(&join(&directory, near.as_bytes())));
            let hint = match near {
                _ if pattern.starts_with("..") => "; nothing above it can be copied".to_owned(),
                Some(near) => format!("; did you mean {near}?"),
                None if names.is_empty() => "; there is nothing".to_owned(),
                None => {
                    let few: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
                    let more = if names.len() > few.len() { ", …" } else { "" };
                    format!("; there are {}{more}", few.join(", "))
                }
            };
            return Error::Invalid(format!("{pattern:?} is not in {}{hint}", self.name));
        }
        Error::Invalid(format!("{pattern:?} is not in {}", self.name))
    }

    /// Opens a file of a source for reading, not through links.
    pub(crate) fn open_item(&self, source: &Source, item: &Item) -> Result<OwnedFd> {
        let path = join(&source.path, &item.path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        open_in(&self.root, &path, flags, ResolveFlags::NO_SYMLINKS)
            .map_err(io(|| format!("opening {} of {}", shown(&path), self.name)))
    }

    /// The attributes of an item that belong to its content, sorted.
    pub(crate) fn xattrs(&self, source: &Source, item: &Item) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if !self.identities || !matches!(item.kind(), FileType::RegularFile | FileType::Directory) {
            return Ok(Vec::new());
        }
        let fd = self.open_item(source, item)?;
        let what = || format!("reading attributes of {}", shown(&item.path));
        let mut list = vec![0; 64 << 10];
        let length = match rustix::fs::flistxattr(&fd, list.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(io(what)(error)),
        };
        let mut out = Vec::new();
        for name in list.get(..length).unwrap_or_default().split(|b| *b == 0) {
            if !(name == b"security.capability"
                || name.starts_with(b"user.")
                || name.starts_with(b"system.posix_acl_"))
            {
                continue;
            }
            let mut value = vec![0; 64 << 10];
            match rustix::fs::fgetxattr(&fd, name, value.as_mut_slice()) {
                Ok(n) => {
                    value.truncate(n);
                    out.push((name.to_vec(), value));
                }
                Err(Errno::NODATA) => {}
                Err(error) => return Err(io(what)(error)),
            }
        }
        out.sort();
        Ok(out)
    }

    /// A digest of what was found: names, kinds, permissions and contents, never times.
    pub(crate) fn digest(&self, sources: &[Source], known: &mut Known) -> Result<Digest> {
        let mut hasher = Hasher::sha256();
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for source in sources {
            put(b"source");
            put(&source.name);
            put(&source.asked);
            put(&source.kept);
            for item in &source.items {
                self.stop.check()?;
                put(&item.path);
                put(&item.stat.st_mode.to_le_bytes());
                if self.identities {
                    put(&item.stat.st_uid.to_le_bytes());
                    put(&item.stat.st_gid.to_le_bytes());
                    for (name, value) in self.xattrs(source, item)? {
                        put(&name);
                        put(&value);
                    }
                }
                match item.kind() {
                    FileType::RegularFile => put(known.of(self, source, item)?.hex().as_bytes()),
                    FileType::Symlink => put(&item.link),
                    FileType::CharacterDevice | FileType::BlockDevice => {
                        put(&item.stat.st_rdev.to_le_bytes());
                    }
                    _ => {}
                }
            }
        }
        Ok(hasher.finish())
    }

    /// The newest modification time of what was found, in seconds since 1970.
    pub(crate) fn newest(sources: &[Source]) -> i64 {
        let times = sources.iter().flat_map(|source| &source.items).map(|item| item.stat.st_mtime);
        times.max().unwrap_or(0).max(0)
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    exclude: &'a Ignore,
    real: &'a [u8],
    items: &'a mut Vec<Item>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        ignored: Option<&Matched>,
        excluded: Option<&Matched>,
        depth: usize,
    ) -> Result<()> {
        if depth > oci::limits::MAX_PATH_DEPTH {
            return Err(Error::Invalid(format!("{:?} is nested too deeply", shown(path))));
        }
        let what = |path: &[u8]| format!("reading {} of {}", shown(path), self.tree.name);
        for name in names(dir).map_err(io(|| what(path)))? {
            let below = join(path, name.to_bytes());
            let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(io(|| what(&below))(error)),
            };
            let mut out = false;
            let mut through = false;
            let mut now = (None, None);
            if !self.tree.ignore.is_empty() {
                let full = shown(&join(self.real, &below));
                let (hit, matched) = self.tree.ignore.matches(&full, ignored);
                out |= hit;
                through |= hit && self.tree.ignore.has_exceptions();
                now.0 = Some(matched);
            }
            if !self.exclude.is_empty() {
                let (hit, matched) = self.exclude.matches(&shown(&below), excluded);
                out |= hit;
                through |= hit && self.exclude.has_exceptions();
                now.1 = Some(matched);
            }
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Socket || out && !(through && kind == FileType::Directory) {
                continue;
            }
            let mut item = Item { path: below.clone(), stat, link: Vec::new() };
            if kind == FileType::Symlink {
                let link = rustix::fs::readlinkat(dir, &name, Vec::new());
                item.link = link.map_err(io(|| what(&below)))?.into_bytes();
            }
            self.items.push(item);
            if kind == FileType::Directory {
                let at = self.items.len();
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = rustix::fs::openat(dir, &name, flags, Mode::empty())
                    .map_err(io(|| what(&below)))?;
                self.directory(
                    &dir,
                    &below,
                    now.0.as_ref(),
                    now.1.as_ref(),
                    depth.saturating_add(1),
                )?;
                if out && self.items.len() == at {
                    // Nothing in it was taken in again.
                    self.items.pop();
                }
            }
        }
        Ok(())
    }
}

/// Digests of files that were read before, by what `stat` says of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    entries: BTreeMap<Fingerprint, Digest>,
    /// Something was read that was not known.
    pub(crate) changed: bool,
}

/// What changes when a file does: device, inode, size, and both times to the nanosecond.
type Fingerprint = (u64, u64, i64, (i64, i64), (i64, i64));

fn fingerprint(stat: &Stat) -> Fingerprint {
    let ns = |n: u64| i64::try_from(n).unwrap_or(0);
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        (stat.st_mtime, ns(stat.st_mtime_nsec)),
        (stat.st_ctime, ns(stat.st_ctime_nsec)),
    )
}

impl Known {
    fn of(&mut self, tree: &Tree, source: &Source, item: &Item) -> Result<Digest> {
        let print = fingerprint(&item.stat);
        if !tree.identities
            && let Some(digest) = self.entries.get(&print)
        {
            return Ok(*digest);
        }
        let fd = tree.open_item(source, item)?;
        let what = || format!("reading {} of {}", shown(&item.path), tree.name);
        let mut hasher = Hasher::sha256();
        std::io::copy(&mut tree.stop.within(std::fs::File::from(fd)), &mut hasher)
            .map_err(|error| tree.stop.or(io(what)(error)))?;
        let digest = hasher.finish();
        // A file that was changed a moment ago may be changed again within the same tick of its clock.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        if !tree.identities && item.stat.st_ctime < now.saturating_sub(2) {
            self.entries.insert(print, digest);
            self.changed = true;
        }
        Ok(digest)
    }

    /// Reads what an earlier build has written; anything unreadable is as if it were not there.
    pub(crate) fn load(path: &Path) -> Self {
        let mut entries = BTreeMap::new();
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let mut fields = line.split(' ');
            let mut next = || fields.next()?.parse::<i64>().ok();
            let numbers = [next(), next(), next(), next(), next(), next(), next()];
            let digest = fields.next().and_then(|text| text.parse::<Digest>().ok());
            if let (
                [Some(dev), Some(ino), Some(size), Some(a), Some(b), Some(c), Some(d)],
                Some(digest),
            ) = (numbers, digest)
            {
                let key = (dev.cast_unsigned(), ino.cast_unsigned(), size, (a, b), (c, d));
                entries.insert(key, digest);
            }
        }
        Self { entries, changed: false }
    }

    /// Takes in what another has read meanwhile.
    pub(crate) fn learn(&mut self, other: Self) {
        self.changed |= other.changed;
        self.entries.extend(other.entries);
    }

    /// Writes what is known for the next build. It is only a shortcut, so that a failure does not matter.
    pub(crate) fn save(&self, path: &Path) {
        /// Files of one context that are remembered.
        const MOST: usize = 500_000;
        if !self.changed {
            return;
        }
        let mut text = String::new();
        for ((dev, ino, size, (a, b), (c, d)), digest) in self.entries.iter().take(MOST) {
            let (dev, ino) = (dev.cast_signed(), ino.cast_signed());
            text.push_str(&format!("{dev} {ino} {size} {a} {b} {c} {d} {digest}\n"));
        }
        let temporary = path.with_extension(format!("{}", std::process::id()));
        let written = path
            .parent()
            .map(std::fs::create_dir_all)
            .and_then(|made| made.and_then(|()| std::fs::write(&temporary, text)).ok());
        if written.is_some() {
            let _ = std::fs::rename(&temporary, path);
        }
    }
}
