//! `pause`

use anyhow::{Result, bail};
use runtime::state::Status;

use super::Global;
use super::store::Container;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let container = Container::load(global, &args.id)?;
    match container.status() {
        Status::Running | Status::Created => {}
        status => bail!("cannot pause a container that is {}", status.as_str()),
    }
    container.cgroup()?.freeze()?;
    Ok(0)
}
