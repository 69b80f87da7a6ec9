//! The keeper: the one small process that holds all running containers of an engine.
//!
//! It forks them, reaps them, moves their output to their journals and passes it to
//! whoever is attached. One thread, one epoll loop, no database, no network protocol
//! beyond its own socket. It starts with the first container (`client::connect` spawns
//! it) and leaves a moment after the last. Beside it lives a standby that holds copies
//! of its descriptors, so that killing either of them harms no container and loses no
//! output.
//!
//! What it may touch: the run root (its socket, the pipes in `io/`, its notes on running
//! containers in `running/`, its reports of ended ones in `exits/`), the journals it is
//! told to write, and the kernel. It decides nothing: what must happen after an end
//! (removal, restart) is done by an engine process, which it starts as a *steward* when
//! nobody else is there to do it.
//!
//! Start reading at `server`, the event loop; `protocol` is what it is asked; `mover` is
//! why no byte is lost; `client` is the other side.

pub mod client;
mod container;
pub mod journal;
mod mover;
pub mod protocol;
mod server;
mod shelf;
mod standby;

pub use server::main;

/// What can go wrong on the way to the keeper and back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be reached or started.
    #[error("cannot reach the keeper at {path}: {source}")]
    Connect {
        /// Its socket.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file that says that containers were renamed cannot be made longer.
    #[error("cannot write {path}: {source}")]
    Renames {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke in the middle of an exchange.
    #[error("the keeper went away: {0}")]
    Broken(#[from] std::io::Error),
    /// It answered in a way this version does not know.
    #[error(
        "the keeper speaks another version of its protocol; stop all containers to let it leave, then try again"
    )]
    Version,
    /// It could not do what was asked.
    #[error("{message}")]
    Failed {
        /// Exit code a command should have: 125, 126, 127.
        code: u8,
        /// No such container or exec there.
        not_found: bool,
        /// One line.
        message: String,
    },
}
