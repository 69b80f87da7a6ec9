//! `run`: create, start and stay until the container ends.

use engine::{AttachOptions, RemoveOptions, WaitCondition};

use super::container_flags::{ContainerFlags, IdFile};
use super::create::{failed, need_image, see_help};
use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::stream::{self, End, Join};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Leave it running in the background and print its id
    #[arg(long, short = 'd')]
    detach: bool,
    /// Pass signals that arrive here on to the container
    #[arg(long, default_value = "true")]
    sig_proxy: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "run"], &["run"]],
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container from an image and run it",
    )
    .options_first();

    fn run(self, context: &Context) -> Outcome {
        need_image(context, &self.flags, &self.args, &Self::SPEC)?;
        let keys = detach_keys(context, self.flags.detach_keys.as_deref())
            .map_err(|f| see_help(context, f))?;
        if self.detach && !self.flags.attach.is_empty() {
            return Err(see_help(
                context,
                Failure::new(125, "conflicting options: cannot specify both --attach and --detach"),
            )
            .into());
        }
        let removes = self.flags.rm;
        let mut file =
            IdFile::reserve(self.flags.cidfile.as_deref()).map_err(|f| see_help(context, f))?;
        let policy = super::pull::Policy::of(&self.flags);
        let mut request = self
            .flags
            .request(&self.args, &|name| std::env::var(name).ok())
            .map_err(|f| see_help(context, f))?;
        let config = &mut request.config;
        if self.detach {
            (config.attach_stdin, config.attach_stdout, config.attach_stderr) =
                (false, false, false);
            config.stdin_once = false;
        }
        let wanted = AttachOptions {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            logs: false,
        };
        let tty = config.tty;
        stream::check_tty(wanted.stdin, tty)?;
        if tty && let Some((rows, columns)) = stream::window() {
            request.host_config.console_size = [rows.into(), columns.into()];
        }
        let engine = context.engine()?;
        let created = super::pull::create(context, &engine, &policy, request)?;
        for warning in &created.warnings {
            context::note(&format!("WARNING: {warning}"));
        }
        file.write(&created.id)?;
        let id = created.id;
        let attaches = wanted.stdin || wanted.stdout || wanted.stderr;
        let attachment = match engine.start(&id, attaches.then_some(wanted)) {
            Ok(attachment) => attachment,
            Err(error) => {
                if removes {
                    // What was made for nothing; the reason to report is the failed start.
                    let _ = engine.remove(&id, RemoveOptions { force: true, volumes: true });
                }
                return Err(failed(context, error).into());
            }
        };
        let Some(attachment) = attachment else {
            context::println(&id)?;
            return Ok(0);
        };
        let mut pass = |signal: i32| {
            // It may have ended in this moment; then there is nobody to tell.
            let _ = engine.kill(&id, &signal.to_string());
        };
        let join = Join {
            stdin: wanted.stdin,
            tty,
            keys,
            proxy: self.sig_proxy.then_some(&mut pass as &mut dyn FnMut(i32)),
        };
        let phase = context.trace.phase("pass its streams on until it ends");
        let end = stream::join(attachment, join)?;
        drop(phase);
        let code = match end {
            End::Detached => return Ok(0),
            End::Signal(signal) => return Ok(signal_code(signal)),
            End::Exit(code) => code,
            End::Closed => exit_code(&engine, &id)?,
        };
        if removes {
            let _phase = context.trace.phase("remove it");
            remove(&engine, &id)?;
        }
        Ok(exit_byte(code))
    }
}

/// The code of a container whose connection ended without one.
fn exit_code(engine: &Door, id: &str) -> anyhow::Result<i32> {
    Ok(engine.wait(id, WaitCondition::NotRunning)?)
}

/// Removes a container that has ended; one that is gone already is as it should be.
fn remove(engine: &Door, id: &str) -> anyhow::Result<()> {
    match engine.remove(id, RemoveOptions { force: false, volumes: true }) {
        Err(e) if e.kind != engine::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The lowest byte, as every exit code.
pub(crate) fn exit_byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// The code of a command that a signal ended.
pub(crate) fn signal_code(signal: i32) -> u8 {
    exit_byte(signal.saturating_add(128))
}

/// The keys that detach: the option, the settings, the default.
pub(crate) fn detach_keys(context: &Context, given: Option<&str>) -> Result<Vec<u8>, Failure> {
    let text = match given {
        Some(text) => text.to_owned(),
        None => {
            context.settings().map_err(|e| Failure::new(125, format!("{e:#}")))?.detach_keys.clone()
        }
    };
    let text = if text.is_empty() { engine::detach::DEFAULT } else { &text };
    engine::detach::parse_keys(text)
        .map_err(|why| Failure::new(125, format!("invalid detach keys ({text}): {why}")))
}
