//! `delete`

use anyhow::{Result, bail};
use runtime::state::Status;

use super::Global;
use super::store::{Container, NotExist};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kill the container first if it runs; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let container = match Container::load(global, &args.id) {
        Ok(container) => container,
        Err(error) if args.force && error.is::<NotExist>() => {
            // A directory without a state is what a killed `create` leaves.
            let directory = global.root.join(&args.id);
            if directory.is_dir() && !args.id.contains('/') && !args.id.starts_with('.') {
                std::fs::remove_dir_all(&directory)?;
            }
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    match container.status() {
        Status::Stopped | Status::Created => {}
        _ if args.force => {}
        status => bail!(
            "cannot delete container \"{}\" that is not stopped: {}",
            args.id,
            status.as_str()
        ),
    }
    container.destroy(global)?;
    Ok(0)
}
