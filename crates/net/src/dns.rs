//! The name server of user-defined networks.
//!
//! [`Server`] answers on sockets that it is given, in one thread: names of containers from
//! [`Names`], everything else by asking the upstream servers. It holds no state that would be missed:
//! whoever starts another one loses only what was being asked at that moment.
//!
//! [`message`] is the codec (RFC 1035, and of RFC 6891 the size of messages). It knows one question,
//! and nothing of records but how to make addresses and names.

pub mod message;
mod server;
mod table;

pub use server::{Limits, Server};
pub use table::{Found, Names, Table};
