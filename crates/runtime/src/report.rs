//! The socket between a launched child and its parent.
//!
//! Messages from the child are one letter and a JSON text:
//!
//! | letter | meaning |
//! |---|---|
//! | `A` | apart: it has a table of descriptors of its own now; the first message, where it began with the parent's |
//! | `N` | a note for people: text |
//! | `C` | the console: the terminal's master comes as a descriptor |
//! | `S` | a second child was made in our name; its pidfd comes as a descriptor |
//! | `H` | set-up is done up to the change of root; the runtime's hooks may run; an answer is awaited |
//! | `R` | ready: the child now waits at the gate |
//! | `T` | the phases of the child, if they were asked for: JSON |
//! | `X` | about to execute |
//! | `E` | an error; the child is ending |
//!
//! The end of the stream after `X` means that the program runs: the socket was closed by execve.
//! The parent's answers are `go`, once after the identifier maps are written and once after `H`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Doing, Error, Result};
use crate::trace::Phase;

/// The largest message.
const LIMIT: usize = 16 * 1024;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) socket: OwnedFd,
}

impl Reporter {
    fn send(&self, letter: u8, text: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.push(letter);
        bytes.extend_from_slice(text.as_bytes());
        bytes.truncate(LIMIT);
        sys::socket::send_with_fds(&self.socket, &bytes, fds, true)
            .map(drop)
            .doing(|| "report to the parent".to_owned())
    }

    pub(crate) fn apart(&self) -> Result<()> {
        self.send(b'A', "", &[])
    }

    /// Tells a note. Nobody may be listening any more, which is no error.
    pub(crate) fn note(&self, text: &str) {
        let _ = self.send(b'N', text, &[]);
    }

    pub(crate) fn console(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.send(b'C', "", &[master])
    }

    pub(crate) fn second(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.send(b'S', "", &[pidfd])
    }

    /// Lets the parent run its hooks and waits for it.
    pub(crate) fn hooks(&self) -> Result<()> {
        self.send(b'H', "", &[])?;
        self.wait_go()
    }

    pub(crate) fn ready(&self) -> Result<()> {
        self.send(b'R', "", &[])
    }

    /// Tells the phases, for people who are curious: nothing depends on them.
    pub(crate) fn phases(&self, phases: &[Phase]) {
        if let Ok(text) = serde_json::to_string(phases)
            && text.len() < LIMIT
        {
            let _ = self.send(b'T', &text, &[]);
        }
    }

    /// The caller may have gone (`create` of an OCI runtime has, by then): no error.
    pub(crate) fn executing(&self) {
        let _ = self.send(b'X', "", &[]);
    }

    pub(crate) fn error(&self, error: &Error) {
        let text = serde_json::to_string(error).unwrap_or_default();
        let _ = self.send(b'E', &text, &[]);
    }

    /// Waits for the parent's `go`.
    pub(crate) fn wait_go(&self) -> Result<()> {
        let mut buffer = [0; 8];
        let (count, _) = sys::socket::recv_with_fds(&self.socket, &mut buffer, true)
            .doing(|| "wait for the parent".to_owned())?;
        if buffer.get(..count) == Some(b"go") {
            Ok(())
        } else {
            // The parent has given up; it knows why.
            Err(Error::Died { how: "the launching process went away".to_owned() })
        }
    }
}

/// What the parent receives.
#[derive(Debug)]
pub(crate) enum Message {
    Apart,
    Note(String),
    Console(OwnedFd),
    Second(OwnedFd),
    Hooks,
    Ready,
    Phases(Vec<Phase>),
    Executing,
    Error(Error),
    End,
}

/// Receives one message; `None` when there is none and `block` is false.
pub(crate) fn receive(socket: &OwnedFd, block: bool) -> Result<Option<Message>> {
    let mut buffer = vec![0; LIMIT];
    let (count, mut fds) = match sys::socket::recv_with_fds(socket.as_fd(), &mut buffer, block) {
        Err(sys::Errno::AGAIN) => return Ok(None),
        Err(sys::Errno::CONNRESET) => (0, Vec::new()),
        result => result.doing(|| "read the container's report".to_owned())?,
    };
    let bytes = buffer.get(..count).unwrap_or_default();
    let Some((letter, rest)) = bytes.split_first() else { return Ok(Some(Message::End)) };
    let text = String::from_utf8_lossy(rest);
    let garbled = || Error::spec("the container's report", "is garbled");
    Ok(Some(match letter {
        b'A' => Message::Apart,
        b'N' => Message::Note(text.into_owned()),
        b'C' => Message::Console(fds.pop().ok_or_else(garbled)?),
        b'S' => Message::Second(fds.pop().ok_or_else(garbled)?),
        b'H' => Message::Hooks,
        b'R' => Message::Ready,
        b'T' => Message::Phases(serde_json::from_str(&text).map_err(|_| garbled())?),
        b'X' => Message::Executing,
        b'E' => Message::Error(serde_json::from_str(&text).map_err(|_| garbled())?),
        _ => return Err(garbled()),
    }))
}

/// Lets a waiting child go on.
pub(crate) fn go(socket: &OwnedFd) -> Result<()> {
    match sys::socket::send_with_fds(socket.as_fd(), b"go", &[], true) {
        // The child has ended; its report says why.
        Ok(_) | Err(sys::Errno::PIPE | sys::Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(errno).doing(|| "let the container go on".to_owned()),
    }
}
