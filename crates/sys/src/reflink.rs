//! Sharing bytes between files, where the file system can.

use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::file_clone_range;
use linux_raw_sys::ioctl::FICLONERANGE;

use crate::{Result, check};

/// `to` gets the bytes of `from` in this range at its own beginning, without their being copied: both files share them until
/// one is written to. Offset and length must be multiples of the file system's blocks.
///
/// # Errors
/// `OPNOTSUPP`, `XDEV`, `INVAL` and others where it can't be done; then nothing has changed.
pub fn share(from: BorrowedFd<'_>, offset: u64, length: u64, to: BorrowedFd<'_>) -> Result<()> {
    let range = file_clone_range {
        src_fd: from.as_raw_fd().into(),
        src_offset: offset,
        src_length: length,
        dest_offset: 0,
    };
    // SAFETY: the range is valid for the call, and the kernel only reads it; both descriptors are open.
    check(
        unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE as libc::Ioctl, &raw const range) }
            .into(),
    )
    .map(drop)
}
