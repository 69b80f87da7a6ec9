//! `RUN --mount=type=ssh`: the socket of an agent, as a step sees it.
//!
//! The step gets a socket of its own, with the owner and the permissions that the mount asks for, and what is said there
//! is passed on: an agent listens to nobody but its own user and root, whoever the step runs as.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Result, io};

/// Passes on what is said to a socket; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `path` for the agent at `agent`.
    pub(crate) fn new(path: &Path, agent: &Path, mode: u32, uid: u32, gid: u32) -> Result<Self> {
        let what = || format!("listening for the agent {}", agent.display());
        let listener = UnixListener::bind(path).map_err(io(what))?;
        chown(path, Some(uid), Some(gid)).map_err(io(what))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io(what))?;
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC).map_err(io(what))?;
        let agent = agent.to_owned();
        let thread = std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || serve(&listener, &ended, &agent))
            .map_err(io(what))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, ended: &OwnedFd, agent: &PathBuf) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let heard = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if heard(1) {
            return;
        }
        if !heard(0) {
            continue;
        }
        let Ok((near, _)) = listener.accept() else { continue };
        // Who cannot be served sees the connection end, and says what that means to it.
        let Ok(far) = UnixStream::connect(agent) else { continue };
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
        // They end with the connection: the step's container is gone before this relay is.
        let spawn = |from: UnixStream, to: UnixStream| {
            let _ = std::thread::Builder::new().spawn(move || pass(from, to));
        };
        spawn(near, far);
        spawn(far_too, near_too);
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(n) if n > 0 => {
                if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
