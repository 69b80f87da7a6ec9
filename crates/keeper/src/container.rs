//! A running container, as the keeper sees it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use runtime::launch::Launching;
use runtime::trace::Recorder;
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::journal::{Stream, Writer};
use crate::protocol::{CgroupRef, Known, Log};

/// What is written to `running/<id>` so that a successor can take over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) started_at: i64,
    pub(crate) cgroup: Option<CgroupRef>,
    pub(crate) tty: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: Log,
    pub(crate) steward_at_exit: bool,
    #[serde(default)]
    pub(crate) steward_always: bool,
    pub(crate) steward_now: bool,
    /// Chain ID of the image whose mount it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
}

/// One output of a container: a pipe's reading end, or a terminal's master.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) stream: Stream,
    /// Watched by epoll; not while a reader that must not be lost is slow.
    pub(crate) watched: bool,
}

/// The way to a container's standard input.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) fd: OwnedFd,
    pub(crate) token: u64,
    /// Bytes that did not fit yet.
    pub(crate) queue: VecDeque<u8>,
    /// Close once the queue is empty.
    pub(crate) close: bool,
    pub(crate) watched: bool,
}

/// A running container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: Record,
    pub(crate) pidfd: OwnedFd,
    pub(crate) pidfd_token: u64,
    /// Until its program runs: the launch, its token, and whom to tell.
    pub(crate) launching: Option<(Launching, u64)>,
    pub(crate) starter: Option<u64>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) master: Option<OwnedFd>,
    pub(crate) input: Option<Input>,
    pub(crate) journal: Option<Writer>,
    /// Bytes the journal could not take.
    pub(crate) lost: u64,
    /// Connections: attached, waiting for the end, owning.
    pub(crate) attached: Vec<u64>,
    pub(crate) waiting: Vec<u64>,
    pub(crate) owner: Option<u64>,
    pub(crate) size: Option<(u16, u16)>,
    /// Notes the phases of its start, if that was asked for.
    pub(crate) trace: Recorder,
    /// What is told to those who look for it; a successor does not have it.
    pub(crate) known: Option<Known>,
}

impl Container {
    /// A container without streams, starter or clients.
    pub(crate) fn new(
        record: Record,
        pidfd: OwnedFd,
        pidfd_token: u64,
        journal: Option<Writer>,
    ) -> Self {
        Self {
            record,
            pidfd,
            pidfd_token,
            launching: None,
            starter: None,
            outputs: Vec::new(),
            master: None,
            input: None,
            journal,
            lost: 0,
            attached: Vec::new(),
            waiting: Vec::new(),
            owner: None,
            size: None,
            trace: Recorder::default(),
            known: None,
        }
    }
}

/// A process started by `exec`.
#[derive(Debug)]
pub(crate) struct ExecProcess {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) pidfd: OwnedFd,
    pub(crate) pid: i32,
    pub(crate) launching: Option<(Launching, u64)>,
    pub(crate) master: Option<OwnedFd>,
    pub(crate) client: Option<u64>,
    pub(crate) size: Option<(u16, u16)>,
    /// See [`crate::protocol::ExecReport`].
    pub(crate) note: Option<String>,
}

/// Ends of the streams made for a container.
pub(crate) struct Streams {
    /// For the container.
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) out: Option<OwnedFd>,
    pub(crate) err: Option<OwnedFd>,
    pub(crate) input: Option<OwnedFd>,
}

/// Path of a named pipe of a container.
pub(crate) fn pipe_path(io_dir: &Path, id: &str, which: &str) -> PathBuf {
    io_dir.join(format!("{id}.{which}"))
}

/// Takes a container's pipes away; those that are not there are passed over.
pub(crate) fn remove_pipes(io_dir: &Path, id: &str) {
    for which in ["out", "err"] {
        let _ = std::fs::remove_file(pipe_path(io_dir, id, which));
    }
}

/// Makes the three streams. Output goes through named pipes that the container holds
/// open for reading too: so it can write even while no keeper lives, and the next keeper
/// finds the pipe by its name.
pub(crate) fn streams(io_dir: &Path, id: &str, input: bool, quiet: bool) -> io::Result<Streams> {
    let null = || -> io::Result<OwnedFd> {
        Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    };
    let (stdin, input) = if input {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    if quiet {
        return Ok(Streams { theirs: [stdin, null()?, null()?], out: None, err: None, input });
    }
    let (out, stdout) = named_pipe(&pipe_path(io_dir, id, "out"))?;
    let (err, stderr) = named_pipe(&pipe_path(io_dir, id, "err"))?;
    Ok(Streams { theirs: [stdin, stdout, stderr], out: Some(out), err: Some(err), input })
}

/// Makes a named pipe; our end (not blocking) and the container's.
fn named_pipe(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let _ = std::fs::remove_file(path);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let ours = open_pipe(path)?;
    let theirs = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok((ours, theirs))
}

/// Opens the keeper's end of a named pipe.
pub(crate) fn open_pipe(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Sets the size of a terminal.
pub(crate) fn set_size(master: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

impl Container {
    /// Names and descriptors for the standby.
    pub(crate) fn to_hold(&self) -> (Vec<String>, Vec<BorrowedFd<'_>>) {
        let id = &self.record.id;
        let mut keys = vec![format!("{id}/pidfd")];
        let mut fds = vec![self.pidfd.as_fd()];
        if let Some(master) = &self.master {
            keys.push(format!("{id}/master"));
            fds.push(master.as_fd());
        } else {
            for output in &self.outputs {
                keys.push(format!("{id}/{}", output.stream.name()));
                fds.push(output.fd.as_fd());
            }
            if let Some(input) = &self.input {
                keys.push(format!("{id}/stdin"));
                fds.push(input.fd.as_fd());
            }
        }
        (keys, fds)
    }
}
