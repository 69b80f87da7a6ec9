//! Networks of containers: interfaces, filter rules, addresses and names.
//!
//! The crate works on the kernel and on nothing else: it knows no database, no files but
//! `/proc/sys/net`, and no engine. What should be is told to it; what is, it can list
//! ([`endpoint::Host::inventory`]), so that the caller compares and repairs.
//!
//! Start reading at [`endpoint`]: plugging a container into a network, and pulling it out. Below it
//! are [`link`] (interfaces and addresses, rtnetlink) and [`filter`] (one nftables table), both over
//! [`netlink`], the encoder. [`address`] decides who gets which address over the caller's rows, and
//! [`dns`] is the name server.
//!
//! # The path of a start
//!
//! [`endpoint::Host::plug`] sends two messages in one call for the pair of interfaces, enters the
//! container's namespace in a short thread and sends one batch there, and one transaction of nftables
//! if ports are published. No program is executed, nothing is locked, no rule is made: a published
//! port is an element of a map that is there already, so that neither the start nor a packet pays for
//! the ports of others.
//!
//! # Why the messages are written here and not by a library
//!
//! rtnetlink and nfnetlink share header and attributes, so that one encoder of 300 lines serves both;
//! of the libraries for rtnetlink none knows nftables, and the one for nftables that talks to the
//! kernel is under a licence that we can't use. A start needs a dozen kinds of attributes. The tests
//! hold what the encoder writes against the kernel itself, and a fuzz target feeds the reader.
//!
//! # What needs privilege
//!
//! Everything that changes something needs `CAP_NET_ADMIN` over the namespace's user namespace, and
//! nothing else: the "host" may be any namespace. Only [`endpoint::Host`] and
//! [`endpoint::loopback`] change something.

pub mod address;
pub mod dns;
pub mod endpoint;
pub mod error;
pub mod filter;
pub mod link;
pub mod name;
pub mod namespace;
pub mod netlink;
pub mod prefix;

pub use error::{Error, Result};
