//! `completion`: what a shell needs to complete this command line.

use std::io::Write;

use clap_complete::Shell;

use crate::complete;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["completion"]],
        "bash|zsh|fish",
        "Write a completion script for a shell",
    )
    .long("Load it with one of\n\n  source <({program} completion bash)\n  {program} completion zsh > ~/.zfunc/_{program}\n  {program} completion fish > ~/.config/fish/completions/{program}.fish")
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let shell = match super::one(&self.args)? {
            "bash" => Shell::Bash,
            "zsh" => Shell::Zsh,
            "fish" => Shell::Fish,
            other => {
                return Err(Failure::new(
                    1,
                    format!("completion {other}: known shells are bash, zsh and fish"),
                )
                .into());
            }
        };
        let script = script(shell, context.is_docker());
        let mut out = context::out();
        out.write_all(&script)?;
        out.flush()?;
        Ok(0)
    }
}

/// The script for a shell.
pub(crate) fn script(shell: Shell, docker: bool) -> Vec<u8> {
    let name = if docker { "docker" } else { "wherry" };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut complete::whole(name), name, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell, false)).unwrap();
            for word in ["run", "container", "memory-swap", "volume", "doctor"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
