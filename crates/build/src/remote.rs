//! What a build fetches from elsewhere: files by their addresses, and git repositories by the host's `git`.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use engine::Engine;
use oci::Digest;
use oci::digest::Hasher;
use registry::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Timestamps, utimensat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::{Error, Result, io};
use crate::lock::{Lock, LockFile, Taken};
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
    /// What it is, for a lock file.
    pub taken: Option<Taken>,
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
    fetch(engine, Some(client), text, None, &Stop::default())
}

/// As [`context`]; what a lock file says is taken and nothing else, and `stop` ends it.
///
/// # Errors
/// As [`context`]; a lock file that does not have it.
pub fn locked_context(
    engine: &Engine,
    client: &Client,
    text: &str,
    lock: Option<&LockFile>,
    stop: &Stop,
) -> Result<Fetched> {
    let lock = lock.map(Lock::open).transpose()?;
    fetch(engine, Some(client), text, lock.as_ref(), stop)
}

pub(crate) fn fetch(
    engine: &Engine,
    client: Option<&Client>,
    text: &str,
    lock: Option<&Lock>,
    stop: &Stop,
) -> Result<Fetched> {
    match Address::parse(&full(text)) {
        None => Err(Error::Invalid(format!("{text}: not an address"))),
        Some(Address::Git(repository)) => {
            let commit = repository.commit_of(lock, stop)?;
            let temporary = Temporary::new(engine)?;
            repository.check_out(&commit, temporary.path(), false, stop)?;
            let directory = repository.within(temporary.path())?;
            let taken = Taken::Commit { address: repository.name(), commit };
            Ok(Fetched {
                context: Context::Directory(directory),
                file: None,
                taken: Some(taken),
                _directory: Some(Held::Temporary { _held: temporary }),
            })
        }
        Some(Address::Url(url)) => {
            let client = client.ok_or_else(|| {
                Error::Invalid(format!("{url}: this build fetches nothing from elsewhere"))
            })?;
            let temporary = Temporary::new(engine)?;
            let path = download(client, &url, temporary.path(), stop)?;
            let what = || format!("reading {}", path.display());
            let taken = match lock {
                Some(lock) => {
                    let digest = digest(&path)?.to_string();
                    lock.url(&url, &digest)?;
                    Some(Taken::Url { address: url.clone(), digest })
                }
                None => None,
            };
            let mut file = std::fs::File::open(&path).map_err(io(what))?;
            let mut start = Vec::new();
            Read::by_ref(&mut file).take(512).read_to_end(&mut start).map_err(io(what))?;
            if is_archive(&start) {
                let mut whole = stop.within(std::io::Cursor::new(start).chain(file));
                let unpacked = Unpacked::new(engine, &mut whole).map_err(|error| stop.or(error))?;
                return Ok(Fetched {
                    context: Context::Directory(unpacked.path().to_owned()),
                    file: None,
                    taken,
                    _directory: Some(Held::Unpacked { _held: unpacked }),
                });
            }
            const MOST: u64 = 8 << 20;
            file.take(MOST).read_to_end(&mut start).map_err(io(what))?;
            let text = String::from_utf8(start).map_err(|_| {
                Error::Invalid(format!("{url} is neither an archive nor a Dockerfile"))
            })?;
            let file = File::Text { name: url, text, ignore: None };
            Ok(Fetched { context: Context::Empty, file: Some(file), taken, _directory: None })
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
    // A server may say nothing for a long time.
    let _deaf = stop.deaf();
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

/// Runs `git`; what it printed. It ends with the build.
fn git(directory: Option<&Path>, arguments: &[&str], stop: &Stop) -> Result<String> {
    stop.check()?;
    let what = || "running git".to_owned();
    let mut command = Command::new("git");
    if let Some(directory) = directory {
        command.arg("-C").arg(directory);
    }
    let mut child = command
        .args(["-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"])
        .args(arguments)
        // Nobody is there to be asked, and a repository of ours around here is not meant.
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Invalid(
                "git repositories are fetched by the program git, which is not here: install it"
                    .into(),
            ),
            _ => io(what)(error),
        })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = std::thread::scope(|scope| {
        let out = scope.spawn(move || heard(out));
        let err = scope.spawn(move || heard(err));
        let status = attend(&mut child, stop);
        (out.join().unwrap_or_default(), err.join().unwrap_or_default(), status)
    });
    stop.check()?;
    if status.map_err(io(what))?.success() {
        return Ok(out);
    }
    let said = err.trim();
    let verb = arguments.iter().find(|word| !word.starts_with('-')).unwrap_or(&"");
    Err(Error::Invalid(format!("git {verb}: {said}")))
}

/// All that a program says, until the other end is closed.
fn heard(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What came until an error is what there is.
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for a program, which is killed with all that it has started when the build is to end.
fn attend(child: &mut Child, stop: &Stop) -> std::io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // Who gives a build up without a descriptor is heard of by asking.
    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    loop {
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        let fd = stop.fd();
        fds.extend(fd.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let pause = if fd.is_none() { Some(&pause) } else { None };
        let _ = poll(&mut fds, pause);
        if stop.is_set() {
            kill_all(pid, 0);
            return child.wait();
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            return child.wait();
        }
    }
}

/// Kills a process that has not been waited for, and its descendants.
fn kill_all(pid: Pid, depth: usize) {
    const DEEPEST: usize = 16;
    let path = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    // It has gone, or goes now.
    let _ = kill_process(pid, Signal::KILL);
    let children = children.split_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?));
    if depth < DEEPEST {
        children.for_each(|child| kill_all(child, depth.saturating_add(1)));
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Repository {
    /// What a lock file calls it.
    pub(crate) fn name(&self) -> String {
        match &self.reference {
            Some(reference) => format!("{}#{reference}", self.url),
            None => self.url.clone(),
        }
    }

    /// The commit that is to be used: the lock file's, else what its reference means now, which the lock file notes.
    pub(crate) fn commit_of(&self, lock: Option<&Lock>, stop: &Stop) -> Result<String> {
        let name = self.name();
        let locked = lock.map(|lock| lock.commit(&name)).transpose()?.flatten();
        let commit = match locked {
            Some(commit) => commit,
            None => self.commit(stop)?,
        };
        if let Some(lock) = lock {
            lock.note_commit(name, commit.clone());
        }
        Ok(commit)
    }

    /// The commit that its reference means now.
    fn commit(&self, stop: &Stop) -> Result<String> {
        let wanted = match self.reference.as_deref() {
            Some(commit) if is_commit(commit) => return Ok(commit.to_ascii_lowercase()),
            Some(name) => name,
            None => "HEAD",
        };
        // A tag's object is not the commit; with ^{} it is.
        let peeled = format!("{wanted}^{{}}");
        let list = git(None, &["ls-remote", "--", &self.url, wanted, &peeled], stop)?;
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
    pub(crate) fn check_out(
        &self,
        commit: &str,
        directory: &Path,
        keep: bool,
        stop: &Stop,
    ) -> Result<()> {
        let here = Some(directory);
        let git = |arguments: &[&str]| git(here, arguments, stop);
        git(&["init", "-q"])?;
        let one = git(&["fetch", "-q", "--depth=1", "--", &self.url, commit]);
        if one.is_err() {
            // Not every server gives single commits.
            let all = "+refs/*:refs/wherry/*";
            git(&["fetch", "-q", "--", &self.url, all])?;
        }
        git(&["checkout", "-q", "--detach", commit])?;
        if directory.join(".gitmodules").is_file() {
            git(&["submodule", "update", "-q", "--init", "--recursive", "--depth=1"])?;
        }
        let time = git(&["log", "-1", "--format=%ct", commit])?;
        if !keep {
            let own = directory.join(".git");
            std::fs::remove_dir_all(&own).map_err(io(|| format!("removing {}", own.display())))?;
        }
        let time = time.trim().parse::<i64>().unwrap_or(0).max(0);
        let time = Timestamps {
            last_access: Timespec { tv_sec: time, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: time, tv_nsec: 0 },
        };
        settle(directory, &time, 0)
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

/// Gives files the permissions that git knows, whatever the umask was, and the time of the commit, whenever it was fetched.
fn settle(directory: &Path, time: &Timestamps, depth: usize) -> Result<()> {
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
        let path = entry.path();
        if metadata.is_dir() || metadata.is_file() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(io(what))?;
        }
        if metadata.is_dir() {
            settle(&path, time, depth.saturating_add(1))?;
        } else {
            utimensat(CWD, &path, time, AtFlags::SYMLINK_NOFOLLOW).map_err(io(what))?;
        }
    }
    utimensat(CWD, directory, time, AtFlags::SYMLINK_NOFOLLOW).map_err(io(what))
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
