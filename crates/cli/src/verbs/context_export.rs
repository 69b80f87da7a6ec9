//! `context export`: an archive of what is remembered of an engine elsewhere.

use std::io::{IsTerminal, Write};

use super::one;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts, DOCKER};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "export"]],
        "CONTEXT [FILE|-]",
        "Write what is remembered of an engine elsewhere to an archive",
    )
    .args(1, 2);

    fn run(self, _: &Context) -> Outcome {
        use std::os::unix::fs::OpenOptionsExt;
        let name = one(&self.args)?;
        let contexts = Contexts::open()?;
        let meta = contexts.get(name)?.ok_or_else(|| target::not_found(name))?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| -> std::io::Result<()> {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, path, bytes)
        };
        add("meta.json", &serde_json::to_vec(&meta)?)?;
        for (file, bytes) in contexts.tls_files(name) {
            add(&format!("tls/{DOCKER}/{file}"), &bytes)?;
        }
        let bytes = archive.into_inner()?;
        let path = match self.args.get(1).map(String::as_str) {
            Some("-") => {
                if std::io::stdout().is_terminal() {
                    return Err(Failure::new(
                        1,
                        "cowardly refusing to export to a terminal, specify a file path",
                    )
                    .into());
                }
                let mut out = context::out();
                out.write_all(&bytes)?;
                out.flush()?;
                return Ok(0);
            }
            Some(path) => path.to_owned(),
            None => format!("{name}.dockercontext"),
        };
        // There may be keys in it.
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&bytes))
            .map_err(|e| Failure::new(1, format!("{path}: {e}")))?;
        context::note(&format!("Written file \"{path}\""));
        Ok(0)
    }
}
