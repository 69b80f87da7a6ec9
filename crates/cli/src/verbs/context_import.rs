//! `context import`: what an archive says of an engine elsewhere.

use std::io::Read;

use super::two;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts, DOCKER, Meta, TLS_FILES};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

/// The largest archive, in bytes.
const MAX: u64 = 10 << 20;

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "import"]],
        "CONTEXT FILE|-",
        "Remember an engine elsewhere as an archive says",
    )
    .args(2, 2);

    fn run(self, _: &Context) -> Outcome {
        let [name, path] = two(&self.args)?;
        target::check_name(name)?;
        let contexts = Contexts::open()?;
        if contexts.get(name)?.is_some() {
            return Err(Failure::new(1, format!("context {name:?} already exists")).into());
        }
        let from: Box<dyn Read> = match path {
            "-" => Box::new(std::io::stdin().lock()),
            path => Box::new(super::open(path)?),
        };
        let mut meta: Option<Meta> = None;
        let mut files = Vec::new();
        let mut archive = tar::Archive::new(from.take(MAX));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if path == std::path::Path::new("meta.json") {
                meta = Some(serde_json::from_slice(&bytes)?);
            } else if let Ok(file) = path.strip_prefix(format!("tls/{DOCKER}"))
                && let Some(file) = TLS_FILES.iter().find(|f| file == std::path::Path::new(f))
            {
                files.push(((*file).to_owned(), bytes));
            }
        }
        let Some(mut meta) = meta else {
            return Err(Failure::new(
                1,
                format!("{path}: there is no meta.json in it, so it is no context"),
            )
            .into());
        };
        name.clone_into(&mut meta.name);
        contexts.put_tls(name, &files)?;
        contexts.put(&meta)?;
        context::println(name)?;
        context::note(&format!("Successfully imported context \"{name}\""));
        Ok(0)
    }
}
