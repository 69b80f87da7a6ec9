//! `run`

use anyhow::Result;
use runtime::Progress;

use super::{Global, container};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: container::Options,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container after it has stopped
    #[arg(long)]
    keep: bool,
    /// Accepted for compatibility: this command takes no part in reaping others' processes
    #[arg(long)]
    no_subreaper: bool,
    /// The container's ID
    id: String,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let created = container::create(global, &args.id, &args.options, args.detach)?;
    let container::Created { container, mut launching, console } = created;
    let result = container::start(global, &container).and_then(|()| {
        // Past the gate: executed, or an error.
        while !matches!(launching.wait_started()?, Progress::Ready) {}
        if args.detach { Ok(0) } else { container::attend(&launching, console) }
    });
    if !args.detach && !args.keep || result.is_err() {
        let removed = container.destroy(global);
        let code = result?;
        removed?;
        return Ok(code);
    }
    result
}
