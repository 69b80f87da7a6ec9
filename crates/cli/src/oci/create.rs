//! `create`

use anyhow::Result;

use super::{Global, container};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: container::Options,
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    container::create(global, &args.id, &args.options, true)?;
    Ok(0)
}
