//! What the engine's processes say to the keeper and hear from it.
//!
//! A Unix stream socket, `keeper.sock` in the run root. Everything is a frame: eight
//! bytes of head (kind, three zeros, length in network order), then the body. The kinds
//! 0 to 2 are Docker's own for attached streams; kind 3 is a JSON message of this page.
//! Descriptors ride with the first byte of the frame they belong to. One request a
//! connection; after `Start` with attach, `Attach` or `Exec` it goes on as a stream.
//! `docs/protocol-keeper.md` specifies it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::journal::Bound;

/// Version of the protocol; a keeper answers only its own.
pub const VERSION: u32 = 1;
/// Length of a frame's head.
pub const HEAD: usize = 8;
/// The longest body of a message; a plan with a very large environment fits.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Descriptors one message may carry; the kernel's own bound.
pub const MAX_FDS: usize = 253;

/// Kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the container's standard input; an empty one closes it.
    Stdin,
    /// From standard output, or the terminal.
    Stdout,
    /// From standard error.
    Stderr,
    /// A JSON message.
    Message,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Kind::Stdin,
            1 => Kind::Stdout,
            2 => Kind::Stderr,
            3 => Kind::Message,
            _ => return None,
        })
    }
}

/// Head of a frame.
pub fn head(kind: Kind, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, 0, 0, 0, a, b, c, d]
}

/// Takes the first whole frame off `buffer`. `Err`: what came is not this protocol.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<(Kind, Vec<u8>)>, Malformed> {
    let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
    let [kind, z1, z2, z3, a, b, c, d] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let kind = Kind::from_byte(kind).ok_or(Malformed)?;
    if [z1, z2, z3] != [0; 3] || length > MAX_BODY {
        return Err(Malformed);
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    let rest = buffer.split_off(HEAD + length);
    let mut frame = std::mem::replace(buffer, rest);
    frame.drain(..HEAD);
    Ok(Some((kind, frame)))
}

/// The other side does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame")]
pub struct Malformed;

/// What is asked of the keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Start a container.
    Start(Box<Start>),
    /// The caller is about to make this cgroup for a start: what an earlier run left there is none of
    /// the keeper's business any more. A `Start` may follow on the same connection.
    Cgroup {
        /// The container's cgroup.
        cgroup: CgroupRef,
    },
    /// Give out the mount of an image's files, if a running container has it. A `Start` may
    /// follow on the same connection.
    Image {
        /// Chain ID of its layers, in hexadecimal.
        chain: String,
    },
    /// Run a further process in a running one.
    Exec(Box<Exec>),
    /// Tell what the start of the running container of this name, or this id, gave as [`Known`]. An `Exec` may
    /// follow on the same connection.
    Find {
        /// Its name when it was started, or its whole id.
        name: String,
        /// The data root it must be of.
        data_root: PathBuf,
    },
    /// A container gets another name: it is not found by `Find` any more, by no name.
    Forget {
        /// Which.
        id: String,
    },
    /// Make the streams of a container that another runtime will start; its ends come
    /// back as descriptors. `Adopt` follows on the same connection.
    Streams {
        /// Container.
        id: String,
        /// Keep standard input open.
        open_stdin: bool,
        /// Output goes nowhere.
        quiet: bool,
    },
    /// Hold a container whose process another runtime has made.
    Adopt(Box<Adopt>),
    /// Take part in a container's streams.
    Attach(Attach),
    /// Answer when the container has ended.
    Wait {
        /// Which.
        id: String,
    },
    /// Change the size of a terminal.
    Resize {
        /// Container, or exec.
        id: String,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// What runs: all of it, or of one container.
    List {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// Hear of every start and end from now on.
    Subscribe,
    /// Start the name server of containers' networks unless it runs.
    Names,
    /// Who the keeper is.
    Status,
}

/// A request with the version of the protocol and the roles of its descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// `VERSION` of the sender.
    pub version: u32,
    /// What each descriptor is, in order.
    #[serde(default)]
    pub fds: Vec<Role>,
    /// The request.
    pub request: Request,
}

/// What a descriptor is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Detached mount of the root filesystem.
    Rootfs,
    /// Detached mount of the image's files, which the root filesystem lies upon; kept for
    /// further containers of that image as long as one runs.
    Image,
    /// Detached mount for the spec's mount of this number.
    Mount(usize),
    /// Namespace to join, by its OCI name.
    Namespace(runtime::plan::Namespace),
    /// Standard input, output or error, given by the caller.
    Stdio(u8),
    /// Master of a terminal that another runtime made.
    Console,
    /// Refers to the process another runtime made.
    Process,
}

/// Where a container's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// Nowhere; with nobody attached the streams are `/dev/null`.
    None,
    /// Into the caller's own descriptors, roles `Stdio`.
    Passthrough,
    /// Into a journal.
    Journal {
        /// Its path.
        path: PathBuf,
        /// Its bound.
        bound: Bound,
    },
}

/// Start a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// Its id.
    pub id: String,
    /// What its first process does.
    pub plan: runtime::plan::Plan,
    /// Its cgroup, made by the caller.
    pub cgroup: Option<CgroupRef>,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Close standard input with the first attached client.
    pub stdin_once: bool,
    /// Where its output goes.
    pub log: Log,
    /// Attach this connection before it runs.
    pub attach: Option<Attach>,
    /// Terminal size, rows and columns.
    pub size: Option<(u16, u16)>,
    /// Somebody must act when it ends: remove it, start it again.
    pub steward_at_exit: bool,
    /// The steward must act when it ends, even if its starter is there.
    #[serde(default)]
    pub steward_always: bool,
    /// Somebody must act while it runs: check its health.
    pub steward_now: bool,
    /// This connection will do what must be done at the end, as long as it lasts.
    pub owner: bool,
    /// Chain ID of the image whose mount is given as role `Image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What is told to those who `Find` it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// What a command must know of a running container to run a process in it, so that it need not look into the
/// database first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// The data root it is of.
    pub data_root: PathBuf,
    /// Bytes of the run root's file `renames` before the name was looked up: who renames a container makes it longer,
    /// and then says `Forget`, before the database has the new name. So a name that came too late is not kept.
    pub renames: u64,
    /// The engine's; the keeper does not look into it.
    pub facts: String,
}

/// Hold a container whose process another runtime has made. Roles: `Process`, and
/// `Console` with a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// Its id.
    pub id: String,
    /// Pid on the host.
    pub pid: i32,
    /// Start time of that pid, clock ticks after boot.
    pub start_time: u64,
    /// Its cgroup.
    pub cgroup: Option<CgroupRef>,
    /// It has a terminal.
    pub tty: bool,
    /// Close standard input with the first attached client.
    pub stdin_once: bool,
    /// Where its output goes.
    pub log: Log,
    /// Attach this connection.
    pub attach: Option<Attach>,
    /// Terminal size, rows and columns.
    pub size: Option<(u16, u16)>,
    /// See [`Start`].
    pub steward_at_exit: bool,
    /// See [`Start`].
    #[serde(default)]
    pub steward_always: bool,
    /// See [`Start`].
    pub steward_now: bool,
    /// See [`Start`].
    pub owner: bool,
}

/// A cgroup the caller made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRef {
    /// Path below the root of each hierarchy, without a slash in front.
    pub path: String,
}

/// Run a further process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// Container.
    pub id: String,
    /// The exec's own id.
    pub exec_id: String,
    /// What it does.
    pub plan: runtime::launch::ExecPlan,
    /// Give it a terminal; its master comes back with `Started`.
    pub tty: bool,
    /// Terminal size, rows and columns.
    pub size: Option<(u16, u16)>,
    /// With it the start and the end are reported; see [`ExecReport`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Take part in a container's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Container.
    pub id: String,
    /// Write to its standard input.
    pub stdin: bool,
    /// Hear its standard output.
    pub stdout: bool,
    /// Hear its standard error.
    pub stderr: bool,
    /// See [`Start`]; for a client that comes back.
    #[serde(default)]
    pub owner: bool,
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Message {
    /// It runs. With a terminal's master as descriptor for an exec that asked for one.
    Started {
        /// Pid on the host.
        pid: i32,
        /// Start time of that pid, clock ticks after boot.
        start_time: u64,
        /// Nanoseconds since 1970.
        at: i64,
        /// Things a person may want to know.
        notes: Vec<String>,
        /// The start of an exec has been reported; see [`ExecReport`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reported: bool,
        /// The phases of a start that asked for them, the keeper's and the child's.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        trace: Vec<runtime::trace::Phase>,
    },
    /// Attached.
    Attached {
        /// Nanoseconds since 1970: what the container wrote later comes over this connection.
        at: i64,
    },
    /// The container's ends of its streams, as three descriptors.
    Streams,
    /// The answer to `Image`, with the mount as descriptor if it is held.
    Image {
        /// It is.
        held: bool,
    },
    /// The answer to `Find`.
    Found {
        /// The container, if it runs and is known.
        container: Option<Found>,
    },
    /// It has ended.
    Exited(Exit),
    /// What runs, in answer to `List`.
    Running {
        /// One entry a container.
        containers: Vec<Running>,
    },
    /// Somebody's life changed, to subscribers.
    Notice {
        /// Container.
        id: String,
        /// `start` or `die`.
        action: String,
    },
    /// Done; nothing more to say.
    Done,
    /// Who the keeper is.
    Status {
        /// Its pid.
        pid: i32,
        /// The standby's pid.
        standby: i32,
        /// Containers it holds.
        containers: usize,
    },
    /// It could not be done.
    Failed {
        /// Exit code a command should have: 125, 126, 127.
        code: u8,
        /// No such container or exec.
        #[serde(default)]
        not_found: bool,
        /// One line.
        message: String,
    },
}

/// How a container ended; also the content of its file in `exits/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Container.
    pub id: String,
    /// 0 to 255; 128 and the signal's number if one killed it.
    pub code: i32,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
    /// Nobody could say how it ended; `code` is then 255.
    #[serde(default)]
    pub unknown: bool,
    /// When that run had begun; tells two runs apart.
    pub started_at: i64,
}

/// That an exec has begun or ended; the content of a file in `exits/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReport {
    /// The exec.
    pub exec: String,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// How it ended, as a container's code; `None` if it has begun.
    pub code: Option<i32>,
    /// What was given with [`Exec`]; only the engine reads it.
    pub note: String,
}

/// How the names of the reports of execs begin; those of containers are ids.
pub(crate) const EXEC_REPORT: &str = "exec.";

impl ExecReport {
    /// The report's file. An exec has two, and no two execs have one name.
    pub fn file_name(&self) -> String {
        let what = if self.code.is_some() { "die" } else { "start" };
        format!("{EXEC_REPORT}{}.{what}", self.exec)
    }
}

/// A running container that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Pid of its first process on the host.
    pub pid: i32,
    /// Start time of that pid, clock ticks after boot.
    pub start_time: u64,
    /// See [`Known`].
    pub facts: String,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Container.
    pub id: String,
    /// Pid on the host.
    pub pid: i32,
    /// Start time of that pid, clock ticks after boot.
    pub start_time: u64,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// Running execs.
    pub execs: BTreeMap<String, i32>,
}

/// Sends bytes and descriptors, waiting until all are gone. For blocking sockets.
pub fn send_all(
    socket: BorrowedFd<'_>,
    mut bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut fds = fds;
    while !bytes.is_empty() {
        match send_some(socket, bytes, fds) {
            Ok(sent) => {
                bytes = bytes.get(sent..).unwrap_or_default();
                fds = &[];
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(socket, rustix::event::PollFlags::OUT)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Waits until a socket is ready.
pub fn wait_for(socket: BorrowedFd<'_>, flags: rustix::event::PollFlags) -> io::Result<()> {
    let mut poll = [rustix::event::PollFd::from_borrowed_fd(socket, flags)];
    loop {
        match rustix::event::poll(&mut poll, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// One `sendmsg`.
pub fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let iov = [io::IoSlice::new(bytes)];
    if fds.is_empty() {
        return rustix::net::sendmsg(
            socket,
            &iov,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        );
    }
    if fds.len() > MAX_FDS {
        return Err(Errno::TOOBIG);
    }
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::net::sendmsg(socket, &iov, &mut control, SendFlags::NOSIGNAL)
}

/// One `recvmsg`: appends to `buffer` and `fds`; the number of bytes, 0 at the end.
pub fn recv_some(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut block = [0u8; 32 * 1024];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [io::IoSliceMut::new(&mut block)];
    let got = rustix::net::recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        // Descriptors were dropped by the kernel, for our limit of open files.
        return Err(Errno::MFILE);
    }
    buffer.extend_from_slice(block.get(..got.bytes).unwrap_or_default());
    Ok(got.bytes)
}

/// A message as a frame.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Types of this page always serialise; an empty body is refused by the other side.
    let body = serde_json::to_vec(message).unwrap_or_default();
    let mut frame = head(Kind::Message, body.len()).to_vec();
    frame.extend_from_slice(&body);
    frame
}

/// Sends a request with its descriptors.
pub fn send_request(
    socket: &OwnedFd,
    request: Request,
    fds: Vec<(Role, OwnedFd)>,
) -> io::Result<()> {
    let (roles, fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
    let frame = encode(&Envelope { version: VERSION, fds: roles, request });
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    send_all(socket.as_fd(), &frame, &borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_one_by_one() {
        let mut bytes = Vec::new();
        for (kind, body) in
            [(Kind::Stdout, &b"abc"[..]), (Kind::Stdin, b""), (Kind::Message, b"{}")]
        {
            bytes.extend_from_slice(&head(kind, body.len()));
            bytes.extend_from_slice(body);
        }
        bytes.pop();
        assert_eq!(take_frame(&mut bytes), Ok(Some((Kind::Stdout, b"abc".to_vec()))));
        assert_eq!(take_frame(&mut bytes), Ok(Some((Kind::Stdin, Vec::new()))));
        assert_eq!(take_frame(&mut bytes), Ok(None));
        bytes.push(b'}');
        assert_eq!(take_frame(&mut bytes), Ok(Some((Kind::Message, b"{}".to_vec()))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            while let Ok(Some(_)) = take_frame(&mut bytes) {}
        }
    }
}
