//! Connections that become streams: attach and exec.
//!
//! A client asks with `Upgrade: tcp` and gets 101; after that the connection carries what it writes to
//! standard input, and the output, each piece behind a header of eight bytes (stream, length) unless there is
//! a terminal. A client that does not ask for it with the first request of its connection has the connection all the
//! same (see [`crate::takeover`]); with a later one it gets the output as an ordinary body. Either side may close its
//! half.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use engine::detach::{self, Finder};
use engine::{AttachOptions, Attachment, Frame, LogLine, StreamKind};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::answer::{self, Answer, Failure};
use crate::body::{self, AsyncWriter};
use crate::request::{FORGETTING, FORGOTTEN, Request};
use crate::websocket;

/// Output as it is.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
/// Output with headers.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The content type of a stream; clients before 1.42 know one only.
pub(crate) fn content_type(tty: bool, version: u32) -> &'static str {
    if tty || version < 42 { RAW } else { MULTIPLEXED }
}

/// A piece of output behind its header.
pub(crate) fn framed(stream: StreamKind, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len().saturating_add(8));
    let number = match stream {
        StreamKind::Stdout => 1,
        StreamKind::Stderr => 2,
    };
    out.put_slice(&[number, 0, 0, 0]);
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
    out.freeze()
}

/// Where a stream goes, before the answer is sent.
pub(crate) enum Channel {
    Upgraded(OnUpgrade),
    /// True for messages of text, as before 1.28.
    Socket(OnUpgrade, bool),
    Body(AsyncWriter),
}

/// A connection of any kind.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where a stream goes.
pub(crate) enum Line {
    Connection(Box<dyn Connection>),
    Body(AsyncWriter),
}

impl Channel {
    /// Waits until the answer is sent, and read.
    pub(crate) async fn ready(self) -> io::Result<Line> {
        let upgraded = match self {
            Channel::Upgraded(upgrade) => upgrade.await.map_err(io::Error::other)?,
            Channel::Socket(upgrade, text) => {
                let upgraded = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
                return Ok(Line::Connection(Box::new(websocket::unwrapped(upgraded, text))));
            }
            Channel::Body(writer) => return Ok(Line::Body(writer)),
        };
        match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner();
                until_read(&stream).await;
                let (read, write) = stream.into_split();
                // What the client sent before it had the answer comes first.
                let read = io::Cursor::new(parts.read_buf).chain(read);
                Ok(Line::Connection(Box::new(tokio::io::join(read, write))))
            }
            Err(other) => Ok(Line::Connection(Box::new(TokioIo::new(other)))),
        }
    }
}

/// Waits until the client has read the answer's head, a tenth of a second at the most. Some clients
/// read it through a buffer that they throw away, and what came with it is lost to them: docker-py is one.
async fn until_read(stream: &UnixStream) {
    for _ in 0..100 {
        match sys::socket::unread(stream.as_fd()) {
            Ok(0) | Err(_) => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The answer to a request for streams, and where they go once it is sent.
pub(crate) fn open(request: &mut Request, content_type: &'static str) -> (Channel, Answer) {
    let asked = request.header(UPGRADE.as_str()).map(str::to_owned);
    let Some(protocol) = asked.filter(|protocol| !protocol.is_empty()) else {
        let (writer, answer) = body::open(content_type);
        return (Channel::Body(writer), answer);
    };
    let upgrade = hyper::upgrade::on(&mut request.inner);
    let mut answer = Response::new(answer::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(&protocol) {
        headers.insert(UPGRADE, protocol);
    }
    (Channel::Upgraded(upgrade), answer::header(answer, "content-type", content_type))
}

/// The answer to a request for a websocket.
pub(crate) fn open_socket(request: &mut Request) -> Result<(Channel, Answer), Failure> {
    let is = |name: &str, wanted: &str| {
        request.header(name).is_some_and(|v| v.to_ascii_lowercase().contains(wanted))
    };
    let key = request.header("sec-websocket-key").map(websocket::accept);
    let (true, true, Some(key)) = (is("upgrade", "websocket"), is("connection", "upgrade"), key)
    else {
        return Err(Failure::invalid("attach/ws is for websockets: ask for an upgrade to one"));
    };
    let text = request.version < 28;
    let upgrade = hyper::upgrade::on(&mut request.inner);
    let mut answer = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok((Channel::Socket(upgrade, text), answer::header(answer, "sec-websocket-accept", &key)))
}

/// New size of a terminal: rows, columns.
pub(crate) type Size = (u16, u16);

/// Who changes the size of an exec's terminal.
type Terminals = HashMap<String, mpsc::UnboundedSender<Size>>;

/// Clients that attached to a container before its start, and terminals of execs. This belongs to open
/// connections, and goes with them.
#[derive(Clone, Default)]
pub(crate) struct Waiting {
    starts: Arc<Mutex<HashMap<String, Vec<Attacher>>>>,
    terminals: Arc<Mutex<Terminals>>,
}

/// How many connections are open, those that became streams among them.
#[derive(Clone, Default)]
pub(crate) struct Open(Arc<AtomicUsize>);

/// One of them, until dropped.
pub(crate) struct OneOpen(Open);

impl Open {
    pub(crate) fn one(&self) -> OneOpen {
        self.0.fetch_add(1, Ordering::AcqRel);
        OneOpen(self.clone())
    }

    /// Until none has been open for so long.
    pub(crate) async fn idle(&self, patience: Duration) {
        let step = (patience / 10).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let mut quiet = Duration::ZERO;
        while quiet < patience {
            tokio::time::sleep(step).await;
            let none = self.0.load(Ordering::Acquire) == 0;
            quiet = if none { quiet.saturating_add(step) } else { Duration::ZERO };
        }
    }
}

impl Drop for OneOpen {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One client that waits for a start.
pub(crate) struct Attacher {
    pub(crate) options: AttachOptions,
    pub(crate) give: oneshot::Sender<Attachment>,
    taken: Arc<AtomicBool>,
}

/// The other end of an [`Attacher`].
pub(crate) struct Start {
    pub(crate) attachment: oneshot::Receiver<Attachment>,
    taken: Arc<AtomicBool>,
}

impl Start {
    /// This server starts the container, or tries to: the attachment, or the end of waiting, is on its way.
    pub(crate) fn is_ours(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Waits for the start of the container with this id.
    pub(crate) fn wait(&self, id: &str, options: AttachOptions) -> Start {
        let (give, attachment) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let attacher = Attacher { options, give, taken: taken.clone() };
        lock(&self.starts).entry(id.to_owned()).or_default().push(attacher);
        Start { attachment, taken }
    }

    /// Those who wait; they are the caller's now.
    pub(crate) fn take(&self, id: &str) -> Vec<Attacher> {
        let mut waiting = lock(&self.starts).remove(id).unwrap_or_default();
        waiting.retain(|attacher| !attacher.give.is_closed());
        for attacher in &waiting {
            attacher.taken.store(true, Ordering::Release);
        }
        waiting
    }

    /// Who asks for a new size of the exec's terminal is heard by the receiver.
    pub(crate) fn terminal(&self, exec: &str) -> mpsc::UnboundedReceiver<Size> {
        let (send, receive) = mpsc::unbounded_channel();
        lock(&self.terminals).insert(exec.to_owned(), send);
        receive
    }

    /// False if nobody has the exec's terminal.
    pub(crate) fn resize(&self, exec: &str, size: Size) -> bool {
        lock(&self.terminals).get(exec).is_some_and(|send| send.send(size).is_ok())
    }

    /// The exec is over.
    pub(crate) fn forget(&self, exec: &str) {
        lock(&self.terminals).remove(exec);
    }
}

/// The keys that let a client go, for a container or an exec with a terminal; others have none.
pub(crate) fn keys(tty: bool, wanted: &str) -> Result<Finder, Failure> {
    let wanted = if wanted.is_empty() { detach::DEFAULT } else { wanted };
    let bytes = detach::parse_keys(wanted).map_err(|why| {
        Failure::invalid(format!("Invalid detach keys ({wanted}) provided: {why}"))
    })?;
    Ok(Finder::new(if tty { bytes } else { Vec::new() }))
}

/// Writes what the journal had, then copies between an attachment and the client until one of them ends.
pub(crate) async fn copy(
    line: Line,
    tty: bool,
    logs: &[LogLine],
    attachment: Option<Attachment>,
    sizes: Option<mpsc::UnboundedReceiver<Size>>,
    mut keys: Finder,
) -> io::Result<()> {
    let write = |log: &LogLine| {
        if tty { Bytes::copy_from_slice(&log.bytes) } else { framed(log.stream, &log.bytes) }
    };
    match line {
        Line::Connection(io) => {
            let (mut read, mut output) = tokio::io::split(io);
            for log in logs {
                output.put(write(log)).await?;
            }
            if let Some(attachment) = attachment {
                exchange(attachment, Some(&mut read), &mut output, tty, sizes, &mut keys).await?;
            }
            output.shutdown().await?;
            // Were it closed with bytes that nobody read, the client's connection would be cut before it has read the end.
            let (mut rest, mut nowhere) = (read.take(FORGOTTEN as u64), tokio::io::sink());
            let forget = tokio::io::copy(&mut rest, &mut nowhere);
            let _ = tokio::time::timeout(FORGETTING, forget).await;
            Ok(())
        }
        Line::Body(writer) => {
            let mut output = ToBody(writer);
            for log in logs {
                output.put(write(log)).await?;
            }
            if let Some(attachment) = attachment {
                let nobody = None::<tokio::io::Empty>;
                exchange(attachment, nobody, &mut output, tty, sizes, &mut keys).await?;
            }
            Ok(())
        }
    }
}

/// Where output is written to.
pub(crate) trait Output {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()>;
}

impl<W: AsyncWrite + Unpin> Output for W {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write_all(&bytes).await
    }
}

struct ToBody(AsyncWriter);

impl Output for ToBody {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()> {
        if self.0.send(bytes).await { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// Has the runtime watch a descriptor.
#[expect(
    deprecated,
    reason = "the other constructor is unsafe for types whose descriptor may change or close before \
              they are dropped; an owned one does neither"
)]
pub(crate) fn watched(fd: io::Result<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd?, interest)
}

/// What standard input takes without waiting, in bytes; see [`Attachment::stdin_fd`].
const BITE: usize = 4096;

async fn exchange<R: AsyncRead + Unpin>(
    mut attachment: Attachment,
    mut input: Option<R>,
    output: &mut impl Output,
    tty: bool,
    mut sizes: Option<mpsc::UnboundedReceiver<Size>>,
    keys: &mut Finder,
) -> io::Result<Option<i32>> {
    let other = |e: engine::Error| io::Error::other(e.message);
    let readable = watched(attachment.fd().try_clone_to_owned(), Interest::READABLE)?;
    let mut writable = attachment
        .stdin_fd()
        .map(|fd| watched(fd.try_clone_to_owned(), Interest::WRITABLE))
        .transpose()?;
    let mut pending = Bytes::new();
    // Most who are attached never type, and there may be thousands.
    let mut buffer = vec![0; BITE];
    loop {
        tokio::select! {
            ready = readable.readable() => {
                let mut ready = ready?;
                loop {
                    match attachment.read().map_err(other)? {
                        None => break,
                        Some(Frame::Stdout(bytes)) if tty => output.put(bytes.into()).await?,
                        Some(Frame::Stdout(bytes)) => {
                            output.put(framed(StreamKind::Stdout, &bytes)).await?;
                        }
                        Some(Frame::Stderr(bytes)) => {
                            output.put(framed(StreamKind::Stderr, &bytes)).await?;
                        }
                        Some(Frame::Exit(code)) => return Ok(Some(code)),
                        Some(Frame::Closed) => return Ok(None),
                    }
                }
                ready.clear_ready();
            }
            size = next_size(&mut sizes) => {
                // A process that has ended meanwhile needs no size.
                let _ = attachment.resize(size.0, size.1);
            }
            read = next_input(&mut input, &mut buffer), if pending.is_empty() => {
                match read {
                    Ok(0) | Err(_) => {
                        input = None;
                        // An exec's is a pipe, and this is one more descriptor of its end.
                        if writable.take().is_some() {
                            let _ = attachment.close_stdin();
                        }
                    }
                    Ok(_) if writable.is_none() => {}
                    Ok(count) => {
                        let (pass, detached) = keys.filter(buffer.get(..count).unwrap_or_default());
                        if detached {
                            return Ok(None);
                        }
                        pending = pass.into();
                    }
                }
            }
            ready = can_write(writable.as_ref()), if !pending.is_empty() => {
                let bite = pending.split_to(pending.len().min(BITE));
                // The process may have closed its standard input; its output goes on.
                if attachment.write_stdin(&bite).is_err() {
                    pending.clear();
                }
                ready?;
            }
        }
    }
}

async fn next_size(sizes: &mut Option<mpsc::UnboundedReceiver<Size>>) -> Size {
    if let Some(receiver) = sizes
        && let Some(size) = receiver.recv().await
    {
        return size;
    }
    std::future::pending().await
}

async fn next_input<R: AsyncRead + Unpin>(
    input: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match input {
        Some(input) => input.read(buffer).await,
        None => std::future::pending().await,
    }
}

/// Waits until standard input takes something. Readiness is asked of the kernel each time: who else writes
/// to the descriptor is not known here.
async fn can_write(fd: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(fd) = fd else { return std::future::pending().await };
    loop {
        let mut ready = fd.writable().await?;
        let mut poll =
            [rustix::event::PollFd::from_borrowed_fd(fd.as_fd(), rustix::event::PollFlags::OUT)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut poll, Some(&now))? > 0 {
            return Ok(());
        }
        ready.clear_ready();
    }
}
