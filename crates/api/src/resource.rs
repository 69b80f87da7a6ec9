//! A file for each of Docker's resources.

pub(crate) mod buildkit;
pub(crate) mod builds;
pub(crate) mod containers;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod networks;
pub(crate) mod streams;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod volumes;
