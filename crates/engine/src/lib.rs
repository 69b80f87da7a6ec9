//! The engine: the one interface behind every door (command line, HTTP API, compose).
//!
//! An [`Engine`] is a data root and a run root, opened by any process at any time; there
//! is no daemon. State is in the store's database; what runs is held by the keeper; this
//! crate joins the two by rules: what a request means (`create`, `mounts`, `spec`), how
//! a start is prepared (`start`, `plan`), what follows from an end (`reconcile`, `steward`).
//!
//! It knows no terminal and no environment variables, and prints nothing. Start reading
//! at [`Engine`], then `create`, `start` and `reconcile`: the life of a `run`.

mod attachment;
mod boot;
pub mod build;
mod cgroup;
mod clock;
mod content;
mod create;
pub mod detach;
pub mod doctor;
mod engine;
mod error;
mod events;
mod exec;
mod exec_basis;
mod exec_events;
mod exec_instance;
pub mod foreign;
mod health;
mod image_copy;
mod images;
mod import_url;
mod index;
pub mod info;
mod layout;
mod lifecycle;
mod list;
mod logs;
mod mounts;
mod names;
mod network;
mod offline;
mod peer;
mod plan;
mod platforms;
mod pull;
mod push;
mod reconcile;
mod record;
mod remote;
mod resume;
mod seccomp;
pub mod settings;
pub mod signals;
mod sources;
mod spec;
mod start;
mod stats;
mod steward;
mod storage;
mod top;
mod transfer;
pub mod types;
mod usage;
mod user;
mod volumes;
mod watch;

pub use attachment::{Attachment, Frame};
pub use boot::{Booted, Halted};
pub use clock::{human_duration, rfc3339, rfc3339_fixed};
pub use engine::{
    ArchiveFormat, AttachOptions, CommitOptions, Engine, EngineOptions, EventOptions, Filters,
    ImportOptions, ListOptions, LogLine, LogOptions, NoProgress, PathStat, Progress, RemoveOptions,
    StreamKind, WaitCondition, helper_args,
};
pub use error::{Error, ErrorKind, Result};
pub use events::event_matches;
pub use exec::ExecSession;
pub use image_copy::{CopyOptions, Place};
pub use list::parse_time;
pub use logs::{LogReader, LogShape, LogState};
pub use pull::{PullOptions, Pulled};
pub use push::PushOptions;
pub use remote::{RemoteImage, RemoteManifest};
pub use runtime::trace;
pub use storage::StorageMigration;
pub use transfer::{Detail, Message, Transfer};
