//! Containers run by another OCI runtime (`--runtime PATH`): runc, crun, or anything that
//! has their command line.
//!
//! The runtime makes the process; the keeper makes the streams before and takes the
//! process over after, by a pidfd, so everything else is as with our own. The runtime
//! runs in a mount namespace of its own, in which the container's root filesystem is
//! attached: also these mounts never exist in the host's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keeper::protocol::{Adopt, CgroupRef, Log, Message, Request, Role};
use rustix::mount::MoveMountFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::attachment::Attachment;
use crate::engine::{AttachOptions, Engine};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::start::{Parts, Starter, attach_of, journal_of, terminal_size};

/// What our own program does between the engine and the runtime: `__mounted FD PATH
/// PROGRAM …` attaches the mount that the caller has as descriptor FD at PATH, in a mount
/// namespace of its own, and becomes PROGRAM.
pub const MOUNTED: &str = "__mounted";

/// Names of our own runtime. Docker's clients name Docker's default, in its short form or in full, when
/// they mean the engine's own, and look for it in the list of runtimes. A container keeps the name that
/// it was asked for with.
pub(crate) const OWN: [&str; 3] = ["wherry", "runc", "io.containerd.runc.v2"];

/// The work of [`MOUNTED`]; returns only on failure. The caller must have one thread.
pub fn mounted(args: &[std::ffi::OsString]) -> Error {
    use std::os::unix::process::CommandExt as _;
    let [fd, path, program, rest @ ..] = args else {
        return Error::invalid(format!("{MOUNTED} needs a descriptor, a path and a program"));
    };
    let attach = || -> io::Result<()> {
        let parent = rustix::process::getppid()
            .ok_or_else(|| io::Error::other("the caller has gone"))?
            .as_raw_nonzero();
        let from = format!("/proc/{parent}/fd/{}", fd.to_string_lossy());
        let mount = rustix::fs::open(
            from,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        sys::namespace::unshare(sys::clone::NEWNS)?;
        sys::mount::set_propagation_of_all(sys::mount::PRIVATE)?;
        rustix::mount::move_mount(
            &mount,
            c"",
            rustix::fs::CWD,
            Path::new(path),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        Ok(())
    };
    if let Err(e) = attach() {
        return Error::system("cannot attach the container's root filesystem", e);
    }
    let e = Command::new(program).args(rest).exec();
    Error::system(format!("cannot run {}", program.display()), e)
}

impl Engine {
    /// Whether containers can be run by a runtime of this name, without a look at its program.
    pub(crate) fn has_runtime(&self, name: &str) -> bool {
        OWN.contains(&name) || self.settings().runtimes.contains_key(name)
    }

    /// The other runtime's program and first arguments, if this container is to be run
    /// by one.
    pub(crate) fn foreign_runtime(
        &self,
        record: &Record,
    ) -> Result<Option<(PathBuf, Vec<String>)>> {
        let name = record.definition.host.runtime.as_str();
        let (path, args) = match self.settings().runtimes.get(name) {
            Some(runtime) => (runtime.path.clone(), runtime.args.clone()),
            None if name.is_empty() || OWN.contains(&name) => return Ok(None),
            None => (PathBuf::from(name), Vec::new()),
        };
        if path.is_absolute() && path.is_file() {
            return Ok(Some((path, args)));
        }
        Err(Error::invalid(format!(
            "unknown or invalid runtime name: {name}: give an absolute path, or name it in the \
             configuration's table of runtimes"
        )))
    }

    fn runtime_command(&self, program: &Path, args: &[String]) -> Command {
        let mut command = Command::new(program);
        command.args(args).arg("--root").arg(self.run_root().join("runtime"));
        // Who waits for an attached container has them blocked.
        sys::signal::unblocked(&mut command);
        command
    }

    /// Runs one of the runtime's verbs; its complaint is the error.
    fn ask_runtime(&self, program: &Path, args: &[String], verb: &[&str]) -> Result<()> {
        let output = self
            .runtime_command(program, args)
            .args(verb)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::system(format!("cannot run {}", program.display()), e))?;
        if output.status.success() { Ok(()) } else { Err(complaint(program, &output.stderr)) }
    }

    /// Starts a container with another runtime.
    pub(crate) fn start_foreign(
        &self,
        record: &mut Record,
        parts: Parts,
        attach: Option<AttachOptions>,
        starter: Starter,
    ) -> Result<(Option<Attachment>, i32, u64, i64)> {
        let Some((program, args)) = self.foreign_runtime(record)? else {
            return Err(Error::invalid("no other runtime is asked for"));
        };
        // What an earlier run, or one that was killed, left behind.
        let _ = self.ask_runtime(&program, &args, &["delete", "--force", &record.id]);
        let host = &record.definition.host;
        let tty = record.definition.config.tty;
        let mut connection = self.keeper().connect()?;
        let quiet = parts.log == Log::None && attach.is_none();
        let streams = Request::Streams {
            id: record.id.clone(),
            open_stdin: record.definition.config.open_stdin,
            quiet: quiet || tty,
        };
        let Message::Streams = connection.ask(streams, Vec::new())? else {
            return Err(keeper::Error::Version.into());
        };
        let fds: [OwnedFd; 3] = std::mem::take(&mut connection.fds)
            .try_into()
            .map_err(|_| Error::system("streams", "three descriptors were expected"))?;
        let (pid, console) = self.create_foreign(record, &program, &args, &parts.rootfs, fds)?;
        let undo = |e: Error| {
            let _ = self.ask_runtime(&program, &args, &["delete", "--force", &record.id]);
            e
        };
        let identity = runtime::state::ProcessIdentity::of(pid).map_err(|e| undo(e.into()))?;
        let pidfd = identity.open().map_err(|e| undo(e.into()))?;
        let attach = attach.map(|wanted| attach_of(record, wanted, starter));
        let owner = attach.as_ref().is_some_and(|attach| attach.owner);
        let again = attach.clone().map(|attach| (attach, journal_of(&parts.log)));
        let adopt = Adopt {
            id: record.id.clone(),
            pid,
            start_time: identity.start_time,
            cgroup: Some(CgroupRef { path: parts.cgroup.clone() }),
            tty,
            stdin_once: record.definition.config.stdin_once,
            log: parts.log,
            owner,
            attach,
            size: terminal_size(host.console_size),
            steward_at_exit: host.auto_remove
                || host.restart_policy.name != "no"
                || parts.networks.0,
            steward_always: parts.networks.1,
            steward_now: parts.health,
        };
        let mut fds = vec![(Role::Process, pidfd)];
        fds.extend(console.map(|fd| (Role::Console, fd)));
        let adopted = connection.ask(Request::Adopt(Box::new(adopt)), fds);
        let Message::Started { at, .. } = adopted.map_err(|e| undo(e.into()))? else {
            return Err(undo(keeper::Error::Version.into()));
        };
        self.ask_runtime(&program, &args, &["start", &record.id]).map_err(undo)?;
        record.run.foreign_runtime = Some(program.to_string_lossy().into_owned());
        let attachment =
            again.map(|again| self.attachment_since_start(record, connection, again, at));
        Ok((attachment, pid, identity.start_time, at))
    }

    /// `create` of the runtime: the pid, and the terminal's master.
    fn create_foreign(
        &self,
        record: &Record,
        program: &Path,
        args: &[String],
        rootfs: &OwnedFd,
        fds: [OwnedFd; 3],
    ) -> Result<(i32, Option<OwnedFd>)> {
        let failed = |what: &'static str| move |e: io::Error| Error::system(what, e);
        let bundle = self.store().container_directory(&record.id);
        let root = bundle.join("rootfs");
        match std::fs::create_dir(&root) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("cannot make the mount point of the root filesystem")(e));
            }
            _ => {}
        }
        let io_dir = self.run_root().join("io");
        let pid_file = io_dir.join(format!("{}.pid", record.id));
        let socket_path = io_dir.join(format!("{}.tty", record.id.get(..12).unwrap_or("x")));
        let errors = io_dir.join(format!("{}.log", record.id));
        let listener = if record.definition.config.tty {
            let _ = std::fs::remove_file(&socket_path);
            let listen = || -> Result<OwnedFd, rustix::io::Errno> {
                let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
                let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                rustix::net::bind(&socket, &SocketAddrUnix::new(&socket_path)?)?;
                rustix::net::listen(&socket, 1)?;
                Ok(socket)
            };
            Some(listen().map_err(|e| failed("cannot make the console socket")(e.into()))?)
        } else {
            None
        };
        let mut command = Command::new(self.program());
        command.arg(MOUNTED).arg(rootfs.as_raw_fd().to_string()).arg(&root).arg(program);
        command.args(args).arg("--root").arg(self.run_root().join("runtime"));
        command.arg("--log").arg(&errors).args(["--log-format", "json"]);
        command.arg("create").arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file);
        if listener.is_some() {
            command.arg("--console-socket").arg(&socket_path);
        }
        let [stdin, stdout, stderr] = fds;
        command.arg(&record.id).stdin(stdin).stdout(stdout).stderr(stderr);
        let status = command.status().map_err(failed("cannot run the engine's own program"));
        drop(command);
        let console = match (&listener, &status) {
            (Some(listener), Ok(status)) if status.success() => Some(receive_console(listener)),
            _ => None,
        };
        let pid = std::fs::read_to_string(&pid_file).unwrap_or_default();
        let log = std::fs::read(&errors).unwrap_or_default();
        for path in [&pid_file, &socket_path, &errors] {
            let _ = std::fs::remove_file(path);
        }
        if !status?.success() {
            return Err(complaint(program, &log));
        }
        let pid = pid.trim().parse().map_err(|_| {
            Error::system(format!("{} create", program.display()), "it wrote no pid")
        })?;
        Ok((pid, console.transpose()?))
    }

    /// Removes what the other runtime keeps of a container.
    pub(crate) fn remove_foreign(&self, record: &Record, problems: &mut Vec<String>) {
        if record.run.foreign_runtime.is_none() {
            return;
        }
        match self.foreign_runtime(record) {
            Ok(Some((program, args))) => {
                let delete = ["delete", "--force", record.id.as_str()];
                if let Err(e) = self.ask_runtime(&program, &args, &delete) {
                    problems.push(e.message);
                }
            }
            Ok(None) => {}
            Err(e) => problems.push(e.message),
        }
        let root = self.store().container_directory(&record.id).join("rootfs");
        let _ = std::fs::remove_dir(root);
    }
}

/// The terminal's master, sent by the runtime.
fn receive_console(listener: &OwnedFd) -> Result<OwnedFd> {
    let failed =
        |e: rustix::io::Errno| Error::system("the runtime sent no terminal", io::Error::from(e));
    let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map_err(failed)?;
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    use std::os::fd::AsFd as _;
    keeper::protocol::recv_some(socket.as_fd(), &mut bytes, &mut fds).map_err(failed)?;
    fds.pop().ok_or_else(|| failed(rustix::io::Errno::BADF))
}

/// The runtime's last word, from its log (JSON lines) or its standard error.
fn complaint(program: &Path, log: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct Line {
        msg: String,
    }
    let text = String::from_utf8_lossy(log);
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it failed silently");
    let last = serde_json::from_str::<Line>(last).map_or_else(|_| last.to_owned(), |l| l.msg);
    let name = program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut e = Error::system(name, last.clone());
    if last.contains("executable file not found") || last.contains("no such file or directory") {
        e.kind = crate::error::ErrorKind::CommandNotFound;
    } else if last.contains("permission denied") && last.contains("exec") {
        e.kind = crate::error::ErrorKind::CommandNotExecutable;
    }
    e
}
