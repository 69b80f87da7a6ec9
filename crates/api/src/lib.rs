//! The Docker Engine HTTP API: one more door to the engine, for clients that speak it.
//!
//! The server keeps no state of its own. What it knows it asks the engine, so that it may be killed,
//! started again or run twice, and containers and the other doors do not notice. What lives here is what
//! belongs to open connections: streams, and who waits for an event.
//!
//! It may use an async runtime, the only crate that may: thousands of attached clients that are silent
//! cost a task each, not a thread. What works (the engine blocks) does so on a bounded pool of threads.
//!
//! Start reading at [`serve`], then `route`: from a request's path to the function that answers it. A file
//! in `resource` answers for each of Docker's resources; `hijack` and `body` are the streams.
//!
//! Versions: `/v1.24` to `/v1.51` before the path are accepted, and no version at all. What older ones have
//! otherwise is in `versions`.

mod answer;
mod body;
mod credentials;
mod exchange;
mod hijack;
mod hub;
mod request;
mod resource;
mod route;
mod server;
mod takeover;
mod tls;
mod versions;
mod websocket;
mod work;

pub use exchange::Exchange;
pub use rustls::ServerConfig;
pub use server::{Listener, MakeClient, Options, serve};
pub use tls::{TlsError, server_config};
