//! `context inspect`: all that is remembered of engines elsewhere.

use serde::Serialize;

use super::inspect;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::json::Json;
use crate::registry::Verb;
use crate::target::{self, Contexts, DOCKER, Meta};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    #[serde(flatten)]
    meta: Meta,
    #[serde(rename = "TLSMaterial")]
    tls_material: std::collections::BTreeMap<&'static str, Vec<String>>,
    storage: Storage,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Storage {
    metadata_path: String,
    #[serde(rename = "TLSPath")]
    tls_path: String,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "inspect"]],
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Show all that is remembered of engines elsewhere",
    );

    fn run(self, context: &Context) -> Outcome {
        let contexts = Contexts::open()?;
        let names = match self.args.is_empty() {
            true => vec![target::context_name(&context.globals)],
            false => self.args.clone(),
        };
        inspect::show_with(context, &names, self.format.as_deref(), |name| {
            let meta = match (contexts.get(name)?, name) {
                (Some(meta), _) => meta,
                (None, target::DEFAULT) => Meta { name: name.to_owned(), ..Meta::default() },
                (None, _) => return Err(target::not_found(name).into()),
            };
            let files: Vec<_> =
                contexts.tls_files(name).into_iter().map(|(file, _)| file).collect();
            let tls_material =
                if files.is_empty() { Default::default() } else { [(DOCKER, files)].into() };
            let path = |path: std::path::PathBuf| path.display().to_string();
            let storage = match name {
                target::DEFAULT => {
                    Storage { metadata_path: "<IN MEMORY>".into(), tls_path: "<IN MEMORY>".into() }
                }
                _ => Storage {
                    metadata_path: path(contexts.meta_directory(name)),
                    tls_path: path(contexts.tls_directory(name)),
                },
            };
            Ok(Json::of(&Shown { meta, tls_material, storage })?)
        })
    }
}
