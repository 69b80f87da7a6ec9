//! A network namespace that stands for a host, so that nothing of a test is in the machine's own.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;

use net::link::Links;
use net::netlink::Batch;

/// Lives as long as this, and as what runs in it.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, with its loopback switched on.
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            sys::namespace::unshare(sys::clone::NEWNET).unwrap();
            let fd = OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap());
            let mut batch = Batch::new();
            batch.up(1, true);
            Links::open().unwrap().commit(&mut batch).unwrap();
            fd
        });
        Self(made.join().unwrap())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A program that will run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        command.arg(format!("--net={path}")).arg(program);
        command
    }

    /// What `/proc/self/ns/net` is in it.
    pub(crate) fn link(&self) -> String {
        let stat = rustix::fs::fstat(&self.0).unwrap();
        format!("net:[{}]", stat.st_ino)
    }
}
