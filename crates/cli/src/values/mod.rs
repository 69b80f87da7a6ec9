//! Parsers of option values, with the messages Docker's client gives.
//!
//! Each takes what was typed and answers a value or one line saying what is wrong with
//! it; none panics, whatever it is given.

pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod opts;
pub(crate) mod port;
pub(crate) mod size;
pub(crate) mod time;

#[cfg(test)]
mod properties;
