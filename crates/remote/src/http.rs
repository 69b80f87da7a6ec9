//! HTTP/1.1 (RFC 9112), as much of it as a client of this API needs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::stream::Stream;

/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 256 << 10;

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is no HTTP: {what}"))
}

/// A connection, and what was read from it too early.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    ahead: Vec<u8>,
    at: usize,
}

/// The head of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Head {
    /// Reads the bytes before the empty line.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        if !version.starts_with("HTTP/1.") {
            return Err(wrong("it begins with another word"));
        }
        let status = words.next().and_then(|w| w.parse().ok()).ok_or_else(|| wrong("no status"))?;
        let mut headers = BTreeMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) =
                line.split_once(':').ok_or_else(|| wrong("a header without a colon"))?;
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Self { status, headers })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The connection serves for another request.
    pub(crate) fn keeps(&self) -> bool {
        !self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, ahead: Vec::new(), at: 0 }
    }

    /// Reads the head of an answer; interim answers (1xx but 101) are passed over.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        loop {
            let head = Head::parse(&self.head_bytes()?)?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    fn head_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let mut byte = [0];
        loop {
            if self.read(&mut byte)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the engine closed the connection without an answer",
                ));
            }
            head.extend_from_slice(&byte);
            if head.ends_with(b"\r\n\r\n") {
                return Ok(head);
            }
            if head.len() > MAX_HEAD {
                return Err(wrong("its head does not end"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if byte == *b"\n" {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.extend_from_slice(&byte);
            if line.len() > 4096 {
                return Err(wrong("a line of a chunk does not end"));
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.ahead.len() {
            // Big pieces past the buffer.
            if buffer.len() >= 4096 {
                return retry(|| self.stream.read(buffer));
            }
            let mut more = vec![0; 32 << 10];
            let count = retry(|| self.stream.read(&mut more))?;
            more.truncate(count);
            (self.ahead, self.at) = (more, 0);
        }
        let rest = self.ahead.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// How much of a body is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Chunks; of the present one so many bytes.
    Chunk(u64),
    UntilClosed,
    Nothing,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    wire: Wire,
    left: Left,
    begun: bool,
    keeps: bool,
}

impl Body {
    pub(crate) fn new(wire: Wire, head: &Head, no_body: bool) -> Self {
        let chunked =
            head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = head.header("content-length").and_then(|v| v.parse().ok());
        let left = match (no_body || matches!(head.status, 204 | 304), chunked, length) {
            (true, ..) => Left::Nothing,
            (_, true, _) => Left::Chunk(0),
            (_, _, Some(length)) => Left::Bytes(length),
            _ => Left::UntilClosed,
        };
        let keeps = head.keeps() && left != Left::UntilClosed;
        Self { wire, left, begun: false, keeps }
    }

    /// The connection, if it can serve again: what is left is little or nothing.
    pub(crate) fn finish(mut self) -> Option<Wire> {
        if !self.keeps {
            return None;
        }
        let mut rest = [0; 4096];
        for _ in 0..16 {
            if self.read(&mut rest).ok()? == 0 {
                return Some(self.wire);
            }
        }
        None
    }

    /// The connection as it is, for who reads on by other rules.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = match self.left {
            Left::Nothing => return Ok(0),
            Left::UntilClosed => return self.wire.read(buffer),
            Left::Chunk(0) => {
                // The end of the one before.
                if std::mem::replace(&mut self.begun, true) && !self.wire.line()?.is_empty() {
                    return Err(wrong("a chunk is longer than it says"));
                }
                let line = self.wire.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size =
                    u64::from_str_radix(size, 16).map_err(|_| wrong("a chunk without a size"))?;
                if size == 0 {
                    while !self.wire.line()?.is_empty() {}
                    self.left = Left::Nothing;
                    return Ok(0);
                }
                self.left = Left::Chunk(size);
                size
            }
            Left::Chunk(left) | Left::Bytes(left) => left,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let count = self.wire.read(room)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection to the engine ended in the middle of an answer",
            ));
        }
        match &mut self.left {
            Left::Bytes(left) | Left::Chunk(left) => *left = left.saturating_sub(count as u64),
            _ => {}
        }
        Ok(count)
    }
}

/// What a request carries.
pub(crate) enum Payload<'a> {
    Nothing,
    Json(Vec<u8>),
    /// Sent in chunks.
    Tar(&'a mut dyn Read),
}

/// Writes a request.
pub(crate) fn send(
    stream: &mut Stream,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    payload: Payload<'_>,
) -> io::Result<()> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\nUser-Agent: wherry\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match payload {
        Payload::Nothing => {
            if method != "GET" && method != "HEAD" {
                head.push_str("Content-Length: 0\r\n");
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes())?;
        }
        Payload::Json(bytes) => {
            head.push_str("Content-Type: application/json\r\n");
            head.push_str(&format!("Content-Length: {}\r\n\r\n", bytes.len()));
            let mut whole = head.into_bytes();
            whole.extend_from_slice(&bytes);
            stream.write_all(&whole)?;
        }
        Payload::Tar(from) => {
            head.push_str("Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut buffer = vec![0; 128 << 10];
            loop {
                let count = retry(|| from.read(&mut buffer))?;
                if count == 0 {
                    break;
                }
                stream.write_all(format!("{count:x}\r\n").as_bytes())?;
                stream.write_all(buffer.get(..count).unwrap_or_default())?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn answer(bytes: &[u8]) -> io::Result<(Head, Vec<u8>, bool)> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || theirs.write_all(&bytes));
        let mut wire = Wire::new(Stream::Unix(ours, None));
        let head = wire.head();
        let result = head.and_then(|head| {
            let mut body = Body::new(wire, &head, false);
            let mut got = Vec::new();
            body.by_ref().take(1 << 20).read_to_end(&mut got)?;
            Ok((head, got, body.finish().is_some()))
        });
        let _ = writer.join();
        result
    }

    #[test]
    fn bodies_of_all_kinds() {
        let (head, body, keeps) =
            answer(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 3\r\n\r\nabcdef")
                .unwrap();
        assert_eq!(
            (head.status, head.header("api-version"), &body[..]),
            (200, Some("1.51"), &b"abc"[..])
        );
        assert!(keeps);
        let (_, body, keeps) = answer(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!((&body[..], keeps), (&b"abc0123456789"[..], true));
        let (_, body, keeps) = answer(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
        assert_eq!((&body[..], keeps), (&b"abc"[..], false));
        let (_, body, _) = answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\n\r\n").unwrap();
        assert!(body.is_empty());
        for cut in
            ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", "HTTP/1.1 200", "SSH-2.0\r\n\r\n"]
        {
            assert!(answer(cut.as_bytes()).is_err(), "{cut}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>, chunks: Vec<u8>) {
            let _ = answer(&bytes);
            let _ = Head::parse(&bytes);
            let _ = answer(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunks[..]].concat());
        }
    }
}
