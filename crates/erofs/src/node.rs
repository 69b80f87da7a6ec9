//! One file of a tree, and what it is.

use std::collections::BTreeMap;

use oci::tar::Time;

/// Index of a node in its tree.
pub(crate) type Id = usize;

/// The root of every tree.
pub(crate) const ROOT: Id = 0;

/// Extended attributes, names with their namespace, sorted by name.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// A file of any kind, without its names: those are in directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) what: What,
    /// Permission bits with set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Attributes,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Directory(Directory),
    File {
        size: u64,
        data: Data,
    },
    Symlink(Vec<u8>),
    /// A character device, or a block device; major and minor number.
    Device {
        block: bool,
        number: (u32, u32),
    },
    Fifo,
    /// Says that a name of the layers below does not exist. None are left after merging.
    Whiteout,
}

/// What is in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) children: BTreeMap<Vec<u8>, Id>,
    /// Nothing of the layers below is seen in it.
    pub(crate) opaque: bool,
    /// The archive does not mention it, it only has files below it.
    pub(crate) implied: bool,
    /// Number of directories above it.
    pub(crate) depth: u16,
}

/// Where a file's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nowhere: the file is empty.
    Empty,
    /// In one piece, from this block on of that device.
    Blocks { device: Device, block: u32 },
    /// In chunks of `512 << bits` bytes, each at a block of the layer's side file or a hole.
    Chunks { device: Device, bits: u8, blocks: Vec<Option<u32>> },
}

/// Which device. In a layer's own tree [`Device::ARCHIVE`] or [`Device::SIDE`]; after merging the
/// number of the device in the image, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device(pub(crate) u16);

impl Device {
    pub(crate) const ARCHIVE: Device = Device(0);
    pub(crate) const SIDE: Device = Device(1);
}

impl Node {
    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Option<&mut Directory> {
        match &mut self.what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// A directory that no entry speaks of.
    pub(crate) fn implied(depth: u16) -> Node {
        let directory = Directory { implied: true, depth, ..Directory::default() };
        Node {
            what: What::Directory(directory),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Attributes::new(),
        }
    }
}
