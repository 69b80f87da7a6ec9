//! Groups prepared ahead, with a process waiting in them.
//!
//! To move a process into a version 1 group the kernel waits for a grace period of RCU, which on an
//! idle machine is most of the time a start takes. A child is born into its parent's groups without
//! waiting, and a version 1 group can be renamed. So a process is forked and moved ahead of time;
//! when a container is to start, its groups get the container's name, and it makes the container's
//! first process as a child of its own parent (`CLONE_PARENT`), and leaves.
//!
//! On hosts with version 2 only there is nothing to gain: `clone3` puts the child into its group.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sys::clone::Side;

use super::{Cgroup, CgroupRoot, root};
use crate::child::{self, Job};
use crate::error::{Doing, Error, Result};
use crate::launch::Descriptors;
use crate::plan::{Namespace, Plan};
use crate::report::Reporter;

/// The largest order; the socket takes somewhat more.
const LIMIT: usize = 160 * 1024;

/// Prepared groups and the process that waits there.
#[derive(Debug)]
pub struct Place {
    /// The hierarchies' mount points; those of version 1 only.
    root: CgroupRoot,
    path: String,
    arrived: bool,
    waiter: Waiter,
}

/// A process in the right groups, waiting for the order to make a container's first process.
///
/// Not used, it is to be given up with [`Waiter::discard`]; a forked copy is just dropped.
#[derive(Debug)]
pub struct Waiter {
    pidfd: OwnedFd,
    socket: OwnedFd,
}

/// What the waiter is told; the descriptors come in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    plan: Plan,
    flags: u64,
    late: u64,
    path: String,
    v2_mount: Option<PathBuf>,
    v2: bool,
    pid_namespace: bool,
    rootfs: bool,
    stdio: bool,
    gate: bool,
    joined: Vec<Namespace>,
    mounts: Vec<usize>,
    id_maps: Vec<usize>,
    wait_for_maps: bool,
    foreign_user: bool,
}

impl Place {
    /// Prepares a place named `name` below `parent`, the path the containers' groups will have
    /// their names in. Costs a fork: the new process makes the groups and goes into them.
    ///
    /// The caller must have one thread. When it dies, the process removes the groups and ends.
    pub fn prepare(root: &CgroupRoot, parent: &str, name: &str) -> Result<Place> {
        if root.v1.is_empty() {
            return Err(Error::spec(
                "a prepared place",
                "is of no use here: there is no cgroup hierarchy of version 1",
            ));
        }
        let root = CgroupRoot { v1: root.v1.clone(), v2: None };
        let path = root::clean(&format!("{parent}/{name}"));
        let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
        match sys::clone::fork().doing(|| "prepare a process".to_owned())? {
            Side::Parent { pidfd, .. } => {
                let waiter = Waiter { pidfd, socket: ours };
                Ok(Place { root, path, arrived: false, waiter })
            }
            Side::Child => wait(&root, &path, &theirs),
        }
    }

    /// Whether containers below `parent` can have this place.
    pub fn is_below(&self, parent: &str) -> bool {
        self.path.rsplit_once('/').map(|(own, _)| own) == Some(root::clean(parent).as_str())
    }

    /// Whether the process has arrived in its groups; does not wait. An error says that it never
    /// will: the place is to be discarded.
    pub fn has_arrived(&mut self) -> Result<bool> {
        if !self.arrived {
            match self.waiter.answer(false)? {
                None => {}
                Some(Answer::Arrived) => self.arrived = true,
                Some(Answer::Made(_)) => return Err(garbled()),
            }
        }
        Ok(self.arrived)
    }

    /// Makes the place a container's: its groups get the name `path`, which must lie below the
    /// same parent. They have no limits yet, and version 2 has no group. Waits until the process
    /// has arrived. On failure the place is gone and the caller starts without one.
    pub fn adopt(mut self, path: &str) -> Result<Waiter> {
        match self.rename(path) {
            Ok(()) => Ok(self.waiter),
            Err(error) => {
                let _ = self.discard();
                Err(error)
            }
        }
    }

    fn rename(&mut self, path: &str) -> Result<()> {
        let path = root::clean(path);
        let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
        if path.is_empty() || parent(&path) != parent(&self.path) {
            return Err(Error::spec(
                format!("cgroup {path}"),
                format!("a place prepared as {} cannot become this", self.path),
            ));
        }
        while !self.arrived {
            self.arrived = matches!(self.waiter.answer(true)?, Some(Answer::Arrived));
        }
        for (done, hierarchy) in self.root.v1.iter().enumerate() {
            let at = |path: &str| hierarchy.mount_point.join(path);
            if let Err(errno) = rustix::fs::rename(at(&self.path), at(&path)) {
                // Back to one name, so that discarding finds all of it.
                for hierarchy in self.root.v1.iter().take(done) {
                    let at = |path: &str| hierarchy.mount_point.join(path);
                    let _ = rustix::fs::rename(at(&path), at(&self.path));
                }
                return Err(errno).doing(|| {
                    format!(
                        "rename the cgroup {} to {}",
                        at(&self.path).display(),
                        at(&path).display()
                    )
                });
            }
        }
        Ok(())
    }

    /// Removes what is left of places below `parent` that `lost` knows by their names: of those whose
    /// process was killed together with its keeper, so that nobody was there to do it. Where a process
    /// is after all, the kernel keeps the group.
    pub fn sweep(root: &CgroupRoot, parent: &str, lost: impl Fn(&str) -> bool) {
        for hierarchy in &root.v1 {
            let parent = hierarchy.mount_point.join(root::clean(parent));
            for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(&lost) {
                    let _ = std::fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// Gives the place up: ends the waiting process and removes the groups.
    pub fn discard(self) -> Result<()> {
        self.waiter.end();
        Cgroup::open(&self.root, &self.path)?.remove_within(Duration::from_secs(5))
    }

    /// Readable when [`Place::has_arrived`] has something new to say.
    pub fn ready_fd(&self) -> BorrowedFd<'_> {
        self.waiter.socket.as_fd()
    }
}

/// What the waiter says.
enum Answer {
    /// It is in its groups.
    Arrived,
    /// It has made the container's first process.
    Made(OwnedFd),
}

fn garbled() -> Error {
    Error::Died { how: "in a prepared place".to_owned() }
}

impl Waiter {
    /// Ends the process. The groups stay, under the container's name.
    pub fn discard(self) {
        self.end();
    }

    fn end(&self) {
        let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), 9);
        let _ = sys::pidfd::wait(self.pidfd.as_fd(), true);
    }

    fn answer(&self, block: bool) -> Result<Option<Answer>> {
        let mut buffer = [0; 4096];
        let (count, mut fds) = match sys::socket::recv_with_fds(&self.socket, &mut buffer, block) {
            Err(Errno::AGAIN) => return Ok(None),
            received => received.doing(|| "hear of a prepared process".to_owned())?,
        };
        match (buffer.get(..count).and_then(|answer| answer.split_first()), fds.pop()) {
            (Some((b'A', _)), _) => Ok(Some(Answer::Arrived)),
            (Some((b'P', _)), Some(pidfd)) => Ok(Some(Answer::Made(pidfd))),
            (Some((b'E', text)), _) => {
                Err(serde_json::from_slice(text).unwrap_or_else(|_| garbled()))
            }
            _ => Err(garbled()),
        }
    }

    /// Has the container's first process made; returns its number and pidfd.
    pub(crate) fn launch(
        self,
        job: Job<'_>,
        pid_namespace: Option<OwnedFd>,
        v2: Option<OwnedFd>,
        report: &OwnedFd,
    ) -> Result<(i32, OwnedFd)> {
        let result = self.order(job, pid_namespace, v2, report);
        // If it has answered there is nothing it still has to do; if not, it must not.
        self.end();
        result
    }

    fn order(
        &self,
        job: Job<'_>,
        pid_namespace: Option<OwnedFd>,
        v2: Option<OwnedFd>,
        report: &OwnedFd,
    ) -> Result<(i32, OwnedFd)> {
        let order = Order {
            plan: job.plan.clone(),
            flags: job.flags,
            late: job.late,
            path: job.cgroup.map_or("", Cgroup::path).to_owned(),
            v2_mount: job.cgroup.and_then(Cgroup::v2_group).map(|group| group.mount_point.clone()),
            v2: v2.is_some(),
            pid_namespace: pid_namespace.is_some(),
            rootfs: job.d.rootfs.is_some(),
            stdio: job.d.stdio.is_some(),
            gate: job.d.gate.is_some(),
            joined: job.joined.keys().copied().collect(),
            mounts: job.d.mounts.keys().copied().collect(),
            id_maps: job.id_maps.keys().copied().collect(),
            wait_for_maps: job.wait_for_maps,
            foreign_user: job.foreign_user,
        };
        let mut fds: Vec<BorrowedFd<'_>> = vec![report.as_fd()];
        fds.extend(v2.iter().chain(&pid_namespace).map(AsFd::as_fd));
        fds.extend(job.d.rootfs.iter().map(AsFd::as_fd));
        fds.extend(job.d.stdio.iter().flatten().map(AsFd::as_fd));
        fds.extend(job.d.gate.iter().map(AsFd::as_fd));
        fds.extend(job.joined.values().map(AsFd::as_fd));
        fds.extend(job.d.mounts.values().map(AsFd::as_fd));
        fds.extend(job.id_maps.values().map(AsFd::as_fd));
        let bytes = serde_json::to_vec(&order)
            .map_err(|error| Error::spec("the plan", error.to_string()))?;
        if bytes.len() > LIMIT || fds.len() > sys::socket::MAX_FDS {
            return Err(Error::spec("the plan", "is too large for a prepared place"));
        }
        let doing = || "hand the plan to the prepared process".to_owned();
        sys::socket::send_with_fds(&self.socket, &bytes, &fds, true).doing(doing)?;
        loop {
            match self.answer(true)? {
                // It has arrived; nobody had asked yet.
                Some(Answer::Arrived) | None => {}
                Some(Answer::Made(pidfd)) => {
                    let pid = sys::pidfd::pid(pidfd.as_fd())
                        .doing(|| "find the container's process".to_owned())?;
                    return Ok((pid, pidfd));
                }
            }
        }
    }
}

/// The waiting process.
fn wait(root: &CgroupRoot, path: &str, socket: &OwnedFd) -> ! {
    sys::signal::reset();
    let _ = rustix::thread::set_name(c"wherry-place");
    let result = arrive(root, path, socket).and_then(|mut cgroup| {
        let _ = sys::socket::send_with_fds(socket, b"A", &[], true);
        match serve(&mut cgroup, socket) {
            Ok(Served::Done) => Ok(()),
            Ok(Served::Orphaned) => leave(&cgroup),
            Err(error) => Err(error),
        }
    });
    if let Err(error) = result {
        let mut bytes = vec![b'E'];
        bytes.extend(serde_json::to_vec(&error).unwrap_or_default());
        let _ = sys::socket::send_with_fds(socket, &bytes, &[], true);
    }
    sys::exec::exit_now(0)
}

fn arrive(root: &CgroupRoot, path: &str, socket: &OwnedFd) -> Result<Cgroup> {
    // The caller's descriptors must not live on here.
    sys::fds::close_all_but(3, &[socket.as_fd()]).doing(|| "close descriptors".to_owned())?;
    let cgroup = Cgroup::create(root, path, &LinuxResources::default())?;
    match cgroup.entrances().and_then(|entrances| entrances.enter()) {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            let _ = leave(&cgroup);
            Err(error)
        }
    }
}

/// Goes out of the groups and removes them, for there is nobody left who would.
fn leave(cgroup: &Cgroup) -> Result<()> {
    for group in &cgroup.v1 {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(&group.dir, "../cgroup.procs", flags, Mode::empty());
        let _ = procs.and_then(|procs| rustix::io::write(&procs, b"0"));
    }
    cgroup.remove_within(Duration::ZERO)
}

/// How the wait was over.
enum Served {
    /// The container's first process is made.
    Done,
    /// The caller has gone.
    Orphaned,
}

fn serve(cgroup: &mut Cgroup, socket: &OwnedFd) -> Result<Served> {
    let mut buffer = vec![0; LIMIT];
    let (count, fds) = sys::socket::recv_with_fds(socket, &mut buffer, true)
        .doing(|| "receive a plan".to_owned())?;
    if count == 0 {
        return Ok(Served::Orphaned);
    }
    let incomplete = || Error::spec("the plan", "arrived incomplete");
    let order: Order = serde_json::from_slice(buffer.get(..count).unwrap_or_default())
        .map_err(|error| Error::spec("the plan", error.to_string()))?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(incomplete);
    let report = next()?;
    let v2 = if order.v2 { Some(next()?) } else { None };
    let pid_namespace = if order.pid_namespace { Some(next()?) } else { None };
    let mut d = Descriptors::default();
    if order.rootfs {
        d.rootfs = Some(next()?);
    }
    if order.stdio {
        d.stdio = Some([next()?, next()?, next()?]);
    }
    if order.gate {
        d.gate = Some(next()?);
    }
    let mut joined = BTreeMap::new();
    for kind in &order.joined {
        joined.insert(*kind, next()?);
    }
    for index in &order.mounts {
        d.mounts.insert(*index, next()?);
    }
    let mut id_maps = BTreeMap::new();
    for index in &order.id_maps {
        id_maps.insert(*index, next()?);
    }
    cgroup.path = order.path;
    if let Some(mount_point) = order.v2_mount {
        cgroup.v2 = super::open_path(&mount_point, &cgroup.path)?
            .map(|dir| super::v2_group(&mount_point, dir));
    }
    if let Some(namespace) = &pid_namespace {
        sys::namespace::setns(namespace.as_fd(), sys::clone::NEWPID)
            .doing(|| "join the PID namespace".to_owned())?;
    }
    let two_steps = joined.contains_key(&Namespace::User);
    let flags = if two_steps { 0 } else { order.flags };
    match sys::clone::clone3(flags | sys::clone::PARENT, v2.as_ref().map(AsFd::as_fd))
        .doing(|| "create the container's first process".to_owned())?
    {
        Side::Parent { pidfd, .. } => {
            sys::socket::send_with_fds(socket, b"P", &[pidfd.as_fd()], true)
                .map(|_| Served::Done)
                .doing(|| "report the container's process".to_owned())
        }
        Side::Child => child::run(
            Job {
                plan: &order.plan,
                cgroup: Some(cgroup),
                attach: None,
                placed: true,
                flags: order.flags,
                late: order.late,
                joined,
                id_maps,
                d,
                wait_for_maps: order.wait_for_maps,
                foreign_user: order.foreign_user,
            },
            Reporter { socket: report },
        ),
    }
}
