//! The engine through its binary: real namespaces, real images, real processes.
//!
//! Each test has an engine of its own, in two folders, and leaves nothing behind: the
//! harness checks that. They need root; where they don't have it they fail, saying so.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod harness;

mod build_ends;
mod build_mounts;
mod build_results;
mod build_services;
mod builds;
mod containers;
mod cost;
mod deaths;
mod errors;
mod exec_events;
mod fetches;
mod files;
mod host_names;
mod images;
mod limits;
mod loops;
mod namespaces;
mod networks;
mod restarts;
mod streams;
mod system;
mod trace;
mod volumes;
