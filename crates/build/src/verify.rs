//! `--verify`: the same build twice, and what differs.

use std::collections::BTreeMap;
use std::io::Read;

use engine::Engine;
use oci::DiffId;
use oci::digest::Hasher;

use crate::error::{Error, Result, io};
use crate::job::{Built, build};
use crate::options::Options;
use crate::progress::Progress;

/// Builds twice without the cache.
///
/// # Errors
/// Those of building; [`Error::Invalid`] with the first step and the first file that differ.
pub fn verify(
    engine: &Engine,
    client: Option<&registry::Client>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Built> {
    // The layers of the first build must stay until they are compared.
    let _hold = engine.hold()?;
    let options = Options { no_cache: true, ..options.clone() };
    let first = build(engine, client, &Options { image: false, ..options.clone() }, progress)?;
    let second = build(engine, client, &options, progress)?;
    for ((title, one), (_, two)) in first.steps.iter().zip(&second.steps) {
        if one == two {
            continue;
        }
        let difference = difference(engine, one, two)?;
        return Err(Error::Invalid(format!(
            "built twice, the image differs: {title}\n{difference}\n\
             help: a step must not write times, random numbers, or what it finds in no fixed order"
        )));
    }
    Ok(second)
}

/// What is compared of a file, with names for people.
type Entry = Vec<(&'static str, String)>;

fn entries(engine: &Engine, layer: &DiffId) -> Result<BTreeMap<String, Entry>> {
    let what = || format!("reading the layer {layer}");
    let mut archive = tar::Archive::new(std::io::BufReader::new(engine.open_layer(layer)?));
    let mut list = BTreeMap::new();
    for entry in archive.entries().map_err(io(what))? {
        let mut entry = entry.map_err(io(what))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header();
        let number = |result: std::io::Result<u64>| result.unwrap_or(0);
        let mut fields: Entry = vec![
            ("type", format!("{:?}", header.entry_type())),
            ("permissions", format!("{:o}", header.mode().unwrap_or(0))),
            ("owner", format!("{}:{}", number(header.uid()), number(header.gid()))),
            ("time", number(header.mtime()).to_string()),
            ("size", entry.size().to_string()),
        ];
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        fields.push(("link", link.unwrap_or_default()));
        let mut attributes = String::new();
        if let Ok(Some(extensions)) = entry.pax_extensions() {
            for extension in extensions.flatten() {
                let value = String::from_utf8_lossy(extension.value_bytes()).into_owned();
                attributes.push_str(&format!("{}={value:?} ", extension.key().unwrap_or_default()));
            }
        }
        fields.push(("attributes", attributes));
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = entry.read(&mut buffer).map_err(io(what))?;
            if n == 0 {
                break;
            }
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
        fields.push(("content", hasher.finish().short()));
        list.insert(path, fields);
    }
    Ok(list)
}

/// The first file that is not the same in both layers.
fn difference(engine: &Engine, one: &DiffId, two: &DiffId) -> Result<String> {
    let (one, two) = (entries(engine, one)?, entries(engine, two)?);
    // A file says more than the directory it is in.
    let paths: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    for path in paths {
        let shown = format!("/{}", path.trim_start_matches("./"));
        match (one.get(path), two.get(path)) {
            (Some(_), None) => return Ok(format!("{shown}: only in the first build")),
            (None, Some(_)) => return Ok(format!("{shown}: only in the second build")),
            (Some(a), Some(b)) => {
                let differs = |((name, a), (_, b)): &(&(&str, String), &(&str, String))| {
                    // The size is told by the content.
                    a != b && *name != "size"
                };
                if let Some(((name, a), (_, b))) = a.iter().zip(b).find(differs) {
                    return Ok(format!("{shown}: its {name} differs: {a} and {b}"));
                }
            }
            (None, None) => {}
        }
    }
    Ok("only the order of its files differs".to_owned())
}
