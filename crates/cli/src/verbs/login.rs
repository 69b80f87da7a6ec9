//! `login`: credentials for a registry, checked and kept.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;

use ::registry::{Credential, Credentials, DOCKER_HUB_KEY, Error as RegistryError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registries;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Password or personal access token
    #[arg(long, short = 'p', value_name = "string")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Name of the user
    #[arg(long, short = 'u', value_name = "string")]
    username: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// Longest password that is read.
const MOST: u64 = 64 << 10;

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["login"]],
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry",
    )
    .long("Docker Hub if no server is named. Credentials are kept where Docker's client keeps them.")
    .args(0, 1);

    fn run(mut self, context: &Context) -> Outcome {
        if self.password.is_some() {
            context::note(
                "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
            );
            if self.password_stdin {
                return Err(Failure::new(
                    1,
                    "--password and --password-stdin are mutually exclusive",
                )
                .bare()
                .into());
            }
        }
        if self.password_stdin {
            if self.username.as_deref().unwrap_or_default().is_empty() {
                return Err(Failure::new(1, "Must provide --username with --password-stdin")
                    .bare()
                    .into());
            }
            let mut text = String::new();
            std::io::stdin().lock().take(MOST).read_to_string(&mut text)?;
            self.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        let server = self.args.first().map_or(DOCKER_HUB_KEY, String::as_str);
        let key = ::registry::server_key(server);
        let client = registries::client(context, false)?;
        let file = registries::docker_config()?;
        if self.username.is_none()
            && self.password.is_none()
            && let Some(known) = file.get(&key)?
        {
            context::println("Authenticating with existing credentials...")?;
            match client.login(server, &known) {
                Ok(_) => {
                    context::println("\nLogin Succeeded")?;
                    return Ok(0);
                }
                Err(e) if e.is_refused() => {
                    context::note(&format!("Login did not succeed, error: {e}"));
                }
                Err(e) => return Err(failed(context, e)),
            }
        }
        let credential = Credential::Password {
            username: match self.username.filter(|n| !n.is_empty()) {
                Some(name) => name,
                None => ask("Username: ", true)?,
            },
            password: match self.password {
                Some(password) => password,
                None => ask("Password: ", false)?,
            },
        };
        if let Credential::Password { username, password } = &credential
            && (username.is_empty() || password.is_empty())
        {
            let what = if username.is_empty() { "username" } else { "password" };
            return Err(Failure::new(1, format!("{what} is required")).bare().into());
        }
        let login = client.login(server, &credential).map_err(|e| failed(context, e))?;
        if file.is_plain(&key) {
            context::note(&format!(
                "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.",
                file.path().display()
            ));
        }
        let path = registries::docker_config_path()?;
        ::registry::DockerConfig::load(&path)?.store(&key, &login.keep)?;
        context::println("Login Succeeded")?;
        Ok(0)
    }
}

fn failed(context: &Context, error: RegistryError) -> anyhow::Error {
    let error = engine::Error::from(error);
    Failure::new(1, context.error_line(&error.into())).bare().into()
}

/// Asks on the terminal; without echo for secrets.
fn ask(prompt: &str, echo: bool) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            1,
            "Error: Cannot perform an interactive login from a non TTY device",
        )
        .bare()
        .into());
    }
    if echo {
        context::print(prompt)?;
        let mut line = String::new();
        stdin.read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let hidden = Hidden::new()?;
    context::print(prompt)?;
    let line = hidden.line();
    drop(hidden);
    Ok(line?.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped. Signals wait for that.
struct Hidden {
    before: Termios,
    signals: OwnedFd,
}

const ENDING: [i32; 4] =
    [Signal::INT.as_raw(), Signal::TERM.as_raw(), Signal::HUP.as_raw(), Signal::QUIT.as_raw()];

impl Hidden {
    fn new() -> anyhow::Result<Self> {
        let signals = sys::signal::block_and_watch(&ENDING)?;
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let hidden = Self { before, signals };
        tcsetattr(&stdin, OptionalActions::Now, &silent)?;
        Ok(hidden)
    }

    /// What is typed, to the end of the line; nothing if a signal came first.
    fn line(&self) -> anyhow::Result<String> {
        let stdin = std::io::stdin();
        let mut ends =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut ends, None))?;
        let mut line = String::new();
        if ends.get(1).is_none_or(|signals| signals.revents().is_empty()) {
            stdin.read_line(&mut line)?;
        }
        Ok(line)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
        let _ = std::io::stdout().write_all(b"\n");
        // One that came ends us here.
        let _ = sys::signal::unblock(&ENDING);
    }
}
