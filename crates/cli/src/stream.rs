//! Joins this terminal to a container's streams: one loop over standard input, the
//! connection and the signals that arrive here.
//!
//! The terminal is put into raw mode while it lasts and put back on every way out: return,
//! error, signal and panic.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use engine::Frame;
use engine::detach::Finder;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::door::Attachment;
use crate::failure::Failure;

const SIGWINCH: i32 = 28;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The program ended with this code.
    Exit(i32),
    /// The person typed the detach keys.
    Detached,
    /// The other side closed the connection without an exit code.
    Closed,
    /// This process was asked to end by a signal that is not passed on.
    Signal(i32),
}

/// What to join.
pub(crate) struct Join<'a> {
    /// Pass standard input on.
    pub(crate) stdin: bool,
    /// The container has a terminal.
    pub(crate) tty: bool,
    /// What detaches, as bytes; empty never does.
    pub(crate) keys: Vec<u8>,
    /// Gets each signal that arrives here; `None` lets them end this process.
    pub(crate) proxy: Option<&'a mut dyn FnMut(i32)>,
}

/// What the terminal was before raw mode; a panic has no other way to learn it.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> std::sync::MutexGuard<'static, Option<Termios>> {
    match SAVED.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Raw mode of standard input, until dropped.
struct Raw;

impl Raw {
    /// Raw mode, when standard input is a terminal.
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        *saved() = Some(before);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            default(info);
        }));
        if tcsetattr(&stdin, OptionalActions::Now, &raw).is_err() {
            saved().take();
            return None;
        }
        Some(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // `try_lock`, because a panic may come while the lock is held.
    if let Ok(mut guard) = SAVED.try_lock()
        && let Some(before) = guard.take()
    {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Docker's check before a terminal is joined to a container's.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Result<(), Failure> {
    if attach_stdin && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::new(1, "the input device is not a TTY").bare());
    }
    Ok(())
}

/// Rows and columns of the terminal, when there is one.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Signals that end or resize; with a proxy, all that can be passed on.
fn watched(proxy: bool) -> Vec<i32> {
    if !proxy {
        return vec![1, 2, 3, 15, SIGWINCH];
    }
    // Not the ones that can't be caught, that report a fault of this process, or that
    // are about this process alone: children, pipes, terminal access, urgent data.
    let own = [4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 21, 22, 23, 31];
    (1..=31).filter(|n| !own.contains(n)).chain(34..=64).collect()
}

/// Writes all of it, past what the standard library would buffer.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                poll(&mut fds, None)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Runs until the program ends, the keys are typed or the connection closes.
pub(crate) fn join(mut attachment: Attachment, mut options: Join<'_>) -> anyhow::Result<End> {
    let signals = sys::signal::block_and_watch(&watched(options.proxy.is_some()))
        .map_err(std::io::Error::from)?;
    let _raw = if options.stdin && options.tty { Raw::enter() } else { None };
    if options.tty
        && let Some((rows, columns)) = window()
    {
        // The program may have ended already; its exit code comes below.
        let _ = attachment.resize(rows, columns);
    }
    let mut pump = Pump {
        keys: Finder::new(std::mem::take(&mut options.keys)),
        use_keys: options.tty,
        reading: options.stdin,
        pending: Vec::new(),
        at_end: false,
    };
    loop {
        if let Some(end) = drain(&mut attachment)? {
            return Ok(end);
        }
        let ready = wait(&attachment, &signals, &pump)?;
        if ready.signal {
            while let Some(signal) =
                sys::signal::next(signals.as_fd()).map_err(std::io::Error::from)?
            {
                if signal == SIGWINCH {
                    if options.tty
                        && let Some((rows, columns)) = window()
                    {
                        let _ = attachment.resize(rows, columns);
                    }
                    continue;
                }
                match options.proxy.as_mut() {
                    Some(proxy) => proxy(signal),
                    None => return Ok(End::Signal(signal)),
                }
            }
        }
        if ready.writable {
            pump.push(&mut attachment)?;
        }
        if ready.stdin && pump.pull(&mut attachment)? {
            return Ok(End::Detached);
        }
    }
}

/// Prints every frame there is.
fn drain(attachment: &mut Attachment) -> anyhow::Result<Option<End>> {
    while let Some(frame) = attachment.read()? {
        match frame {
            Frame::Stdout(bytes) => write_all(std::io::stdout().as_fd(), &bytes)?,
            Frame::Stderr(bytes) => write_all(std::io::stderr().as_fd(), &bytes)?,
            Frame::Exit(code) => return Ok(Some(End::Exit(code))),
            Frame::Closed => return Ok(Some(End::Closed)),
        }
    }
    Ok(None)
}

struct Ready {
    stdin: bool,
    signal: bool,
    writable: bool,
}

fn wait(attachment: &Attachment, signals: &OwnedFd, pump: &Pump) -> std::io::Result<Ready> {
    let stdin = std::io::stdin();
    let (reading, mut writable) = (pump.reading && pump.pending.is_empty(), false);
    let mut fds = vec![
        PollFd::from_borrowed_fd(attachment.fd(), PollFlags::IN),
        PollFd::new(signals, PollFlags::IN),
    ];
    if reading {
        fds.push(PollFd::new(&stdin, PollFlags::IN));
    } else if !pump.pending.is_empty() {
        match attachment.stdin_fd() {
            Some(fd) => fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT)),
            None => writable = true,
        }
    }
    let timeout = writable.then(rustix::event::Timespec::default);
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let happened = |i: usize| fds.get(i).is_some_and(|f| !f.revents().is_empty());
    Ok(Ready {
        stdin: reading && happened(2),
        signal: happened(1),
        writable: writable || !reading && happened(2),
    })
}

/// Standard input on its way to the container.
struct Pump {
    keys: Finder,
    use_keys: bool,
    reading: bool,
    pending: Vec<u8>,
    at_end: bool,
}

impl Pump {
    /// Reads what was typed; true when it was the detach keys.
    fn pull(&mut self, attachment: &mut Attachment) -> anyhow::Result<bool> {
        let mut buffer = [0u8; 16 * 1024];
        let typed = match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            // A closed or unreadable input is one that has ended.
            Err(_) => &[],
        };
        if typed.is_empty() {
            self.reading = false;
            self.at_end = true;
            self.close(attachment);
            return Ok(false);
        }
        if self.use_keys {
            let (pass, detach) = self.keys.filter(typed);
            self.pending.extend(pass);
            return Ok(detach);
        }
        self.pending.extend_from_slice(typed);
        Ok(false)
    }

    /// Sends a piece that a connection with room takes without blocking.
    fn push(&mut self, attachment: &mut Attachment) -> anyhow::Result<()> {
        let piece: Vec<u8> = self.pending.drain(..self.pending.len().min(4096)).collect();
        if piece.is_empty() {
            return Ok(());
        }
        if attachment.write_stdin(&piece).is_err() {
            // The program closed its input or ended; what it wrote is still to be read.
            self.pending.clear();
            self.reading = false;
        }
        self.close(attachment);
        Ok(())
    }

    fn close(&mut self, attachment: &mut Attachment) {
        if self.at_end && self.pending.is_empty() {
            self.at_end = false;
            let _ = attachment.close_stdin();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_children_are_never_passed_on() {
        let all = watched(true);
        for n in [9, 11, 13, 17, 19, 23] {
            assert!(!all.contains(&n));
        }
        for n in [1, 2, 10, 15, SIGWINCH, 34, 64] {
            assert!(all.contains(&n));
        }
    }
}
