//! The tests of the other files once more, with unpacked directories instead of image filesystems.
#![allow(clippy::unwrap_used)]
// Each of them brings the same helpers.
#![allow(clippy::duplicate_mod)]

#[path = "archives.rs"]
mod archives;
#[path = "containers.rs"]
mod containers;
#[path = "dialects.rs"]
mod dialects;
#[path = "hostile.rs"]
mod hostile;
#[path = "import_and_mount.rs"]
mod import_and_mount;
#[path = "killed.rs"]
mod killed;
#[path = "properties.rs"]
mod properties;
#[path = "removal.rs"]
mod removal;
