//! Registries, through the binary: the real `docker-registry` with and without TLS and logins, other programs
//! that read and write the same, and a registry of our own that misbehaves.
//!
//! Everything is on loopback, each test with its own port, folders and processes.

#![allow(clippy::print_stderr, reason = "skipped tests say so")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bad;
mod builds;
mod certificates;
mod kills;
mod login;
mod platforms;
mod real;
#[path = "../screen/mod.rs"]
mod screen;
mod server;
mod world;
