//! `start`

use anyhow::Result;

use super::store::Container;
use super::{Global, container};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    container::start(global, &Container::load(global, &args.id)?)?;
    Ok(0)
}
