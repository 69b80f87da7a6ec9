//! `cp`: files between this host and a container.
//!
//! What is copied travels as a tar archive, as in Docker's API. The rules of what a path
//! means (a trailing slash, `/.`, a target that is or is not there) are Docker's.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use engine::{ErrorKind, PathStat};

use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::human;
use crate::registry::Verb;

/// Options of `cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep owners and groups
    #[arg(long, short = 'a')]
    archive: bool,
    /// Copy what a link at SRC_PATH points to
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Do not say how much was copied
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "cp"], &["cp"]],
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files between this host and a container",
    )
    .long("As the source, '-' is a tar archive on standard input that is unpacked in a\ndirectory of the container; as the destination, it is one on standard output.")
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [source, target] = super::two(&self.args)?;
        match (split(source), split(target)) {
            (Some((name, path)), None) => self.fetch(context, name, path, target),
            (None, Some((name, path))) => self.send(context, source, name, path),
            (Some(_), Some(_)) => {
                Err(Failure::new(1, "copying between containers is not supported").bare().into())
            }
            (None, None) => {
                Err(Failure::new(1, "must specify at least one container source").bare().into())
            }
        }
    }
}

/// `name:path` as its parts; what is a path of this host has none.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') || text == "-" {
        return None;
    }
    let (name, path) = text.split_once(':')?;
    // `./a:b` and `../a:b` are files of this host.
    (!name.starts_with('.') && !name.contains('/')).then_some((name, path))
}

/// The last name of a path in a container.
fn base(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/.").unwrap_or(path).trim_end_matches('/');
    match path.rsplit('/').next() {
        None | Some("" | ".") => "/",
        Some(name) => name,
    }
}

/// The directory of a path in a container.
fn parent(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((dir, _)) => dir.to_owned(),
    }
}

fn says_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

fn wants_content(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

fn is_dir(stat: &PathStat) -> bool {
    stat.mode & S_IFMT == S_IFDIR
}

/// Makes a container's path absolute; they begin at its root.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Where a link in a container points, as a path in the container.
fn followed(path: &str, stat: &PathStat) -> Option<String> {
    if stat.mode & S_IFMT != S_IFLNK || stat.link_target.is_empty() {
        return None;
    }
    Some(match stat.link_target.strip_prefix('/') {
        Some(_) => stat.link_target.clone(),
        None => format!("{}/{}", parent(path).trim_end_matches('/'), stat.link_target),
    })
}

fn counted(what: u64, to: &str) -> String {
    let size = human::size3(i64::try_from(what).unwrap_or(i64::MAX));
    format!("Successfully copied {size} to {to}")
}

/// What an archive's entries are called here: the first name becomes another.
#[derive(Debug, Clone, Default)]
struct Rename {
    from: String,
    to: String,
}

impl Rename {
    fn new(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned() }
    }

    /// The path of an entry after the change.
    fn apply(&self, path: &Path) -> PathBuf {
        let clean: PathBuf =
            path.components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect();
        if self.from.is_empty() {
            return clean;
        }
        match clean.strip_prefix(&self.from) {
            Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from(&self.to),
            Ok(rest) => Path::new(&self.to).join(rest),
            Err(_) => clean,
        }
    }
}

/// Counts what passes.
struct Counter<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(n).unwrap_or(0));
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl Args {
    fn tells(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// From a container to this host.
    fn fetch(&self, context: &Context, name: &str, path: &str, target: &str) -> Outcome {
        let engine = context.engine()?;
        let mut source = rooted(path);
        let mut name_here = base(path).to_owned();
        if self.follow_link {
            let stat = engine.stat_path(name, &source)?;
            if let Some(real) = followed(&source, &stat) {
                source = real;
                if base(path) != "/" {
                    base(path).clone_into(&mut name_here);
                }
            }
        }
        if target == "-" {
            if std::io::stdout().is_terminal() {
                return Err(Failure::new(
                    1,
                    "refusing to write an archive to a terminal; redirect the output",
                )
                .into());
            }
            let mut out = context::out();
            engine.copy_from(name, &source, &mut out)?;
            out.flush()?;
            return Ok(0);
        }
        let stat = engine.stat_path(name, &source)?;
        let plan = here(target, is_dir(&stat), wants_content(path), &source, &name_here)?;
        let (reader, writer) = std::io::pipe()?;
        let owners = self.archive;
        let (bytes, unpacked) = std::thread::scope(|scope| {
            let worker = scope.spawn(move || unpack(reader, &plan, owners));
            let mut counter = Counter { inner: writer, bytes: 0 };
            let sent = engine.copy_from(name, &source, &mut counter);
            let bytes = counter.bytes;
            drop(counter);
            let unpacked = worker
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("unpacking ended early")));
            (sent.map(|_| bytes), unpacked)
        });
        // Unpacking that failed is why sending failed, not the other way round.
        unpacked.map_err(|e| Failure::new(1, format!("{target}: {e}")))?;
        let bytes = bytes?;
        if self.tells() {
            context::note(&counted(bytes, target));
        }
        Ok(0)
    }

    /// From this host to a container.
    fn send(&self, context: &Context, source: &str, name: &str, path: &str) -> Outcome {
        let engine = context.engine()?;
        let mut target = rooted(path);
        let mut stat = there(&engine, name, &target)?;
        if let Some(found) = &stat
            && let Some(real) = followed(&target, found)
        {
            target = real;
            stat = there(&engine, name, &target)?;
        }
        let target_is_dir = stat.as_ref().is_some_and(is_dir);
        if source == "-" {
            if !target_is_dir {
                return Err(Failure::new(
                    1,
                    format!("destination \"{name}:{path}\" must be a directory"),
                )
                .bare()
                .into());
            }
            engine.copy_to(name, &target, &mut std::io::stdin().lock(), false, self.archive)?;
            return Ok(0);
        }
        let local = Path::new(source);
        let look = |p: &Path| if self.follow_link { p.metadata() } else { p.symlink_metadata() };
        let trailing = says_directory(source);
        let found = if trailing { local.metadata() } else { look(local) };
        let found = found.map_err(|e| {
            Failure::new(
                1,
                match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        format!("lstat {source}: no such file or directory")
                    }
                    _ => format!("lstat {source}: {e}"),
                },
            )
            .bare()
        })?;
        if trailing && !found.is_dir() {
            return Err(Failure::new(1, format!("{source}: not a directory")).bare().into());
        }
        let first = first_name(local);
        let (dir, entry) = match &stat {
            Some(_) if target_is_dir && found.is_dir() && wants_content(source) => {
                (target.clone(), String::new())
            }
            Some(_) if target_is_dir => (target.clone(), first),
            Some(_) if found.is_dir() => {
                return Err(Failure::new(
                    1,
                    format!("cannot copy directory to {name}:{path}: it is a file"),
                )
                .into());
            }
            Some(_) if says_directory(path) => {
                return Err(Failure::new(1, format!("not a directory: {name}:{path}")).into());
            }
            None if !found.is_dir() && says_directory(path) => {
                return Err(Failure::new(1, format!("no such directory: {name}:{path}")).into());
            }
            _ => (parent(&target), base(&target).to_owned()),
        };
        let real = if self.follow_link {
            std::fs::canonicalize(local).unwrap_or_else(|_| local.to_owned())
        } else {
            local.to_owned()
        };
        let (mut reader, writer) = std::io::pipe()?;
        let (sent, packed) = std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let mut counter = Counter {
                    inner: std::io::BufWriter::with_capacity(64 * 1024, writer),
                    bytes: 0,
                };
                pack(&mut counter, &real, &entry)?;
                counter.flush()?;
                std::io::Result::Ok(counter.bytes)
            });
            let sent = engine.copy_to(name, &dir, &mut reader, true, self.archive);
            drop(reader);
            let packed =
                worker.join().unwrap_or_else(|_| Err(std::io::Error::other("packing ended early")));
            (sent, packed)
        });
        match (sent, packed) {
            (Err(e), _) => Err(e.into()),
            (Ok(()), Err(e)) => Err(Failure::new(1, format!("{source}: {e}")).into()),
            (Ok(()), Ok(bytes)) => {
                if self.tells() {
                    context::note(&counted(bytes, &format!("{name}:{path}")));
                }
                Ok(0)
            }
        }
    }
}

fn there(engine: &Door, name: &str, path: &str) -> anyhow::Result<Option<PathStat>> {
    match engine.stat_path(name, path) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind == ErrorKind::NotFound => {
            // The path may be made; the container must be there.
            engine.inspect(name, false)?;
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// The name a local path's entry gets: of `.` and `..`, what they stand for.
fn first_name(local: &Path) -> String {
    let real;
    let path = match local.file_name() {
        Some(_) => local,
        None => {
            real = std::fs::canonicalize(local).unwrap_or_default();
            &real
        }
    };
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes a file or a tree as an archive whose first name is `entry`; empty: its content.
fn pack(out: &mut dyn Write, path: &Path, entry: &str) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    archive.mode(tar::HeaderMode::Complete);
    let is_dir = path.symlink_metadata()?.is_dir() || entry.is_empty();
    if is_dir {
        let entry = if entry.is_empty() { "." } else { entry };
        archive.append_dir_all(entry, path)?;
    } else {
        archive.append_path_with_name(path, entry)?;
    }
    archive.finish()
}

/// Where an archive is unpacked on this host, and under what name.
#[derive(Debug, Clone)]
struct Plan {
    dir: PathBuf,
    rename: Rename,
    /// There is a directory where the archive has none, or the other way round.
    file_over: Option<PathBuf>,
}

/// What a target on this host means for a source that is, or is not, a directory.
fn here(
    target: &str,
    source_is_dir: bool,
    content: bool,
    source: &str,
    name: &str,
) -> Result<Plan, Failure> {
    let path = Path::new(target);
    let inside = base(source);
    // The archive's first name is the source's last one; with `/.` there is none.
    let from = if content { "" } else { inside };
    let fail = |text: String| Err(Failure::new(1, text).bare());
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            Ok(Plan { dir: path.to_owned(), rename: Rename::new(from, name), file_over: None })
        }
        Ok(_) if source_is_dir => fail(format!("cannot copy directory to {target}: it is a file")),
        Ok(_) if says_directory(target) => fail(format!("not a directory: {target}")),
        Ok(_) => Ok(Plan {
            dir: up(path),
            rename: Rename::new(from, &first_name(path)),
            file_over: Some(path.to_owned()),
        }),
        Err(_) => {
            let dir = up(path);
            if !dir.is_dir() {
                return fail(format!(
                    "invalid output path: directory {:?} does not exist",
                    dir.display().to_string()
                ));
            }
            if !source_is_dir && says_directory(target) {
                return fail(format!("no such directory: {target}"));
            }
            let last =
                path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if content {
                // The content of a directory becomes that of a new one.
                std::fs::create_dir(path)
                    .map_err(|e| Failure::new(1, format!("{target}: {e}")).bare())?;
                return Ok(Plan {
                    dir: path.to_owned(),
                    rename: Rename::default(),
                    file_over: None,
                });
            }
            Ok(Plan { dir, rename: Rename::new(from, &last), file_over: None })
        }
    }
}

fn up(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if p.as_os_str().is_empty() => PathBuf::from("."),
        Some(p) => p.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// Unpacks below a directory and never outside it.
fn unpack(reader: impl Read, plan: &Plan, owners: bool) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(owners);
    let mut late = Vec::new();
    let mut result = Ok(());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = plan.rename.apply(&entry.path()?);
        let kind = entry.header().entry_type();
        let hard = match kind.is_hard_link() {
            true => entry.link_name()?.map(|l| plan.rename.apply(&l)),
            false => None,
        };
        let header = entry.header().clone();
        if let Some(over) = &plan.file_over
            && kind.is_file()
            && over.symlink_metadata().is_ok_and(|m| m.is_symlink())
        {
            // Docker writes through a link that the person named as the target.
            let mut file = std::fs::File::create(over)?;
            std::io::copy(&mut entry, &mut file)?;
            continue;
        }
        if kind.is_dir() {
            let full = plan.dir.join(&path);
            if path.as_os_str().is_empty() {
                continue;
            }
            make_dir(&plan.dir, &path)?;
            // A directory that can't be written to gets its mode when it is full.
            late.push((
                full,
                header.mode().unwrap_or(0o755),
                header.mtime().unwrap_or(0),
                header.uid().ok(),
                header.gid().ok(),
            ));
            continue;
        }
        if let Some(link) = hard {
            let (old, new) = (inside(&plan.dir, &link)?, inside(&plan.dir, &path)?);
            let _ = std::fs::remove_file(&new);
            std::fs::hard_link(old, new)?;
            continue;
        }
        let full = inside(&plan.dir, &path)?;
        if full.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            result = Err(std::io::Error::other(format!(
                "cannot overwrite directory {} with what is no directory",
                full.display()
            )));
            break;
        }
        let _ = std::fs::remove_file(&full);
        // The parent was looked at by `inside`: no link leads out of the directory.
        entry.unpack(&full)?;
    }
    for (path, mode, mtime, uid, gid) in late.into_iter().rev() {
        use std::os::unix::fs::PermissionsExt;
        if owners && let (Some(uid), Some(gid)) = (uid, gid) {
            let id = |n: u64| u32::try_from(n).ok();
            std::os::unix::fs::chown(&path, id(uid), id(gid))?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o7777))?;
        let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(mtime));
        if let (Some(time), Ok(file)) = (time, std::fs::File::open(&path)) {
            let _ = file.set_modified(time);
        }
    }
    result
}

fn escapes(path: &Path) -> std::io::Error {
    std::io::Error::other(format!(
        "the archive names {}, which is outside of the target",
        path.display()
    ))
}

/// The full path of an entry whose directory is there, is a directory, and is inside.
fn inside(dir: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let normal = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    let (true, Some(name)) = (normal, path.file_name()) else { return Err(escapes(path)) };
    let root = dir.canonicalize()?;
    let parent = dir.join(path.parent().unwrap_or(Path::new(""))).canonicalize()?;
    if !parent.starts_with(&root) {
        return Err(escapes(path));
    }
    Ok(parent.join(name))
}

/// Makes a directory inside; one that is there already is as good.
fn make_dir(dir: &Path, path: &Path) -> std::io::Result<()> {
    let full = inside(dir, path)?;
    match std::fs::create_dir(&full) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = full.symlink_metadata()?;
            if found.is_dir() {
                return Ok(());
            }
            Err(std::io::Error::other(format!(
                "cannot overwrite {} with a directory",
                full.display()
            )))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("wherry-cp-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(split("boat:/etc"), Some(("boat", "/etc")));
        assert_eq!(split("/a:b"), None);
        assert_eq!(split("./a:b"), None);
        assert_eq!(split("-"), None);
        assert_eq!(split("dir/a:b"), None);
        assert_eq!(base("/etc/"), "etc");
        assert_eq!(base("/etc/."), "etc");
        assert_eq!(base("/"), "/");
        assert_eq!(parent("/etc/passwd"), "/etc");
        assert_eq!(parent("/etc"), "/");
    }

    fn tree(dir: &Dir) -> PathBuf {
        let root = dir.0.join("src");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("a"), "a").unwrap();
        std::fs::write(root.join("sub/b"), "b").unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        root
    }

    fn packed(path: &Path, entry: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(&mut bytes, path, entry).unwrap();
        bytes
    }

    #[test]
    fn a_tree_arrives_under_its_name_another_or_none() {
        let dir = Dir::new("tree");
        let root = tree(&dir);
        let bytes = packed(&root, "src");
        for (target, content, want) in [
            ("into", false, "into/src/sub/b"),
            ("new", false, "new/sub/b"),
            ("fresh", true, "fresh/sub/b"),
        ] {
            let path = dir.0.join(target);
            if target == "into" {
                std::fs::create_dir(&path).unwrap();
            }
            let bytes = if content { packed(&root, "") } else { bytes.clone() };
            let plan = here(path.to_str().unwrap(), true, content, "/x/src", "src").unwrap();
            unpack(bytes.as_slice(), &plan, false).unwrap();
            assert_eq!(std::fs::read_to_string(dir.0.join(want)).unwrap(), "b", "{target}");
        }
        assert_eq!(std::fs::read_link(dir.0.join("new/link")).unwrap(), Path::new("a"));
    }

    #[test]
    fn a_file_arrives_under_its_name_or_another() {
        let dir = Dir::new("file");
        let root = tree(&dir);
        let bytes = packed(&root.join("a"), "a");
        std::fs::create_dir(dir.0.join("d")).unwrap();
        std::fs::write(dir.0.join("old"), "old").unwrap();
        for (target, want) in [("d", "d/a"), ("old", "old"), ("new", "new")] {
            let plan =
                here(dir.0.join(target).to_str().unwrap(), false, false, "/x/a", "a").unwrap();
            unpack(bytes.as_slice(), &plan, false).unwrap();
            assert_eq!(std::fs::read_to_string(dir.0.join(want)).unwrap(), "a");
        }
        let at = |t: &str| dir.0.join(t).to_string_lossy().into_owned();
        assert!(here(&at("old"), true, false, "/x/src", "src").is_err());
        assert!(here(&at("nope/x"), false, false, "/x/a", "a").is_err());
        assert!(here(&at("nope/"), false, false, "/x/a", "a").is_err());
    }

    #[test]
    fn hostile_archives_stay_inside() {
        let dir = Dir::new("hostile");
        let target = dir.0.join("target");
        std::fs::create_dir(&target).unwrap();
        let plan = Plan { dir: target.clone(), rename: Rename::default(), file_over: None };
        // A link that leads out, then a file through it.
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "out", "..").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        archive.append_data(&mut header, "out/evil", &b"x"[..]).unwrap();
        let bytes = archive.into_inner().unwrap();
        assert!(unpack(bytes.as_slice(), &plan, false).is_err());
        assert!(!dir.0.join("evil").exists());
        // A name that leads out.
        let mut header = tar::Header::new_gnu();
        let name = b"../evil";
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_size(1);
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, &b"x"[..]).unwrap();
        let bytes = archive.into_inner().unwrap();
        assert!(unpack(bytes.as_slice(), &plan, false).is_err());
        assert!(!dir.0.join("evil").exists());
    }
}
