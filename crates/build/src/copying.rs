//! `COPY` and `ADD`.

use oci::compression::Compression;
use rustix::fs::FileType;
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::job::Job;
use crate::key::Key;
use crate::language::dockerignore::{Ignore, clean};
use crate::language::instruction::{Copy, CopySource, Step};
use crate::place::{ModeChange, Placing, Target, owner};
use crate::plan::origin;
use crate::stage::Stage;
use crate::tree::{Source, Tree};

/// A here-document that becomes a file.
struct Inline {
    name: String,
    content: String,
}

impl Job<'_> {
    pub(crate) fn copy(
        &mut self,
        stage: &mut Stage,
        copy: &Copy,
        step: &Step,
        title: String,
    ) -> Result<()> {
        self.begin(title);
        let plan = self.plan;
        let escape = plan.file.directives.escape;
        let keyword = if copy.add { "ADD" } else { "COPY" };
        let scope = stage.scope.clone();
        let word = |text: &str| scope.word(&plan.globals, text, escape).map_err(Error::Invalid);
        let option = |text: &Option<String>| text.as_deref().map(word).transpose();
        let destination = word(&copy.destination)?;
        let into = destination.ends_with('/') || destination.ends_with("/.") || destination == ".";
        let path = stage.absolute(&destination);
        let chown = option(&copy.chown)?.filter(|text| !text.is_empty());
        let chmod = option(&copy.chmod)?.filter(|text| !text.is_empty());
        let mode = chmod.as_deref().map(ModeChange::parse).transpose().map_err(Error::Invalid)?;
        let excludes = copy.exclude.iter().map(|text| word(text)).collect::<Result<Vec<_>>>()?;
        let excluded = Ignore::new(excludes.iter().map(String::as_str)).map_err(Error::Invalid)?;
        let mut inline = Vec::new();
        let mut patterns = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => patterns.push(word(path)?),
                CopySource::Inline(heredoc) => {
                    let text = heredoc.text();
                    let content =
                        if heredoc.expand { self.heredoc_text(&scope, &text)? } else { text };
                    inline.push(Inline { name: heredoc.name.clone(), content });
                }
            }
        }
        if let Some(remote) = patterns.iter().find(|pattern| copy.add && is_remote(pattern)) {
            return Err(Error::Invalid(format!(
                "ADD of {remote}: addresses are not fetched by this version; fetch the file with a RUN, or \
                 put it into the context"
            )));
        }
        let origin = match &copy.from {
            Some(from) => {
                Some(origin(&plan.file, from, stage.index, self.options).map_err(Error::Invalid)?)
            }
            None => None,
        };
        let mut key = Key::new(if copy.add { "add" } else { "copy" });
        if copy.link {
            key.put("link");
        } else {
            key.layers(&stage.layers);
        }
        key.put(&path)
            .put([u8::from(into), u8::from(copy.parents), u8::from(copy.unpack != Some(false))])
            .put(chown.as_deref().unwrap_or("-"))
            .put(chmod.as_deref().unwrap_or("-"));
        let mut trees: Vec<(Tree, Vec<Source>)> = Vec::new();
        if !patterns.is_empty() {
            // The context is borrowed for this step, so that the job stays free.
            let borrowed = origin.is_none();
            let tree = match &origin {
                Some(origin) => self.tree_of(origin)?,
                None => self.context.take().ok_or_else(|| {
                    Error::Invalid(format!("{keyword} needs a context, and this build has none"))
                })?,
            };
            let found = self.find(&tree, &patterns, &excluded, &mut key);
            match found {
                Ok(sources) => trees.push((tree, sources)),
                Err(error) => {
                    if borrowed {
                        self.context = Some(tree);
                    }
                    return Err(error);
                }
            }
        }
        let done = self.copy_found(
            stage,
            copy,
            step,
            Found { key, path: &path, into, chown, mode, inline, trees: &trees, keyword },
        );
        if origin.is_none()
            && let Some((tree, _)) = trees.pop()
        {
            self.context = Some(tree);
        }
        done
    }

    fn find(
        &mut self,
        tree: &Tree,
        patterns: &[String],
        excluded: &Ignore,
        key: &mut Key,
    ) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for pattern in patterns {
            sources.extend(tree.find(pattern, excluded)?);
        }
        key.digest(tree.digest(&sources, &mut self.known)?);
        Ok(sources)
    }

    fn copy_found(
        &mut self,
        stage: &mut Stage,
        copy: &Copy,
        step: &Step,
        found: Found<'_>,
    ) -> Result<()> {
        let Found { mut key, path, into, chown, mode, inline, trees, keyword } = found;
        for file in &inline {
            key.put("inline").put(&file.name).put(&file.content);
        }
        let newest = trees.iter().map(|(_, sources)| Tree::newest(sources)).max().unwrap_or(0);
        let epoch = if copy.link {
            self.options.source_date_epoch.unwrap_or(newest)
        } else {
            self.epoch(stage, newest)
        };
        let target_path = path.trim_matches('/').as_bytes();
        let count = trees.iter().map(|(_, s)| s.len()).sum::<usize>().saturating_add(inline.len());
        let description = step.text.clone();
        self.layer(stage, key, &description, epoch, |job, stage| {
            let layers = if copy.link { &[][..] } else { &stage.layers };
            job.files(layers, epoch, |root| {
                let chown = chown.as_deref().map(|text| owner(&root, text)).transpose();
                let chown = chown.map_err(Error::Invalid)?;
                let placing = Placing { owner: chown, mode, parents: copy.parents };
                let mut target = Target::new(root, placing);
                let directory = target.is_directory(target_path)?;
                if count > 1 && !into && !directory {
                    return Err(Error::Invalid(format!(
                        "when using {keyword} with more than one source file, the destination must be a \
                         directory and end with a /: {path}/"
                    )));
                }
                for (tree, sources) in trees {
                    let (archives, plain): (Vec<_>, Vec<_>) = sources
                        .iter()
                        .cloned()
                        .partition(|source| copy.add && copy.unpack != Some(false) && is_archive(tree, source));
                    target.copy(tree, &plain, target_path, into)?;
                    for source in &archives {
                        unpack(&target, tree, source, target_path, chown)?;
                    }
                }
                for file in &inline {
                    let below = into || directory;
                    let path = if below { format!("{path}/{}", file.name) } else { path.to_owned() };
                    let path = clean(&path);
                    target.write(path.trim_matches('/').as_bytes(), file.content.as_bytes(), 0o644, epoch)?;
                }
                Ok(())
            })
        })?;
        let epoch = stage.epoch.max(epoch);
        let epoch = self.options.source_date_epoch.unwrap_or(epoch);
        stage.history(step.text.clone(), epoch, false);
        Ok(())
    }

    /// A here-document with its variables replaced; quotes in it are text.
    pub(crate) fn heredoc_text(&self, scope: &crate::scope::Scope, text: &str) -> Result<String> {
        let escape = self.plan.file.directives.escape;
        // Quotes mean nothing there, so they are kept from the expander.
        let mut shielded = String::new();
        let mut depth = 0usize;
        let mut before = ' ';
        for c in text.chars() {
            match c {
                '{' if before == '$' => depth = depth.saturating_add(1),
                '}' => depth = depth.saturating_sub(1),
                '\'' | '"' if depth == 0 => shielded.push(escape),
                _ => {}
            }
            shielded.push(c);
            before = c;
        }
        scope.word(&self.plan.globals, &shielded, escape).map_err(Error::Invalid)
    }
}

/// A `COPY` of which all is known.
struct Found<'a> {
    key: Key,
    path: &'a str,
    into: bool,
    chown: Option<String>,
    mode: Option<ModeChange>,
    inline: Vec<Inline>,
    trees: &'a [(Tree, Vec<Source>)],
    keyword: &'static str,
}

fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// Whether `ADD` unpacks a file: by its content, not its name.
fn is_archive(tree: &Tree, source: &Source) -> bool {
    use std::io::Read;
    let Some(item) = source.items.first().filter(|item| item.kind() == FileType::RegularFile)
    else {
        return false;
    };
    let Ok(fd) = tree.open_item(source, item) else { return false };
    let mut start = Vec::new();
    let mut file = std::fs::File::from(fd);
    if std::io::Read::by_ref(&mut file).take(512).read_to_end(&mut start).is_err() {
        return false;
    }
    if is_tar(&start) || matches!(Compression::detect(&start), Compression::Bzip2 | Compression::Xz)
    {
        return true;
    }
    if !matches!(Compression::detect(&start), Compression::Gzip | Compression::Zstd) {
        return false;
    }
    // A compressed file is unpacked only if an archive is in it.
    use std::io::Seek;
    if file.rewind().is_err() {
        return false;
    }
    let Ok(stream) = oci::compression::Decompressor::new(file) else { return false };
    let mut start = Vec::new();
    stream.take(512).read_to_end(&mut start).is_ok() && is_tar(&start)
}

/// Whether a block is the header of an archive's entry: its checksum says so.
pub(crate) fn is_tar(block: &[u8]) -> bool {
    let (Some(block), Some(field)) = (block.get(..512), block.get(148..156)) else { return false };
    let digits: String =
        field.iter().map(|b| char::from(*b)).filter(char::is_ascii_digit).collect();
    let Ok(want) = u64::from_str_radix(&digits, 8) else { return false };
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) })
        .sum();
    want == sum && block.first() != Some(&0)
}

fn unpack(
    target: &Target,
    tree: &Tree,
    source: &Source,
    path: &[u8],
    owner: Option<(u32, u32)>,
) -> Result<()> {
    target.directory(path, owner)?;
    let Some(item) = source.items.first() else { return Ok(()) };
    let mut file = std::fs::File::from(tree.open_item(source, item)?);
    let options = store::copy::UntarOptions { owner, ..store::copy::UntarOptions::default() };
    let name = String::from_utf8_lossy(&source.asked).into_owned();
    store::copy::untar_into(target.root().as_fd(), path, &mut file, options)
        .map_err(|e| Error::Invalid(format!("unpacking {name}: {e}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_checksum() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert!(is_tar(&bytes[..512]));
        assert!(!is_tar(&[0; 512]) && !is_tar(b"x") && !is_tar(&[b'1'; 512]));
    }
}
