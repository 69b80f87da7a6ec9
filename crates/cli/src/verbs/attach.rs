//! `attach`: join a running container's streams.

use engine::{AttachOptions, WaitCondition};

use super::one;
use super::run::{detach_keys, exit_byte, signal_code};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::stream::{self, End, Join};

/// Options of `attach`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keys that leave the container running and come back (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals that arrive here on to the container
    #[arg(long, default_value = "true")]
    sig_proxy: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "attach"], &["attach"]],
        "[OPTIONS] CONTAINER",
        "Join the standard input and output of a running container",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let name = one(&self.args)?;
        let keys = detach_keys(context, self.detach_keys.as_deref())?;
        let engine = context.engine()?;
        let found = engine.inspect(name, false)?;
        if !found.state.running {
            return Err(Failure::new(1, "cannot attach to a stopped container, start it first")
                .bare()
                .into());
        }
        if found.state.paused {
            return Err(Failure::new(1, "cannot attach to a paused container, unpause it first")
                .bare()
                .into());
        }
        if found.state.restarting {
            return Err(Failure::new(
                1,
                "cannot attach to a restarting container, wait until it is running",
            )
            .bare()
            .into());
        }
        let stdin = !self.no_stdin && found.config.open_stdin;
        stream::check_tty(stdin, found.config.tty)?;
        let options = AttachOptions { stdin, stdout: true, stderr: true, logs: false };
        let id = found.id;
        let attachment = engine.attach(&id, options)?;
        let mut pass = |signal: i32| {
            let _ = engine.kill(&id, &signal.to_string());
        };
        let end = stream::join(
            attachment,
            Join {
                stdin,
                tty: found.config.tty,
                keys,
                proxy: self.sig_proxy.then_some(&mut pass as &mut dyn FnMut(i32)),
            },
        )?;
        Ok(match end {
            End::Exit(code) => exit_byte(code),
            End::Detached => {
                crate::context::note("read escape sequence");
                0
            }
            End::Signal(signal) => signal_code(signal),
            End::Closed => exit_byte(engine.wait(&id, WaitCondition::NotRunning)?),
        })
    }
}
