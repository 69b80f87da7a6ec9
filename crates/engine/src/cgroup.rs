//! The cgroup of a container that is being started.
//!
//! Under version 1 it is a directory in each of about ten hierarchies, which takes the kernel a millisecond. Where no
//! earlier run can have left anything there it is made by a thread, while the caller mounts the root filesystem and
//! writes the specification.

use std::thread::JoinHandle;

use oci_spec::runtime::LinuxResources;
use runtime::cgroup::{Cgroup, CgroupRoot};

use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec;

/// What is to be made.
struct Wanted {
    path: String,
    resources: LinuxResources,
}

impl Wanted {
    fn new(record: &Record, path: String) -> Result<Wanted> {
        let resources = serde_json::from_value(spec::resources(&record.definition.host)?)
            .map_err(|e| Error::system("the limits are not valid", e))?;
        Ok(Wanted { path, resources })
    }

    fn make(self) -> Result<Cgroup> {
        let root = CgroupRoot::detect()?;
        // A start that was killed may have left processes there.
        let old = Cgroup::open(&root, &self.path)?;
        if old.exists() && !old.pids().unwrap_or_default().is_empty() {
            let _ = old.kill_all(9);
            old.remove()?;
        }
        Ok(Cgroup::create(&root, &self.path, &self.resources)?)
    }
}

/// A container's cgroup with its limits, made or being made. It is removed again if nobody takes it.
pub(crate) struct Making(Option<Step>);

enum Step {
    Later(Box<Wanted>),
    Beside(JoinHandle<Result<Cgroup>>),
}

impl Making {
    /// Begins, unless the keeper may still have to do with that of an earlier run, or of a start that failed.
    ///
    /// # Errors
    /// Limits that are not valid.
    pub(crate) fn begin(record: &Record, path: String) -> Result<Making> {
        let wanted = Wanted::new(record, path)?;
        if record.started_ns != 0 || !record.error.is_empty() {
            return Ok(Making(Some(Step::Later(Box::new(wanted)))));
        }
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        let thread = thread
            .spawn(move || wanted.make())
            .map_err(|e| Error::system("cannot start a thread", e))?;
        Ok(Making(Some(Step::Beside(thread))))
    }

    /// The cgroup, when it is there. To be asked when the keeper has nothing more to do with an earlier run's.
    ///
    /// # Errors
    /// Those of making it.
    pub(crate) fn take(mut self) -> Result<Cgroup> {
        match self.0.take() {
            Some(Step::Later(wanted)) => wanted.make(),
            Some(Step::Beside(thread)) => join(thread),
            None => Err(Error::system("make a cgroup", "it was taken before")),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(Step::Beside(thread)) = self.0.take()
            && let Ok(cgroup) = join(thread)
        {
            let _ = cgroup.remove();
        }
    }
}

fn join(thread: JoinHandle<Result<Cgroup>>) -> Result<Cgroup> {
    thread.join().unwrap_or_else(|_| Err(Error::system("make a cgroup", "a thread ended early")))
}
