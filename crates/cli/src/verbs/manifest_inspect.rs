//! `manifest inspect`: a manifest or an index as its registry has it.

use engine::{Engine, RemoteManifest};
use oci::manifest::media_type;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::json::Json;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take any certificate, and plain HTTP
    #[arg(long)]
    insecure: bool,
    /// Show the manifests of an index, too, each with its descriptor
    #[arg(long, short = 'v')]
    verbose: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["manifest", "inspect"]],
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Show a manifest, or an index, of a registry",
    )
    .args(1, 2);

    fn run(self, context: &Context) -> Outcome {
        let client = crate::registries::client(context, self.insecure)?;
        let name = match self.args.as_slice() {
            // Of the list, the entry with this digest.
            [list, entry] => match entry.split_once('@') {
                Some((_, digest)) => format!("{}@{digest}", list.split('@').next().unwrap_or(list)),
                None => entry.clone(),
            },
            _ => super::one(&self.args)?.to_owned(),
        };
        let found = Engine::remote_manifest(&client, &name, self.verbose)?;
        let shown = if !self.verbose {
            serde_json::from_slice::<Json>(&found.top.raw)?
        } else if found.manifests.is_empty() {
            verbose(&found.top)?
        } else {
            Json::List(found.manifests.iter().map(verbose).collect::<anyhow::Result<_>>()?)
        };
        let mut text = Vec::new();
        let indent: &[u8] = if self.verbose { b"\t" } else { b"   " };
        let format = serde_json::ser::PrettyFormatter::with_indent(indent);
        serde::Serialize::serialize(
            &shown,
            &mut serde_json::Serializer::with_formatter(&mut text, format),
        )?;
        context::println(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}

fn verbose(manifest: &RemoteManifest) -> anyhow::Result<Json> {
    let oci = manifest.descriptor.media_type == media_type::MANIFEST;
    let name = if oci { "OCIManifest" } else { "SchemaV2Manifest" };
    Ok(Json::Map(vec![
        ("Ref".to_owned(), Json::Text(manifest.reference.clone())),
        ("Descriptor".to_owned(), Json::of(&manifest.descriptor)?),
        ("Raw".to_owned(), Json::Text(base64(&manifest.raw))),
        (name.to_owned(), serde_json::from_slice(&manifest.raw)?),
    ]))
}

/// Go prints bytes like this.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i > three.len() {
                out.push('=');
                continue;
            }
            let at = usize::try_from(bits >> (18 - 6 * i) & 63).unwrap_or(0);
            out.push(char::from(DIGITS.get(at).copied().unwrap_or(b'A')));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_as_go_prints_them() {
        for (given, want) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(super::base64(given.as_bytes()), want);
        }
    }
}
