//! `--cache-from` and `--cache-to`.

use std::path::PathBuf;

use build::elsewhere::{Export, Place};

use crate::failure::Failure;

/// What the fields of a value say.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    name: Option<String>,
    directory: Option<PathBuf>,
    min: bool,
    no_mounts: bool,
}

fn fields(option: &str, text: &str) -> Result<Fields, Failure> {
    let bad = |why: &str| Failure::new(1, format!("{option} {text}: {why}"));
    let mut fields = Fields::default();
    for field in crate::values::mount::csv(text).map_err(|why| bad(&why))? {
        match field.split_once('=') {
            // The name of an image stands for itself.
            None => {
                fields.kind = Some("registry".into());
                fields.name = Some(field.clone());
            }
            Some(("type", kind)) => fields.kind = Some(kind.to_owned()),
            Some(("ref", name)) => fields.name = Some(name.to_owned()),
            Some(("src" | "dest", path)) => fields.directory = Some(path.into()),
            Some(("mode", "min")) => fields.min = true,
            Some(("mode", "max")) => fields.min = false,
            Some(("mode", _)) => return Err(bad("mode is min or max")),
            Some(("mounts", "false")) => fields.no_mounts = true,
            Some(("mounts", "true")) => fields.no_mounts = false,
            // How BuildKit packs layers; here they are packed one way.
            Some((
                "compression" | "compression-level" | "force-compression" | "oci-mediatypes"
                | "image-manifest" | "tag" | "digest",
                _,
            )) => {}
            Some((name, _)) => return Err(bad(&format!("{name} is not known"))),
        }
    }
    Ok(fields)
}

fn place(option: &str, text: &str, fields: &Fields) -> Result<Place, Failure> {
    let bad = |why: String| Failure::new(1, format!("{option} {text}: {why}"));
    match (fields.kind.as_deref(), &fields.name, &fields.directory) {
        (Some("registry"), Some(name), _) => {
            let name = oci::Reference::parse(name).map_err(|e| bad(e.to_string()))?;
            Ok(Place::Registry(name.or_latest()))
        }
        (Some("local"), _, Some(path)) => Ok(Place::Directory(path.clone())),
        (Some("registry"), None, _) => Err(bad("ref=NAME is missing".into())),
        (Some("local"), _, None) => Err(bad("the directory is missing".into())),
        (Some(other), _, _) => {
            Err(bad(format!("type {other} is not known: it is registry or local")))
        }
        (None, _, _) => Err(bad("type is missing".into())),
    }
}

pub(super) fn from(text: &str) -> Result<Place, Failure> {
    place("--cache-from", text, &fields("--cache-from", text)?)
}

pub(super) fn to(text: &str) -> Result<Export, Failure> {
    let fields = fields("--cache-to", text)?;
    let place = place("--cache-to", text, &fields)?;
    Ok(Export { place, all: !fields.min, mounts: !fields.no_mounts })
}
