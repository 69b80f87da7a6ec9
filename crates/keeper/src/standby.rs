//! The standby: a process that holds the keeper's descriptors and does nothing else.
//!
//! It is the keeper's parent and a subreaper. If the keeper dies, the standby still has
//! every pipe, terminal and pidfd, so no container notices, and forks a new keeper that
//! takes over from its table. Containers whose parent was the dead keeper become the
//! standby's children; it reaps them and tells the keeper how they ended. If the standby
//! dies, the keeper forks a new one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use sys::clone::Side;

use crate::protocol::{recv_some, send_some};

/// Descriptors by name.
pub(crate) type Table = BTreeMap<String, OwnedFd>;

/// The keeper's end.
#[derive(Debug)]
pub(crate) struct Standby {
    socket: OwnedFd,
    /// Its pid.
    pub(crate) pid: i32,
}

impl Standby {
    pub(crate) fn new(socket: OwnedFd, pid: i32) -> Self {
        Self { socket, pid }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Gives it descriptors to hold. A failure means that it is gone; the event loop
    /// hears of that by itself.
    pub(crate) fn hold(&self, keys: &[&str], fds: &[BorrowedFd<'_>]) {
        for (keys, fds) in keys.chunks(64).zip(fds.chunks(64)) {
            let _ = self.say(&format!("+ {}", keys.join(" ")), fds);
        }
    }

    /// Has it drop all descriptors whose names begin so.
    pub(crate) fn drop_prefix(&self, prefix: &str) {
        let _ = self.say(&format!("- {prefix}"), &[]);
    }

    /// Asks whether a process that may have become its child has ended.
    pub(crate) fn ask(&self, pid: i32) {
        let _ = self.say(&format!("? {pid}"), &[]);
    }

    /// Asks what it knows of a process that is gone; there is an answer in any case.
    pub(crate) fn ask_last(&self, pid: i32) {
        let _ = self.say(&format!("! {pid}"), &[]);
    }

    /// The keeper leaves on purpose.
    pub(crate) fn quit(&self) {
        let _ = self.say("quit", &[]);
    }

    fn say(&self, line: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        loop {
            match send_some(self.socket.as_fd(), line.as_bytes(), fds) {
                Err(Errno::INTR) => {}
                other => return other.map(|_| ()),
            }
        }
    }

    /// What it says: pids of its children that have ended, with their exit codes; without
    /// one, that it will say no more of a pid it was asked about. `None`: it is gone.
    pub(crate) fn hear(&self) -> Option<Vec<(i32, Option<i32>)>> {
        // That it is gone is heard again, and after what it has said.
        let last = |ended: Vec<_>| (!ended.is_empty()).then_some(ended);
        let mut ended = Vec::new();
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            match rustix::event::poll(
                &mut ready,
                Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }),
            ) {
                Ok(0) => return Some(ended),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return last(ended),
            }
            let mut line = Vec::new();
            match recv_some(self.socket.as_fd(), &mut line, &mut Vec::new()) {
                Ok(0) => return last(ended),
                // It has died with something unread of ours; what it said before is still to come.
                Err(Errno::CONNRESET) => {}
                Ok(_) => {
                    let line = String::from_utf8_lossy(&line);
                    let mut words = line.split_whitespace();
                    if let (Some(pid), Some(code)) = (words.next(), words.next())
                        && let Ok(pid) = pid.parse()
                    {
                        ended.push((pid, code.parse().ok()));
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return last(ended),
            }
        }
    }
}

/// A connected pair for a keeper and its standby.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

/// What the standby's life came to.
pub(crate) enum Turn {
    /// This process is now the keeper: take over with these descriptors.
    Keeper(Table, Standby),
    /// The keeper has left on purpose; so may we.
    Leave,
}

/// Lives as a standby, with `table` to hold and a keeper at the other end of `socket`.
/// `None` as socket: there is no keeper yet, begin by forking one.
pub(crate) fn live(
    mut table: Table,
    mut socket: Option<OwnedFd>,
    run_root: &Path,
) -> io::Result<Turn> {
    let mut orphans = false;
    let mut born = Instant::now();
    let mut quick_deaths = 0u32;
    // Ends that were heard while there was no keeper.
    let mut unsaid = Vec::new();
    loop {
        let Some(keeper) = &socket else {
            // A keeper that dies at once, again and again, must not take the CPU with it.
            quick_deaths =
                if born.elapsed() < Duration::from_secs(1) { quick_deaths + 1 } else { 0 };
            if quick_deaths > 3 {
                // Somebody has removed it: nobody can find a keeper there, and none can live.
                if !run_root.exists() {
                    return Ok(Turn::Leave);
                }
                std::thread::sleep(Duration::from_millis(100) * quick_deaths.min(50));
            }
            born = Instant::now();
            let (ours, theirs) = pair()?;
            // Said before the new keeper lives, so that it never asks too early.
            for (pid, code) in unsaid.drain(..) {
                say_ended(&ours, pid, code);
            }
            let me = rustix::process::getpid().as_raw_nonzero().get();
            match sys::clone::fork()? {
                Side::Child => return Ok(Turn::Keeper(table, Standby::new(theirs, me))),
                Side::Parent { .. } => {
                    drop(theirs);
                    socket = Some(ours);
                    continue;
                }
            }
        };
        // Only after a keeper has died can we have children that it had.
        let timeout = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut ready = [PollFd::new(keeper, PollFlags::IN)];
        let polled = rustix::event::poll(&mut ready, orphans.then_some(&timeout));
        match polled {
            Ok(0) | Err(Errno::INTR) => {
                reap(|pid, code| say_ended(keeper, pid, code));
                continue;
            }
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut line = Vec::new();
        let mut fds = Vec::new();
        match recv_some(keeper.as_fd(), &mut line, &mut fds) {
            Ok(n) if n > 0 => {}
            // The keeper has died with something unread of ours; what it said before is still to come.
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            // A full table of descriptors: what came is lost to us, the keeper has it.
            Err(Errno::MFILE) => continue,
            _ => {
                // The dead keeper can be reaped a moment after its socket has closed, if it
                // was our child at all; if not now, then with the orphans.
                socket = None;
                orphans = true;
                reap(|pid, code| unsaid.push((pid, code)));
                continue;
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        match line.split_once(' ') {
            Some(("+", keys)) => {
                for (key, fd) in keys.split(' ').zip(fds) {
                    table.insert(key.to_owned(), fd);
                }
            }
            Some(("-", prefix)) => {
                // Sorted: those that begin so are neighbours, however many others there are.
                let after = table.range(prefix.to_owned()..);
                let keys: Vec<_> = after
                    .map(|(key, _)| key.clone())
                    .take_while(|key| key.starts_with(prefix))
                    .collect();
                for key in keys {
                    table.remove(&key);
                }
            }
            Some(("?", _)) => reap(|pid, code| say_ended(keeper, pid, code)),
            Some(("!", pid)) => {
                reap(|pid, code| say_ended(keeper, pid, code));
                // All that will ever be said of it has been said before this.
                let _ = send_some(keeper.as_fd(), format!("{pid} ?").as_bytes(), &[]);
            }
            _ if line == "quit" => return Ok(Turn::Leave),
            _ => {}
        }
    }
}

/// Reaps every child that has ended.
fn reap(mut ended: impl FnMut(i32, i32)) {
    while let Ok(Some((pid, status))) = rustix::process::wait(rustix::process::WaitOptions::NOHANG)
    {
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => continue,
        };
        ended(pid.as_raw_nonzero().get(), code);
    }
}

fn say_ended(keeper: &OwnedFd, pid: i32, code: i32) {
    let _ = send_some(keeper.as_fd(), format!("{pid} {code}").as_bytes(), &[]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_dead_standby_has_said_is_heard() {
        let (ours, theirs) = pair().unwrap();
        let standby = Standby::new(ours, 0);
        // It dies without having read this, of which the kernel tells us before what it said itself.
        standby.ask(5);
        say_ended(&theirs, 5, 3);
        drop(theirs);
        let mut heard = Vec::new();
        while let Some(ended) = standby.hear() {
            heard.extend(ended);
        }
        assert_eq!(heard, [(5, Some(3))]);
    }
}
