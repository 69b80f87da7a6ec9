//! `exec`: another program in a running container.

use engine::types::ExecConfig;

use super::run::{detach_keys, exit_byte, signal_code};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::stream::{self, End, Join};
use crate::values::env::{check_env, environment};

/// Options of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run it in the background
    #[arg(long, short = 'd')]
    detach: bool,
    /// Keys that leave the program running and come back (default "ctrl-p,ctrl-q")
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Set a variable (NAME=value; a bare NAME takes the value it has here)
    #[arg(long, short = 'e', value_name = "list", value_parser = check_env)]
    env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Keep STDIN open even if nobody is attached
    #[arg(long, short = 'i')]
    interactive: bool,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Give it a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// User and group, names or numbers (user[:group])
    #[arg(long, short = 'u', value_name = "string")]
    user: Option<String>,
    /// Working directory
    #[arg(long, short = 'w', value_name = "string")]
    workdir: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "exec"], &["exec"]],
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
    )
    .at_least(2)
    .options_first();

    fn run(self, context: &Context) -> Outcome {
        let (name, cmd) =
            self.args.split_first().ok_or_else(|| Failure::new(1, "a container must be named"))?;
        let keys_text = self.detach_keys.clone().unwrap_or_default();
        let keys = detach_keys(context, self.detach_keys.as_deref())?;
        let lookup = |name: &str| std::env::var(name).ok();
        let env =
            environment(&self.env_file, &self.env, &lookup).map_err(|why| Failure::new(1, why))?;
        let stdin = self.interactive && !self.detach;
        if !self.detach {
            stream::check_tty(stdin, self.tty)?;
        }
        let config = ExecConfig {
            attach_stdin: stdin,
            attach_stdout: !self.detach,
            attach_stderr: !self.detach,
            console_size: self
                .tty
                .then(stream::window)
                .flatten()
                .map(|(rows, columns)| [rows.into(), columns.into()]),
            detach_keys: keys_text,
            tty: self.tty,
            env: (!env.is_empty()).then_some(env),
            cmd: Some(cmd.to_vec()),
            privileged: self.privileged,
            user: self.user.unwrap_or_default(),
            working_dir: self.workdir.unwrap_or_default(),
        };
        let opener = context.opener()?;
        let attachment = opener.exec(name, config, self.detach).map_err(|e| {
            // Docker's: what can't be started there is 126, what is wrong before that is 1.
            let code = match (e.run_exit_code(), e.kind) {
                (125, engine::ErrorKind::NotFound | engine::ErrorKind::Conflict) => 1,
                (125, _) => 126,
                (code, _) => code,
            };
            Failure::new(code, context.error_line(&e.into())).bare()
        })?;
        let Some(attachment) = attachment else { return Ok(0) };
        if self.detach {
            return Ok(0);
        }
        let end = stream::join(attachment, Join { stdin, tty: self.tty, keys, proxy: None })?;
        Ok(match end {
            End::Exit(code) => exit_byte(code),
            End::Detached => 0,
            End::Signal(signal) => signal_code(signal),
            End::Closed => {
                return Err(Failure::new(
                    1,
                    format!("exec in {name}: the connection ended before the program did; its exit code is not known"),
                )
                .into());
            }
        })
    }
}
