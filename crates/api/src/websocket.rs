//! WebSocket (RFC 6455), as much of it as `attach/ws` needs: messages carry bytes, in both directions.

use std::io;

use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// Section 1.3: what is hashed with the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The largest frame of a client, in bytes; what people type is short.
const MAX_FRAME: u64 = 1 << 20;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What `Sec-WebSocket-Accept` says to a key.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{}{GUID}", key.trim());
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash.as_ref())
}

/// A frame's header from a server: never masked, always final.
fn header(opcode: u8, length: usize) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match u16::try_from(length) {
        Ok(short) if short < 126 => head.push(short.to_be_bytes()[1]),
        Ok(medium) => {
            head.push(126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            head.push(127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// Reads one frame: its kind and what it carries.
async fn frame<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<(u8, Vec<u8>)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let [first, second] = {
        let mut two = [0; 2];
        from.read_exact(&mut two).await?;
        two
    };
    if first & 0x70 != 0 {
        return Err(wrong("an extension that was not agreed on"));
    }
    // Section 5.1: a client masks every frame.
    if second & 0x80 == 0 {
        return Err(wrong("a frame without a mask"));
    }
    let length = match second & 0x7f {
        126 => u64::from(from.read_u16().await?),
        127 => from.read_u64().await?,
        short => u64::from(short),
    };
    if length > MAX_FRAME {
        return Err(wrong("a frame that is too long"));
    }
    let mut mask = [0; 4];
    from.read_exact(&mut mask).await?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut bytes).await?;
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((first & 0x0f, bytes))
}

/// A stream of the bytes that messages carry, over a connection that carries the messages. It goes on as
/// long as either side has not closed.
pub(crate) fn unwrapped<S>(connection: S, text: bool) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut input, mut output) = tokio::io::split(connection);
    let (mut bytes, mut sink) = tokio::io::split(theirs);
    let (control, mut controls) = tokio::sync::mpsc::channel::<(u8, Vec<u8>)>(4);
    tokio::spawn(async move {
        loop {
            match frame(&mut input).await {
                Ok((0 | TEXT | BINARY, carried)) => {
                    if sink.write_all(&carried).await.is_err() {
                        return;
                    }
                }
                // Section 5.5.2: the same bytes back.
                Ok((PING, carried)) if carried.len() < 126 => {
                    if control.send((PONG, carried)).await.is_err() {
                        return;
                    }
                }
                Ok((PONG, _)) => {}
                _ => break,
            }
        }
        let _ = sink.shutdown().await;
    });
    tokio::spawn(async move {
        let kind = if text { TEXT } else { BINARY };
        let mut buffer = vec![0; 32 << 10];
        loop {
            let (kind, carried) = tokio::select! {
                read = bytes.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => (kind, buffer.get(..count).unwrap_or_default()),
                    _ => break,
                },
                Some((kind, carried)) = controls.recv() => {
                    let head = header(kind, carried.len());
                    if output.write_all(&[head, carried].concat()).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let head = header(kind, carried.len());
            if output.write_all(&head).await.is_err() || output.write_all(carried).await.is_err() {
                return;
            }
        }
        // Section 7.4.1: 1000, as it should be.
        let _ = output.write_all(&[header(CLOSE, 2), vec![0x03, 0xe8]].concat()).await;
        let _ = output.shutdown().await;
    });
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn masked(opcode: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0x80 | opcode, 0x80 | u8::try_from(bytes.len()).unwrap(), 1, 2, 3, 4];
        out.extend(bytes.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[tokio::test]
    async fn messages_carry_bytes_both_ways() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut stream = unwrapped(server, false);
        client.write_all(&masked(BINARY, b"hello")).await.unwrap();
        client.write_all(&masked(PING, b"p")).await.unwrap();
        client.write_all(&masked(TEXT, b" there")).await.unwrap();
        let mut got = [0; 11];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello there");
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'p']);
        stream.write_all(&[7; 300]).await.unwrap();
        let mut head = [0; 4];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head, [0x82, 126, 1, 44]);
        client.write_all(&masked(CLOSE, &[3, 0xe8])).await.unwrap();
        assert_eq!(stream.read(&mut got).await.unwrap(), 0);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut rest = bytes.as_slice();
                while frame(&mut rest).await.is_ok() {}
            });
        }
    }
}
