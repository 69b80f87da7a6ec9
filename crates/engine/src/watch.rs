//! Waits until something happens in the engine, without a daemon that would tell.
//!
//! Every change of the database touches its file when it can be seen, which inotify tells;
//! every end of a container leaves a report in the run root, which it tells too. Who changed the
//! database and was killed before it touched the file is noticed a second later.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
}

/// After so long one looks in any case.
const LONGEST: Duration = Duration::from_secs(1);

impl Watch {
    pub(crate) fn new(engine: &Engine) -> Result<Self> {
        let failed = |e: Errno| Error::system("cannot watch for changes", std::io::Error::from(e));
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(failed)?;
        let watch = Self { inotify };
        watch.add(&engine.data_root().join("state.db"), inotify::WatchFlags::ATTRIB)?;
        watch.add(&engine.run_root().join("exits"), inotify::WatchFlags::MOVED_TO)?;
        Ok(watch)
    }

    fn add(&self, path: &std::path::Path, flags: inotify::WatchFlags) -> Result<()> {
        inotify::add_watch(&self.inotify, path, flags).map(drop).map_err(|e| {
            Error::system(format!("cannot watch {}", path.display()), std::io::Error::from(e))
        })
    }

    /// Waits for a change, at most so long, and never longer than a second.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let timeout = timeout.map_or(LONGEST, |timeout| timeout.min(LONGEST));
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Error::system("poll", std::io::Error::from(e))),
        }
        // What happened is read from the database; here only the queue is emptied.
        let mut buffer = [0u8; 4096];
        while matches!(rustix::io::read(&self.inotify, &mut buffer), Ok(n) if n > 0) {}
        Ok(())
    }
}
