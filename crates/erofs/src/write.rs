//! The bytes of an image. `docs/format-erofs.md` describes the layout.

use std::collections::VecDeque;

use crate::merge::Tree;
use crate::node::{Attributes, Data, Device, Directory, Id, Node, ROOT, What};
use crate::{BLOCK, Error, Result};

const BLOCK_BITS: u8 = 9;
const BLOCK_BYTES: usize = 1 << BLOCK_BITS;
/// Nodes begin at multiples of this; their number is the position in these.
const SLOT: usize = 32;
const SUPERBLOCK: usize = 1024;
const SUPERBLOCK_SIZE: usize = 128;
const DEVICE_SLOT: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Times of extended inodes are those of modification.
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
/// The image's length is a multiple of this.
const PAGE: usize = 4096;
/// Largest image: nodes are numbered with more bits, but this is far beyond any use.
const MAX_IMAGE: usize = 2 << 30;

const DIRENT: usize = 12;
const XATTR_HEADER: usize = 12;
const CHUNK_INDEX: usize = 8;
const CHUNK_INDEXES: u16 = 0x20;
/// The largest chunk is `512 << 31` bytes.
const MAX_CHUNK_BITS: u8 = 31;
const HOLE: u32 = u32::MAX;

/// How a node's data is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// In blocks of the image, or nowhere.
    Plain = 0,
    /// The last, incomplete block follows the inode.
    Inline = 2,
    /// In chunks of devices.
    Chunks = 4,
}

/// Where everything of a node goes.
struct Placed {
    id: Id,
    parent: usize,
    position: usize,
    compact: bool,
    layout: Layout,
    links: u32,
    /// Content of directories and links.
    content: Content,
    /// First block in the image of what is not inline.
    blocks: u32,
    chunks: Option<Chunks>,
}

/// The content of a directory is made last, when the numbers of all nodes are known.
enum Content {
    None,
    Bytes(Vec<u8>),
    Directory { size: usize },
}

impl Content {
    fn size(&self) -> usize {
        match self {
            Content::None => 0,
            Content::Bytes(bytes) => bytes.len(),
            Content::Directory { size } => *size,
        }
    }
}

struct Chunks {
    bits: u8,
    count: usize,
}

/// The number of a namespace of attributes, and the length of the prefix that stands for it.
pub(crate) fn name_index(name: &[u8]) -> Option<(u8, usize)> {
    let prefixes: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    match name {
        b"system.posix_acl_access" => Some((2, name.len())),
        b"system.posix_acl_default" => Some((3, name.len())),
        _ => prefixes
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix) && name.len() > prefix.len())
            .map(|(prefix, index)| (*index, prefix.len())),
    }
}

fn align(position: usize, to: usize) -> usize {
    position.next_multiple_of(to)
}

fn xattr_size(xattrs: &Attributes) -> usize {
    let entries: usize = xattrs
        .iter()
        .filter_map(|(name, value)| {
            let (_, prefix) = name_index(name)?;
            Some(align(4 + name.len() - prefix + value.len(), 4))
        })
        .sum();
    if entries == 0 { 0 } else { XATTR_HEADER + entries }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = at.checked_add(bytes.len()).and_then(|end| out.get_mut(at..end)) {
        to.copy_from_slice(bytes);
    }
}

impl Tree {
    /// The image. `uuid` is its name, which should follow from the layers.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it would have more than 2 GiB.
    pub fn write(&self, uuid: [u8; 16]) -> Result<Vec<u8>> {
        let mut writer = Writer { tree: self, placed: Vec::new(), numbers: Vec::new() };
        writer.order();
        let size = writer.place()?;
        writer.bytes(size, uuid)
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    /// Nodes in the order in which they are written.
    placed: Vec<Placed>,
    /// For each node of the tree its place in `placed`.
    numbers: Vec<Option<usize>>,
}

impl Writer<'_> {
    fn node(&self, id: Id) -> Option<&Node> {
        self.tree.nodes.get(id)
    }

    /// Directories breadth first, so that what a directory contains lies together.
    fn order(&mut self) {
        self.numbers = vec![None; self.tree.nodes.len()];
        let mut queue = VecDeque::from([ROOT]);
        self.number(ROOT, 0);
        while let Some(id) = queue.pop_front() {
            let Some(directory) = self.tree.nodes.get(id).and_then(Node::directory) else {
                continue;
            };
            let above = self.numbers.get(id).copied().flatten().unwrap_or(0);
            let mut directories: u32 = 0;
            for child in directory.children.values() {
                let known = self.numbers.get(*child).copied().flatten();
                match known.and_then(|number| self.placed.get_mut(number)) {
                    // Another name of a file.
                    Some(placed) => placed.links = placed.links.saturating_add(1),
                    None => {
                        self.number(*child, above);
                        if self.node(*child).is_some_and(|node| node.directory().is_some()) {
                            directories = directories.saturating_add(1);
                            queue.push_back(*child);
                        }
                    }
                }
            }
            if let Some(placed) = self.placed.get_mut(above) {
                placed.links = directories.saturating_add(2);
            }
        }
    }

    fn number(&mut self, id: Id, parent: usize) {
        if let Some(number) = self.numbers.get_mut(id) {
            *number = Some(self.placed.len());
        }
        self.placed.push(Placed {
            id,
            parent,
            position: 0,
            compact: false,
            layout: Layout::Plain,
            links: 1,
            content: Content::None,
            blocks: 0,
            chunks: None,
        });
    }

    /// Gives every node its position, and returns the length of the image.
    fn place(&mut self) -> Result<usize> {
        let devices = self.tree.devices.len();
        let mut position = align(SUPERBLOCK + SUPERBLOCK_SIZE, DEVICE_SLOT) + devices * DEVICE_SLOT;
        let mut placed = std::mem::take(&mut self.placed);
        let mut long = Vec::new();
        for (number, place) in placed.iter_mut().enumerate() {
            let Some(node) = self.tree.nodes.get(place.id) else { continue };
            (place.content, place.chunks) = match &node.what {
                What::Directory(directory) => {
                    (Content::Directory { size: directory_size(directory) }, None)
                }
                What::Symlink(target) => (Content::Bytes(target.clone()), None),
                What::File { size, data } => (Content::None, chunks(*size, data)),
                _ => (Content::None, None),
            };
            place.compact = is_compact(node, place);
            let head = if place.compact { 32 } else { 64 } + xattr_size(&node.xattrs);
            let size = place.content.size();
            let tail = size % BLOCK_BYTES;
            position = align(position, SLOT);
            let end;
            if let Some(chunks) = &place.chunks {
                place.layout = Layout::Chunks;
                end = align(position + head, CHUNK_INDEX) + chunks.count * CHUNK_INDEX;
            } else {
                // The tail must lie within one block; a gap may be left for that, if the two
                // together are not more than the block it saves.
                let fits = (0..BLOCK_BYTES / SLOT).map(|n| n * SLOT).find(|gap| {
                    (position + gap + head) % BLOCK_BYTES + tail <= BLOCK_BYTES
                        && gap + tail <= BLOCK_BYTES
                });
                match fits {
                    Some(gap) if tail > 0 => {
                        place.layout = Layout::Inline;
                        position += gap;
                        end = position + head + tail;
                    }
                    _ => end = position + head,
                }
                let whole = match place.layout {
                    Layout::Inline => size - tail,
                    _ => size,
                };
                if whole > 0 {
                    long.push((number, whole));
                }
            }
            place.position = position;
            position = end;
            if position > MAX_IMAGE {
                return Err(Error::TooLarge("too much metadata"));
            }
        }
        let mut block = position.div_ceil(BLOCK_BYTES);
        for (number, whole) in long {
            if let Some(place) = placed.get_mut(number) {
                place.blocks = u32::try_from(block).unwrap_or(u32::MAX);
            }
            block += whole.div_ceil(BLOCK_BYTES);
        }
        self.placed = placed;
        let size = align(block * BLOCK_BYTES, PAGE);
        if size > MAX_IMAGE {
            return Err(Error::TooLarge("too much metadata"));
        }
        Ok(size)
    }

    /// The number by which directories name a node.
    fn nid(&self, placed: usize) -> u64 {
        self.placed.get(placed).map_or(0, |place| (place.position / SLOT) as u64)
    }

    fn bytes(&self, size: usize, uuid: [u8; 16]) -> Result<Vec<u8>> {
        let mut out = vec![0; size];
        self.superblock(&mut out, uuid)?;
        for (number, place) in self.placed.iter().enumerate() {
            let Some(node) = self.node(place.id) else { continue };
            self.inode(&mut out, node, place, number);
            let mut at = place.position + if place.compact { 32 } else { 64 };
            at = write_xattrs(&mut out, at, &node.xattrs);
            if place.chunks.is_some() {
                write_chunks(&mut out, align(at, CHUNK_INDEX), node, place);
                continue;
            }
            let content = match (&place.content, node.directory()) {
                (Content::Bytes(bytes), _) => bytes.clone(),
                (Content::Directory { .. }, Some(directory)) => {
                    self.directory(directory, number, place.parent)
                }
                _ => continue,
            };
            let whole = match place.layout {
                Layout::Inline => content.len() - content.len() % BLOCK_BYTES,
                _ => content.len(),
            };
            let (blocks, tail) = content.split_at(whole);
            put(&mut out, place.blocks as usize * BLOCK_BYTES, blocks);
            put(&mut out, at, tail);
        }
        Ok(out)
    }

    fn superblock(&self, out: &mut [u8], uuid: [u8; 16]) -> Result<()> {
        let root = u16::try_from(self.nid(0)).map_err(|_| Error::TooLarge("too many layers"))?;
        let blocks = u32::try_from(out.len() / BLOCK_BYTES).unwrap_or(u32::MAX);
        let devices = u16::try_from(self.tree.devices.len())
            .map_err(|_| Error::TooLarge("too many layers"))?;
        let table = align(SUPERBLOCK + SUPERBLOCK_SIZE, DEVICE_SLOT);
        let at = |offset: usize| SUPERBLOCK + offset;
        put(out, at(0), &MAGIC.to_le_bytes());
        put(out, at(8), &COMPAT_MTIME.to_le_bytes());
        put(out, at(12), &[BLOCK_BITS]);
        put(out, at(14), &root.to_le_bytes());
        put(out, at(16), &(self.placed.len() as u64).to_le_bytes());
        // The time for compact inodes, and that of making the image, stay 0.
        put(out, at(36), &blocks.to_le_bytes());
        put(out, at(48), &uuid);
        put(out, at(80), &(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
        put(out, at(86), &devices.to_le_bytes());
        let slot = u16::try_from(table / DEVICE_SLOT).unwrap_or(0);
        put(out, at(88), &slot.to_le_bytes());
        for (number, device) in self.tree.devices.iter().enumerate() {
            let at = table + number * DEVICE_SLOT;
            let mut tag = device.diff_id.hex().into_bytes();
            if device.side {
                // Both files of a layer have their own.
                tag.splice(..5, *b"side-");
            }
            tag.truncate(64);
            put(out, at, &tag);
            put(out, at + 64, &device.blocks.to_le_bytes());
        }
        Ok(())
    }

    fn inode(&self, out: &mut [u8], node: &Node, place: &Placed, number: usize) {
        let at = |offset: usize| place.position + offset;
        let format = u16::from(!place.compact) | (place.layout as u16) << 1;
        let xattrs = match xattr_size(&node.xattrs) {
            0 => 0,
            size => u16::try_from((size - XATTR_HEADER) / 4 + 1).unwrap_or(u16::MAX),
        };
        let file_type: u16 = match &node.what {
            What::File { .. } => 0o100_000,
            What::Directory(_) => 0o040_000,
            What::Symlink(_) => 0o120_000,
            What::Device { block: false, .. } | What::Whiteout => 0o020_000,
            What::Device { block: true, .. } => 0o060_000,
            What::Fifo => 0o010_000,
        };
        let size = match &node.what {
            What::File { size, .. } => *size,
            _ => place.content.size() as u64,
        };
        // What the four bytes mean depends on the kind of file and of layout.
        let detail: u32 = match (&node.what, &place.chunks) {
            (_, Some(chunks)) => u32::from(CHUNK_INDEXES | u16::from(chunks.bits)),
            (What::Device { number: (major, minor), .. }, _) => {
                (minor & 0xff) | major << 8 | (minor & !0xff) << 12
            }
            _ => place.blocks,
        };
        let ino = u32::try_from(number).unwrap_or(u32::MAX).wrapping_add(1);
        put(out, at(0), &format.to_le_bytes());
        put(out, at(2), &xattrs.to_le_bytes());
        put(out, at(4), &(file_type | node.mode).to_le_bytes());
        if place.compact {
            put(out, at(6), &(place.links as u16).to_le_bytes());
            put(out, at(8), &(size as u32).to_le_bytes());
            put(out, at(16), &detail.to_le_bytes());
            put(out, at(20), &ino.to_le_bytes());
            put(out, at(24), &(node.uid as u16).to_le_bytes());
            put(out, at(26), &(node.gid as u16).to_le_bytes());
        } else {
            put(out, at(8), &size.to_le_bytes());
            put(out, at(16), &detail.to_le_bytes());
            put(out, at(20), &ino.to_le_bytes());
            put(out, at(24), &node.uid.to_le_bytes());
            put(out, at(28), &node.gid.to_le_bytes());
            put(out, at(32), &node.mtime.seconds.to_le_bytes());
            put(out, at(40), &node.mtime.nanoseconds.to_le_bytes());
            put(out, at(44), &place.links.to_le_bytes());
        }
    }

    fn directory(&self, directory: &Directory, number: usize, parent: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for block in directory_blocks(directory) {
            out.resize(align(out.len(), BLOCK_BYTES), 0);
            let mut names = block.len() * DIRENT;
            let start = out.len();
            for entry in &block {
                let (target, kind) = match entry {
                    Dirent::This => (number, 2),
                    Dirent::Parent => (parent, 2),
                    Dirent::Child(_, id) => {
                        let number = self.numbers.get(*id).copied().flatten().unwrap_or(0);
                        (number, self.node(*id).map_or(0, file_type))
                    }
                };
                out.extend_from_slice(&self.nid(target).to_le_bytes());
                out.extend_from_slice(&u16::try_from(names).unwrap_or(0).to_le_bytes());
                out.extend_from_slice(&[kind, 0]);
                names += entry.name().len();
            }
            for entry in &block {
                out.extend_from_slice(entry.name());
            }
            debug_assert!(out.len() - start <= BLOCK_BYTES);
        }
        out
    }
}

/// The kinds of files as directories tell them.
fn file_type(node: &Node) -> u8 {
    match &node.what {
        What::File { .. } => 1,
        What::Directory(_) => 2,
        What::Device { block: false, .. } | What::Whiteout => 3,
        What::Device { block: true, .. } => 4,
        What::Fifo => 5,
        What::Symlink(_) => 7,
    }
}

/// The short form has no time but the image's, and smaller numbers.
fn is_compact(node: &Node, place: &Placed) -> bool {
    let size = match &node.what {
        What::File { size, .. } => *size,
        _ => place.content.size() as u64,
    };
    node.mtime == oci::tar::Time::default()
        && node.uid <= u32::from(u16::MAX)
        && node.gid <= u32::from(u16::MAX)
        && place.links <= u32::from(u16::MAX)
        && size <= u64::from(u32::MAX)
}

enum Dirent<'a> {
    This,
    Parent,
    Child(&'a [u8], Id),
}

impl Dirent<'_> {
    fn name(&self) -> &[u8] {
        match self {
            Dirent::This => b".",
            Dirent::Parent => b"..",
            Dirent::Child(name, _) => name,
        }
    }
}

/// The entries of a directory, sorted by the bytes of their names, in blocks.
fn directory_blocks(directory: &Directory) -> Vec<Vec<Dirent<'_>>> {
    let mut blocks = Vec::new();
    let mut block: Vec<Dirent<'_>> = Vec::new();
    let mut used = 0;
    // Some characters come before the dot.
    let (before, after): (Vec<_>, Vec<_>) =
        directory.children.iter().partition(|(name, _)| name.as_slice() < b".".as_slice());
    let (between, after): (Vec<_>, Vec<_>) =
        after.into_iter().partition(|(name, _)| name.as_slice() < b"..".as_slice());
    let entries = before
        .into_iter()
        .map(|(name, id)| Dirent::Child(name, *id))
        .chain([Dirent::This])
        .chain(between.into_iter().map(|(name, id)| Dirent::Child(name, *id)))
        .chain([Dirent::Parent])
        .chain(after.into_iter().map(|(name, id)| Dirent::Child(name, *id)));
    for entry in entries {
        let size = DIRENT + entry.name().len();
        if used + size > BLOCK_BYTES {
            blocks.push(std::mem::take(&mut block));
            used = 0;
        }
        used += size;
        block.push(entry);
    }
    blocks.push(block);
    blocks
}

/// Bytes of a directory: whole blocks, and what is used of the last.
fn directory_size(directory: &Directory) -> usize {
    let (mut blocks, mut used) = (0, 0);
    let mut add = |length: usize| {
        let size = DIRENT + length;
        if used + size > BLOCK_BYTES {
            blocks += 1;
            used = 0;
        }
        used += size;
    };
    let mut dots = [b".".as_slice(), b"..".as_slice()].into_iter().peekable();
    for name in directory.children.keys() {
        while let Some(dot) = dots.next_if(|dot| *dot < name.as_slice()) {
            add(dot.len());
        }
        add(name.len());
    }
    dots.for_each(|dot| add(dot.len()));
    blocks * BLOCK_BYTES + used
}

fn chunks(size: u64, data: &Data) -> Option<Chunks> {
    match data {
        Data::Empty => None,
        Data::Blocks { .. } => {
            // One chunk for the whole file, if a chunk can be that large.
            let mut bits = 0;
            while bits < MAX_CHUNK_BITS && BLOCK << bits < size {
                bits += 1;
            }
            let count = usize::try_from(size.div_ceil(BLOCK << bits)).unwrap_or(0);
            Some(Chunks { bits, count })
        }
        Data::Chunks { bits, blocks, .. } => Some(Chunks { bits: *bits, count: blocks.len() }),
    }
}

fn write_chunks(out: &mut [u8], at: usize, node: &Node, place: &Placed) {
    let (Some(chunks), What::File { data, .. }) = (&place.chunks, &node.what) else { return };
    let mut write = |number: usize, device: Device, block: Option<u32>| {
        let at = at + number * CHUNK_INDEX;
        let (device, block) = block.map_or((0, HOLE), |block| (device.0, block));
        put(out, at + 2, &device.to_le_bytes());
        put(out, at + 4, &block.to_le_bytes());
    };
    match data {
        Data::Empty => {}
        Data::Blocks { device, block } => {
            for number in 0..chunks.count {
                let step = u32::try_from((number as u64) << chunks.bits).unwrap_or(u32::MAX);
                write(number, *device, Some(block.saturating_add(step)));
            }
        }
        Data::Chunks { device, blocks, .. } => {
            for (number, block) in blocks.iter().enumerate() {
                write(number, *device, *block);
            }
        }
    }
}

/// Returns the position after the attributes.
fn write_xattrs(out: &mut [u8], at: usize, xattrs: &Attributes) -> usize {
    let size = xattr_size(xattrs);
    // The header stays zero: none are shared, and there is no filter of names.
    let mut position = at + XATTR_HEADER;
    for (name, value) in xattrs {
        let Some((index, prefix)) = name_index(name) else { continue };
        let short = name.get(prefix..).unwrap_or_default();
        let length = u8::try_from(short.len()).unwrap_or(0);
        put(out, position, &[length, index]);
        put(out, position + 2, &u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
        put(out, position + 4, short);
        put(out, position + 4 + short.len(), value);
        position += align(4 + short.len() + value.len(), 4);
    }
    at + size
}
