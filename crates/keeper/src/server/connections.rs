//! Clients: frames in and out, and what happens when one leaves.

use super::*;

impl Keeper {
    pub(super) fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(e) => return Err(e.into()),
            };
            let token = self.watch(Source::Connection, socket.as_fd(), EventFlags::IN)?;
            self.connections.insert(
                token,
                Connection {
                    socket,
                    incoming: Vec::new(),
                    fds: Vec::new(),
                    outgoing: VecDeque::new(),
                    role: ConnectionRole::New,
                    interest: EventFlags::IN,
                    closing: false,
                    prepared: None,
                },
            );
        }
    }

    pub(super) fn connection_event(&mut self, token: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(token);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            match recv_some(
                connection.socket.as_fd(),
                &mut connection.incoming,
                &mut connection.fds,
            ) {
                Ok(0) => return self.hang_up(token),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.hang_up(token),
            }
            self.read_frames(token);
        }
    }

    pub(super) fn read_frames(&mut self, token: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            let frame = match take_frame(&mut connection.incoming) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => return self.hang_up(token),
            };
            match frame {
                (Kind::Stdin, bytes) => {
                    let ConnectionRole::Attached(attach) = &connection.role else { continue };
                    if attach.stdin {
                        let id = attach.id.clone();
                        self.stdin_from(&id, token, &bytes);
                    }
                }
                (Kind::Message, body) => {
                    let fds = std::mem::take(&mut connection.fds);
                    match serde_json::from_slice::<Envelope>(&body) {
                        Ok(envelope) if envelope.version == VERSION => {
                            self.request(token, envelope, fds);
                        }
                        Ok(envelope) => self.fail(
                            token,
                            125,
                            format!(
                                "the keeper speaks version {VERSION} of its protocol, not {}",
                                envelope.version
                            ),
                        ),
                        Err(e) => self.fail(
                            token,
                            125,
                            format!("the keeper was asked in a way it does not know: {e}"),
                        ),
                    }
                }
                _ => return self.hang_up(token),
            }
        }
    }

    pub(super) fn hang_up(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        self.sources.remove(&token);
        if let Some((id, _)) = &connection.prepared {
            self.remove_traces(id);
        }
        match connection.role {
            ConnectionRole::Attached(attach) => {
                if let Some(c) = self.containers.get_mut(&attach.id) {
                    c.attached.retain(|t| *t != token);
                    if c.starter == Some(token) {
                        c.starter = None;
                    }
                    if c.owner == Some(token) {
                        c.owner = None;
                        // If it was killed, a step of a build has nobody any more who ends it.
                        self.steward_wanted = true;
                    }
                    if attach.stdin && c.record.stdin_once && !c.record.tty {
                        self.close_input(&attach.id);
                    }
                    self.unpause_output(&attach.id);
                }
            }
            ConnectionRole::Waiting(id) => {
                if let Some(c) = self.containers.get_mut(&id) {
                    c.waiting.retain(|t| *t != token);
                    if c.starter == Some(token) {
                        c.starter = None;
                    }
                    if c.owner == Some(token) {
                        c.owner = None;
                    }
                }
            }
            ConnectionRole::Exec(exec) => {
                if let Some(exec) = self.execs.get_mut(&exec) {
                    exec.client = None;
                }
            }
            ConnectionRole::New | ConnectionRole::Subscriber => {}
        }
    }

    pub(super) fn send(&mut self, token: u64, message: &Message) {
        let frame = encode(message);
        self.send_bytes(token, &[&frame]);
    }

    pub(super) fn send_bytes(&mut self, token: u64, parts: &[&[u8]]) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        for part in parts {
            connection.outgoing.extend(*part);
        }
        self.flush(token);
    }

    /// Sends a message whose descriptor must go with its first byte.
    pub(super) fn send_with(&mut self, token: u64, message: &Message, fd: BorrowedFd<'_>) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let frame = encode(message);
        if connection.outgoing.is_empty()
            && let Ok(sent) = send_some(connection.socket.as_fd(), &frame, &[fd])
        {
            connection.outgoing.extend(frame.get(sent..).unwrap_or_default());
            self.flush(token);
        } else {
            self.hang_up(token);
        }
    }

    pub(super) fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        while !connection.outgoing.is_empty() {
            let (front, _) = connection.outgoing.as_slices();
            match send_some(connection.socket.as_fd(), front, &[]) {
                Ok(sent) => drop(connection.outgoing.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.hang_up(token),
            }
        }
        if connection.outgoing.is_empty() && connection.closing {
            return self.hang_up(token);
        }
        let waiting = connection.outgoing.len();
        self.set_interest(token);
        let Some(connection) = self.connections.get(&token) else { return };
        if let ConnectionRole::Attached(attach) = &connection.role {
            let id = attach.id.clone();
            let owner = self.containers.get(&id).is_some_and(|c| c.owner == Some(token));
            if waiting < PATIENCE / 2 {
                self.unpause_output(&id);
            } else if !owner && waiting > IMPATIENCE {
                self.hang_up(token);
            }
        }
    }

    /// Watches a connection for what we want of it now.
    pub(super) fn set_interest(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else { return };
        let mut want = EventFlags::IN;
        if let ConnectionRole::Attached(attach) = &connection.role
            && let Some(c) = self.containers.get(&attach.id)
            && c.input.as_ref().is_some_and(|i| i.queue.len() > INPUT_QUEUE)
        {
            want = EventFlags::empty();
        }
        if !connection.outgoing.is_empty() {
            want |= EventFlags::OUT;
        }
        if want != connection.interest {
            let _ = epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(token), want);
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.interest = want;
            }
        }
    }

    /// Sends the last message of a connection.
    pub(super) fn finish(&mut self, token: u64, message: &Message) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.closing = true;
        }
        self.send(token, message);
    }

    pub(super) fn fail(&mut self, token: u64, code: u8, message: String) {
        self.finish(token, &Message::Failed { code, not_found: false, message });
    }

    pub(super) fn not_running(&mut self, token: u64, id: &str) {
        let message = format!("container {id} is not running");
        self.finish(token, &Message::Failed { code: 125, not_found: true, message });
    }

    pub(super) fn request(&mut self, token: u64, envelope: Envelope, fds: Vec<OwnedFd>) {
        if fds.len() != envelope.fds.len() {
            return self.fail(
                token,
                125,
                format!("{} descriptors came for {} roles", fds.len(), envelope.fds.len()),
            );
        }
        let fds = envelope.fds.into_iter().zip(fds).collect();
        match envelope.request {
            Request::Start(start) => {
                if let Err((code, message)) = self.start(token, *start, fds) {
                    self.fail(token, code, message);
                }
            }
            Request::Cgroup { cgroup } => {
                self.expect_cgroup(&cgroup.path);
                self.send(token, &Message::Done);
            }
            Request::Image { chain } => self.give_image(token, &chain),
            Request::Exec(exec) => {
                if let Err((code, message)) = self.exec(token, *exec, fds) {
                    self.fail(token, code, message);
                }
            }
            Request::Find { name, data_root } => {
                let container = self.find(&name, &data_root);
                self.send(token, &Message::Found { container });
            }
            Request::Forget { id } => {
                self.forget_name(&id);
                self.finish(token, &Message::Done);
            }
            Request::Streams { id, open_stdin, quiet } => {
                if let Err(e) = self.make_streams(token, id, open_stdin, quiet) {
                    self.fail(token, 125, format!("cannot make the container's streams: {e}"));
                }
            }
            Request::Adopt(adopt) => {
                if let Err(e) = self.adopt_foreign(token, *adopt, fds) {
                    self.fail(token, 125, format!("cannot take the container over: {e}"));
                }
            }
            Request::Attach(attach) => {
                let Some(c) = self.containers.get_mut(&attach.id) else {
                    return self.not_running(token, &attach.id);
                };
                c.attached.push(token);
                if attach.owner && c.owner.is_none() {
                    c.owner = Some(token);
                }
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Attached(attach);
                }
                self.send(token, &Message::Attached { at: now() });
            }
            Request::Wait { id } => {
                let Some(c) = self.containers.get_mut(&id) else {
                    return self.not_running(token, &id);
                };
                c.waiting.push(token);
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Waiting(id);
                }
                self.send(token, &Message::Attached { at: now() });
            }
            Request::Resize { id, rows, cols } => {
                let master =
                    self.containers.get(&id).and_then(|c| c.master.as_ref()).or_else(|| {
                        self.execs.values().find(|e| e.id == id).and_then(|e| e.master.as_ref())
                    });
                match master.map(|master| set_size(master.as_fd(), rows, cols)) {
                    Some(Ok(())) => self.finish(token, &Message::Done),
                    Some(Err(e)) => self.fail(token, 125, format!("cannot resize: {e}")),
                    None => self.not_running(token, &id),
                }
            }
            Request::List { id } => {
                let containers = self.list(id.as_deref());
                self.finish(token, &Message::Running { containers });
            }
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.role = ConnectionRole::Subscriber;
                }
                self.send(token, &Message::Attached { at: now() });
            }
            Request::Names => {
                self.want_names();
                self.finish(token, &Message::Done);
            }
            Request::Status => {
                let message = Message::Status {
                    pid: rustix::process::getpid().as_raw_nonzero().get(),
                    standby: self.standby.pid,
                    containers: self.containers.len(),
                };
                self.finish(token, &message);
            }
        }
    }

    pub(super) fn list(&self, only: Option<&str>) -> Vec<Running> {
        let mut execs: HashMap<&str, BTreeMap<String, i32>> = HashMap::new();
        for exec in self.execs.values().filter(|e| only.is_none_or(|id| e.container == id)) {
            execs.entry(&exec.container).or_default().insert(exec.id.clone(), exec.pid);
        }
        let found: Vec<_> = match only {
            Some(id) => self.containers.get(id).into_iter().collect(),
            None => self.containers.values().collect(),
        };
        found
            .into_iter()
            .filter(|c| c.launching.is_none())
            .map(|c| Running {
                id: c.record.id.clone(),
                pid: c.record.pid,
                start_time: c.record.start_time,
                started_at: c.record.started_at,
                execs: execs.remove(c.record.id.as_str()).unwrap_or_default(),
            })
            .collect()
    }
}
