//! Further processes in a running container.

use super::*;
use crate::client;

impl Keeper {
    /// Keeps what a start has given, unless a container was renamed since the starter looked: it may have been this one.
    pub(super) fn keep_known(&mut self, c: &mut Container, known: Known) {
        if client::renames(&self.run_root) == known.renames {
            self.ids.insert(known.name.clone(), c.record.id.clone());
            c.known = Some(known);
        }
    }

    /// The running container of this name or id. One that is frozen is not found: its record says why it cannot be used.
    pub(super) fn find(&self, name: &str, data_root: &Path) -> Option<Found> {
        let c = self.containers.get(self.ids.get(name).map_or(name, String::as_str))?;
        let known = c.known.as_ref().filter(|known| known.data_root == data_root)?;
        let cgroup = Cgroup::open_freezer(&self.cgroups, &c.record.cgroup.as_ref()?.path).ok()?;
        (c.launching.is_none() && !cgroup.frozen()).then(|| Found {
            pid: c.record.pid,
            start_time: c.record.start_time,
            facts: known.facts.clone(),
        })
    }

    pub(super) fn forget_name(&mut self, id: &str) {
        if let Some(known) = self.containers.get_mut(id).and_then(|c| c.known.take()) {
            self.drop_name(&known.name, id);
        }
    }

    pub(super) fn drop_name(&mut self, name: &str, id: &str) {
        if self.ids.get(name).is_some_and(|of| of == id) {
            self.ids.remove(name);
        }
    }

    pub(super) fn exec(
        &mut self,
        token: u64,
        exec: Exec,
        fds: Vec<(Role, OwnedFd)>,
    ) -> Result<(), (u8, String)> {
        let Some(c) = self.containers.get(&exec.id).filter(|c| c.launching.is_none()) else {
            self.not_running(token, &exec.id);
            return Ok(());
        };
        let mut descriptors = Descriptors::default();
        if !exec.tty {
            let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
            for (role, fd) in fds {
                if let Role::Stdio(n) = role
                    && let Some(place) = stdio.get_mut(usize::from(n))
                {
                    *place = Some(fd);
                }
            }
            let [Some(i), Some(o), Some(e)] = stdio else {
                return Err((125, "exec needs three descriptors".into()));
            };
            descriptors.stdio = Some([i, o, e]);
        }
        descriptors.own_from = shelf::own_from(self.containers.len());
        descriptors.open_files = shelf::inherited_limit();
        let launching = runtime::launch::exec(
            &exec.plan,
            c.pidfd.as_fd(),
            self.cgroup(c.record.cgroup.as_ref()).as_ref(),
            descriptors,
        )
        .map_err(|e| (e.exit_code(), shelf::explain(&e.to_string(), e.errno())))?;
        let watch = |keeper: &mut Self| -> io::Result<(u64, u64, OwnedFd)> {
            let pidfd = launching.pidfd.try_clone()?;
            let ended = keeper.watch(Source::ExecEnded, pidfd.as_fd(), EventFlags::IN)?;
            let source = Source::ExecReport(ended);
            let report = keeper.watch(source, launching.report_fd(), report_flags(&launching))?;
            Ok((ended, report, pidfd))
        };
        let (ended, report, pidfd) = watch(self).map_err(|e| (125, format!("epoll: {e}")))?;
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = ConnectionRole::Exec(ended);
        }
        self.execs.insert(
            ended,
            ExecProcess {
                id: exec.exec_id,
                container: exec.id,
                pid: launching.pid,
                pidfd,
                launching: Some((launching, report)),
                master: None,
                client: Some(token),
                size: exec.size,
                note: exec.note,
            },
        );
        self.exec_report(ended).map_err(|e| (125, e.to_string()))
    }

    pub(super) fn exec_report(&mut self, exec_token: u64) -> io::Result<()> {
        loop {
            let Some(exec) = self.execs.get_mut(&exec_token) else { return Ok(()) };
            let Some((launching, report)) = exec.launching.as_mut() else { return Ok(()) };
            let report = *report;
            match launching.on_report() {
                Ok(Progress::Pending) => return Ok(()),
                Ok(Progress::Console(master)) => {
                    if let Some((rows, cols)) = exec.size {
                        let _ = set_size(master.as_fd(), rows, cols);
                    }
                    exec.master = Some(master);
                }
                Ok(Progress::Ready) => {
                    let notes = std::mem::take(&mut launching.notes);
                    self.sources.remove(&report);
                    exec.launching = None;
                    let at = now();
                    let (id, note) = (exec.id.clone(), exec.note.clone());
                    let reported = self.report_exec(&id, at, None, note);
                    let Some(exec) = self.execs.get_mut(&exec_token) else { return Ok(()) };
                    if !reported {
                        // Who asked is told, and says it otherwise; then the end is not ours to report either.
                        exec.note = None;
                    }
                    let message = Message::Started {
                        pid: exec.pid,
                        start_time: start_time_of(exec.pid),
                        at,
                        notes,
                        reported,
                        trace: Vec::new(),
                    };
                    let master = exec.master.as_ref().map(|m| m.try_clone()).transpose()?;
                    if let Some(client) = exec.client {
                        match &master {
                            Some(master) => self.send_with(client, &message, master.as_fd()),
                            None => self.send(client, &message),
                        }
                    }
                    return Ok(());
                }
                Err(e) => {
                    self.sources.remove(&report);
                    exec.launching = None;
                    let client = exec.client.take();
                    let failed = (e.exit_code(), shelf::explain(&e.to_string(), e.errno()));
                    if let Some(exec) = self.execs.remove(&exec_token) {
                        self.sources.remove(&exec_token);
                        let _ = epoll::delete(&self.epoll, &exec.pidfd);
                        let _ = sys::pidfd::send_signal(exec.pidfd.as_fd(), 9);
                        let _ = sys::pidfd::wait(exec.pidfd.as_fd(), true);
                    }
                    if let Some(client) = client {
                        self.fail(client, failed.0, failed.1);
                    }
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn exec_ended(&mut self, token: u64, known: Option<i32>) -> io::Result<()> {
        let Some(exec) = self.execs.get(&token) else { return Ok(()) };
        if exec.launching.is_some() {
            return Ok(());
        }
        let code = match known.map_or_else(|| how_ended(&exec.pidfd), How::Code) {
            How::Code(code) => code,
            How::StillRunning => return Ok(()),
            How::NotOurs | How::Unknown => 255,
        };
        let Some(exec) = self.execs.remove(&token) else { return Ok(()) };
        self.sources.remove(&token);
        let _ = epoll::delete(&self.epoll, &exec.pidfd);
        // Only for an exec that somebody may ask for later; the others have no directory.
        let execs = self.run_root.join("execs").join(&exec.container);
        let left = std::fs::write(execs.join(format!("{}.exit", exec.id)), code.to_string());
        if let Err(e) = left
            && e.kind() != io::ErrorKind::NotFound
        {
            self.complain(&format!("exit code of exec {}: {e}", exec.id));
        }
        let at = now();
        self.report_exec(&exec.id, at, Some(code), exec.note);
        self.note_writing();
        if let Some(client) = exec.client {
            let exit =
                Exit { id: exec.id, code, at, oom_killed: false, unknown: false, started_at: 0 };
            self.finish(client, &Message::Exited(exit));
        }
        Ok(())
    }

    /// Leaves it where any process of the engine finds it that an exec has begun or ended; whether that was done.
    fn report_exec(&mut self, id: &str, at: i64, code: Option<i32>, note: Option<String>) -> bool {
        let Some(note) = note else { return false };
        let report = ExecReport { exec: id.to_owned(), at, code, note };
        match self.leave_report(&report.file_name(), &report) {
            Ok(()) => {
                self.unread_reports = true;
                true
            }
            Err(e) => {
                self.complain(&format!("report of exec {id}: {e}"));
                false
            }
        }
    }
}
