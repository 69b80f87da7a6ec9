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
use serde::{Deserialize, Serialize};
use sys::clone::Side;

use super::{Cgroup, CgroupRoot, make_path, root};
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
    cgroup: Cgroup,
    waiter: Waiter,
}

/// A process in the right groups, waiting for the order to make a container's first process.
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
    /// their names in. Returns at once; the wait is the new process's.
    ///
    /// The caller must have one thread. When it dies, the waiting process ends.
    pub fn prepare(root: &CgroupRoot, parent: &str, name: &str) -> Result<Place> {
        if root.v1.is_empty() {
            return Err(Error::spec(
                "a prepared place",
                "is of no use here: there is no cgroup hierarchy of version 1",
            ));
        }
        let v1 = CgroupRoot { v1: root.v1.clone(), v2: None };
        let path = format!("{parent}/{name}");
        let cgroup = Cgroup::create(&v1, &path, &LinuxResources::default())?;
        let made = (|| {
            let entrances = cgroup.entrances()?;
            let (ours, theirs) = sys::socket::pair().doing(|| "make a socket pair".to_owned())?;
            let side = sys::clone::fork().doing(|| "prepare a process".to_owned())?;
            Ok((side, entrances, ours, theirs))
        })();
        let (side, entrances, ours, theirs) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = cgroup.remove();
                return Err(error);
            }
        };
        match side {
            Side::Parent { pidfd, .. } => {
                Ok(Place { cgroup, waiter: Waiter { pidfd, socket: ours } })
            }
            Side::Child => wait(cgroup, &entrances, &theirs),
        }
    }

    /// Makes the place a container's: renames the groups to `path`, which must lie below the same
    /// parent, and sets the limits. On failure the place is gone and the caller starts without one.
    pub fn adopt(
        mut self,
        root: &CgroupRoot,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(Cgroup, Waiter)> {
        match self.rename(root, path, resources) {
            Ok(()) => Ok((self.cgroup, self.waiter)),
            Err(error) => {
                let _ = self.discard();
                Err(error)
            }
        }
    }

    fn rename(&mut self, root: &CgroupRoot, path: &str, resources: &LinuxResources) -> Result<()> {
        let path = root::clean(path);
        let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
        if path.is_empty() || parent(&path) != parent(&self.cgroup.path) {
            return Err(Error::spec(
                format!("cgroup {path}"),
                format!("a place prepared as {} cannot become this", self.cgroup.path),
            ));
        }
        // Groups that were renamed already keep their new name if a later one cannot be; both
        // names are removed then.
        let old = std::mem::replace(&mut self.cgroup.path, path);
        for group in &self.cgroup.v1 {
            let (from, to) =
                (group.mount_point.join(&old), group.mount_point.join(&self.cgroup.path));
            if let Err(errno) = rustix::fs::rename(&from, &to) {
                let error = Err(errno)
                    .doing(|| format!("rename the cgroup {} to {}", from.display(), to.display()));
                self.waiter.end();
                for group in &self.cgroup.v1 {
                    let _ = rustix::fs::rmdir(group.mount_point.join(&old));
                }
                return error;
            }
        }
        if let Some(mount_point) = &root.v2 {
            let dir = make_path(mount_point, &self.cgroup.path, &|parent, _| {
                super::limits_v2::enable_controllers(parent);
                Ok(())
            })?;
            self.cgroup.v2 = Some(super::v2_group(mount_point, dir));
        }
        self.cgroup.update(resources)
    }

    /// Gives the place up: ends the waiting process and removes the groups.
    pub fn discard(self) -> Result<()> {
        self.waiter.end();
        self.cgroup.remove_within(Duration::from_secs(5))
    }

    /// Readable once when the process has arrived in its groups; an order before that is carried
    /// out after it.
    pub fn ready_fd(&self) -> BorrowedFd<'_> {
        self.waiter.socket.as_fd()
    }
}

impl Waiter {
    fn end(&self) {
        let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), 9);
        let _ = sys::pidfd::wait(self.pidfd.as_fd(), true);
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
        if result.is_err() {
            let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), 9);
        }
        // It leaves as soon as it has answered.
        let _ = sys::pidfd::wait(self.pidfd.as_fd(), true);
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
            let mut buffer = vec![0; 4096];
            let (count, mut fds) =
                sys::socket::recv_with_fds(&self.socket, &mut buffer, true).doing(doing)?;
            let answer = buffer.get(..count).unwrap_or_default();
            match (answer.split_first(), fds.pop()) {
                // It has arrived; nobody had asked yet.
                (Some((b'A', _)), _) => {}
                (Some((b'P', _)), Some(pidfd)) => {
                    let pid = sys::pidfd::pid(pidfd.as_fd())
                        .doing(|| "find the container's process".to_owned())?;
                    return Ok((pid, pidfd));
                }
                (Some((b'E', text)), _) => {
                    return Err(serde_json::from_slice(text).unwrap_or_else(|_| Error::Died {
                        how: "in a prepared place".to_owned(),
                    }));
                }
                _ => return Err(Error::Died { how: "in a prepared place".to_owned() }),
            }
        }
    }
}

/// The waiting process.
fn wait(mut cgroup: Cgroup, entrances: &super::Entrances, socket: &OwnedFd) -> ! {
    sys::signal::reset();
    let result = entrances.enter().and_then(|()| {
        // The caller's descriptors must not live on here.
        sys::fds::close_all_but(3, &[socket.as_fd()]).doing(|| "close descriptors".to_owned())?;
        let _ = sys::socket::send_with_fds(socket, b"A", &[], true);
        serve(&mut cgroup, socket)
    });
    if let Err(error) = result {
        let mut bytes = vec![b'E'];
        bytes.extend(serde_json::to_vec(&error).unwrap_or_default());
        let _ = sys::socket::send_with_fds(socket, &bytes, &[], true);
    }
    sys::exec::exit_now(0)
}

fn serve(cgroup: &mut Cgroup, socket: &OwnedFd) -> Result<()> {
    let mut buffer = vec![0; LIMIT];
    let (count, fds) = sys::socket::recv_with_fds(socket, &mut buffer, true)
        .doing(|| "receive a plan".to_owned())?;
    if count == 0 {
        // The caller has gone.
        return Ok(());
    }
    let garbled = || Error::spec("the plan", "arrived incomplete");
    let order: Order = serde_json::from_slice(buffer.get(..count).unwrap_or_default())
        .map_err(|error| Error::spec("the plan", error.to_string()))?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(garbled);
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
                .map(drop)
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
