//! Standard input, output and error: given, or a new terminal of the container's own.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::mounts;
use super::root::{Root, Target};
use crate::error::{Doing, Error, Result};
use crate::plan::Process;
use crate::report::Reporter;

pub(super) struct Stdio {
    fds: Option<[OwnedFd; 3]>,
    terminal: bool,
}

/// Takes what was given, or makes a terminal and reports its master. For a container's first
/// process (`console`) the terminal also appears as /dev/console.
pub(super) fn stdio(
    process: &Process,
    given: Option<[OwnedFd; 3]>,
    root: &Root,
    console: bool,
    report: &Reporter,
) -> Result<Stdio> {
    if let Some(fds) = given {
        // Numbers below 3 would be overwritten while the three are put in place.
        let mut moved = Vec::with_capacity(3);
        for fd in fds {
            moved.push(if fd.as_raw_fd() > 2 {
                fd
            } else {
                rustix::io::fcntl_dupfd_cloexec(&fd, 3).doing(|| "copy a descriptor".to_owned())?
            });
        }
        let fds = moved.try_into().ok();
        return Ok(Stdio { fds, terminal: process.terminal });
    }
    if !process.terminal {
        return Ok(Stdio { fds: None, terminal: false });
    }
    let doing = || "create a terminal from the container's /dev/pts".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root.at(Path::new("/dev/pts/ptmx"), flags).map_err(|errno| {
        if errno == sys::Errno::NOENT {
            Error::spec("process.terminal", "needs a devpts mount at /dev/pts in the container")
        } else {
            Error::System { doing: doing(), errno: errno.into() }
        }
    })?;
    rustix::pty::unlockpt(&master).doing(doing)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).doing(doing)?;
    if let Some((rows, columns)) = process.console_size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).doing(doing)?;
    }
    if console {
        let to = root.ensure(Path::new("/dev/console"), Target::File)?;
        let tree = mounts::clone_of(terminal.as_fd(), false).doing(doing)?;
        mounts::attach(tree.as_fd(), to.as_fd())
            .doing(|| "bind the terminal to /dev/console".to_owned())?;
    }
    report.console(master.as_fd())?;
    let copy = || terminal.try_clone().doing(doing);
    let fds = [copy()?, copy()?, copy()?];
    Ok(Stdio { fds: Some(fds), terminal: true })
}

impl Stdio {
    /// Puts the three in place. The files are given to the user so that the program can open them
    /// again through /dev/stdout.
    pub(super) fn install(self, process: &Process) -> Result<()> {
        if let Some(fds) = &self.fds {
            for (fd, number) in fds.iter().zip(sys::privilege::STDIO) {
                sys::fds::install(fd.as_fd(), number)
                    .doing(|| format!("install descriptor {number}"))?;
            }
            let [input, ..] = fds;
            if self.terminal {
                // Given descriptors need not be a terminal that can be taken over.
                match sys::terminal::make_controlling(input.as_fd()) {
                    Ok(()) | Err(sys::Errno::PERM | sys::Errno::NOTTY) => {}
                    Err(errno) => {
                        return Err(errno).doing(|| "take the terminal".to_owned());
                    }
                }
            }
        }
        if super::unprivileged(process) {
            for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
                give(fd, process.uid)?;
            }
        }
        Ok(())
    }
}

fn give(fd: std::os::fd::BorrowedFd<'_>, uid: u32) -> Result<()> {
    let doing = || "give standard input, output and error to the user".to_owned();
    let stat = match rustix::fs::fstat(fd) {
        Ok(stat) => stat,
        Err(sys::Errno::BADF) => return Ok(()),
        Err(errno) => return Err(errno).doing(doing),
    };
    let null = stat.st_rdev == rustix::fs::makedev(1, 3);
    if stat.st_uid == uid || null {
        return Ok(());
    }
    match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None) {
        // Files of another user namespace, read-only filesystems, sockets.
        Ok(())
        | Err(sys::Errno::PERM | sys::Errno::INVAL | sys::Errno::ROFS | sys::Errno::OVERFLOW) => {
            Ok(())
        }
        Err(errno) => Err(errno).doing(doing),
    }
}
