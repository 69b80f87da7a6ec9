//! `sync_file_range`: telling the kernel to begin writing to the disk.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, Result, check};

/// Begins to write `length` bytes from `offset` on, without waiting. A hint: it makes nothing
/// durable by itself, but a later `fsync` has less to wait for.
pub fn begin(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let length = i64::try_from(length).map_err(|_| Errno::INVAL)?;
    // SAFETY: only integers are passed.
    check(
        unsafe {
            libc::sync_file_range(fd.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
        }
        .into(),
    )
    .map(drop)
}
