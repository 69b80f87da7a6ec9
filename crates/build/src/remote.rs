//! What a build fetches from elsewhere: files by their addresses, and git repositories by the host's `git`.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use engine::Engine;
use oci::Digest;
use oci::digest::Hasher;
use registry::Client;

use crate::error::{Error, Result, io};
use crate::options::{Context, File};
use crate::stop::Stop;
use crate::upload::{Temporary, Unpacked, is_archive};

/// A repository, with what of it is wanted: `https://host/name.git#branch:directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) url: String,
    /// A branch, a tag, or a commit; the repository's own choice if absent.
    pub(crate) reference: Option<String>,
    /// Below its root.
    pub(crate) directory: String,
}

/// Where something is that is not in the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Git(Repository),
    /// By HTTP.
    Url(String),
}

impl Address {
    /// None for a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let http = url.starts_with("http://") || url.starts_with("https://");
        let git = ["git://", "ssh://", "git@"].iter().any(|scheme| url.starts_with(scheme));
        let repository = http && url.ends_with(".git");
        if !git && !repository {
            return http.then(|| Self::Url(text.to_owned()));
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        Some(Self::Git(Repository {
            url: url.to_owned(),
            reference: Some(reference.to_owned()).filter(|text| !text.is_empty()),
            directory: directory.trim_matches('/').to_owned(),
        }))
    }
}

/// Whether a build's argument names something that [`context`] fetches, and not a path.
pub fn is_remote(text: &str) -> bool {
    Address::parse(&full(text)).is_some()
}

/// As Docker has it, a repository of this host needs no scheme.
fn full(text: &str) -> String {
    match text.strip_prefix("github.com/") {
        Some(rest) => {
            let (path, fragment) = rest.split_once('#').unwrap_or((rest, ""));
            let path = path.trim_end_matches('/').trim_end_matches(".git");
            let mark = if fragment.is_empty() { "" } else { "#" };
            format!("https://github.com/{path}.git{mark}{fragment}")
        }
        None => text.to_owned(),
    }
}

/// A context that was fetched; what it lies in is removed when it is dropped.
#[derive(Debug)]
pub struct Fetched {
    /// The files.
    pub context: Context,
    /// The Dockerfile, where the address is one.
    pub file: Option<File>,
    _directory: Option<Held>,
}

/// Only held.
#[derive(Debug)]
enum Held {
    Temporary { _held: Temporary },
    Unpacked { _held: Unpacked },
}

/// Fetches a context: a git repository, an archive, or a Dockerfile alone.
///
/// # Errors
/// [`Error::Invalid`] with what the other side says; those of the disk.
pub fn context(engine: &Engine, client: &Client, text: &str) -> Result<Fetched> {
    match Address::parse(&full(text)) {
        None => Err(Error::Invalid(format!("{text}: not an address"))),
        Some(Address::Git(repository)) => {
            let commit = repository.commit()?;
            let temporary = Temporary::new(engine)?;
            repository.check_out(&commit, temporary.path(), false)?;
            let directory = repository.within(temporary.path())?;
            Ok(Fetched {
                context: Context::Directory(directory),
                file: None,
                _directory: Some(Held::Temporary { _held: temporary }),
            })
        }
        Some(Address::Url(url)) => {
            let temporary = Temporary::new(engine)?;
            let path = download(client, &url, temporary.path(), &Stop::default())?;
            let what = || format!("reading {}", path.display());
            let mut file = std::fs::File::open(&path).map_err(io(what))?;
            let mut start = Vec::new();
            Read::by_ref(&mut file).take(512).read_to_end(&mut start).map_err(io(what))?;
            if is_archive(&start) {
                let mut whole = std::io::Cursor::new(start).chain(file);
                let unpacked = Unpacked::new(engine, &mut whole)?;
                return Ok(Fetched {
                    context: Context::Directory(unpacked.path().to_owned()),
                    file: None,
                    _directory: Some(Held::Unpacked { _held: unpacked }),
                });
            }
            const MOST: u64 = 8 << 20;
            file.take(MOST).read_to_end(&mut start).map_err(io(what))?;
            let text = String::from_utf8(start).map_err(|_| {
                Error::Invalid(format!("{url} is neither an archive nor a Dockerfile"))
            })?;
            let file = File::Text { name: url, text, ignore: None };
            Ok(Fetched { context: Context::Empty, file: Some(file), _directory: None })
        }
    }
}

/// The name that a file from an address has: the last part of its path.
pub(crate) fn name_of(url: &str) -> Result<String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').map_or("", |(_, path)| path).rsplit('/').next();
    let name = name.map(decoded).unwrap_or_default();
    if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(Error::Invalid(format!(
            "cannot determine a filename from {url}: name the file at the destination, without a / at its end"
        )));
    }
    Ok(name)
}

/// `%20` is a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Fetches a file into a directory, where it is called `file`, with the time that the server says.
pub(crate) fn download(
    client: &Client,
    url: &str,
    directory: &Path,
    stop: &Stop,
) -> Result<PathBuf> {
    let path = directory.join("file");
    let what = || format!("writing {}", path.display());
    let mut file = std::fs::File::create(&path).map_err(io(what))?;
    let fetched = client
        .download(url, &mut stop.within(&mut file))
        .map_err(|error| stop.or(Error::Invalid(format!("failed to fetch {url}: {error}"))))?;
    let seconds = fetched.modified.and_then(|time| u64::try_from(time).ok()).unwrap_or(0);
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    let mut finish = || -> std::io::Result<()> {
        file.flush()?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.set_modified(time)
    };
    finish().map_err(io(what))?;
    Ok(path)
}

/// The digest of a file.
pub(crate) fn digest(path: &Path) -> Result<Digest> {
    let what = || format!("reading {}", path.display());
    let mut hasher = Hasher::sha256();
    let mut file = std::fs::File::open(path).map_err(io(what))?;
    std::io::copy(&mut file, &mut hasher).map_err(io(what))?;
    Ok(hasher.finish())
}

/// Says it if a file is not what its checksum says.
pub(crate) fn check(path: &Path, url: &str, expected: &Digest) -> Result<()> {
    let what = || format!("reading {}", path.display());
    let mut hasher: Hasher = expected.hasher();
    let mut file = std::fs::File::open(path).map_err(io(what))?;
    std::io::copy(&mut file, &mut hasher).map_err(io(what))?;
    let actual = hasher.finish();
    if actual != *expected {
        return Err(Error::Invalid(format!(
            "{url}: digest mismatch: {actual} was fetched, {expected} is expected"
        )));
    }
    Ok(())
}

/// Runs `git`; what it printed.
fn git(directory: Option<&Path>, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    if let Some(directory) = directory {
        command.arg("-C").arg(directory);
    }
    let output = command
        .args(["-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"])
        .args(arguments)
        // Nobody is there to be asked, and a repository of ours around here is not meant.
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Invalid(
                "git repositories are fetched by the program git, which is not here: install it"
                    .into(),
            ),
            _ => io(|| "running git".to_owned())(error),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let verb = arguments.iter().find(|word| !word.starts_with('-')).unwrap_or(&"");
    Err(Error::Invalid(format!("git {verb}: {said}")))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Repository {
    /// The commit that its reference means now.
    pub(crate) fn commit(&self) -> Result<String> {
        let wanted = match self.reference.as_deref() {
            Some(commit) if is_commit(commit) => return Ok(commit.to_ascii_lowercase()),
            Some(name) => name,
            None => "HEAD",
        };
        // A tag's object is not the commit; with ^{} it is.
        let peeled = format!("{wanted}^{{}}");
        let list = git(None, &["ls-remote", "--", &self.url, wanted, &peeled])?;
        let rows: Vec<(&str, &str)> =
            list.lines().filter_map(|line| line.split_once('\t')).collect();
        let tries = [
            format!("refs/tags/{peeled}"),
            format!("refs/tags/{wanted}"),
            format!("refs/heads/{wanted}"),
            wanted.to_owned(),
        ];
        let found = tries.iter().find_map(|name| rows.iter().find(|(_, row)| row == name));
        match found {
            Some((commit, _)) if is_commit(commit) => Ok((*commit).to_owned()),
            _ => Err(Error::Invalid(format!(
                "{}: there is no branch or tag {wanted}; a commit must be given in full",
                self.url
            ))),
        }
    }

    /// Puts the files of a commit into a directory. Their permissions do not depend on who does it.
    pub(crate) fn check_out(&self, commit: &str, directory: &Path, keep: bool) -> Result<()> {
        let here = Some(directory);
        git(here, &["init", "-q"])?;
        let one = git(here, &["fetch", "-q", "--depth=1", "--", &self.url, commit]);
        if one.is_err() {
            // Not every server gives single commits.
            let all = "+refs/*:refs/wherry/*";
            git(here, &["fetch", "-q", "--", &self.url, all])?;
        }
        git(here, &["checkout", "-q", "--detach", commit])?;
        if directory.join(".gitmodules").is_file() {
            git(here, &["submodule", "update", "-q", "--init", "--recursive", "--depth=1"])?;
        }
        if !keep {
            let own = directory.join(".git");
            std::fs::remove_dir_all(&own).map_err(io(|| format!("removing {}", own.display())))?;
        }
        settle(directory, 0)
    }

    /// The wanted directory of a checkout, which must not lead out of it.
    pub(crate) fn within(&self, root: &Path) -> Result<PathBuf> {
        let missing = || {
            let Self { url, directory, .. } = self;
            Error::Invalid(format!("{url}: there is no directory {directory} in it"))
        };
        let root = std::fs::canonicalize(root).map_err(|_| missing())?;
        let path = std::fs::canonicalize(root.join(&self.directory)).map_err(|_| missing())?;
        if !path.starts_with(&root) || !path.is_dir() {
            return Err(missing());
        }
        Ok(path)
    }
}

/// Gives files the permissions that git knows, whatever the umask was.
fn settle(directory: &Path, depth: usize) -> Result<()> {
    const DEEPEST: usize = 1000;
    if depth > DEEPEST {
        return Err(Error::Invalid(format!("{}: nested too deeply", directory.display())));
    }
    let what = || format!("going through {}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(io(what))? {
        let entry = entry.map_err(io(what))?;
        let metadata = entry.metadata().map_err(io(what))?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if metadata.is_dir() || executable { 0o755 } else { 0o644 };
        if metadata.is_dir() || metadata.is_file() {
            let path = entry.path();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(io(what))?;
            if metadata.is_dir() {
                settle(&path, depth.saturating_add(1))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let git = |url: &str, reference: Option<&str>, directory: &str| {
            Some(Address::Git(Repository {
                url: url.into(),
                reference: reference.map(str::to_owned),
                directory: directory.into(),
            }))
        };
        let url = |url: &str| Some(Address::Url(url.into()));
        for (text, want) in [
            ("a/b", None),
            ("./http://x", None),
            ("https://h/a.tar.gz", url("https://h/a.tar.gz")),
            ("http://h/x.git", git("http://h/x.git", None, "")),
            ("https://h/x.git#v1", git("https://h/x.git", Some("v1"), "")),
            ("https://h/x.git#v1:/a/b/", git("https://h/x.git", Some("v1"), "a/b")),
            ("git@h:x/y#:sub", git("git@h:x/y", None, "sub")),
            ("git://h/x", git("git://h/x", None, "")),
            ("ssh://git@h/x.git", git("ssh://git@h/x.git", None, "")),
        ] {
            assert_eq!(Address::parse(text), want, "{text}");
        }
        assert_eq!(full("github.com/a/b#c"), "https://github.com/a/b.git#c");
        assert!(is_remote("github.com/a/b") && !is_remote("dir") && !is_remote("-"));
    }

    #[test]
    fn names() {
        assert_eq!(name_of("https://h/a/b%20c?d=e/f").unwrap(), "b c");
        for url in ["https://h", "https://h/", "https://h/a/", "http://h/%2e%2e", "http://h/a%2fb"]
        {
            assert!(name_of(url).is_err(), "{url}");
        }
        assert_eq!(decoded("%4"), "%4");
    }
}
