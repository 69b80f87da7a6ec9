//! Output to the journal and to those attached; input to the container.

use super::*;

impl Keeper {
    pub(super) fn add_output(
        &mut self,
        c: &mut Container,
        fd: OwnedFd,
        stream: Stream,
    ) -> io::Result<()> {
        let fd = shelf::put(fd);
        let source = Source::Output(c.record.id.clone(), stream);
        let token = self.watch(source, fd.as_fd(), EventFlags::IN)?;
        c.outputs.push(Output { fd, token, stream, watched: true });
        Ok(())
    }

    pub(super) fn add_input(&mut self, c: &mut Container, fd: OwnedFd) -> io::Result<()> {
        let token = self.token(Source::Input(c.record.id.clone()));
        let fd = shelf::put(fd);
        c.input = Some(Input { fd, token, queue: VecDeque::new(), close: false, watched: false });
        Ok(())
    }

    /// Our ends of output, error output and input, as far as there are any.
    pub(super) fn add_streams(
        &mut self,
        c: &mut Container,
        [out, err, input]: [Option<OwnedFd>; 3],
    ) -> io::Result<()> {
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if let Some(fd) = fd {
                self.add_output(c, fd, stream)?;
            }
        }
        match input {
            Some(fd) => self.add_input(c, fd),
            None => Ok(()),
        }
    }

    /// A terminal's master is output, input and the place where its size is set.
    pub(super) fn set_master(&mut self, c: &mut Container, master: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some((rows, cols)) = c.size {
            let _ = set_size(master.as_fd(), rows, cols);
        }
        self.add_output(c, master.try_clone()?, Stream::Stdout)?;
        self.add_input(c, master.try_clone()?)?;
        c.master = Some(shelf::put(master));
        Ok(())
    }

    pub(super) fn output(&mut self, id: &str, stream: Stream) -> io::Result<()> {
        match self.move_batch(id, stream)? {
            Moved::Some | Moved::Empty => {}
            Moved::End => {
                if let Some(c) = self.containers.get_mut(id)
                    && let Some(at) = c.outputs.iter().position(|o| o.stream == stream)
                {
                    let output = c.outputs.remove(at);
                    self.sources.remove(&output.token);
                    let _ = epoll::delete(&self.epoll, &output.fd);
                }
            }
        }
        Ok(())
    }

    /// Moves one batch to the journal and to those attached.
    pub(super) fn move_batch(&mut self, id: &str, stream: Stream) -> io::Result<Moved> {
        let Some(c) = self.containers.get_mut(id) else { return Ok(Moved::End) };
        let Some(output) = c.outputs.iter().find(|o| o.stream == stream) else {
            return Ok(Moved::End);
        };
        let was_closed = c.journal.as_ref().is_some_and(|journal| !journal.is_open());
        let moved = match &mut c.journal {
            Some(journal) => {
                let (moved, written) =
                    self.mover.batch(output.fd.as_fd(), id, stream, now(), journal)?;
                match written {
                    Ok(()) if c.lost > 0 && moved == Moved::Some => {
                        let note = format!(r#"{{"action":"lost","bytes":{}}}"#, c.lost);
                        if journal.event(now(), &note).is_ok() {
                            c.lost = 0;
                        }
                    }
                    Ok(()) => {}
                    Err(e) => {
                        if c.lost == 0 {
                            let line = format!("journal of {id}: {e}; output is dropped");
                            c.lost += self.mover.bytes().len() as u64;
                            self.complain(&line);
                        } else {
                            c.lost += self.mover.bytes().len() as u64;
                        }
                    }
                }
                moved
            }
            None => self.mover.read(output.fd.as_fd())?,
        };
        let is_open = |c: &Container| c.journal.as_ref().is_some_and(Writer::is_open);
        if was_closed && self.containers.get(id).is_some_and(is_open) {
            self.note_open_journal(id);
        }
        if moved == Moved::Some {
            self.pass_on(id, stream);
        }
        Ok(moved)
    }

    /// Has the journal closed that was opened longest ago, when too many are open.
    pub(super) fn note_open_journal(&mut self, id: &str) {
        self.journals.push_back(id.to_owned());
        if self.journals.len() <= JOURNALS {
            return;
        }
        if let Some(first) = self.journals.pop_front()
            && first != id
            && let Some(c) = self.containers.get_mut(&first)
            && let Some(journal) = &mut c.journal
        {
            journal.close();
        }
    }

    /// Gives the last batch to those attached.
    pub(super) fn pass_on(&mut self, id: &str, stream: Stream) {
        let Some(c) = self.containers.get(id) else { return };
        if c.attached.is_empty() {
            return;
        }
        let kind = if stream == Stream::Stderr { Kind::Stderr } else { Kind::Stdout };
        let bytes = self.mover.bytes();
        let frame_head: [u8; HEAD] = head(kind, bytes.len());
        let mut slow = false;
        let mut ready = Vec::new();
        for token in &c.attached {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            let ConnectionRole::Attached(attach) = &connection.role else { continue };
            let wanted = if kind == Kind::Stderr { attach.stderr } else { attach.stdout };
            if !wanted {
                continue;
            }
            connection.outgoing.extend(frame_head);
            connection.outgoing.extend(bytes);
            ready.push(*token);
        }
        for token in ready {
            self.flush(token);
            if let Some(connection) = self.connections.get(&token) {
                let owner = self.containers.get(id).is_some_and(|c| c.owner == Some(token));
                slow |= owner && connection.outgoing.len() > PATIENCE;
            }
        }
        if slow {
            self.pause_output(id);
        }
    }

    pub(super) fn pause_output(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        for output in c.outputs.iter_mut().filter(|o| o.watched) {
            let data = EventData::new_u64(output.token);
            let _ = epoll::modify(&self.epoll, &output.fd, data, EventFlags::empty());
            output.watched = false;
        }
    }

    pub(super) fn unpause_output(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        for output in c.outputs.iter_mut().filter(|o| !o.watched) {
            let data = EventData::new_u64(output.token);
            let _ = epoll::modify(&self.epoll, &output.fd, data, EventFlags::IN);
            output.watched = true;
        }
    }

    pub(super) fn stdin_from(&mut self, id: &str, token: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            // A terminal has no end of input; its reader types ctrl-d.
            if self.containers.get(id).is_some_and(|c| !c.record.tty) {
                self.close_input(id);
            }
            return;
        }
        if let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) {
            input.queue.extend(bytes);
        }
        self.feed(id);
        self.set_interest(token);
    }

    /// Writes what waits to the container.
    pub(super) fn feed(&mut self, id: &str) {
        let Some(c) = self.containers.get_mut(id) else { return };
        let Some(input) = c.input.as_mut() else { return };
        let mut broken = false;
        while !input.queue.is_empty() {
            let (front, _) = input.queue.as_slices();
            match rustix::io::write(&input.fd, front) {
                Ok(n) => drop(input.queue.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken || (input.queue.is_empty() && input.close) {
            let token = input.token;
            if input.watched {
                let _ = epoll::delete(&self.epoll, &input.fd);
            }
            c.input = None;
            self.sources.remove(&token);
            self.standby.drop_prefix(&format!("{id}/stdin"));
        } else {
            let waiting = !input.queue.is_empty();
            if waiting != input.watched {
                let data = EventData::new_u64(input.token);
                let changed = if waiting {
                    epoll::add(&self.epoll, &input.fd, data, EventFlags::OUT)
                } else {
                    epoll::delete(&self.epoll, &input.fd)
                };
                if changed.is_ok() {
                    input.watched = waiting;
                }
            }
        }
        let attached = self.containers.get(id).map(|c| c.attached.clone()).unwrap_or_default();
        for token in attached {
            self.set_interest(token);
        }
    }

    pub(super) fn close_input(&mut self, id: &str) {
        if let Some(input) = self.containers.get_mut(id).and_then(|c| c.input.as_mut()) {
            input.close = true;
            self.feed(id);
        }
    }
}
