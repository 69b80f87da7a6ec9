//! Load images from a tar archive.

use std::io::IsTerminal;

use super::open;
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::progress::Bar;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read this file in place of STDIN
    #[arg(long, short = 'i', value_name = "string")]
    input: Option<String>,
    /// Refused: images here have one platform each
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Show no progress
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["image", "load"], &["load"]], "[OPTIONS]", "Load images from a tar archive")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        super::no_platform("load", self.platform.as_deref())?;
        let _ = &self.args;
        let mut bar = Bar::new(self.quiet);
        let loaded = match self.input.as_deref() {
            Some(path) => context.engine()?.load_file(&open(path)?, &mut bar)?,
            None => {
                if std::io::stdin().is_terminal() {
                    return Err(Failure::new(1, "requested load from stdin, but stdin is empty")
                        .bare()
                        .into());
                }
                context.engine()?.load(&mut std::io::stdin().lock(), &mut bar)?
            }
        };
        bar.finish();
        let mut text = String::new();
        for (id, names) in loaded {
            if names.is_empty() {
                text.push_str(&format!("Loaded image ID: {id}\n"));
            }
            for name in names {
                text.push_str(&format!("Loaded image: {name}\n"));
            }
        }
        context::print(&text)?;
        Ok(0)
    }
}
