//! An engine elsewhere: what [`engine::Engine`] does, asked of another engine over the Docker Engine API.
//!
//! [`Remote`] has the engine's methods with the engine's types, so that the command line has one way of doing
//! things whatever it talks to: Wherry or Docker, over a Unix socket, TCP with TLS, or ssh. It blocks, has no
//! async runtime, and keeps one connection for requests that follow each other. It prints nothing and reads no
//! environment variables: who and how is in [`Host`] and [`Tls`].
//!
//! Start reading at `remote.rs` (a request and its answer), then `containers.rs` and `images.rs` (a method for
//! each of the engine's). `http.rs` is the protocol, `stream.rs` what carries it, `attachment.rs` the streams
//! of containers.

mod attachment;
mod containers;
mod host;
mod http;
mod images;
mod logs;
mod networks;
mod remote;
mod stream;

pub use attachment::Attachment;
pub use host::{Host, Tls};
pub use images::Auth;
pub use remote::Remote;
pub use stream::Stream;

/// An engine's error: the other engine's, or that it can't be reached.
pub use engine::{Error, Result};
