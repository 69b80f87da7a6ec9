//! The tar format: POSIX ustar with pax headers, and the GNU extensions that occur in images.
//!
//! [`TarReader`] turns bytes into [`Entry`]s, [`TarWriter`] entries into bytes. Both are our own
//! because a layer needs more of the format than general libraries give: bounded metadata, both kinds
//! of sparse files, raw names and extended attributes, times to the nanosecond, and a reader
//! that hands out its buffer so that content is copied once.

mod header;
pub mod path;
mod pax;
mod reader;
mod writer;

pub(crate) use header::looks_like_header;
pub use reader::TarReader;
pub use writer::TarWriter;

/// What a tar entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A time: seconds since the epoch and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, possibly before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forwards.
    pub nanoseconds: u32,
}

/// One entry of an archive, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive: raw bytes, not cleaned.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Length of the file in bytes; for a sparse file with its holes.
    pub size: u64,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, names with their namespace.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file the (offset, length) of each piece of data that follows.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// An entry with everything else empty.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

const BLOCK: usize = 512;

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
