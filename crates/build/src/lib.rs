//! Building images: from a Dockerfile and a context to an image in the store.
//!
//! In the order a build goes: [`language`] reads the Dockerfile, without touching a file; [`Plan`] says which
//! stages are needed; `job` does them, each instruction by `stage` (what only changes the configuration), `copying` (`COPY`, `ADD`)
//! or `running` (`RUN`). A step that changes files has a key (`key`): a digest of what it does and reads, and of the
//! layers it lies upon. Its layer is taken from the store if the key is known there, so that a step whose
//! result is the same as before does not make those after it anew. Start reading at [`build`].
//!
//! A context is outside data: `tree` reads it, and the files of stages, by descriptors below one root; `place`
//! writes into root filesystems in the same way. This crate knows no terminal and no environment variables; what
//! happens it tells a [`Progress`]. `docs/build.md` is the page for users.

mod agent;
pub mod cache;
mod copying;
pub mod elsewhere;
mod error;
mod foreign;
mod job;
mod key;
pub mod language;
pub mod lock;
mod mounting;
mod options;
pub mod output;
mod place;
mod plan;
mod progress;
pub mod remote;
mod running;
mod scope;
pub mod services;
mod side_by_side;
mod stage;
mod stop;
mod tree;
pub mod upload;
pub mod verify;

pub use error::{Error, Result};
pub use job::{Built, build, plan};
pub use options::{Allow, Context, Debug, File, Options};
pub use plan::{Base, Origin, Plan, PlannedStage};
pub use progress::{Event, Progress};
pub use stop::{Deaf, Stop, Stopping};
