//! `resume`

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
    let cgroup = container.cgroup()?;
    if !cgroup.frozen() || container.status() == Status::Stopped {
        bail!("container \"{}\" is not paused", args.id);
    }
    cgroup.thaw()?;
    Ok(0)
}
