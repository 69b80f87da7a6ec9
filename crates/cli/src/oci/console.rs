//! Terminals: handing the master to the caller's socket, and connecting it to ours.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Terminal and socket come together where nobody stays to hold the master.
pub(super) fn check(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<()> {
    match (terminal, detached, socket) {
        (true, true, None) => {
            bail!("a terminal needs --console-socket when the command does not stay")
        }
        (false, _, Some(_)) => {
            bail!("--console-socket is given, but process.terminal is not set")
        }
        (true, false, Some(_)) => bail!("--console-socket is for detached containers"),
        _ => Ok(()),
    }
}

/// Sends the master over the caller's socket.
pub(super) fn hand_over(socket: &Path, master: &OwnedFd) -> Result<()> {
    let stream = std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("connect to the console socket {}", socket.display()))?;
    sys::socket::send_with_fds(&stream, b"/dev/ptmx", &[master.as_fd()], true)
        .with_context(|| format!("send the terminal to {}", socket.display()))?;
    Ok(())
}

/// Connects standard input and output with a master.
pub(super) struct Relay {
    master: OwnedFd,
    saved: Option<Termios>,
    input: bool,
    output: bool,
}

impl Relay {
    pub(super) fn start(master: OwnedFd) -> Result<Relay> {
        let stdin = rustix::stdio::stdin();
        let saved = tcgetattr(stdin).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw).context("set the terminal to raw mode")?;
        }
        let relay = Relay { master, saved, input: true, output: true };
        relay.resize();
        Ok(relay)
    }

    /// Makes the container's terminal as large as ours.
    pub(super) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    pub(super) fn interests(&self) -> Vec<PollFd<'_>> {
        let none = PollFlags::empty();
        vec![
            PollFd::new(&self.master, if self.output { PollFlags::IN } else { none }),
            PollFd::from_borrowed_fd(
                rustix::stdio::stdin(),
                if self.input { PollFlags::IN } else { none },
            ),
        ]
    }

    pub(super) fn step(&mut self, ready: &[PollFlags]) {
        if self.output && ready.first().is_some_and(|flags| !flags.is_empty()) {
            self.output = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
        if self.input && ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            self.input = copy(rustix::stdio::stdin(), self.master.as_fd());
            if !self.input {
                // An end of file on a terminal is a character.
                let _ = rustix::io::write(&self.master, &[4]);
            }
        }
    }

    /// Prints what the program wrote before it ended.
    pub(super) fn drain(&mut self) {
        let Ok(flags) = rustix::fs::fcntl_getfl(&self.master) else { return };
        let _ = rustix::fs::fcntl_setfl(&self.master, flags | rustix::fs::OFlags::NONBLOCK);
        while copy(self.master.as_fd(), rustix::stdio::stdout()) {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// Copies what is there; false at the end or after an error.
fn copy(from: std::os::fd::BorrowedFd<'_>, to: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 32 * 1024];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(sys::Errno::INTR) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(sys::Errno::INTR) => {}
            Err(sys::Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                if rustix::event::poll(&mut fds, None).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
