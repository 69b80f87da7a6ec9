//! The name server of containers' networks: a process that the keeper starts when it is asked to,
//! and again when it was killed.
//!
//! The server leaves by itself, with success, when nobody needs it. As long as its socket is there it
//! should run; so a successor of this keeper, which is not its parent, starts another, which waits
//! until the first is gone.

use super::*;

/// A server that ends sooner than this is started again only after this time.
const STEADY: Duration = Duration::from_millis(500);

/// The server's process.
pub(super) struct NameServer {
    child: std::process::Child,
    token: u64,
    pidfd: OwnedFd,
    since: Instant,
}

impl Keeper {
    /// Somebody needs the server: starts it unless it runs.
    pub(super) fn want_names(&mut self) {
        self.names_wanted = true;
        self.keep_names();
    }

    /// After a predecessor's death: it runs, or it should.
    pub(super) fn inherit_names(&mut self) {
        if self.run_root.join("names.sock").exists() {
            self.want_names();
        }
    }

    /// When it is to be started again.
    pub(super) fn names_due(&self) -> Option<Duration> {
        let due = self.names_due?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Notices its end, and starts it if it should run.
    pub(super) fn keep_names(&mut self) {
        if let Some(server) = &mut self.names
            && let Ok(Some(status)) = server.child.try_wait()
        {
            self.names_wanted |= !status.success();
            let soon = server.since + STEADY;
            self.names_due = (!status.success() && soon > Instant::now()).then_some(soon);
            self.sources.remove(&server.token);
            let _ = epoll::delete(&self.epoll, &server.pidfd);
            self.names = None;
        }
        if self.names_due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        self.names_due = None;
        if !self.names_wanted || self.names.is_some() {
            return;
        }
        self.names_wanted = false;
        if let Err(e) = self.start_names() {
            self.complain(&format!("cannot start the name server: {e}"));
        }
    }

    fn start_names(&mut self) -> io::Result<()> {
        let args = self.steward_args.get(1..).unwrap_or_default();
        let child = std::process::Command::new(&self.program)
            .arg("__names")
            .args(args)
            .env_clear()
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let pidfd = sys::clone::pidfd_open(pid)?;
        let token = self.watch(Source::Names, pidfd.as_fd(), EventFlags::IN)?;
        self.names = Some(NameServer { child, token, pidfd, since: Instant::now() });
        Ok(())
    }
}
