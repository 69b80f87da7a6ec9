//! Putting files into a root filesystem, by descriptors below its root.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::tree::{Item, Source, Tree, open_in};

/// How files are put.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placing {
    /// The owner of everything; else the source's own, or root for a context.
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) mode: Option<ModeChange>,
    /// The directories of sources are kept.
    pub(crate) parents: bool,
}

/// What `--chmod` says: a number, or letters as for `chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    Set(u32),
    Change(Vec<Clause>),
}

/// One clause of letters: whose bits, what is done, which bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    letters: String,
}

impl ModeChange {
    /// Reads octal digits or `u=rwX,go-w`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "invalid chmod parameter {text:?}: write octal digits, or letters as in u=rwX,go=rX"
            )
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if mode <= 0o7777 { Ok(Self::Set(mode)) } else { Err(bad()) };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(bad)?;
            let (people, rest) = clause.split_at_checked(at).ok_or_else(bad)?;
            let mut who = 0;
            for c in people.chars() {
                who |= match c {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(bad()),
                };
            }
            if who == 0 {
                who = 0o7777;
            }
            let mut chars = rest.chars();
            let operator = chars.next().ok_or_else(bad)?;
            let letters: String = chars.collect();
            if !letters.chars().all(|c| "rwxXst".contains(c)) {
                return Err(bad());
            }
            clauses.push(Clause { who, operator, letters });
        }
        Ok(Self::Change(clauses))
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let clauses = match self {
            Self::Set(mode) => return *mode,
            Self::Change(clauses) => clauses,
        };
        let mut mode = mode & 0o7777;
        for Clause { who, operator, letters } in clauses {
            let mut bits = 0;
            for letter in letters.chars() {
                bits |= match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                };
            }
            bits &= who;
            mode = match operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                // The special bits of a directory stay unless they are named.
                _ => mode & !(who & 0o777) & !(if directory { 0 } else { who & 0o6000 }) | bits,
            };
        }
        mode
    }
}

/// A root filesystem to put files into.
pub(crate) struct Target {
    root: OwnedFd,
    placing: Placing,
    /// Where files with several names were put first.
    links: HashMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |at| at.saturating_add(1));
    let path = path.get(..end).unwrap_or_default();
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    match (a, b) {
        (b"", b) => b.to_vec(),
        (a, b"") => a.to_vec(),
        (a, b) => [a, b"/", b].concat(),
    }
}

impl Target {
    pub(crate) fn new(root: OwnedFd, placing: Placing) -> Self {
        Self { root, placing, links: HashMap::new() }
    }

    /// What is at a path, links followed; None if there is nothing.
    fn kind(&self, path: &[u8]) -> Result<Option<FileType>> {
        let what = || format!("looking at {} in the image", shown(path));
        match open_in(&self.root, path, OFlags::PATH, ResolveFlags::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(io(what))?;
                Ok(Some(FileType::from_raw_mode(stat.st_mode)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(io(what)(error)),
        }
    }

    /// Opens a directory, and makes it where it is missing, with those above.
    pub(crate) fn directory(&self, path: &[u8], owner: Option<(u32, u32)>) -> Result<OwnedFd> {
        let what = || format!("making the directory /{} in the image", shown(path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = |path: &[u8]| open_in(&self.root, path, flags, ResolveFlags::empty());
        match open(path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(io(what)(error)),
        }
        let (above, name) = split(path);
        let parent = self.directory(above, owner)?;
        // A link that leads nowhere: what it leads to is made.
        if let Ok(link) = rustix::fs::readlinkat(&parent, name, Vec::new()) {
            let link = link.into_bytes();
            let to = if link.starts_with(b"/") { link } else { join(above, &link) };
            if to.len() > 4096 || to == path {
                return Err(io(what)(Errno::LOOP));
            }
            return self.directory(&to, owner);
        }
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io(what)(error)),
        }
        let fd = open(path).map_err(io(what))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(io(what))?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(io(what))?;
        }
        Ok(fd)
    }

    /// Copies sources to a destination: into it if it is or must be a directory.
    pub(crate) fn copy(
        &mut self,
        tree: &Tree,
        sources: &[Source],
        destination: &[u8],
        into: bool,
    ) -> Result<()> {
        let owner = self.placing.owner;
        for source in sources {
            let directory = source.is_directory();
            let kind = self.kind(destination)?;
            let (above, name) = if self.placing.parents {
                let (above, _) = split(&source.kept);
                let to = join(destination, above);
                if directory {
                    (join(destination, &source.kept), Vec::new())
                } else {
                    (to, source.name.clone())
                }
            } else if directory {
                // Its content goes there.
                if kind.is_some_and(|kind| kind != FileType::Directory) {
                    return Err(Error::Invalid(format!(
                        "cannot copy the directory {:?} to /{}: that is a file",
                        shown(&source.asked),
                        shown(destination)
                    )));
                }
                (destination.to_vec(), Vec::new())
            } else if into || kind == Some(FileType::Directory) {
                (destination.to_vec(), source.name.clone())
            } else {
                let (above, name) = split(destination);
                (above.to_vec(), name.to_vec())
            };
            let parent = self.directory(&above, owner)?;
            if !directory {
                if let Some(item) = source.items.first() {
                    self.item(tree, source, item, &parent, &above, &name)?;
                }
                continue;
            }
            self.below(tree, source, &parent, &above)?;
        }
        Ok(())
    }

    /// What is below a directory. Directories' times are set when all is in them.
    fn below(&mut self, tree: &Tree, source: &Source, top: &OwnedFd, at: &[u8]) -> Result<()> {
        let mut open: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut times: Vec<(Vec<u8>, &Item)> = Vec::new();
        for item in source.items.iter().skip(1) {
            let (above, name) = split(&item.path);
            while open.last().is_some_and(|(path, _)| path != above) && !above.is_empty() {
                open.pop();
            }
            if above.is_empty() {
                open.clear();
            }
            let parent = open.last().map_or(top, |(_, fd)| fd);
            let parent =
                parent.try_clone().map_err(io(|| "duplicating a descriptor".to_owned()))?;
            let path = join(at, above);
            self.item(tree, source, item, &parent, &path, name)?;
            if item.is_directory() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let what = || format!("opening {} in the image", shown(&item.path));
                let fd =
                    rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(io(what))?;
                open.push((item.path.clone(), fd));
                times.push((join(&path, name), item));
            }
        }
        for (path, item) in times.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let what = || format!("setting the time of {} in the image", shown(path));
            let fd = open_in(&self.root, path, flags, ResolveFlags::empty()).map_err(io(what))?;
            rustix::fs::futimens(&fd, &stamps(item)).map_err(io(what))?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        tree: &Tree,
        source: &Source,
        item: &Item,
        parent: &OwnedFd,
        at: &[u8],
        name: &[u8],
    ) -> Result<()> {
        tree.stop.check()?;
        let path = join(at, name);
        let what = || format!("writing /{} in the image", shown(&path));
        let own = if tree.identities { (item.stat.st_uid, item.stat.st_gid) } else { (0, 0) };
        let (uid, gid) = self.placing.owner.unwrap_or(own);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let mode = item.stat.st_mode & 0o7777;
        let mode = match &self.placing.mode {
            Some(change) => change.apply(mode, item.is_directory()),
            None => mode,
        };
        let mode = Mode::from_raw_mode(mode);
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(io(what)(error)),
        };
        if item.is_directory() {
            match there {
                Some(FileType::Directory) => {}
                Some(_) => {
                    let path = shown(&path);
                    return Err(Error::Invalid(format!(
                        "cannot copy a directory to /{path}: that is a file"
                    )));
                }
                None => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
                    .map_err(io(what))?,
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(io(what))?;
            rustix::fs::fchown(&fd, uid, gid).map_err(io(what))?;
            rustix::fs::fchmod(&fd, mode).map_err(io(what))?;
            return self.attributes(tree, source, item, &fd, &path);
        }
        match there {
            Some(FileType::Directory) => {
                let path = shown(&path);
                return Err(Error::Invalid(format!(
                    "cannot copy a file to /{path}: that is a directory"
                )));
            }
            Some(_) => rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(io(what))?,
            None => {}
        }
        let several = item.stat.st_nlink > 1;
        let inode = (item.stat.st_dev, item.stat.st_ino);
        if several && let Some((above, first)) = self.links.get(&inode) {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let from =
                open_in(&self.root, above, flags, ResolveFlags::empty()).map_err(io(what))?;
            return rustix::fs::linkat(&from, first.as_slice(), parent, name, AtFlags::empty())
                .map_err(io(what));
        }
        match item.kind() {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let to = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(io(what))?;
                let mut to = File::from(to);
                let mut from = File::from(tree.open_item(source, item)?);
                // In pieces, since one file may be all there is.
                const PIECE: u64 = 32 << 20;
                let mut piece = PIECE;
                while piece == PIECE {
                    tree.stop.check()?;
                    let mut part = Read::by_ref(&mut from).take(PIECE);
                    piece = std::io::copy(&mut part, &mut to).map_err(io(what))?;
                }
                rustix::fs::fchown(&to, uid, gid).map_err(io(what))?;
                rustix::fs::fchmod(&to, mode).map_err(io(what))?;
                self.attributes(tree, source, item, &to, &path)?;
                rustix::fs::futimens(&to, &stamps(item)).map_err(io(what))?;
            }
            FileType::Symlink => {
                rustix::fs::symlinkat(item.link.as_slice(), parent, name).map_err(io(what))?;
                rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io(what))?;
                rustix::fs::utimensat(parent, name, &stamps(item), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io(what))?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                rustix::fs::mknodat(parent, name, kind, mode, item.stat.st_rdev)
                    .map_err(io(what))?;
                rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io(what))?;
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(io(what))?;
                rustix::fs::utimensat(parent, name, &stamps(item), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io(what))?;
            }
            _ => return Ok(()),
        }
        if several {
            self.links.insert(inode, (at.to_vec(), name.to_vec()));
        }
        Ok(())
    }

    fn attributes(
        &self,
        tree: &Tree,
        source: &Source,
        item: &Item,
        to: impl AsFd,
        path: &[u8],
    ) -> Result<()> {
        let to = format!("/proc/self/fd/{}", to.as_fd().as_raw_fd());
        for (name, value) in tree.xattrs(source, item)? {
            rustix::fs::setxattr(&to, name.as_slice(), &value, XattrFlags::empty())
                .map_err(io(|| format!("setting an attribute of /{} in the image", shown(path))))?;
        }
        Ok(())
    }

    /// Writes one file.
    pub(crate) fn write(
        &mut self,
        path: &[u8],
        content: &[u8],
        mode: u32,
        time: i64,
    ) -> Result<()> {
        use std::io::Write;
        let what = || format!("writing /{} in the image", shown(path));
        let (above, name) = split(path);
        let parent = self.directory(above, self.placing.owner)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(io(what)(error)),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(io(what))?;
        let mut file = File::from(fd);
        file.write_all(content).map_err(io(what))?;
        let (uid, gid) = self.placing.owner.unwrap_or((0, 0));
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(io(what))?;
        let mode = match &self.placing.mode {
            Some(change) => change.apply(mode, false),
            None => mode,
        };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(io(what))?;
        let time = Timespec { tv_sec: time, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times).map_err(io(what))
    }

    /// Whether a destination is a directory already.
    pub(crate) fn is_directory(&self, path: &[u8]) -> Result<bool> {
        Ok(self.kind(path)? == Some(FileType::Directory))
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }
}

fn stamps(item: &Item) -> Timestamps {
    let time = Timespec { tv_sec: item.stat.st_mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Finds an owner by name or number: `user`, `user:group`, with the root's own lists.
pub(crate) fn owner(root: impl AsFd, text: &str) -> Result<(u32, u32), String> {
    let read = |path: &str| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let mut text = String::new();
        if let Ok(fd) = open_in(&root, path.as_bytes(), flags, ResolveFlags::empty()) {
            let _ = File::from(fd).take(16 << 20).read_to_string(&mut text);
        }
        text
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let find = |list: &str, name: &str| -> Option<(u32, Option<u32>)> {
        list.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let id = fields.nth(1)?.parse().ok()?;
            let second = fields.next().and_then(|field| field.parse().ok());
            found.then_some((id, second))
        })
    };
    let (uid, own) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let (uid, gid) = find(&read("etc/passwd"), user)
                .ok_or_else(|| format!("no user {user:?} in the image's /etc/passwd"))?;
            (uid, gid.unwrap_or(uid))
        }
    };
    let gid = match group {
        None => own,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                find(&read("etc/group"), group)
                    .ok_or_else(|| format!("no group {group:?} in the image's /etc/group"))?
                    .0
            }
        },
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_in_letters() {
        let cases = [
            ("755", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("go-r", 0o644, false, 0o600),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, true, 0o555),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
        ];
        for (text, mode, directory, want) in cases {
            let got = ModeChange::parse(text).unwrap().apply(mode, directory);
            assert_eq!(got, want, "{text}: {got:o}");
        }
        for bad in ["", "8", "77777", "u", "u+q", "z=r"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
