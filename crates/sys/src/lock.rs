//! Record locks that belong to an open file, not to a process.

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, check};

/// Places a shared lock on `length` bytes from `start`, without waiting. It is held as long as any
/// copy of the descriptor is open, in this process or in those forked from it.
pub fn share(fd: impl AsFd, start: i64, length: i64) -> Result<()> {
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel only reads the structure, which lives until the call returns.
    check(unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    #[test]
    fn two_may_share() {
        let path = std::env::temp_dir().join(format!("wherry-lock-{}", std::process::id()));
        let options =
            || std::fs::File::options().read(true).write(true).create(true).truncate(true).clone();
        let (one, two) = (options().open(&path).unwrap(), options().open(&path).unwrap());
        super::share(&one, 128, 1).unwrap();
        super::share(two.as_fd(), 128, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let write_only = std::fs::File::create(&path).unwrap();
        assert!(super::share(&write_only, 0, 1).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
