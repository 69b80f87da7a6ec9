//! A command on a terminal.
#![allow(dead_code, clippy::unwrap_used)]

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A command on a terminal of its own.
pub(crate) struct Screen {
    master: OwnedFd,
    slave: OwnedFd,
    child: Child,
    /// What it has shown since somebody last looked.
    pub(crate) seen: String,
}

impl Screen {
    /// Starts it, with all three of its streams on the terminal.
    pub(crate) fn new(command: &mut Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        let end = || slave.try_clone().unwrap();
        size(&master, 31, 97);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master, slave, child, seen: String::new() }
    }

    pub(crate) fn kill(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        size(&self.master, rows, cols);
        // It is nobody's controlling terminal, so the kernel tells nobody.
        self.kill(Signal::WINCH);
    }

    pub(crate) fn types(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).unwrap();
    }

    pub(crate) fn read(&mut self) {
        let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&wait)).unwrap() > 0 {
            let mut buffer = [0; 4096];
            let n = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    /// Reads until the text was there.
    pub(crate) fn until(&mut self, text: &str) {
        wait_for(text, || {
            self.read();
            self.seen.contains(text)
        });
        self.seen.clear();
    }

    pub(crate) fn end(&mut self) -> i32 {
        let mut code = None;
        wait_for("the end of the command", || {
            self.read();
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        self.read();
        code.unwrap().code().unwrap_or(-1)
    }

    /// Whether what is typed is shown.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(self.slave.as_fd()).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(self.slave.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON)
    }
}

fn size(master: &OwnedFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}
