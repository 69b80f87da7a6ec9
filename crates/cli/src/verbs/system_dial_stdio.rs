//! `system dial-stdio`: the Docker Engine API on standard input and output, which is what a client at the
//! other end of ssh talks to.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
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
        "What docker and wherry run at the other end of ssh://. No server has to run: one is\n\
         started, and ends when nobody has used it for ten seconds.",
    )
    .args(0, 0)
    .hidden();

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let stream = server(context)?;
        let mut requests = stream.try_clone()?;
        std::thread::Builder::new().name("requests".into()).spawn(move || {
            // Whichever side ends first, the other is told; there is nobody to complain to.
            let _ = copy(&mut std::io::stdin().lock(), &mut requests);
            let _ = requests.shutdown(std::net::Shutdown::Write);
        })?;
        copy(&mut &stream, &mut std::io::stdout().lock())?;
        Ok(0)
    }
}

/// Seconds for which a server that was started for this stays without clients.
const IDLE: &str = "10";

/// Connects to the server of this run root, and starts one if there is none: a client makes several
/// connections at a time, and they must meet.
fn server(context: &Context) -> anyhow::Result<UnixStream> {
    let options = context.engine_options()?;
    let run_root = &options.run_root;
    if let Ok(stream) = UnixStream::connect(run_root.join("wherry.sock")) {
        return Ok(stream);
    }
    let path = run_root.join("dial.sock");
    std::fs::create_dir_all(run_root).with_context(|| run_root.display().to_string())?;
    let lock = std::fs::File::create(run_root.join("dial.lock"))
        .with_context(|| run_root.display().to_string())?;
    lock.lock()?;
    if let Ok(stream) = UnixStream::connect(&path) {
        return Ok(stream);
    }
    let mut command = Command::new(&options.program);
    command.arg("--data-root").arg(&options.data_root).arg("--run-root").arg(run_root);
    if let Some(config) = &context.globals.config {
        command.arg("--config").arg(config);
    }
    let mut child = command
        .args(["serve", "--idle", IDLE, "-G", "0", "-H"])
        .arg(format!("unix://{}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start a server")?;
    // It opens the engine first, which may have to wait for another.
    for _ in 0..3000 {
        if let Ok(stream) = UnixStream::connect(&path) {
            return Ok(stream);
        }
        if let Some(status) = child.try_wait()? {
            return Err(
                Failure::new(1, format!("the server that was started ended: {status}")).into()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::new(1, "the server that was started does not answer").into())
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
