//! `start`: start containers that were made or have stopped.

use engine::{AttachOptions, RemoveOptions, WaitCondition};

use super::one;
use super::run::{detach_keys, exit_byte, signal_code};
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome, all_or_one};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::stream::{self, End, Join};

/// Options of `start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Join its output and pass signals on
    #[arg(long, short = 'a')]
    attach: bool,
    /// Refused: this engine makes no checkpoints
    #[arg(long, value_name = "string")]
    checkpoint: Option<String>,
    /// Refused: this engine makes no checkpoints
    #[arg(long, value_name = "string")]
    checkpoint_dir: Option<String>,
    /// Keys that leave the container running and come back (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Join its standard input
    #[arg(long, short = 'i')]
    interactive: bool,
    /// Pass signals that arrive here on to the container
    #[arg(long, default_value = "true", hide = true)]
    sig_proxy: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "start"], &["start"]],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start containers that are stopped",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let given =
            [("--checkpoint", &self.checkpoint), ("--checkpoint-dir", &self.checkpoint_dir)];
        if let Some((flag, _)) = given.iter().find(|(_, v)| v.is_some()) {
            return Err(Failure::new(
                1,
                format!("start {flag}: this engine makes no checkpoints; leave it out"),
            )
            .into());
        }
        if self.attach || self.interactive {
            return self.joined(context);
        }
        let engine = context.engine()?;
        let mut failed = Vec::new();
        for name in &self.args {
            match engine.start(name, None) {
                Ok(_) => context::println(name)?,
                Err(error) if error.kind == engine::ErrorKind::NotModified => {
                    context::println(name)?;
                }
                Err(error) => {
                    failed.push(name.as_str());
                    context.complain(&error.into());
                }
            }
        }
        context.sum_up("start containers:", &failed);
        all_or_one(!failed.is_empty())
    }
}

impl Args {
    fn joined(self, context: &Context) -> Outcome {
        if self.args.len() > 1 {
            return Err(Failure::new(1, "you cannot start and attach multiple containers at once")
                .bare()
                .into());
        }
        let keys = detach_keys(context, self.detach_keys.as_deref())?;
        let engine = context.engine()?;
        let found = engine.inspect(one(&self.args)?, false)?;
        let (id, tty) = (found.id, found.config.tty);
        let stdin = self.interactive && found.config.open_stdin;
        stream::check_tty(stdin, tty)?;
        let options = AttachOptions { stdin, stdout: true, stderr: true, logs: false };
        let attachment = match engine.start(&id, Some(options)) {
            Ok(Some(attachment)) => attachment,
            Ok(None) => return Ok(0),
            // It runs already: joining it is what is left to do.
            Err(e) if e.kind == engine::ErrorKind::NotModified => engine.attach(&id, options)?,
            Err(e) => {
                let code = e.run_exit_code();
                let line = context.error_line(&e.into());
                return Err(Failure::new(if code == 125 { 1 } else { code }, line).bare().into());
            }
        };
        let mut pass = |signal: i32| {
            let _ = engine.kill(&id, &signal.to_string());
        };
        let end = stream::join(
            attachment,
            Join {
                stdin,
                tty,
                keys,
                proxy: self.sig_proxy.then_some(&mut pass as &mut dyn FnMut(i32)),
            },
        )?;
        let code = match end {
            End::Exit(code) => code,
            End::Detached => return Ok(0),
            End::Signal(signal) => return Ok(signal_code(signal)),
            End::Closed => engine.wait(&id, WaitCondition::NotRunning)?,
        };
        if found.host_config.auto_remove {
            match engine.remove(&id, RemoveOptions { force: false, volumes: true }) {
                Err(e) if e.kind != engine::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(exit_byte(code))
    }
}
