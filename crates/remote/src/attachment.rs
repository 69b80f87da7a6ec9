//! Streams of a container or an exec, over a connection that was made one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use engine::{Error, Frame, Result};
use rustix::event::{PollFd, PollFlags};

use crate::http::{Body, Wire};

/// Who says how it ended once the streams are over.
pub(crate) type Ending = Box<dyn FnOnce() -> Result<Option<i32>>>;
/// Changes the size of the terminal: rows, columns.
pub(crate) type Resizer = Box<dyn Fn(u16, u16) -> Result<()>>;

/// A connection to streams; as the engine's own: poll [`Attachment::fd`], then call [`Attachment::read`]
/// until it returns `None`.
pub struct Attachment {
    wire: Wire,
    raw: bool,
    buffer: Vec<u8>,
    over: bool,
    told: bool,
    ending: Option<Ending>,
    resizer: Resizer,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("wire", &self.wire).finish_non_exhaustive()
    }
}

/// The largest piece of output behind one header that is believed, in bytes.
const MAX_PIECE: usize = 64 << 20;

fn failed(e: io::Error) -> Error {
    Error::system("the connection to the engine", e)
}

/// Takes the next whole piece out of the buffer: which stream, and its bytes.
pub(crate) fn next_piece(buffer: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>> {
    let Some(([stream, _, _, _, a, b, c, d], rest)) = buffer.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let (stream, length) = (*stream, u32::from_be_bytes([*a, *b, *c, *d]));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if stream > 3 || length > MAX_PIECE {
        return Err(Error::system("the stream", "it has no headers of eight bytes"));
    }
    let Some(bytes) = rest.get(..length) else { return Ok(None) };
    let bytes = bytes.to_vec();
    buffer.drain(..length.saturating_add(8));
    Ok(Some((stream, bytes)))
}

impl Attachment {
    pub(crate) fn new(
        body: Body,
        raw: bool,
        ending: Option<Ending>,
        resizer: Resizer,
    ) -> Result<Self> {
        let wire = body.into_wire();
        wire.stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self { wire, raw, buffer: Vec::new(), over: false, told: false, ending, resizer })
    }

    /// Readable when [`Attachment::read`] has something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wire.stream.as_fd()
    }

    /// Writable when [`Attachment::write_stdin`] does not wait long.
    pub fn stdin_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.stream.as_fd())
    }

    fn take(&mut self) -> Result<Option<Frame>> {
        if self.raw {
            let all = std::mem::take(&mut self.buffer);
            return Ok((!all.is_empty()).then_some(Frame::Stdout(all)));
        }
        loop {
            match next_piece(&mut self.buffer)? {
                Some((_, bytes)) if bytes.is_empty() => {}
                Some((2, bytes)) => return Ok(Some(Frame::Stderr(bytes))),
                // 3 is what the engine itself has to say of a failure.
                Some((3, bytes)) => return Ok(Some(Frame::Stderr(bytes))),
                Some((_, bytes)) => return Ok(Some(Frame::Stdout(bytes))),
                None => return Ok(None),
            }
        }
    }

    /// The next piece, without waiting; `None`: nothing more for now.
    pub fn read(&mut self) -> Result<Option<Frame>> {
        if self.told {
            return Ok(None);
        }
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.over {
                self.told = true;
                return Ok(Some(
                    match self.ending.take().map(|ending| ending()).transpose()?.flatten() {
                        Some(code) => Frame::Exit(code),
                        None => Frame::Closed,
                    },
                ));
            }
            let mut bytes = vec![0; 32 << 10];
            match self.wire.read(&mut bytes) {
                Ok(0) => self.over = true,
                Ok(count) => self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => self.over = true,
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Writes to standard input; waits while the other side does not read.
    pub fn write_stdin(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.wire.stream.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        // TLS holds back what did not fit.
        while let Err(e) = self.wire.stream.flush() {
            match e.kind() {
                io::ErrorKind::WouldBlock => self.wait()?,
                io::ErrorKind::Interrupted => {}
                _ => return Err(failed(e)),
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.wire.stream, PollFlags::OUT)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) -> Result<()> {
        self.wire.stream.close_write().map_err(failed)
    }

    /// Changes the size of the terminal.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        (self.resizer)(rows, cols)
    }

    /// The connection alone, for tests.
    #[cfg(test)]
    pub(crate) fn of_stream(stream: crate::stream::Stream, raw: bool) -> Self {
        let head = crate::http::Head { status: 101, ..Default::default() };
        let body = Body::new(Wire::new(stream), &head, false);
        Self::new(body, raw, None, Box::new(|_, _| Ok(()))).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;
    use std::os::unix::net::UnixStream;

    #[test]
    fn pieces_come_as_they_were_sent() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut attachment = Attachment::of_stream(Stream::Unix(ours, None), false);
        assert_eq!(attachment.read().unwrap(), None);
        theirs.write_all(b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02d").unwrap();
        assert_eq!(attachment.read().unwrap(), Some(Frame::Stdout(b"abc".to_vec())));
        assert_eq!(attachment.read().unwrap(), None);
        theirs.write_all(b"e").unwrap();
        assert_eq!(attachment.read().unwrap(), Some(Frame::Stderr(b"de".to_vec())));
        attachment.write_stdin(b"in").unwrap();
        attachment.close_stdin().unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "in");
        drop(theirs);
        assert_eq!(attachment.read().unwrap(), Some(Frame::Closed));
        assert_eq!(attachment.read().unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let mut buffer = bytes;
            while let Ok(Some(_)) = next_piece(&mut buffer) {}
        }
    }
}
