//! One layer's files, from the entries of its archive in their order: the same tree that
//! unpacking them into an empty directory gives.

use oci::limits;
use oci::tar::path::{checked, clean, clean_in_root, join, shown, split};
use oci::tar::{Entry, Kind};

use crate::node::{Attributes, Data, Device, Directory, Id, Node, ROOT, What};
use crate::sparse::SparseFile;
use crate::{BLOCK, Error, MAX_DEVICE, MAX_METADATA, MAX_NODES, Result};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Links followed in one path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Deepest directory. Links in an archive can lead deeper than its names are long.
const MAX_DEPTH: u16 = 1024;
/// Bytes of attributes a file can have: what the inode's counter can say, with some room.
const MAX_ATTRIBUTES: usize = 128 << 10;

/// The tree of one layer.
#[derive(Clone, Debug)]
pub struct LayerTree {
    pub(crate) nodes: Vec<Node>,
    metadata: usize,
}

impl Default for LayerTree {
    fn default() -> LayerTree {
        LayerTree { nodes: vec![Node::implied(0)], metadata: 0 }
    }
}

fn refused(entry: &Entry, reason: impl Into<String>) -> Error {
    Error::Refused { path: shown(&entry.path), reason: reason.into() }
}

/// Why a path does not lead to a directory.
enum Lost {
    Missing,
    NotDirectory(Vec<u8>),
    TooManyLinks,
    TooDeep,
}

impl LayerTree {
    /// A layer without entries.
    #[must_use]
    pub fn new() -> LayerTree {
        LayerTree::default()
    }

    /// Number of files of all kinds that were seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Adds an entry. `offset` is where its data begins in the archive; `sparse` the place of a
    /// sparse file's data in the side file.
    ///
    /// # Errors
    /// [`Error::Refused`] for names and links that lead out of the root and the like;
    /// [`Error::TooLarge`].
    pub fn add(&mut self, entry: &Entry, offset: u64, sparse: Option<SparseFile>) -> Result<()> {
        let path = checked(&entry.path).map_err(|reason| refused(entry, reason))?;
        let attributes: usize = entry.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
        // A short header can ask for many chunks.
        let chunks = sparse.as_ref().map_or(0, |sparse| sparse.chunks.len().saturating_mul(8));
        let bytes = path.len() + entry.link.len() + attributes;
        self.metadata = self.metadata.saturating_add(bytes).saturating_add(chunks);
        if self.nodes.len() >= MAX_NODES {
            return Err(Error::TooLarge("too many files"));
        }
        if self.metadata > MAX_METADATA {
            return Err(Error::TooLarge("too many names and attributes"));
        }
        if [entry.uid, entry.gid].contains(&u32::MAX) {
            return Err(refused(entry, "its owner is not a valid ID"));
        }
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(refused(entry, "the root must be a directory"));
            }
            return self.describe(entry, ROOT);
        }
        let (parent_path, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, parent_path, name);
        }
        let parent = self.parent(entry, parent_path)?;
        let what = match entry.kind {
            Kind::Directory => return self.directory(entry, parent, name),
            Kind::HardLink => return self.hard_link(entry, parent, name),
            Kind::File => What::File { size: entry.size, data: place(entry, offset, sparse)? },
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > limits::MAX_PATH {
                    let reason = "the target of the link has a length that cannot be";
                    return Err(refused(entry, reason));
                }
                What::Symlink(entry.link.clone())
            }
            Kind::CharDevice if entry.device == (0, 0) => What::Whiteout,
            Kind::CharDevice | Kind::BlockDevice => {
                // What the kernel's own numbers have room for.
                if entry.device.0 >= 1 << 12 || entry.device.1 >= 1 << 20 {
                    return Err(refused(entry, "its device number is too large"));
                }
                What::Device { block: entry.kind == Kind::BlockDevice, number: entry.device }
            }
            Kind::Fifo => What::Fifo,
        };
        let node = node_of(entry, what)?;
        let id = self.push(node);
        self.insert(parent, name, id);
        Ok(())
    }

    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn children(&self, id: Id) -> Option<&Directory> {
        self.nodes.get(id).and_then(Node::directory)
    }

    fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.children(directory)?.children.get(name).copied()
    }

    fn insert(&mut self, directory: Id, name: &[u8], id: Id) {
        if let Some(directory) = self.nodes.get_mut(directory).and_then(Node::directory_mut) {
            directory.children.insert(name.to_vec(), id);
        }
    }

    /// The directory an entry is in.
    fn parent(&mut self, entry: &Entry, path: &[u8]) -> Result<Id> {
        self.find(path, true).map_err(|lost| match lost {
            Lost::NotDirectory(at) => {
                refused(entry, format!("{:?} is not a directory", shown(&at)))
            }
            Lost::TooManyLinks | Lost::Missing => {
                refused(entry, "too many links, or its root is gone")
            }
            Lost::TooDeep => refused(entry, "it is nested too deeply"),
        })
    }

    /// The directory at a path. Links are followed with the layer's root as `/`. With `make` what
    /// is missing is made, also at the end of links: a link to something that is missing is taken by
    /// its letters, so that `a/../b` makes no `a`, as unpacking does.
    fn find(&mut self, path: &[u8], make: bool) -> Result<Id, Lost> {
        let mut links = 0;
        if !make {
            let above = self.follow(vec![ROOT], path, &mut links)?;
            return Ok(above.last().copied().unwrap_or(ROOT));
        }
        let mut above = vec![ROOT];
        // The names that led to where we are.
        let mut spelled: Vec<u8> = Vec::new();
        let reversed = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect()
        };
        let mut names = reversed(&clean_in_root(path));
        while let Some(name) = names.pop() {
            if name.is_empty() {
                continue;
            }
            let at = above.last().copied().unwrap_or(ROOT);
            let child = match self.child(at, &name) {
                Some(child) => child,
                None => {
                    if name.len() > limits::MAX_NAME {
                        return Err(Lost::NotDirectory(name));
                    }
                    let child = self.make_implied(at)?;
                    self.insert(at, &name, child);
                    child
                }
            };
            match self.nodes.get(child).map(|node| &node.what) {
                Some(What::Directory(_)) => above.push(child),
                Some(What::Symlink(target)) => {
                    let target = target.clone();
                    match self.follow(above.clone(), &target, &mut links) {
                        Ok(there) => above = there,
                        Err(Lost::Missing) => {
                            let full = match target.strip_prefix(b"/") {
                                Some(absolute) => absolute.to_vec(),
                                None => join(&spelled, &target),
                            };
                            names.extend(reversed(&clean_in_root(&full)));
                            above.truncate(1);
                            spelled.clear();
                            continue;
                        }
                        Err(lost) => return Err(lost),
                    }
                }
                _ => return Err(Lost::NotDirectory(path.to_vec())),
            }
            spelled = join(&spelled, &name);
        }
        Ok(above.last().copied().unwrap_or(ROOT))
    }

    /// Goes from a directory, given by those above it, along a path of which all is there.
    fn follow(&self, mut above: Vec<Id>, path: &[u8], links: &mut usize) -> Result<Vec<Id>, Lost> {
        *links += 1;
        if path.starts_with(b"/") {
            above.truncate(1);
        }
        let mut names: Vec<Vec<u8>> =
            path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        while let Some(name) = names.pop() {
            if *links > MAX_LINKS {
                return Err(Lost::TooManyLinks);
            }
            let at = above.last().copied().unwrap_or(ROOT);
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if above.len() > 1 {
                        above.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let child = self.child(at, &name).ok_or(Lost::Missing)?;
            match self.nodes.get(child).map(|node| &node.what) {
                Some(What::Directory(_)) => above.push(child),
                Some(What::Symlink(target)) => {
                    *links += 1;
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    names.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => return Err(Lost::NotDirectory(path.to_vec())),
            }
        }
        Ok(above)
    }

    fn make_implied(&mut self, parent: Id) -> Result<Id, Lost> {
        let depth = self.depth_below(parent);
        if depth > MAX_DEPTH || self.nodes.len() >= MAX_NODES {
            return Err(Lost::TooDeep);
        }
        Ok(self.push(Node::implied(depth)))
    }

    fn depth_below(&self, parent: Id) -> u16 {
        self.children(parent).map_or(0, |parent| parent.depth.saturating_add(1))
    }

    fn directory(&mut self, entry: &Entry, parent: Id, name: &[u8]) -> Result<()> {
        let there = self.child(parent, name);
        let what = there.and_then(|id| self.nodes.get(id)).map(|node| &node.what);
        let id = match (there, what) {
            (Some(id), Some(What::Directory(_))) => id,
            (_, what) => {
                // The archive hid what was below and now puts its own there.
                let opaque = matches!(what, Some(What::Whiteout));
                let depth = self.depth_below(parent);
                if depth > MAX_DEPTH {
                    return Err(refused(entry, "it is nested too deeply"));
                }
                let mut node = Node::implied(depth);
                if let Some(directory) = node.directory_mut() {
                    directory.opaque = opaque;
                }
                let id = self.push(node);
                self.insert(parent, name, id);
                id
            }
        };
        self.describe(entry, id)
    }

    /// Gives a directory the attributes of its entry.
    fn describe(&mut self, entry: &Entry, id: Id) -> Result<()> {
        let new = attributes(entry)?;
        let Some(node) = self.nodes.get_mut(id) else { return Ok(()) };
        (node.mode, node.uid, node.gid, node.mtime) =
            (mode(entry), entry.uid, entry.gid, entry.mtime);
        for (name, value) in new {
            match node.xattrs.binary_search_by(|(known, _)| known.cmp(&name)) {
                Ok(at) => node.xattrs.splice(at..=at, [(name, value)]).for_each(drop),
                Err(at) => node.xattrs.insert(at, (name, value)),
            }
        }
        bounded(entry, &node.xattrs)?;
        if let Some(directory) = node.directory_mut() {
            directory.implied = false;
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent: Id, name: &[u8]) -> Result<()> {
        let Some(target) = clean(&entry.link).filter(|target| !target.is_empty()) else {
            let reason = "it is a hard link that leads out of the root directory";
            return Err(refused(entry, reason));
        };
        let (target_parent, target_name) = split(&target);
        let found = match self.find(target_parent, false) {
            Ok(directory) => self.child(directory, target_name),
            Err(_) => None,
        };
        let Some(id) = found else {
            let link = shown(&entry.link);
            let reason = format!("it is a hard link to {link:?}, which does not exist");
            return Err(refused(entry, reason));
        };
        if self.children(id).is_some() {
            return Err(refused(entry, "it is a hard link to a directory"));
        }
        self.insert(parent, name, id);
        Ok(())
    }

    /// Image specification, "Whiteouts".
    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let make_opaque = |tree: &mut LayerTree, id: Id| {
            if let Some(directory) = tree.nodes.get_mut(id).and_then(Node::directory_mut) {
                directory.opaque = true;
            }
        };
        if name == WHITEOUT_OPAQUE {
            let parent = self.parent(entry, parent_path)?;
            make_opaque(self, parent);
            return Ok(());
        }
        // Bookkeeping of a file system nobody has any more.
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = name.get(WHITEOUT.len()..).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(entry, "it is a whiteout of nothing"));
        }
        let parent = self.parent(entry, parent_path)?;
        match self.child(parent, hidden) {
            // A whiteout is about the layers below. Of this layer's own, a file hides them anyway;
            // a directory has to be told to.
            Some(id) => make_opaque(self, id),
            None => {
                let id = self.push(Node { what: What::Whiteout, ..Node::implied(0) });
                self.insert(parent, hidden, id);
            }
        }
        Ok(())
    }
}

fn mode(entry: &Entry) -> u16 {
    u16::try_from(entry.mode & 0o7777).unwrap_or(0)
}

fn node_of(entry: &Entry, what: What) -> Result<Node> {
    // A link's own mode means nothing; Linux shows this one.
    let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { mode(entry) };
    let xattrs = attributes(entry)?;
    bounded(entry, &xattrs)?;
    Ok(Node { what, mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs })
}

fn place(entry: &Entry, offset: u64, sparse: Option<SparseFile>) -> Result<Data> {
    if entry.size == 0 {
        return Ok(Data::Empty);
    }
    if let Some(SparseFile { bits, chunks }) = sparse {
        return Ok(Data::Chunks { device: Device::SIDE, bits, blocks: chunks });
    }
    if entry.size > MAX_DEVICE {
        return Err(refused(entry, "it is larger than a file can be"));
    }
    let block = u32::try_from(offset / BLOCK).ok().filter(|_| offset.is_multiple_of(BLOCK));
    let block = block.ok_or_else(|| refused(entry, "the archive is too large"))?;
    Ok(Data::Blocks { device: Device::ARCHIVE, block })
}

/// The attributes a kernel would let root set on such a file, sorted by name.
fn attributes(entry: &Entry) -> Result<Attributes> {
    let mut out = Attributes::new();
    for (name, value) in &entry.xattrs {
        let plain = matches!(entry.kind, Kind::File | Kind::Directory);
        let kept = match crate::write::name_index(name) {
            // Overlay's own attributes would let an archive hide or redirect what is below it.
            _ if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") => {
                false
            }
            // Namespaces the file system does not have.
            None => false,
            Some(_) if name.starts_with(b"user.") => plain,
            Some(_) if name == b"security.capability" => entry.kind == Kind::File,
            Some(_) if name.starts_with(b"system.posix_acl_") => {
                entry.kind != Kind::Symlink && is_access_list(value)
            }
            Some(_) => true,
        };
        if !kept {
            continue;
        }
        if name.len() > limits::MAX_NAME || value.len() > usize::from(u16::MAX) {
            let name = shown(name);
            return Err(refused(entry, format!("its attribute {name:?} is too large")));
        }
        out.retain(|(known, _)| known != name);
        out.push((name.clone(), value.clone()));
    }
    out.sort();
    Ok(out)
}

fn bounded(entry: &Entry, xattrs: &Attributes) -> Result<()> {
    let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    if bytes > MAX_ATTRIBUTES {
        return Err(refused(entry, "its extended attributes are too large"));
    }
    Ok(())
}

/// The form the kernel takes access lists in: version 2 and entries of eight bytes.
fn is_access_list(value: &[u8]) -> bool {
    value.starts_with(&[2, 0, 0, 0]) && value.len() > 4 && value.len() % 8 == 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SideFile;

    /// A header of 512 bytes can ask for a map of 128 KiB; not four million times.
    #[test]
    fn maps_of_sparse_files_are_bounded_together() {
        let mut tree = LayerTree::new();
        let mut entry = Entry::new("sparse", Kind::File, 0o644);
        entry.size = 1 << 26;
        let refused = (0..10_000).find_map(|_| {
            let place = SideFile::default().place(entry.size, &[]).unwrap();
            tree.add(&entry, 0, Some(place)).err()
        });
        assert_eq!(refused, Some(Error::TooLarge("too many names and attributes")));
    }
}
