//! Starting a container, or taking over one that another runtime has started.

use super::*;

impl Keeper {
    pub(super) fn start(
        &mut self,
        token: u64,
        start: Start,
        fds: Vec<(Role, OwnedFd)>,
    ) -> Result<(), (u8, String)> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| (125, shelf::explain(&format!("{what}: {e}"), e.raw_os_error()))
        };
        if self.containers.contains_key(&start.id) {
            return Err((125, format!("container {} is running already", start.id)));
        }
        let trace = Recorder::when(start.plan.trace, "keeper");
        let phase = trace.phase("make the streams");
        let mut descriptors = Descriptors::default();
        let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
        let mut image = None;
        for (role, fd) in fds {
            match role {
                Role::Rootfs => descriptors.rootfs = Some(fd),
                Role::Image => image = Some(fd),
                Role::Mount(n) => {
                    descriptors.mounts.insert(n, fd);
                }
                Role::Namespace(kind) => {
                    descriptors.namespaces.insert(kind, fd);
                }
                Role::Stdio(n) => {
                    if let Some(place) = stdio.get_mut(usize::from(n)) {
                        *place = Some(fd);
                    }
                }
                Role::Console | Role::Process => {}
            }
        }
        let io_dir = self.run_root.join("io");
        let (mut out, mut err, mut input) = (None, None, None);
        if !start.tty {
            if start.log == Log::Passthrough {
                let [Some(i), Some(o), Some(e)] = stdio else {
                    return Err((125, "passthrough needs three descriptors".into()));
                };
                descriptors.stdio = Some([i, o, e]);
            } else {
                let quiet = start.log == Log::None && start.attach.is_none();
                let made = streams(&io_dir, &start.id, start.open_stdin, quiet)
                    .map_err(system("cannot make the container's streams"))?;
                descriptors.stdio = Some(made.theirs);
                (out, err, input) = (made.out, made.err, made.input);
            }
        }
        let journal = match &start.log {
            Log::Journal { path, bound } => {
                let opened =
                    Writer::open(path, *bound).inspect_err(|_| remove_pipes(&io_dir, &start.id));
                Some(opened.map_err(system("cannot open the journal"))?)
            }
            _ => None,
        };
        drop(phase);
        let phase = trace.phase("make the child");
        let cgroup = self.cgroup(start.cgroup.as_ref());
        descriptors.own_from = shelf::own_from(self.containers.len());
        descriptors.open_files = shelf::inherited_limit();
        let launching = runtime::launch(&start.plan, cgroup.as_ref(), descriptors);
        let launching = launching.map_err(|e| {
            remove_pipes(&io_dir, &start.id);
            (e.exit_code(), shelf::explain(&e.to_string(), e.errno()))
        })?;
        drop(phase);
        let phase = trace.phase("watch the child");
        let id = start.id.clone();
        let pidfd = shelf::copy(&launching.pidfd).map_err(|e| system("pidfd")(e.into()))?;
        let start_time = start_time_of(launching.pid);
        let record = Record {
            id: id.clone(),
            pid: launching.pid,
            start_time,
            started_at: now(),
            cgroup: start.cgroup,
            tty: start.tty,
            stdin_once: start.stdin_once,
            log: start.log,
            steward_at_exit: start.steward_at_exit,
            steward_always: start.steward_always,
            steward_now: start.steward_now,
            image: start.image,
        };
        let report = launching.report_fd().try_clone_to_owned().map_err(system("report socket"))?;
        let watch = |keeper: &mut Self| -> io::Result<(u64, u64)> {
            let ended = keeper.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
            let source = Source::Report(id.clone());
            let report = keeper.watch(source, report.as_fd(), report_flags(&launching))?;
            Ok((ended, report))
        };
        let (pidfd_token, report_token) = watch(self).map_err(system("epoll"))?;
        drop(report);
        let mut container = Container::new(record, pidfd, pidfd_token, journal);
        container.launching = Some((launching, report_token));
        container.size = start.size;
        container.trace = trace.clone();
        if let Some(known) = start.known {
            self.keep_known(&mut container, known);
        }
        self.add_streams(&mut container, [out, err, input]).map_err(system("epoll"))?;
        self.join_starter(&mut container, token, start.attach, start.owner);
        self.idle_since = None;
        if let Some(chain) = &container.record.image {
            self.use_image(&chain.clone(), image);
        }
        self.containers.insert(id.clone(), container);
        self.note_open_journal(&id);
        self.note_writing();
        drop(phase);
        // The child may have reported before we watched.
        if let Err(e) = self.report(&id) {
            self.complain(&format!("report of {id}: {e}"));
        }
        Ok(())
    }

    /// Makes the streams for a container that another runtime will start.
    pub(super) fn make_streams(
        &mut self,
        token: u64,
        id: String,
        input: bool,
        quiet: bool,
    ) -> io::Result<()> {
        if self.containers.contains_key(&id) {
            return Err(io::Error::other(format!("container {id} is running already")));
        }
        let made = streams(&self.run_root.join("io"), &id, input, quiet)?;
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        connection.prepared = Some((id, [made.out, made.err, made.input]));
        let fds = made.theirs.each_ref().map(|fd| fd.as_fd());
        let frame = encode(&Message::Streams);
        match send_some(connection.socket.as_fd(), &frame, &fds) {
            Ok(sent) if sent == frame.len() => Ok(()),
            Ok(_) => Err(io::Error::other("the connection took only a part")),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes over a container whose process another runtime has made.
    pub(super) fn adopt_foreign(
        &mut self,
        token: u64,
        adopt: Adopt,
        fds: Vec<(Role, OwnedFd)>,
    ) -> io::Result<()> {
        let (mut pidfd, mut master) = (None, None);
        for (role, fd) in fds {
            match role {
                Role::Process => pidfd = Some(fd),
                Role::Console => master = Some(fd),
                _ => {}
            }
        }
        let pidfd = shelf::put(pidfd.ok_or_else(|| io::Error::other("no pidfd came"))?);
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        let (_, [out, err, input]) = connection.prepared.take().unwrap_or_default();
        let id = adopt.id.clone();
        let journal = match &adopt.log {
            Log::Journal { path, bound } => Some(Writer::open(path, *bound)?),
            _ => None,
        };
        let pidfd_token = self.watch(Source::Ended(id.clone()), pidfd.as_fd(), EventFlags::IN)?;
        let record = Record {
            id: id.clone(),
            pid: adopt.pid,
            start_time: adopt.start_time,
            started_at: now(),
            cgroup: adopt.cgroup,
            tty: adopt.tty,
            stdin_once: adopt.stdin_once,
            log: adopt.log,
            steward_at_exit: adopt.steward_at_exit,
            steward_always: adopt.steward_always,
            steward_now: adopt.steward_now,
            image: None,
        };
        let mut container = Container::new(record, pidfd, pidfd_token, journal);
        container.size = adopt.size;
        if let Some(master) = master {
            self.set_master(&mut container, master)?;
        }
        self.add_streams(&mut container, [out, err, input])?;
        self.join_starter(&mut container, token, adopt.attach, adopt.owner);
        self.idle_since = None;
        self.containers.insert(id.clone(), container);
        self.note_open_journal(&id);
        self.started(&id, Vec::new())
    }

    /// Makes a connection the one that starts a container and hears of it from now on.
    fn join_starter(&mut self, c: &mut Container, token: u64, attach: Option<Attach>, owner: bool) {
        c.starter = Some(token);
        c.owner = owner.then_some(token);
        if let Some(connection) = self.connections.get_mut(&token) {
            let id = c.record.id.clone();
            connection.role = match attach {
                Some(attach) => {
                    c.attached.push(token);
                    ConnectionRole::Attached(Attach { id, ..attach })
                }
                None => ConnectionRole::Waiting(id),
            };
        }
    }

    /// Hears what a starting container's child has to say.
    pub(super) fn report(&mut self, id: &str) -> io::Result<()> {
        loop {
            let Some(c) = self.containers.get_mut(id) else { return Ok(()) };
            let Some((launching, token)) = c.launching.as_mut() else { return Ok(()) };
            let token = *token;
            match launching.on_report() {
                Ok(Progress::Pending) => return Ok(()),
                Ok(Progress::Console(master)) => {
                    let Some(mut c) = self.containers.remove(id) else { return Ok(()) };
                    let set = self.set_master(&mut c, master);
                    self.containers.insert(id.to_owned(), c);
                    set?;
                }
                Ok(Progress::Ready) => {
                    let notes = std::mem::take(&mut launching.notes);
                    c.trace.add(std::mem::take(&mut launching.phases));
                    self.sources.remove(&token);
                    c.launching = None;
                    return self.started(id, notes);
                }
                Err(e) => {
                    self.sources.remove(&token);
                    c.launching = None;
                    let starter = c.starter.take();
                    let failed = (e.exit_code(), shelf::explain(&e.to_string(), e.errno()));
                    self.abandon(id);
                    if let Some(starter) = starter {
                        self.fail(starter, failed.0, failed.1);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The program runs.
    pub(super) fn started(&mut self, id: &str, notes: Vec<String>) -> io::Result<()> {
        let Some(c) = self.containers.get_mut(id) else { return Ok(()) };
        let trace = std::mem::take(&mut c.trace);
        let phase = trace.phase("note the start");
        c.record.started_at = now();
        // Before the note: who is attached finds by it what a keeper has moved that dies a moment later.
        if let Some(journal) = &mut c.journal {
            let _ = journal.event(c.record.started_at, r#"{"action":"start"}"#);
        }
        let record = serde_json::to_vec(&c.record)?;
        std::fs::write(self.run_root.join("running").join(id), record)?;
        let (keys, fds) = c.to_hold();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        self.standby.hold(&keys, &fds);
        self.steward_wanted |= c.record.steward_now;
        drop(phase);
        let message = Message::Started {
            pid: c.record.pid,
            start_time: c.record.start_time,
            at: c.record.started_at,
            notes,
            reported: false,
            trace: trace.take(),
        };
        if let Some(starter) = c.starter.take() {
            let stays = c.attached.contains(&starter) || c.owner == Some(starter);
            if stays {
                self.send(starter, &message);
            } else {
                self.finish(starter, &message);
            }
        }
        self.notify(id, "start");
        Ok(())
    }

    /// Takes back a start that failed.
    pub(super) fn abandon(&mut self, id: &str) {
        let Some(c) = self.containers.remove(id) else { return };
        let _ = sys::pidfd::send_signal(c.pidfd.as_fd(), 9);
        let _ = sys::pidfd::wait(c.pidfd.as_fd(), true);
        self.forget(&c);
        if let Some(cgroup) = self.cgroup(c.record.cgroup.as_ref()) {
            self.emptying.push((cgroup, Instant::now()));
        }
    }

    /// Opens a cgroup; only while it is needed, for it takes a descriptor for each
    /// hierarchy of the host.
    pub(super) fn cgroup(&self, cgroup: Option<&CgroupRef>) -> Option<Cgroup> {
        Cgroup::open(&self.cgroups, &cgroup?.path).ok()
    }

    /// Somebody is about to make this cgroup. What an earlier run of the same container left there is
    /// removed now or never: later it would be the new run's.
    pub(super) fn expect_cgroup(&mut self, path: &str) {
        self.emptying.retain(|(cgroup, _)| {
            let earlier = cgroup.path() == path;
            if earlier {
                let _ = cgroup.try_remove();
            }
            !earlier
        });
    }

    /// Stops watching what belonged to a container.
    pub(super) fn forget(&mut self, c: &Container) {
        let id = &c.record.id;
        self.sources.remove(&c.pidfd_token);
        let _ = epoll::delete(&self.epoll, &c.pidfd);
        for output in &c.outputs {
            self.sources.remove(&output.token);
            let _ = epoll::delete(&self.epoll, &output.fd);
        }
        if let Some(input) = &c.input {
            self.sources.remove(&input.token);
            let _ = epoll::delete(&self.epoll, &input.fd);
        }
        if let Some(known) = &c.known {
            self.drop_name(&known.name, id);
        }
        self.journals.retain(|other| other != id);
        self.standby.drop_prefix(&format!("{id}/"));
        if let Some(chain) = &c.record.image {
            self.leave_image(chain);
        }
        self.remove_traces(id);
    }

    pub(super) fn remove_traces(&self, id: &str) {
        let _ = std::fs::remove_file(self.run_root.join("running").join(id));
        remove_pipes(&self.run_root.join("io"), id);
    }

    pub(super) fn notify(&mut self, id: &str, action: &str) {
        let subscribers: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| matches!(c.role, ConnectionRole::Subscriber))
            .map(|(token, _)| *token)
            .collect();
        for token in subscribers {
            self.send(token, &Message::Notice { id: id.into(), action: action.into() });
        }
    }
}
