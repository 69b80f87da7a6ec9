//! The place prepared for the next container; `runtime::cgroup::place` says what it saves.

use super::*;

/// The cgroup below which containers are, unless they ask for another; the engine's default.
const PARENT: &str = "wherry";
/// How long nothing must have started or ended before a place is prepared: while its process goes
/// into its groups, the kernel lets nobody make or remove one.
const QUIET: Duration = Duration::from_millis(20);

impl Keeper {
    /// Something has started or ended: the next place is prepared some time after it.
    pub(super) fn put_place_off(&mut self) {
        if self.place.is_none() && !self.cgroups.v1.is_empty() {
            self.place_due = Some(Instant::now() + QUIET);
        }
    }

    /// Whether a place's process is just going into its groups.
    pub(super) fn place_is_on_its_way(&mut self) -> bool {
        self.place.as_mut().is_some_and(|place| matches!(place.has_arrived(), Ok(false)))
    }

    /// Prepares a place if it is time.
    pub(super) fn prepare_place(&mut self) {
        if self.place_due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        let busy = self.containers.values().any(|c| c.launching.is_some())
            || self.connections.values().any(|c| c.place.is_some())
            || !self.emptying.is_empty();
        if busy {
            return self.put_place_off();
        }
        self.place_due = None;
        if self.places == 0 {
            Place::sweep(&self.cgroups, PARENT, is_lost);
        }
        self.places += 1;
        let name = format!("place-{}-{}", std::process::id(), self.places);
        match Place::prepare(&self.cgroups, PARENT, &name) {
            Ok(place) => self.place = Some(place),
            Err(e) => self.complain(&format!("cannot prepare a place: {e}")),
        }
    }

    /// Hands the place to a client that will start a container, if it is ready.
    pub(super) fn give_place(&mut self, token: u64, path: String) {
        // What an earlier run of the same container left there is removed now or never: later it
        // would be the new run's.
        self.emptying.retain(|(cgroup, _)| {
            let earlier = cgroup.path() == path;
            if earlier {
                let _ = cgroup.try_remove();
            }
            !earlier
        });
        let prepared = match self.take_place(&path) {
            Ok(None) => false,
            Ok(Some(waiter)) => match self.connections.get_mut(&token) {
                Some(connection) => {
                    if let Some((_, unused)) = connection.place.replace((path, waiter)) {
                        unused.discard();
                    }
                    true
                }
                None => {
                    waiter.discard();
                    return;
                }
            },
            Err(e) => {
                self.complain(&format!("place for {path}: {e}"));
                false
            }
        };
        self.send(token, &Message::Placed { prepared });
    }

    fn take_place(&mut self, path: &str) -> Result<Option<Waiter>, runtime::Error> {
        let parent = path.trim_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(mut place) = self.place.take_if(|place| place.is_below(parent)) else {
            return Ok(None);
        };
        match place.has_arrived() {
            Ok(true) => place.adopt(path).map(Some),
            Ok(false) => {
                self.place = Some(place);
                Ok(None)
            }
            Err(e) => {
                let _ = place.discard();
                Err(e)
            }
        }
    }

    /// A client with a place has gone without a start.
    pub(super) fn take_back(&mut self, path: &str, waiter: Waiter) {
        waiter.discard();
        if let Ok(cgroup) = Cgroup::open(&self.cgroups, path) {
            self.emptying.push((cgroup, Instant::now()));
        }
    }

    pub(super) fn discard_place(&mut self) {
        if let Some(place) = self.place.take()
            && let Err(e) = place.discard()
        {
            self.complain(&format!("discarding a place: {e}"));
        }
    }
}

/// Whether a group has the name of a place whose keeper is no more.
fn is_lost(name: &str) -> bool {
    let keeper = name
        .strip_prefix("place-")
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(pid, _)| pid.parse().ok())
        .and_then(rustix::process::Pid::from_raw);
    keeper
        .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::is_lost;

    #[test]
    fn places_of_dead_keepers_are_known() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_lost(&format!("place-{}-1", child.id())));
        assert!(!is_lost(&format!("place-{}-1", std::process::id())));
        for name in ["place-", "place-x-1", "place-0-1", "place--1-1", "x-1-1", "place-1"] {
            assert!(!is_lost(name), "{name}");
        }
    }
}
