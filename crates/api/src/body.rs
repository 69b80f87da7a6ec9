//! Bodies that come bit by bit: from a thread that writes, and to a thread that reads.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use engine::Engine;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::answer::{self, Answer, Body, Failure, Outcome};
use crate::request::Unread;
use crate::work::Work;

/// Pieces on their way to the client at the most; then who writes waits.
const PIECES: usize = 8;
/// Bytes of a piece, unless flushed before.
const PIECE: usize = 64 << 10;

/// What comes through the channel.
enum Piece {
    Data(Bytes),
    Failed(Failure),
}

/// The other end of a body. Blocks while the client does not read; fails when it is gone.
pub(crate) struct Writer {
    send: Sender<Piece>,
    buffer: Vec<u8>,
    /// Something is on its way: the status can't change any more.
    begun: bool,
}

impl Writer {
    fn push(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        self.begun = true;
        self.send.blocking_send(Piece::Data(bytes)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// One JSON document on a line of its own, sent at once.
    pub(crate) fn line<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut *self, value)?;
        self.write_all(b"\r\n")?;
        self.flush()
    }

    /// From here on a failure is a line.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    /// The failure of work whose answer has begun, as a line among its lines.
    pub(crate) fn failed_line(&mut self, failure: &Failure) -> io::Result<()> {
        #[derive(Serialize)]
        struct Detail<'a> {
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(rename = "errorDetail")]
            detail: Detail<'a>,
            error: &'a str,
        }
        let message = failure.message.as_str();
        self.line(&Line { detail: Detail { message }, error: message })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.push()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// A body made of what comes through a channel.
struct Pieces {
    first: VecDeque<Bytes>,
    rest: Receiver<Piece>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(bytes) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.rest.poll_recv(context).map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(bytes) => Ok(Frame::data(bytes)),
                // The connection is broken off: the client must not take this for the whole.
                Piece::Failed(failure) => Err(io::Error::other(failure.message)),
            })
        })
    }
}

/// Answers with what `work` writes on a thread of the pool. If it fails before it has written anything,
/// its failure is the answer.
pub(crate) async fn written<F>(pool: &Work, content_type: &'static str, work: F) -> Outcome
where
    F: FnOnce(&Engine, &mut Writer) -> Result<(), Failure> + Send + 'static,
{
    let (send, mut rest) = channel(PIECES);
    let pool = pool.clone();
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer { send, buffer: Vec::new(), begun: false };
        let result = pool.here(|engine| work(engine, &mut writer));
        let result = result.and_then(|()| {
            writer
                .push()
                .map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
        });
        if let Err(failure) = result {
            // Nobody listens any more, or hears it.
            let _ = writer.send.blocking_send(Piece::Failed(failure));
        }
    });
    let first = match rest.recv().await {
        Some(Piece::Failed(failure)) => return Err(failure),
        Some(Piece::Data(bytes)) => VecDeque::from([bytes]),
        None => VecDeque::new(),
    };
    Ok(answer::with(StatusCode::OK, content_type, Pieces { first, rest }.boxed()))
}

/// Answers with lines of JSON that `work` writes; a failure after the first line is a line, too.
pub(crate) async fn lines<F>(pool: &Work, work: F) -> Outcome
where
    F: FnOnce(&Engine, &mut Writer) -> Result<(), Failure> + Send + 'static,
{
    written(pool, "application/json", |engine, writer| match work(engine, writer) {
        Err(failure) if writer.begun => writer.failed_line(&failure).map_err(|_| failure),
        other => other,
    })
    .await
}

/// The sending end of a body that tasks write.
#[derive(Clone)]
pub(crate) struct AsyncWriter(Sender<Piece>);

impl AsyncWriter {
    /// Waits while the client does not read; false when it is gone.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Piece::Data(bytes.into())).await.is_ok()
    }

    /// Until the client is gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body, and the end that a task writes to.
pub(crate) fn channelled() -> (AsyncWriter, Body) {
    let (send, rest) = channel(PIECES);
    (AsyncWriter(send), Pieces { first: VecDeque::new(), rest }.boxed())
}

/// An answer that goes on as long as a task writes.
pub(crate) fn open(content_type: &'static str) -> (AsyncWriter, Answer) {
    let (writer, body) = channelled();
    (writer, answer::with(StatusCode::OK, content_type, body))
}

/// A request's body for a thread that reads and blocks. Must be made within the runtime.
pub(crate) fn reader(body: Unread) -> impl Read + Send + 'static {
    let stream = BodyDataStream::new(body.map_err(io::Error::other));
    SyncIoBridge::new(StreamReader::new(stream))
}
