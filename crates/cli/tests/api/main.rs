//! The HTTP API through its clients: `docker`, docker-py, and requests by hand.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

mod builds;
mod doors;
mod elsewhere;
mod many;
mod python;
mod reference;
mod requests;
mod server;
mod stacks;
mod streams;
