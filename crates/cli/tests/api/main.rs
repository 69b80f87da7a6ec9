//! The HTTP API through its clients: `docker`, docker-py, and requests by hand.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

mod doors;
mod python;
mod requests;
mod server;
