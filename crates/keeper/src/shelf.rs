//! Where the descriptors lie that the keeper holds for its containers: at high numbers, apart from those that come and go.
//!
//! A child is given copies of its caller's descriptors, several for each container that runs, and would close them one by
//! one. Those on the shelf it need not be given ([`runtime::Descriptors::own_from`]).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::io::Errno;

/// The shelf's first number. What is below is enough for a thousand clients and the start that is made for one.
const SHELF: RawFd = 1024;
/// So many containers make it worth while: with fewer it takes longer to hear that the child has left our table than to
/// let it close its copies.
const WORTH_WHILE: usize = 100;

/// The limit of open files (soft, hard) that the keeper has inherited.
static INHERITED: OnceLock<(u64, u64)> = OnceLock::new();

/// Lets this process and those it forks have as many files open as it may allow itself. Usually that is a hundred times
/// what whoever started the first container has, which would be spent with a few hundred containers.
pub(crate) fn raise_limit() -> Result<(), runtime::Error> {
    let resource = runtime::rlimit::number("NOFILE")?;
    if let Ok((soft, hard)) = sys::privilege::get_rlimit(0, resource)
        && soft < hard
        && sys::privilege::set_rlimit(0, resource, hard, hard).is_ok()
    {
        let _ = INHERITED.set((soft, hard));
    }
    Ok(())
}

/// What programs get for it: see [`runtime::Descriptors::open_files`].
pub(crate) fn inherited_limit() -> Option<(u64, u64)> {
    INHERITED.get().copied()
}

/// Gives a helper of the engine what the keeper has inherited, for it may start the next keeper.
pub(crate) fn set_limit_back(helper: &std::process::Child) {
    if let (Some((soft, hard)), Ok(resource), Ok(pid)) =
        (inherited_limit(), runtime::rlimit::number("NOFILE"), i32::try_from(helper.id()))
    {
        let _ = sys::privilege::set_rlimit(pid, resource, soft, hard);
    }
}

/// What to do about an error, if it is that the keeper can have no more files open.
pub(crate) fn explain(message: &str, errno: Option<i32>) -> String {
    if errno != Some(Errno::MFILE.raw_os_error()) {
        return message.to_owned();
    }
    format!(
        "{message}: the keeper has as many files open as it may, up to three for each running container; \
         raise the hard limit of open files (ulimit -Hn) of whoever starts the first one"
    )
}

/// Puts a descriptor there. Where limits forbid such numbers it stays where it is.
pub(crate) fn put(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= SHELF { fd } else { copy(&fd).unwrap_or(fd) }
}

/// A copy that lies there, if possible.
pub(crate) fn copy(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = fd.as_fd();
    rustix::io::fcntl_dupfd_cloexec(fd, SHELF).or_else(|_| rustix::io::fcntl_dupfd_cloexec(fd, 3))
}

/// For [`runtime::Descriptors::own_from`].
pub(crate) fn own_from(containers: usize) -> Option<u32> {
    (containers >= WORTH_WHILE).then_some(SHELF.unsigned_abs())
}
