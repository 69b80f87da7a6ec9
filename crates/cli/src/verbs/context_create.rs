//! `context create`: remember an engine elsewhere under a name.

use super::one;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::target::{self, Contexts, DOCKER, Endpoint, Meta, TLS_FILES};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what it is
    #[arg(long, value_name = "string", default_value = "")]
    description: String,
    /// The engine: host=ADDRESS, ca=FILE, cert=FILE, key=FILE, skip-tls-verify=BOOL, from=CONTEXT
    #[arg(long, value_name = "stringToString")]
    docker: Vec<String>,
    /// Begin as a copy of this context
    #[arg(long, value_name = "string")]
    from: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["context", "create"]],
        "[OPTIONS] CONTEXT",
        "Remember an engine elsewhere under a name",
    )
    .args(1, 1);

    fn run(self, _: &Context) -> Outcome {
        let name = one(&self.args)?;
        target::check_name(name)?;
        let contexts = Contexts::open()?;
        if contexts.get(name)?.is_some() {
            return Err(Failure::new(1, format!("context {name:?} already exists")).into());
        }
        let mut meta = Meta::default();
        let mut files = Vec::new();
        if let Some(from) = &self.from {
            (meta, files) = copied(&contexts, from)?;
        }
        if meta.endpoints.is_empty() && self.docker.is_empty() {
            return Err(Failure::new(
                1,
                "docker endpoint configuration is required: give --docker host=ADDRESS",
            )
            .into());
        }
        meta.name = name.to_owned();
        if !self.description.is_empty() {
            meta.describe(&self.description);
        }
        apply(&contexts, &mut meta, &mut files, &self.docker)?;
        contexts.put_tls(name, &files)?;
        contexts.put(&meta)?;
        context::println(name)?;
        context::note(&format!("Successfully created context \"{name}\""));
        Ok(0)
    }
}

/// Names and contents of certificates.
type Files = Vec<(String, Vec<u8>)>;

/// What another context says; of the one without a name, what the environment says.
fn copied(contexts: &Contexts, from: &str) -> anyhow::Result<(Meta, Files)> {
    if from == target::DEFAULT {
        let host = std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty());
        let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let endpoint = Endpoint { host, ..Endpoint::default() };
        let meta = Meta { endpoints: [(DOCKER.to_owned(), endpoint)].into(), ..Meta::default() };
        return Ok((meta, Vec::new()));
    }
    let meta = contexts.get(from)?.ok_or_else(|| target::not_found(from))?;
    Ok((meta, contexts.tls_files(from)))
}

/// Does what `--docker` says.
pub(super) fn apply(
    contexts: &Contexts,
    meta: &mut Meta,
    files: &mut Files,
    options: &[String],
) -> anyhow::Result<()> {
    let pairs = options.iter().flat_map(|option| option.split(',')).filter(|p| !p.is_empty());
    let mut fresh = false;
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::new(
                1,
                format!("--docker: {pair} must be formatted as key=value"),
            )
            .into());
        };
        // One thing said about the engine replaces all that was said before.
        if !fresh {
            fresh = true;
            meta.endpoints.insert(DOCKER.to_owned(), Endpoint::default());
            files.clear();
        }
        let endpoint = meta.endpoints.entry(DOCKER.to_owned()).or_default();
        match key {
            "host" => {
                remote::Host::parse(value)?;
                value.clone_into(&mut endpoint.host);
            }
            "skip-tls-verify" => {
                endpoint.skip_tls_verify =
                    crate::values::number::parse_bool(value).map_err(|e| {
                        Failure::new(1, format!("--docker skip-tls-verify={value}: {e}"))
                    })?;
            }
            "from" => {
                let (other, theirs) = copied(contexts, value)?;
                if let Some(theirs) = other.endpoints.get(DOCKER) {
                    *endpoint = theirs.clone();
                }
                *files = theirs;
            }
            "ca" | "cert" | "key" => {
                let file = TLS_FILES.iter().find(|f| f.strip_suffix(".pem") == Some(key));
                let bytes = std::fs::read(value)
                    .map_err(|e| Failure::new(1, format!("--docker {key}={value}: {e}")))?;
                files.retain(|(name, _)| Some(&name.as_str()) != file);
                files.extend(file.map(|file| ((*file).to_owned(), bytes)));
            }
            other => {
                return Err(Failure::new(1, format!("--docker: unrecognized config key: {other}; known are host, ca, cert, key, skip-tls-verify and from")).into());
            }
        }
    }
    Ok(())
}
