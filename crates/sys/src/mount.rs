//! `mount_setattr`.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// Read-only.
pub const RDONLY: u64 = 0x1;
/// Set-user-ID bits and file capabilities are ignored.
pub const NOSUID: u64 = 0x2;
/// Device files cannot be opened.
pub const NODEV: u64 = 0x4;
/// Programs cannot be executed.
pub const NOEXEC: u64 = 0x8;
/// The mask of the access time modes; must be in `clear` when a mode is in `set`.
pub const ATIME: u64 = 0x70;
/// Access times are not updated.
pub const NOATIME: u64 = 0x10;
/// Access times are always updated.
pub const STRICTATIME: u64 = 0x20;
/// Directories' access times are not updated.
pub const NODIRATIME: u64 = 0x80;
/// Identifiers are mapped through a user namespace.
pub const IDMAP: u64 = 0x10_0000;
/// Symbolic links are not followed.
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// What to change of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'fd> {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves the propagation.
    pub propagation: u64,
    /// The user namespace whose identifier maps the mount shall use (with [`IDMAP`] in `set`).
    pub user_namespace: Option<BorrowedFd<'fd>>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount `fd` refers to, and with `recursive` all mounts below it.
pub fn setattr(fd: BorrowedFd<'_>, change: Change<'_>, recursive: bool) -> Result<()> {
    let attr = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { 0x8000 } else { 0 };
    // SAFETY: the path is an empty C string, `attr` is a mount_attr of the size passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Changes the propagation of every mount of this namespace, from the root down: `MS_PRIVATE` and
/// the like, applied recursively.
pub fn set_propagation_of_all(propagation: u64) -> Result<()> {
    // SAFETY: all strings are null or C strings; MS_REC with a propagation flag takes no data.
    check(
        unsafe {
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | propagation,
                std::ptr::null(),
            )
        }
        .into(),
    )
    .map(drop)
}

/// `MS_PRIVATE`
pub const PRIVATE: u64 = libc::MS_PRIVATE;
/// `MS_SLAVE`
pub const SLAVE: u64 = libc::MS_SLAVE;
/// `MS_SHARED`
pub const SHARED: u64 = libc::MS_SHARED;
/// `MS_UNBINDABLE`
pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
