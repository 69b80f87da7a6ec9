//! How a container ended, who is told, and the two deaths of our own kind: keeper and
//! standby.

use serde::Serialize;

use super::*;
use crate::client;

impl Keeper {
    /// Containers that run already, from the notes in `running/`.
    pub(super) fn adopt(&mut self, table: &mut Table) -> io::Result<()> {
        let running = self.run_root.join("running");
        for entry in std::fs::read_dir(&running)? {
            let path = entry?.path();
            let record: Record = match std::fs::read(&path)
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
            {
                Ok(record) => record,
                Err(_) => {
                    // A note torn by a death while it was written: its starter has not heard of
                    // a start, and takes it back with all that is in its cgroup.
                    let _ = std::fs::remove_file(&path);
                    continue;
                }
            };
            let id = record.id.clone();
            if let Err(e) = self.adopt_one(record, table) {
                self.complain(&format!("cannot take over container {id}: {e}"));
            }
        }
        self.adopt_images(table);
        // The batch that was under way belongs before anything else of its container.
        if let Some(unfinished) = self.mover.unfinished()? {
            let journal = self.containers.get_mut(&unfinished.id).and_then(|c| c.journal.as_mut());
            let done = match journal {
                Some(journal) => self.mover.finish(&unfinished, now(), journal),
                None => self.mover.forget(),
            };
            if let Err(e) = done {
                self.complain(&format!("journal of {}: {e}", unfinished.id));
            }
        }
        self.remove_pipes_of_nobody()?;
        for key in table.keys() {
            self.complain(&format!("descriptor {key} belongs to no container"));
            self.standby.drop_prefix(key);
        }
        table.clear();
        Ok(())
    }

    /// Named pipes that a start made which was killed together with its keeper.
    fn remove_pipes_of_nobody(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.run_root.join("io"))? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.split_once('.')).map(|(id, _)| id);
            if id.is_some_and(|id| !self.containers.contains_key(id)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Takes over one container, or reports its end.
    pub(super) fn adopt_one(&mut self, record: Record, table: &mut Table) -> io::Result<()> {
        let id = record.id.clone();
        let mut take = |what: &str| table.remove(&format!("{id}/{what}"));
        let (held_pidfd, master) = (take("pidfd"), take("master"));
        let (out, err, stdin) = (take("stdout"), take("stderr"), take("stdin"));
        let pidfd = match held_pidfd {
            Some(pidfd) => Some(pidfd),
            None => open_same_process(record.pid, record.start_time),
        };
        let Some(pidfd) = pidfd.map(shelf::put) else {
            // Nobody held it and it is gone: all that can be said is that it has ended.
            let exit = Exit {
                id: id.clone(),
                code: 255,
                at: now(),
                oom_killed: false,
                unknown: true,
                started_at: record.started_at,
            };
            if !self.has_reported(&exit) {
                self.leave_report(&exit.id, &exit)?;
            }
            self.remove_traces(&id);
            return Ok(());
        };
        let io_dir = self.run_root.join("io");
        let open = |held: Option<OwnedFd>, which| match held {
            Some(fd) => Some(fd),
            None => open_pipe(&pipe_path(&io_dir, &id, which)).ok(),
        };
        let journal = match &record.log {
            // Without it rather than not at all: its directory may be gone already.
            Log::Journal { path, bound } => Writer::open(path, *bound)
                .inspect_err(|e| self.complain(&format!("journal of {id}: {e}; output is dropped")))
                .ok(),
            _ => None,
        };
        let tty = record.tty;
        let piped = !tty && !matches!(record.log, Log::Passthrough);
        let (out, err) = if piped { (open(out, "out"), open(err, "err")) } else { (None, None) };
        let pidfd_token = self.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
        let mut container = Container::new(record, pidfd, pidfd_token, journal);
        if let Some(master) = master {
            self.set_master(&mut container, master)?;
        }
        self.add_streams(&mut container, [out, err, stdin])?;
        self.steward_wanted |= container.record.steward_now;
        self.containers.insert(id.clone(), container);
        self.note_open_journal(&id);
        Ok(())
    }

    /// A container's first process has ended; finds out how, and tells everybody.
    pub(super) fn ended(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        if c.launching.is_some() {
            // The launch hears of it and says why.
            return;
        }
        let how = how_ended(&c.pidfd);
        match how {
            How::Code(code) => self.finish_container(id, code, false),
            How::StillRunning => {}
            How::NotOurs | How::Unknown => {
                // Somebody else's child: the standby's, or init's. It must be reaped
                // before the kernel tells us how it ended; an older kernel tells us
                // nothing, but the standby's word may be on its way.
                if self.undecided.insert(id.to_owned()) {
                    let _ = epoll::modify(
                        &self.epoll,
                        &c.pidfd,
                        EventData::new_u64(c.pidfd_token),
                        EventFlags::empty(),
                    );
                }
                if matches!(how, How::Unknown) {
                    self.standby.ask_last(c.record.pid);
                } else {
                    self.standby.ask(c.record.pid);
                }
            }
        }
    }

    pub(super) fn finish_container(&mut self, id: &str, code: i32, unknown: bool) {
        // All processes of a PID namespace are gone when its first one is; what they
        // wrote is in the pipes. With the host's PID namespace others may go on writing:
        // then what is there now is the end.
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..1024 {
                if !matches!(self.move_batch(id, stream), Ok(Moved::Some)) {
                    break;
                }
            }
        }
        let Some(mut c) = self.containers.remove(id) else { return };
        self.undecided.remove(id);
        let cgroup = self.cgroup(c.record.cgroup.as_ref());
        let oom_killed = cgroup.as_ref().is_some_and(Cgroup::oom_killed);
        let exit = Exit {
            id: id.to_owned(),
            code,
            at: now(),
            oom_killed,
            unknown,
            started_at: c.record.started_at,
        };
        if let Some(journal) = &mut c.journal {
            let _ = journal.event(exit.at, &format!(r#"{{"action":"die","exitCode":{code}}}"#));
        }
        if !(unknown && self.has_reported(&exit))
            && let Err(e) = self.leave_report(&exit.id, &exit)
        {
            self.complain(&format!("exit of {id}: {e}"));
        }
        self.forget(&c);
        let owned = c.owner.is_some_and(|token| self.connections.contains_key(&token));
        let message = Message::Exited(exit);
        let mut told = c.attached.clone();
        told.extend(&c.waiting);
        told.extend(c.owner);
        told.sort_unstable();
        told.dedup();
        for token in told {
            self.finish(token, &message);
        }
        self.notify(id, "die");
        self.steward_wanted |= c.record.steward_always;
        self.note_writing();
        if c.record.steward_at_exit {
            // Whoever removes it only renames its files into the trash, so that a short
            // run does not wait for the disk; a steward deletes them now and then.
            self.unswept += 1;
            self.steward_wanted |= !owned || self.unswept >= SWEEP;
        }
        if let Some(cgroup) = cgroup {
            if cgroup.pids().is_ok_and(|p| !p.is_empty()) {
                let _ = cgroup.kill_all(9);
            }
            self.emptying.push((cgroup, Instant::now()));
        }
    }

    /// Whether a predecessor, killed a moment later, has said how this run ended.
    fn has_reported(&self, exit: &Exit) -> bool {
        let there = client::read::<Exit>(&client::exits(&self.run_root).join(&exit.id));
        there.is_some_and(|there| there.started_at == exit.started_at)
    }

    /// Leaves a report where any process of the engine finds it. They look at any time, so it is written aside.
    pub(super) fn leave_report(&self, name: &str, report: &impl Serialize) -> io::Result<()> {
        let aside = self.run_root.join(format!("io/{name}.report"));
        std::fs::write(&aside, serde_json::to_vec(report)?)
            .and_then(|()| std::fs::rename(&aside, client::exits(&self.run_root).join(name)))
            .inspect_err(|_| _ = std::fs::remove_file(&aside))
    }

    pub(super) fn hear_standby(&mut self) -> io::Result<()> {
        let Some(ended) = self.standby.hear() else { return self.new_standby() };
        for (pid, code) in ended {
            let id =
                self.containers.values().find(|c| c.record.pid == pid).map(|c| c.record.id.clone());
            let Some(code) = code else {
                // The standby has no news of it. If the kernel has none either, its exit
                // code is lost.
                if let Some(id) = id
                    && let Some(c) = self.containers.get(&id)
                    && c.launching.is_none()
                    && matches!(how_ended(&c.pidfd), How::Unknown)
                {
                    self.finish_container(&id, 255, true);
                }
                continue;
            };
            if let Some(id) = id {
                self.finish_container(&id, code, false);
            } else if let Some(token) =
                self.execs.iter().find(|(_, e)| e.pid == pid).map(|(token, _)| *token)
            {
                self.exec_ended(token, Some(code))?;
            }
        }
        Ok(())
    }

    /// The standby has died: forks another, which holds copies of all we hold.
    pub(super) fn new_standby(&mut self) -> io::Result<()> {
        let (ours, theirs) = standby::pair()?;
        match sys::clone::fork()? {
            Side::Parent { pid, .. } => {
                drop(theirs);
                let _ = epoll::delete(&self.epoll, self.standby.fd());
                self.standby = Standby::new(ours, pid);
                self.watch_standby()
            }
            Side::Child => {
                drop(ours);
                let outcome = self.live_as_standby(theirs);
                std::process::exit(i32::from(outcome.is_err()));
            }
        }
    }

    /// In a freshly forked child: keeps the descriptors, drops the rest.
    pub(super) fn live_as_standby(&mut self, socket: OwnedFd) -> io::Result<()> {
        let mut table = Table::new();
        table.insert("listen".into(), self.listener.try_clone()?);
        for (key, fd) in KEYS.iter().zip(self.mover.parts()) {
            table.insert((*key).to_owned(), fd.try_clone_to_owned()?);
        }
        for c in self.containers.values() {
            let (keys, fds) = c.to_hold();
            for (key, fd) in keys.into_iter().zip(fds) {
                table.insert(key, fd.try_clone_to_owned()?);
            }
        }
        for (key, fd) in self.images_to_hold() {
            table.insert(key, fd.try_clone_to_owned()?);
        }
        self.connections.clear();
        self.containers.clear();
        self.images.clear();
        self.execs.clear();
        self.sources.clear();
        // The copy of the epoll descriptor must not keep events alive.
        self.epoll = epoll::create(CreateFlags::CLOEXEC)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = rustix::thread::set_name(c"wherry-standby");
        let (run_root, program) = (self.run_root.clone(), self.program.clone());
        let steward_args = self.steward_args.clone();
        match standby::live(table, Some(socket), &run_root)? {
            Turn::Leave => Ok(()),
            Turn::Keeper(table, standby) => {
                Keeper::take_over(table, standby, &run_root, &program, steward_args)?.run()
            }
        }
    }
}
