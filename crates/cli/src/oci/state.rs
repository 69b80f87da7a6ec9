//! `state`

use anyhow::Result;

use super::store::Container;
use super::{Global, say};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let container = Container::load(global, &args.id)?;
    let state = container.state(container.status());
    let mut value = serde_json::to_value(&state)?;
    if let Some(object) = value.as_object_mut() {
        // Callers of runc know these; a stopped container has the number 0 there.
        object.entry("pid").or_insert(0.into());
        let record = &container.record;
        object.insert("rootfs".to_owned(), record.plan.rootfs.display().to_string().into());
        object.insert("created".to_owned(), record.created.clone().into());
        object.insert("owner".to_owned(), owner(record.owner).into());
    }
    say(&serde_json::to_string_pretty(&value)?)?;
    Ok(0)
}

/// Root by name; others by number, since the user database is not ours to read.
pub(super) fn owner(uid: u32) -> String {
    if uid == 0 { "root".to_owned() } else { format!("#{uid}") }
}
