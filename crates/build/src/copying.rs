//! `COPY` and `ADD`.

use oci::Digest;
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
use crate::remote::{self, Address, Repository};
use crate::stage::Stage;
use crate::tree::{Source, Tree};
use crate::upload::Temporary;

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
        let mut addresses = Vec::new();
        if copy.add {
            patterns.retain(|pattern| match Address::parse(pattern) {
                Some(address) => {
                    addresses.push(address);
                    false
                }
                None => true,
            });
        }
        let checksum = option(&copy.checksum)?.filter(|text| !text.is_empty());
        if checksum.is_some()
            && (addresses.len() != 1 || !patterns.is_empty() || !inline.is_empty())
        {
            return Err(Error::Invalid(
                "checksum can't be specified for files of the context, or for several sources"
                    .into(),
            ));
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
        let mut remote = Vec::new();
        for address in addresses {
            remote.push(self.remote(address, copy, checksum.as_deref(), into, &mut key)?);
        }
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
            Found { key, path: &path, into, chown, mode, inline, remote, trees: &trees, keyword },
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
        let Found { mut key, path, into, chown, mode, inline, remote, trees, keyword } = found;
        for file in &inline {
            key.put("inline").put(&file.name).put(&file.content);
        }
        let newest = trees.iter().map(|(_, sources)| Tree::newest(sources)).max().unwrap_or(0);
        let newest = remote.iter().map(Remote::newest).max().unwrap_or(0).max(newest);
        let epoch = if copy.link {
            self.options.source_date_epoch.unwrap_or(newest)
        } else {
            self.epoch(stage, newest)
        };
        let target_path = path.trim_matches('/').as_bytes();
        let count = trees.iter().map(|(_, s)| s.len()).sum::<usize>().saturating_add(inline.len());
        let count = count.saturating_add(remote.len());
        let description = step.text.clone();
        self.layer(stage, key, &description, epoch, |job, stage| {
            let layers = if copy.link { &[][..] } else { &stage.layers };
            let fetch = |remote| job.fetched(remote);
            let remote = remote.into_iter().map(fetch).collect::<Result<Vec<_>>>()?;
            job.files(layers, epoch, |root, _| {
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
                for Here { tree, sources, .. } in &remote {
                    let archive = |source: &&Source| {
                        copy.unpack == Some(true) && is_archive(tree, source)
                    };
                    match sources.iter().find(archive) {
                        Some(source) => unpack(&target, tree, source, target_path, chown)?,
                        None => target.copy(tree, sources, target_path, into)?,
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
        // A result from the cache has the time of what it was made from, so that the same content is the same image.
        let epoch = self.epoch(stage, 0);
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
    remote: Vec<Remote>,
    trees: &'a [(Tree, Vec<Source>)],
    keyword: &'static str,
}

/// A source that is elsewhere. What is known by a digest is fetched only if the step is not in the cache.
enum Remote {
    Here(Here),
    Checked { url: String, digest: Digest, name: String },
    Git { repository: Repository, commit: String, keep: bool },
}

/// What was fetched.
struct Here {
    tree: Tree,
    sources: Vec<Source>,
    _directory: Temporary,
}

impl Remote {
    /// The time of what is known only by its digest is not.
    fn newest(&self) -> i64 {
        match self {
            Self::Here(here) => Tree::newest(&here.sources),
            Self::Checked { .. } | Self::Git { .. } => 0,
        }
    }
}

impl Job<'_> {
    /// What an `ADD` of an address reads becomes part of its key.
    fn remote(
        &mut self,
        address: Address,
        copy: &Copy,
        checksum: Option<&str>,
        into: bool,
        key: &mut Key,
    ) -> Result<Remote> {
        match address {
            Address::Git(repository) => {
                let commit = repository.commit_of(self.lock, &self.stop)?;
                if let Some(checksum) = checksum
                    && !commit.starts_with(checksum)
                {
                    return Err(Error::Invalid(format!(
                        "{}: expected the commit {checksum}, it is {commit}",
                        repository.url
                    )));
                }
                let keep = copy.keep_git_dir;
                key.put("git").put(&commit).put(&repository.directory).put([u8::from(keep)]);
                Ok(Remote::Git { repository, commit, keep })
            }
            Address::Url(url) => {
                // One that goes to a file has that file's name.
                let name = if into { remote::name_of(&url)? } else { "file".to_owned() };
                key.put("url").put(&name);
                match checksum {
                    Some(text) => {
                        let digest: Digest = text.parse().map_err(|_| {
                            Error::Invalid(format!(
                                "invalid checksum {text:?}: expected sha256: and 64 digits"
                            ))
                        })?;
                        if let Some(lock) = self.lock {
                            lock.url(&url, &digest.to_string())?;
                        }
                        key.digest(digest);
                        Ok(Remote::Checked { url, digest, name })
                    }
                    None => {
                        let here = self.download(&url, None, name)?;
                        key.digest(here.tree.digest(&here.sources, &mut self.known)?);
                        Ok(Remote::Here(here))
                    }
                }
            }
        }
    }

    fn download(&self, url: &str, digest: Option<&Digest>, name: String) -> Result<Here> {
        let client = self.client.ok_or_else(|| {
            Error::Invalid(format!("{url}: this build fetches nothing from elsewhere"))
        })?;
        let directory = Temporary::new(self.engine)?;
        let path = remote::download(client, url, directory.path(), &self.stop)?;
        match (digest, self.lock) {
            (Some(digest), _) => remote::check(&path, url, digest)?,
            (None, Some(lock)) => lock.url(url, &remote::digest(&path)?.to_string())?,
            (None, None) => {}
        }
        let mut tree = Tree::open(directory.path(), Ignore::default())?;
        tree.stop = self.stop.clone();
        let mut sources = tree.find("file", &Ignore::default())?;
        for source in &mut sources {
            source.name = name.clone().into_bytes();
        }
        Ok(Here { tree, sources, _directory: directory })
    }

    fn fetched(&self, remote: Remote) -> Result<Here> {
        match remote {
            Remote::Here(here) => Ok(here),
            Remote::Checked { url, digest, name } => self.download(&url, Some(&digest), name),
            Remote::Git { repository, commit, keep } => {
                let directory = Temporary::new(self.engine)?;
                repository.check_out(&commit, directory.path(), keep, &self.stop)?;
                let root = repository.within(directory.path())?;
                let mut tree = Tree::open(&root, Ignore::default())?;
                tree.stop = self.stop.clone();
                let sources = tree.find("/", &Ignore::default())?;
                Ok(Here { tree, sources, _directory: directory })
            }
        }
    }
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
    if is_tar(&start) {
        return true;
    }
    if Compression::detect(&start) == Compression::None {
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
    let mut file = tree.stop.within(std::fs::File::from(tree.open_item(source, item)?));
    let options = store::copy::UntarOptions { owner, ..store::copy::UntarOptions::default() };
    let name = String::from_utf8_lossy(&source.asked).into_owned();
    store::copy::untar_into(target.root().as_fd(), path, &mut file, options)
        .map_err(|e| tree.stop.or(Error::Invalid(format!("unpacking {name}: {e}"))))?;
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
