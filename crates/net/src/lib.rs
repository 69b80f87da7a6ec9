//! Networks of containers: interfaces, filter rules, addresses and names.
pub mod address;
pub mod dns;
pub mod endpoint;
pub mod error;
pub mod filter;
pub mod link;
pub mod name;
pub mod namespace;
pub mod netlink;
pub use error::{Error, Result};
