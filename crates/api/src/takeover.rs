//! Clients that take a connection over without asking.
//!
//! A client of today asks for `Upgrade: tcp` when it attaches or runs a process, and gets 101. Older ones, and small
//! ones written by hand, send the first request of a connection without it, get 200 with neither length nor chunks, and
//! from then on the connection carries both streams all the same. The HTTP library knows upgrades only that were asked
//! for: so such a request gets the header it lacks, and the answer's 101 becomes what the client expects.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::hijack::{MULTIPLEXED, RAW};
use crate::request;

/// How much of a connection's beginning is looked at. The heads in question have a few hundred bytes.
const LOOK: usize = 4096;
const END: &[u8] = b"\r\n\r\n";

/// Where in these first bytes of a connection the missing headers belong, if it is to be taken over without asking.
fn place(first: &[u8]) -> Option<usize> {
    if !first.starts_with(b"POST ") {
        return None;
    }
    let end = find(first, END)?;
    let head = std::str::from_utf8(first.get(..end)?).ok()?;
    let (line, headers) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (_, target, version) = (words.next()?, words.next()?, words.next()?);
    let (_, parts) = request::split(target.split('?').next()?).ok()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let streams = matches!(parts[..], ["containers", _, "attach"] | ["exec", _, "start"]);
    let asks = headers.lines().any(|header| {
        header.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("upgrade"))
    });
    (streams && version == "HTTP/1.1" && !asks).then_some(line.len().saturating_add(2))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The answer's head as the client expects it; as it is if it is not 101.
fn rewritten(head: &[u8]) -> Vec<u8> {
    let Some(text) = std::str::from_utf8(head).ok().filter(|t| t.starts_with("HTTP/1.1 101 "))
    else {
        return head.to_vec();
    };
    let mut out = String::from("HTTP/1.1 200 OK\r\n");
    for line in text.trim_end().split("\r\n").skip(1) {
        let name = line.split(':').next().unwrap_or_default();
        if ["connection", "upgrade"].iter().any(|dropped| name.eq_ignore_ascii_case(dropped)) {
            continue;
        }
        out.push_str(&line.replace(MULTIPLEXED, RAW));
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// A connection whose first bytes were read.
pub(crate) struct Begun<S> {
    inner: S,
    first: Bytes,
    /// The head of the first answer, as long as it is not complete and is to be looked at.
    head: Option<BytesMut>,
    /// What is to be written before all else.
    pending: Bytes,
}

/// As a Unix connection is: untouched, or one that is taken over without asking.
pub(crate) enum Looked {
    Plain(UnixStream),
    Begun(Begun<UnixStream>),
}

/// Waits for the first bytes of a connection and looks at them.
pub(crate) async fn look(mut stream: UnixStream) -> io::Result<Looked> {
    let mut first = [0; LOOK];
    let count = loop {
        stream.readable().await?;
        let peek = stream.try_io(Interest::READABLE, || {
            Ok(rustix::net::recv(&stream, &mut first, RecvFlags::PEEK)?.1)
        });
        match peek {
            // It is told to be readable now and then when it is not yet.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
    };
    let found = first.get(..count).and_then(place);
    let Some(place) = found else { return Ok(Looked::Plain(stream)) };
    let count = stream.read(&mut first).await?;
    Ok(Looked::Begun(Begun::new(stream, first.get(..count).unwrap_or_default(), Some(place))))
}

/// As [`look`], of a connection whose bytes cannot be seen before they are read.
pub(crate) async fn begin<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Begun<S>> {
    let mut first = vec![0; LOOK];
    let count = stream.read(&mut first).await?;
    first.truncate(count);
    let place = place(&first);
    Ok(Begun::new(stream, &first, place))
}

impl<S> Begun<S> {
    fn new(inner: S, first: &[u8], place: Option<usize>) -> Self {
        let first = match place.and_then(|place| first.split_at_checked(place)) {
            Some((line, rest)) => {
                [line, b"Connection: Upgrade\r\nUpgrade: tcp\r\n", rest].concat().into()
            }
            None => Bytes::copy_from_slice(first),
        };
        Self { inner, first, head: place.map(|_| BytesMut::new()), pending: Bytes::new() }
    }
}

impl<S: AsyncWrite + Unpin> Begun<S> {
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, &self.pending))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if let Some(end) = find(head, END) {
                let rest = head.split_off(end.saturating_add(END.len()));
                self.pending = [rewritten(head), rest.to_vec()].concat().into();
                self.head = None;
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_over_without_asking() {
        let asks = |text: &str| place(text.as_bytes()).is_some();
        assert!(asks("POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(asks("POST /v1.24/exec/x/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"));
        assert_eq!(place(b"POST /exec/x/start HTTP/1.1\r\nA: b\r\n\r\n"), Some(29));
        for other in [
            "GET /containers/x/attach HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n",
            "POST /containers/x/attach HTTP/1.0\r\nHost: x\r\n\r\n",
            "POST /containers/x/attach HTTP/1.1\r\nupgrade: tcp\r\n\r\n",
            "POST /containers/x/start HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /exec/x/start",
            "\u{0}\u{1}",
            "",
        ] {
            assert!(!asks(other), "{other}");
        }
    }

    #[test]
    fn the_answer_is_what_such_a_client_expects() {
        let asked = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\
                     content-type: application/vnd.docker.multiplexed-stream\r\nserver: x\r\n\r\n";
        let given = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.docker.raw-stream\r\nserver: x\r\n\r\n";
        assert_eq!(String::from_utf8(rewritten(asked.as_bytes())).unwrap(), given);
        let other = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n";
        assert_eq!(rewritten(other), other);
    }
}
