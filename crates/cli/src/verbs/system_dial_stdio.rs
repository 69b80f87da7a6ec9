//! `system dial-stdio`: the Docker Engine API on standard input and output, which is what a client at the
//! other end of ssh talks to.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::Context as _;

use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["system", "dial-stdio"]],
        "",
        "Answer the Docker Engine API on standard input and output",
    )
    .long(
        "What docker and wherry run at the other end of ssh://. No server has to run: this command is one for\n\
         as long as the connection lasts.",
    )
    .args(0, 0)
    .hidden();

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let (ours, theirs) = UnixStream::pair().context("a pair of sockets")?;
        let options = super::serve::options(context)?;
        let server = std::thread::Builder::new()
            .name("serve".into())
            .spawn(move || api::serve_one(options, theirs))?;
        let mut requests = ours.try_clone()?;
        std::thread::Builder::new().name("requests".into()).spawn(move || {
            // Whichever side ends first, the other is told; there is nobody to complain to.
            let _ = copy(&mut std::io::stdin().lock(), &mut requests);
            let _ = requests.shutdown(std::net::Shutdown::Write);
        })?;
        copy(&mut &ours, &mut std::io::stdout().lock())?;
        match server.join() {
            Ok(result) => result.context("dial-stdio")?,
            Err(_) => return Ok(1),
        }
        Ok(0)
    }
}

/// Each piece goes on at once.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        to.flush()?;
    }
}
