//! The server: sockets, connections, and what every answer has.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use engine::EngineOptions;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::{Client, Credentials};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::answer::{self, Answer};
use crate::hijack::{Open, Waiting};
use crate::hub::Hub;
use crate::request::{Request, Unread};
use crate::route;
use crate::takeover::{self, Looked};
use crate::work::Work;

/// Makes the registry client that a request needs; the credentials are those the request brought.
pub type MakeClient =
    dyn Fn(Option<Box<dyn Credentials>>) -> Result<Client, engine::Error> + Send + Sync;

/// Where requests come from.
pub enum Listener {
    /// A socket in the file system, whose mode says who may use it.
    Unix(UnixListener),
    /// A port, for clients that have a certificate; see [`crate::server_config`].
    Tls(TcpListener, Arc<rustls::ServerConfig>),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(listener) => f.debug_tuple("Unix").field(listener).finish(),
            Self::Tls(listener, _) => f.debug_tuple("Tls").field(listener).finish_non_exhaustive(),
        }
    }
}

/// What the server is told.
pub struct Options {
    /// Which engine to open.
    pub engine: EngineOptions,
    /// Where requests come from.
    pub listeners: Vec<Listener>,
    /// See [`MakeClient`].
    pub client: Box<MakeClient>,
    /// End when no connection has been open for so long.
    pub idle: Option<Duration>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("engine", &self.engine)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// What every request's function gets.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) work: Work,
    pub(crate) hub: Hub,
    pub(crate) waiting: Waiting,
    pub(crate) open: Open,
    pub(crate) client: Arc<MakeClient>,
}

/// Threads on which the engine works at the most; more requests wait for their turn.
const WORKERS: usize = 512;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// The largest head, in bytes.
const MAX_HEAD: usize = 256 << 10;

/// Answers requests until the process is ended, or until nobody asks any more (see [`Options::idle`]).
///
/// # Errors
/// Those of the sockets.
pub fn serve(mut options: Options) -> io::Result<()> {
    let listeners = std::mem::take(&mut options.listeners);
    let idle = options.idle;
    let (runtime, server) = prepared(options)?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            let server = server.clone();
            match listener {
                Listener::Unix(listener) => {
                    listener.set_nonblocking(true)?;
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    tasks.spawn(accept(listener, server));
                }
                Listener::Tls(listener, config) => {
                    listener.set_nonblocking(true)?;
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tasks.spawn(accept_tls(listener, config, server));
                }
            }
        }
        let idle = async {
            match idle {
                Some(patience) => server.open.idle(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = tasks.join_next() => ended.map_err(io::Error::other)?,
            () = idle => Ok(()),
        }
    })
}

/// The runtime, and what every request's function gets.
pub(crate) fn prepared(options: Options) -> io::Result<(tokio::runtime::Runtime, Server)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(WORKERS)
        // A start's deepest path is well within it, and hundreds of threads may be waiting.
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?;
    let work = Work::new(options.engine);
    let server = Server {
        hub: Hub::new(work.clone()),
        work,
        waiting: Waiting::default(),
        open: Open::default(),
        client: options.client.into(),
    };
    Ok((runtime, server))
}

async fn accept(listener: tokio::net::UnixListener, server: Server) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    let _open = server.open.one();
                    match tokio::time::timeout(HEAD, takeover::look(stream)).await {
                        Ok(Ok(Looked::Plain(stream))) => connection(stream, server).await,
                        Ok(Ok(Looked::Begun(stream))) => connection(stream, server).await,
                        // It said nothing, or has gone.
                        _ => {}
                    }
                });
            }
            // Out of descriptors or memory: those who are here go on, and some will leave.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn accept_tls(
    listener: tokio::net::TcpListener,
    config: Arc<rustls::ServerConfig>,
    server: Server,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(config);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    // Who has no certificate, or does not hurry to show it, is not talked to.
                    let greet = async { takeover::begin(acceptor.accept(stream).await?).await };
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, greet).await {
                        connection(stream, server).await;
                    }
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Answers the requests of one connection.
pub(crate) async fn connection<S>(stream: S, server: Server)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = server.open.one();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(respond(request, &server).await) }
    });
    // A client that goes in the middle is no failure of ours.
    let _ = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn respond(request: hyper::Request<Incoming>, server: &Server) -> Answer {
    let outcome = match Request::new(request.map(Unread::new)) {
        Ok(request) => route::answer(request, server).await,
        Err(failure) => Err(failure),
    };
    let answer = outcome.unwrap_or_else(|failure| failure.answer());
    let mut answer = answer::header(answer, "api-version", engine::info::API_VERSION);
    for (name, value) in [
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("server", concat!("Wherry/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ] {
        answer = answer::header(answer, name, value);
    }
    answer
}
