//! The words every door speaks: Docker's own JSON shapes.
//!
//! What a client sends to create a container, what `inspect`, `ps`, `stats` and
//! `events` answer. The names and the order of the fields are those of the Docker
//! Engine API (v1.51), so one type serves the command line's `--format`, the HTTP API
//! and the database. Absent and `null` are the same on the way in.

mod container;
mod host;
mod image;
mod info;
mod network;
mod system;

pub use container::*;
pub use host::*;
pub use image::*;
pub use info::*;
pub use network::*;
pub use system::*;
