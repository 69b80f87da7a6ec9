//! What a container takes from another that runs: its namespaces, and mounts of its.

use std::os::fd::{AsFd, OwnedFd};

use runtime::plan::Namespace;
use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result, errno};
use crate::record::{self, Record};

impl Engine {
    fn peer(&self, name: &str) -> Result<(Record, OwnedFd)> {
        let peer = record::find(self.db(), name)?;
        if !peer.state.is_live() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "cannot join the namespace of a non running container: container {} is {}",
                    peer.name,
                    peer.state.name()
                ),
            ));
        }
        let pidfd = peer.identity().open()?;
        Ok((peer, pidfd))
    }

    pub(crate) fn namespace_of_peer(&self, name: &str, kind: Namespace) -> Result<OwnedFd> {
        let (peer, _pidfd) = self.peer(name)?;
        if kind == Namespace::Ipc && peer.definition.host.ipc_mode == "private" {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "cannot join IPC namespace of {}: non-shareable IPC (start it with --ipc shareable)",
                    peer.name
                ),
            ));
        }
        // The pidfd, open until here, keeps the number from being another process's.
        let path = format!("/proc/{}/ns/{}", peer.pid, kind.file_name());
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| errno(format!("cannot open {path}"), e))
    }

    pub(crate) fn shm_of_peer(&self, mode: &str) -> Result<OwnedFd> {
        let (_, pidfd) = self.peer(mode.strip_prefix("container:").unwrap_or(mode))?;
        clone_mount_of(pidfd, c"/dev/shm")
    }
}

/// A copy of one mount of a process, detached, without what is mounted below it.
///
/// The kernel copies only mounts of the caller's own mount namespace, so a thread goes
/// into the other one. It stops sharing its root directory with us first, or we would go
/// along.
pub(crate) fn clone_mount_of(process: OwnedFd, path: &'static std::ffi::CStr) -> Result<OwnedFd> {
    /// CLONE_FS: the root and working directories.
    const FS: u64 = 0x200;
    let there = move || -> Result<OwnedFd, rustix::io::Errno> {
        sys::namespace::unshare(FS)?;
        sys::namespace::setns(process.as_fd(), sys::clone::NEWNS)?;
        rustix::mount::open_tree(
            rustix::fs::CWD,
            path,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
    };
    let what = || format!("cannot copy the mount {} of another container", path.to_string_lossy());
    std::thread::Builder::new()
        .spawn(there)
        .map_err(|e| Error::system(what(), e))?
        .join()
        .unwrap_or(Err(rustix::io::Errno::IO))
        .map_err(|e| errno(what(), e))
}
