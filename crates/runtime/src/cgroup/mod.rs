//! Cgroups: version 1, version 2, and both at once.
//!
//! A [`Cgroup`] is one path in every hierarchy of the host. Where version 1 and 2 are both there,
//! the version 2 group is used as well: it needs no controllers to freeze, to kill, and to show
//! pressure. Hierarchies are found by [`CgroupRoot::detect`]; they are never mounted or changed.

mod limits_v1;
mod limits_v2;
mod realtime;
mod root;
mod stats;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{AtFlags, Mode as FileMode, OFlags};
use rustix::io::Errno;

pub use root::{CgroupRoot, Hierarchy, Mode, path_from_spec};
pub use stats::{Blkio, Cpu, Memory, Pids, Pressure, PressureLine, Stats};

use crate::error::{Doing, Error, Result};

/// How long [`Cgroup::remove`] waits for the last process to leave.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// How long [`Cgroup::freeze`] waits.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// One directory of the group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) controllers: Vec<String>,
    /// The hierarchy's mount point.
    pub(crate) mount_point: PathBuf,
    pub(crate) dir: OwnedFd,
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn write(&self, path: &str, file: &str, value: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, file, flags, FileMode::empty())
            .and_then(|fd| rustix::io::write(&fd, value.as_bytes()))
            .map(drop)
            .doing(|| {
                format!(
                    "write \"{}\" to {}/{path}/{file}",
                    value.trim_end(),
                    self.mount_point.display()
                )
            })
    }

    fn exists(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.dir, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    fn read(&self, file: &str) -> Option<String> {
        read_at(self.dir.as_fd(), file)
    }

    fn read_number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }
}

fn read_at(dir: BorrowedFd<'_>, file: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, file, flags, FileMode::empty()).ok()?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(&fd, &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(buffer.get(..count)?),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    String::from_utf8(text).ok()
}

/// A container's cgroup. Dropping it removes nothing.
#[derive(Debug)]
pub struct Cgroup {
    /// Relative to every hierarchy's root.
    path: String,
    v1: Vec<Group>,
    v2: Option<Group>,
}

/// Opened `tasks` files, with the rights of who opened them.
#[derive(Debug)]
pub struct Entrances(Vec<(PathBuf, OwnedFd)>);

impl Entrances {
    /// Moves the calling process, which must have one thread, into the group.
    ///
    /// By `tasks`, not by `cgroup.procs`: to move a whole process the kernel first keeps all processes
    /// of the host from making threads, and on an idle machine waits ten milliseconds for that (a grace
    /// period of RCU). A thread that moves itself is spared that since Linux 6.0.
    pub fn enter(&self) -> Result<()> {
        for (mount_point, fd) in &self.0 {
            rustix::io::write(fd, b"0")
                .map(drop)
                .doing(|| format!("enter the cgroup of {}", mount_point.display()))?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Makes the group, or takes it as it is, and sets the limits.
    pub fn create(root: &CgroupRoot, path: &str, resources: &LinuxResources) -> Result<Cgroup> {
        let path = root::clean(path);
        if path.is_empty() {
            return Err(Error::spec(
                "linux.cgroupsPath",
                "the root of the hierarchies is not ours",
            ));
        }
        let mut cgroup = Cgroup { path, v1: Vec::new(), v2: None };
        let result = cgroup.fill(root, resources);
        if let Err(error) = result {
            // What was there before us has processes or children, and then this does nothing.
            let _ = cgroup.remove_within(Duration::ZERO);
            return Err(error);
        }
        Ok(cgroup)
    }

    fn fill(&mut self, root: &CgroupRoot, resources: &LinuxResources) -> Result<()> {
        for hierarchy in &root.v1 {
            let dir = make_path(&hierarchy.mount_point, &self.path, &|parent, dir| {
                if hierarchy.has("cpuset") {
                    limits_v1::inherit_cpuset(parent, dir)
                } else {
                    Ok(())
                }
            })?;
            self.v1.push(Group {
                controllers: hierarchy.controllers.clone(),
                mount_point: hierarchy.mount_point.clone(),
                dir,
            });
        }
        if let Some(mount_point) = &root.v2 {
            let dir = make_path(mount_point, &self.path, &|parent, _| {
                limits_v2::enable_controllers(parent);
                Ok(())
            })?;
            self.v2 = Some(v2_group(mount_point, dir));
        }
        self.update(resources)
    }

    /// Opens a group that exists; hierarchies where it does not exist are left out.
    pub fn open(root: &CgroupRoot, path: &str) -> Result<Cgroup> {
        Self::open_in(root, path, |_| true)
    }

    /// Opens a group where it is frozen, for [`Cgroup::frozen`]: some opens less for who asks nothing else.
    pub fn open_freezer(root: &CgroupRoot, path: &str) -> Result<Cgroup> {
        Self::open_in(root, path, |controllers| controllers.iter().any(|name| name == "freezer"))
    }

    /// Opens a group in version 2 and in those hierarchies of version 1 whose controllers are wanted.
    fn open_in(
        root: &CgroupRoot,
        path: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Result<Cgroup> {
        let path = root::clean(path);
        let mut cgroup = Cgroup { path, v1: Vec::new(), v2: None };
        if cgroup.path.is_empty() {
            // The root of the hierarchies holds the host's processes; it is never a container's.
            return Ok(cgroup);
        }
        for hierarchy in root.v1.iter().filter(|hierarchy| wanted(&hierarchy.controllers)) {
            if let Some(dir) = open_path(&hierarchy.mount_point, &cgroup.path)? {
                cgroup.v1.push(Group {
                    controllers: hierarchy.controllers.clone(),
                    mount_point: hierarchy.mount_point.clone(),
                    dir,
                });
            }
        }
        if let Some(mount_point) = &root.v2
            && let Some(dir) = open_path(mount_point, &cgroup.path)?
        {
            cgroup.v2 = Some(v2_group(mount_point, dir));
        }
        Ok(cgroup)
    }

    /// Removes the groups right below `parent` that `lost` knows by their names, that were made longer
    /// than `untouched` ago, and that neither hold a process nor have one below them.
    pub fn sweep(
        root: &CgroupRoot,
        parent: &str,
        untouched: Duration,
        lost: impl Fn(&str) -> bool,
    ) {
        let mut names = BTreeSet::new();
        for mount_point in root.mount_points() {
            let parent = mount_point.join(root::clean(parent));
            for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                let age = entry.metadata().and_then(|m| m.modified()).map(|at| at.elapsed());
                if let Ok(name) = entry.file_name().into_string()
                    && matches!(age, Ok(Ok(age)) if age > untouched)
                    && lost(&name)
                {
                    names.insert(name);
                }
            }
        }
        for name in names {
            let Ok(cgroup) = Cgroup::open(root, &format!("{parent}/{name}")) else { continue };
            if cgroup.pids().is_ok_and(|pids| pids.is_empty()) {
                let _ = cgroup.try_remove();
            }
        }
    }

    /// The path below the hierarchies, without a leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether any hierarchy has the group.
    pub fn exists(&self) -> bool {
        !self.v1.is_empty() || self.v2.is_some()
    }

    /// The version 2 group's directory, where there is one.
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|group| group.dir.as_fd())
    }

    /// The version 2 group of a process (a pidfd) that is in a group below this one.
    ///
    /// A container that distributes controllers to groups of its own, as systemd does, takes no process in its
    /// own group any more: "no internal processes". `None`: the process is in this very group, or has ended.
    pub(crate) fn v2_below(&self, process: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
        let Some(group) = &self.v2 else { return Ok(None) };
        let doing = || "find the cgroup of the container's first process".to_owned();
        let pid = sys::pidfd::pid(process).doing(doing)?;
        let text = match std::fs::read_to_string(format!("/proc/{pid}/cgroup")) {
            Ok(text) if pid > 0 => text,
            _ => return Ok(None),
        };
        let Some(below) = below_v2(&text, &self.path) else { return Ok(None) };
        // The number may have been another process's meanwhile; but no group beside ours is ever opened.
        let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&group.dir, below, DIRECTORY, FileMode::empty(), resolve) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).doing(doing),
        }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v1.iter().chain(&self.v2).map(|group| group.dir.as_fd())
    }

    pub(crate) fn v1_groups(&self) -> &[Group] {
        &self.v1
    }

    pub(crate) fn v2_group(&self) -> Option<&Group> {
        self.v2.as_ref()
    }

    fn group(&self, controller: &str) -> Option<&Group> {
        self.v1.iter().find(|group| group.has(controller))
    }

    /// Opens the ways into the version 1 groups; the version 2 group is entered by clone3.
    pub fn entrances(&self) -> Result<Entrances> {
        let mut result = Vec::with_capacity(self.v1.len());
        for group in &self.v1 {
            result.push((group.mount_point.clone(), open_tasks(group)?));
        }
        Ok(Entrances(result))
    }

    /// Moves a process into the group, in all hierarchies.
    pub fn add(&self, pid: i32) -> Result<()> {
        for group in self.v1.iter().chain(&self.v2) {
            group.write(&self.path, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Changes limits; what is absent stays.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        for group in &self.v1 {
            limits_v1::apply(self, group, resources)?;
        }
        if let Some(group) = &self.v2 {
            limits_v2::apply(self, group, resources, self.v1.is_empty())?;
        }
        Ok(())
    }

    /// The processes of the group and of the groups below it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        // One hierarchy knows all; the one with most sense is that whose groups cannot be left by
        // the container: any other than name=systemd.
        let group = self
            .v2
            .as_ref()
            .or_else(|| self.group("pids"))
            .or_else(|| self.group("freezer"))
            .or_else(|| self.v1.first());
        let mut pids = Vec::new();
        if let Some(group) = group {
            collect_pids(group.dir.as_fd(), &mut pids, 0)
                .doing(|| format!("read the processes of the cgroup {}", self.path))?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to all processes of the group. SIGKILL also reaches those that are being
    /// born meanwhile, and frozen ones.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if signal == 9
            && let Some(group) = &self.v2
            && group.exists("cgroup.kill")
        {
            return group.write(&self.path, "cgroup.kill", "1");
        }
        // A process that forks while we read is found in the next round.
        let mut sent = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut found = false;
            for pid in self.pids()? {
                if signal == 9 || sent.insert(pid) {
                    found |= !matches!(sys::exec::kill(pid, signal), Err(Errno::SRCH));
                }
            }
            if !found {
                break;
            }
            if signal != 9 {
                continue;
            }
            if let Some(group) = self.group("freezer") {
                let _ = group.write(&self.path, "freezer.state", "THAWED");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops all processes of the group until [`Cgroup::thaw`].
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets the processes run again.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Whether the group is frozen.
    pub fn frozen(&self) -> bool {
        if let Some(group) = &self.v2
            && let Some(text) = group.read("cgroup.freeze")
            && text.trim() == "1"
        {
            return true;
        }
        self.group("freezer")
            .and_then(|group| group.read("freezer.state"))
            .is_some_and(|text| text.trim() != "THAWED")
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let deadline = Instant::now() + FREEZE_LIMIT;
        if let Some(group) = &self.v2
            && group.exists("cgroup.freeze")
        {
            group.write(&self.path, "cgroup.freeze", if frozen { "1" } else { "0" })?;
            let wanted = if frozen { "frozen 1" } else { "frozen 0" };
            while !group.read("cgroup.events").unwrap_or_default().contains(wanted) {
                if Instant::now() > deadline {
                    return Err(self.late("freeze", group));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(());
        }
        let Some(group) = self.group("freezer") else {
            return Err(Error::spec(
                format!("cgroup {}", self.path),
                "cannot be frozen: the host has no freezer",
            ));
        };
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        loop {
            // Written again and again: a process born during freezing stops the first attempt.
            group.write(&self.path, "freezer.state", wanted)?;
            if group.read("freezer.state").unwrap_or_default().trim() == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = group.write(&self.path, "freezer.state", "THAWED");
                return Err(self.late("freeze", group));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn late(&self, what: &str, group: &Group) -> Error {
        Error::System {
            doing: format!("{what} {}/{} in time", group.mount_point.display(), self.path),
            errno: Errno::TIMEDOUT.into(),
        }
    }

    /// Whether the kernel has killed a process of the group for lack of memory.
    pub fn oom_killed(&self) -> bool {
        self.oom_kills() > 0
    }

    /// How many processes of the group the kernel has killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        let field = |text: String| {
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        let v1 = self.group("memory").and_then(|group| group.read("memory.oom_control"));
        let v2 = self.v2.as_ref().and_then(|group| group.read("memory.events"));
        v1.and_then(field).unwrap_or(0u64).saturating_add(v2.and_then(field).unwrap_or(0))
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// Removes the group and those below it. One that does not exist is no error; a group whose
    /// last process is just leaving is waited for.
    pub fn remove(&self) -> Result<()> {
        self.remove_within(REMOVE_LIMIT)
    }

    /// As [`Cgroup::remove`], without waiting for processes that are just leaving.
    pub fn try_remove(&self) -> Result<()> {
        self.remove_within(Duration::ZERO)
    }

    fn remove_within(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut first = Ok(());
        for group in self.v1.iter().chain(&self.v2) {
            let path = group.mount_point.join(&self.path);
            let mut pause = Duration::from_micros(200);
            let result = loop {
                match remove_tree(&path) {
                    Err(Errno::BUSY) if Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    result => break result,
                }
            };
            if first.is_ok() {
                first = result.doing(|| format!("remove the cgroup {}", path.display()));
            }
        }
        first
    }
}

fn v2_group(mount_point: &Path, dir: OwnedFd) -> Group {
    let controllers = read_at(dir.as_fd(), "cgroup.controllers").unwrap_or_default();
    Group {
        controllers: controllers.split_whitespace().map(str::to_owned).collect(),
        mount_point: mount_point.to_owned(),
        dir,
    }
}

fn open_tasks(group: &Group) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&group.dir, "tasks", flags, FileMode::empty())
        .doing(|| format!("open tasks of {}", group.mount_point.display()))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_path(mount_point: &Path, path: &str) -> Result<Option<OwnedFd>> {
    let full = mount_point.join(path);
    match rustix::fs::open(&full, DIRECTORY, FileMode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("open the cgroup {}", full.display())),
    }
}

/// Makes the directories of a path; `each` is called with parent and child for every one.
fn make_path(
    mount_point: &Path,
    path: &str,
    each: &dyn Fn(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<()>,
) -> Result<OwnedFd> {
    let doing = || format!("create the cgroup {}/{path}", mount_point.display());
    let mut dir = rustix::fs::open(mount_point, DIRECTORY, FileMode::empty()).doing(doing)?;
    for name in path.split('/') {
        match rustix::fs::mkdirat(&dir, name, FileMode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        let child = rustix::fs::openat(&dir, name, DIRECTORY, FileMode::empty()).doing(doing)?;
        each(dir.as_fd(), child.as_fd())?;
        dir = child;
    }
    Ok(dir)
}

/// Names of the groups below one.
fn below(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == rustix::fs::FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn collect_pids(dir: BorrowedFd<'_>, pids: &mut Vec<i32>, depth: usize) -> rustix::io::Result<()> {
    let text = read_at(dir, "cgroup.procs").unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    if depth > 64 {
        return Ok(());
    }
    for name in below(dir)? {
        match rustix::fs::openat(dir, &name, DIRECTORY, FileMode::empty()) {
            Ok(child) => collect_pids(child.as_fd(), pids, depth + 1)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> rustix::io::Result<()> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Processes, or groups below that a container made (systemd does).
        Err(Errno::BUSY) => {}
        Err(errno) => return Err(errno),
    }
    let dir = match rustix::fs::open(path, DIRECTORY, FileMode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let names = below(dir.as_fd())?;
    if names.is_empty() {
        return match rustix::fs::rmdir(path) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        };
    }
    for name in names {
        use std::os::unix::ffi::OsStrExt;
        remove_tree(&path.join(OsStr::from_bytes(name.as_bytes())))?;
    }
    match rustix::fs::rmdir(path) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Where below the group `path` a process is whose `/proc/PID/cgroup` this is.
fn below_v2<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The hierarchy may be mounted from somewhere in its middle.
    let (_, rest) = own.split_once(path.trim_matches('/'))?;
    let rest = rest.strip_prefix('/')?;
    (!rest.is_empty()).then_some(rest)
}

/// The numbers of a list as `0-3,7`, each once and in order, however often the list names it.
pub fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut ranges = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse().ok()?);
        if last < first || last > 65_536 {
            return None;
        }
        ranges.push(first..=last);
    }
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut result: Vec<usize> = Vec::new();
    for range in ranges {
        let next = result.last().map_or(0, |last| last + 1);
        result.extend(next.max(*range.start())..=*range.end());
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_names_each_processor_once() {
        assert_eq!(parse_cpu_list("7,0-3\n"), Some(vec![0, 1, 2, 3, 7]));
        assert_eq!(parse_cpu_list("2-4,3,0-2,,4-5"), Some(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(parse_cpu_list(""), Some(Vec::new()));
        for wrong in ["a", "3-1", "-1", "0-65537", "1-2-3"] {
            assert_eq!(parse_cpu_list(wrong), None, "{wrong:?}");
        }
        // A short text must not stand for gigabytes.
        let list = parse_cpu_list(&"0-65536,".repeat(10_000));
        assert_eq!(list.map(|list| list.len()), Some(65_537));
    }
}
