//! The server: sockets, questions under way, time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::message::{
    self, A, AAAA, ANY, Code, PTR, Query, Record, read_answer, reverse_address, set_id, truncate,
};
use super::table::{Found, Names};
use crate::error::{Error, Result};

/// How much at once, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Questions that wait for upstream servers; more are refused.
    pub pending: usize,
    /// The same for one address that asks.
    pub pending_each: usize,
    /// TCP connections; more are closed.
    pub connections: usize,
    /// How long an upstream server may take before the next one is asked.
    pub upstream: Duration,
    /// How long a TCP connection may be silent.
    pub idle: Duration,
    /// How long an upstream server that failed is asked last.
    pub avoid: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 512,
            pending_each: 128,
            connections: 128,
            upstream: Duration::from_secs(2),
            idle: Duration::from_secs(10),
            avoid: Duration::from_secs(10),
        }
    }
}

/// The largest question over TCP; ordinary ones have less than 300 bytes.
const QUESTION_LIMIT: usize = 4096;
/// Answers that a TCP client has not taken yet; nothing more is read from it until it does.
const OUTPUT_LIMIT: usize = 128 * 1024;
/// Questions of one TCP client under way at once.
const PIPELINE: usize = 16;
/// Datagrams or connections taken from one socket before the others get their turn.
const TURN: usize = 64;

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
enum Client {
    Udp { socket: u64, to: SocketAddr, limit: usize },
    Tcp { connection: u64, from: IpAddr },
}

impl Client {
    fn address(&self) -> IpAddr {
        match self {
            Self::Udp { to, .. } => to.ip(),
            Self::Tcp { from, .. } => *from,
        }
    }
}

/// A question that upstream servers are asked.
#[derive(Debug)]
struct Pending {
    client: Client,
    query: Query,
    /// The question with the client's number.
    asked: Vec<u8>,
    /// The number upstream servers see.
    id: u16,
    /// Who is still to be asked; the first is being asked.
    servers: VecDeque<SocketAddr>,
    transport: Option<Transport>,
    /// A server's answer that says it failed: better than none of ours.
    refusal: Option<Vec<u8>>,
    deadline: Instant,
}

#[derive(Debug)]
enum Transport {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, out: Vec<u8>, sent: usize, answer: Vec<u8> },
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    peer: IpAddr,
    scope: u64,
    input: Vec<u8>,
    out: Vec<u8>,
    /// Questions under way.
    waiting: usize,
    /// Nothing more will come.
    ended: bool,
    deadline: Instant,
}

#[derive(Debug)]
enum Entry {
    Udp { socket: UdpSocket, scope: u64 },
    Listener { socket: TcpListener, scope: u64 },
    Connection(Box<Connection>),
    Pending(Box<Pending>),
}

/// A name server.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    entries: HashMap<u64, Entry>,
    deadlines: BTreeSet<(Instant, u64)>,
    limits: Limits,
    next: u64,
    turn: usize,
    pending: HashMap<IpAddr, usize>,
    connections: usize,
    /// Upstream servers that failed, and until when they are asked last.
    avoid: HashMap<SocketAddr, Instant>,
    buffer: Vec<u8>,
}

fn system(action: &str, error: &std::io::Error) -> Error {
    Error::kernel(action, Errno::from_io_error(error).unwrap_or(Errno::IO))
}

impl Server {
    /// Without sockets.
    pub fn new(limits: Limits) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| Error::kernel("create an epoll descriptor", e))?;
        Ok(Self {
            epoll,
            entries: HashMap::new(),
            deadlines: BTreeSet::new(),
            limits,
            next: 0,
            turn: 0,
            pending: HashMap::new(),
            connections: 0,
            avoid: HashMap::new(),
            buffer: vec![0; 65_535],
        })
    }

    /// Answers on a UDP socket; who asks there is in the network `scope`. Returns what
    /// [`Self::remove`] wants.
    pub fn add_udp(&mut self, socket: UdpSocket, scope: u64) -> Result<u64> {
        socket.set_nonblocking(true).map_err(|e| system("prepare a socket", &e))?;
        self.insert(Entry::Udp { socket, scope }, epoll::EventFlags::IN)
    }

    /// Answers on a TCP socket that listens.
    pub fn add_tcp(&mut self, socket: TcpListener, scope: u64) -> Result<u64> {
        socket.set_nonblocking(true).map_err(|e| system("prepare a socket", &e))?;
        self.insert(Entry::Listener { socket, scope }, epoll::EventFlags::IN)
    }

    /// Stops answering on a socket, and closes it.
    pub fn remove(&mut self, token: u64) {
        if matches!(self.entries.get(&token), Some(Entry::Udp { .. } | Entry::Listener { .. })) {
            self.entries.remove(&token);
        }
    }

    /// How many questions wait for upstream servers.
    pub fn pending(&self) -> usize {
        self.pending.values().sum()
    }

    /// Waits until something happens, at most for `timeout`, and does all there is to do. The
    /// descriptor of [`AsFd`] is readable when there is, so another loop can call this.
    pub fn step(&mut self, names: &mut dyn Names, timeout: Duration) -> Result<()> {
        let now = Instant::now();
        let until = self.deadlines.first().map_or(timeout, |(at, _)| {
            // A little late rather than once too often.
            timeout.min(at.saturating_duration_since(now) + Duration::from_millis(1))
        });
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 64];
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(until.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: until.subsec_nanos().into(),
        };
        let count = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(e) => return Err(Error::kernel("wait for questions", e)),
        };
        for event in events.iter().take(count) {
            let (token, flags) = (event.data.u64(), event.flags);
            match self.entries.get(&token) {
                Some(Entry::Udp { .. }) => self.read_udp(token, names),
                Some(Entry::Listener { .. }) => self.accept(token),
                // Both directions have ended: nobody is there to be answered.
                Some(Entry::Connection(_))
                    if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) =>
                {
                    self.close(token);
                }
                Some(Entry::Connection(_)) => self.serve(token, names),
                Some(Entry::Pending(_)) => self.progress(token),
                None => {}
            }
        }
        let now = Instant::now();
        while let Some((at, token)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, token));
            match self.entries.get(&token) {
                Some(Entry::Connection(_)) => self.close(token),
                Some(Entry::Pending(_)) => self.next_server(token, true),
                _ => {}
            }
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry, flags: epoll::EventFlags) -> Result<u64> {
        let token = self.next;
        self.next += 1;
        let fd = match &entry {
            Entry::Udp { socket, .. } => socket.as_fd(),
            Entry::Listener { socket, .. } => socket.as_fd(),
            Entry::Connection(connection) => connection.stream.as_fd(),
            // Its sockets come and go.
            Entry::Pending(_) => {
                self.entries.insert(token, entry);
                return Ok(token);
            }
        };
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)
            .map_err(|e| Error::kernel("wait for a socket", e))?;
        self.entries.insert(token, entry);
        Ok(token)
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, flags: epoll::EventFlags) -> bool {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags).is_ok()
    }

    fn read_udp(&mut self, token: u64, names: &mut dyn Names) {
        for _ in 0..TURN {
            let Some(Entry::Udp { socket, scope }) = self.entries.get(&token) else { return };
            let scope = *scope;
            let (length, to) = match socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                // Errors are those of earlier answers.
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let asked = self.buffer.get(..length).unwrap_or_default().to_vec();
            let limit = Query::read(&asked).map_or(message::UDP_LIMIT, |query| query.udp_limit());
            self.question(scope, Client::Udp { socket: token, to, limit }, asked, names);
        }
    }

    fn accept(&mut self, token: u64) {
        for _ in 0..TURN {
            let Some(Entry::Listener { socket, scope }) = self.entries.get(&token) else { return };
            let scope = *scope;
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(_) => return,
            };
            if self.connections >= self.limits.connections || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            _ = stream.set_nodelay(true);
            let deadline = Instant::now() + self.limits.idle;
            let connection = Connection {
                stream,
                peer: peer.ip(),
                scope,
                input: Vec::new(),
                out: Vec::new(),
                waiting: 0,
                ended: false,
                deadline,
            };
            let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
            if let Ok(token) = self.insert(Entry::Connection(Box::new(connection)), flags) {
                self.connections += 1;
                self.deadlines.insert((deadline, token));
            }
        }
    }

    fn close(&mut self, token: u64) {
        if let Some(Entry::Connection(connection)) = self.entries.remove(&token) {
            self.deadlines.remove(&(connection.deadline, token));
            self.connections = self.connections.saturating_sub(1);
        }
    }

    /// A TCP client: takes what it sends, sends what it is to get.
    fn serve(&mut self, token: u64, names: &mut dyn Names) {
        loop {
            let limit = Instant::now() + self.limits.idle;
            let Some(Entry::Connection(connection)) = self.entries.get_mut(&token) else { return };
            if flush(&mut connection.stream, &mut connection.out).is_err() {
                return self.close(token);
            }
            // Whole questions first, then more bytes.
            let size = match connection.input.get(..2) {
                Some(head) => usize::from(u16::from_be_bytes([head[0], head[1]])) + 2,
                None => 2,
            };
            if size > QUESTION_LIMIT {
                return self.close(token);
            }
            let busy = connection.waiting >= PIPELINE || connection.out.len() > OUTPUT_LIMIT;
            if !busy && size > 2 && connection.input.len() >= size {
                let rest = connection.input.split_off(size);
                let mut asked = std::mem::replace(&mut connection.input, rest);
                asked.drain(..2);
                let (scope, from) = (connection.scope, connection.peer);
                connection.waiting += 1;
                let old = std::mem::replace(&mut connection.deadline, limit);
                self.deadlines.remove(&(old, token));
                self.deadlines.insert((limit, token));
                self.question(scope, Client::Tcp { connection: token, from }, asked, names);
                continue;
            }
            if size == 2 && connection.input.len() >= 2 {
                // Of no bytes: not a question.
                return self.close(token);
            }
            if busy || connection.ended {
                break;
            }
            let mut piece = [0; 2048];
            match connection.stream.read(&mut piece) {
                Ok(0) => connection.ended = true,
                Ok(length) => {
                    connection.input.extend_from_slice(piece.get(..length).unwrap_or_default());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(token),
            }
        }
        let Some(Entry::Connection(connection)) = self.entries.get_mut(&token) else { return };
        if connection.ended && connection.waiting == 0 && connection.out.is_empty() {
            return self.close(token);
        }
        let busy = connection.waiting >= PIPELINE || connection.out.len() > OUTPUT_LIMIT;
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, !busy && !connection.ended);
        flags.set(epoll::EventFlags::OUT, !connection.out.is_empty());
        let data = epoll::EventData::new_u64(token);
        if epoll::modify(&self.epoll, &connection.stream, data, flags).is_err() {
            self.close(token);
        }
    }

    fn question(&mut self, scope: u64, client: Client, asked: Vec<u8>, names: &mut dyn Names) {
        let query = match Query::read(&asked) {
            Ok(query) => query,
            Err(_) => {
                // An answer is not answered, or two servers could talk for ever.
                let answer = match asked.get(..3) {
                    Some([high, low, flags]) if flags & 0x80 == 0 => {
                        let malformed = 0x80 | Code::Malformed as u8;
                        vec![*high, *low, 0x80, malformed, 0, 0, 0, 0, 0, 0, 0, 0]
                    }
                    _ => Vec::new(),
                };
                return self.deliver(client, answer);
            }
        };
        let limit = match client {
            Client::Udp { limit, .. } => limit,
            Client::Tcp { .. } => 65_535,
        };
        if !query.is_ordinary() {
            let answer = query.answer(&asked, Code::NotImplemented, &[], 0, limit);
            return self.deliver(client, answer);
        }
        if let Some((code, records)) = self.own(scope, &query, names) {
            // Containers come and go: nobody should remember.
            const TTL: u32 = 5;
            return self.deliver(client, query.answer(&asked, code, &records, TTL, limit));
        }
        let mut servers = names.upstreams(scope);
        let now = Instant::now();
        self.avoid.retain(|_, until| *until > now);
        servers.sort_by_key(|server| self.avoid.contains_key(server));
        if servers.is_empty() {
            let code = if query.name.contains('.') { Code::Failed } else { Code::NoSuchName };
            return self.deliver(client, query.answer(&asked, code, &[], 0, limit));
        }
        let each = self.pending.get(&client.address()).copied().unwrap_or(0);
        let id = random();
        if self.pending() >= self.limits.pending || each >= self.limits.pending_each || id.is_none()
        {
            return self.deliver(client, query.answer(&asked, Code::Refused, &[], 0, limit));
        }
        *self.pending.entry(client.address()).or_default() += 1;
        let pending = Pending {
            client,
            query,
            asked,
            id: id.unwrap_or_default(),
            servers: servers.into(),
            transport: None,
            refusal: None,
            deadline: now,
        };
        if let Ok(token) = self.insert(Entry::Pending(Box::new(pending)), epoll::EventFlags::IN) {
            self.ask(token);
        }
    }

    /// What we know ourselves; nothing if others are to be asked.
    fn own(
        &mut self,
        scope: u64,
        query: &Query,
        names: &mut dyn Names,
    ) -> Option<(Code, Vec<Record>)> {
        if query.kind == PTR
            && let Some(address) = reverse_address(&query.name)
        {
            let found = names.names(scope, address);
            let records: Vec<_> = found.into_iter().map(Record::Name).collect();
            return (!records.is_empty()).then_some((Code::Ok, records));
        }
        match names.addresses(scope, &query.name) {
            Found::Elsewhere => None,
            Found::NoSuchName => Some((Code::NoSuchName, Vec::new())),
            Found::Addresses(mut addresses) => {
                addresses.retain(|address| match query.kind {
                    A => address.is_ipv4(),
                    AAAA => address.is_ipv6(),
                    ANY => true,
                    _ => false,
                });
                // Another one first each time: most who ask take the first.
                if !addresses.is_empty() {
                    self.turn = self.turn.wrapping_add(1);
                    let first = self.turn % addresses.len();
                    addresses.rotate_left(first);
                }
                Some((Code::Ok, addresses.into_iter().map(Record::Address).collect()))
            }
        }
    }

    /// Asks the first of the servers over UDP.
    fn ask(&mut self, token: u64) {
        let deadline = Instant::now() + self.limits.upstream;
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        let Some(server) = pending.servers.front().copied() else { return self.give_up(token) };
        self.deadlines.remove(&(pending.deadline, token));
        pending.deadline = deadline;
        self.deadlines.insert((deadline, token));
        let any: SocketAddr =
            if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        // A socket for each question: its port is as hard to guess as its number, and nobody but the
        // server asked can answer.
        let mut question = pending.asked.clone();
        set_id(&mut question, pending.id);
        let socket = UdpSocket::bind(any).and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            socket.send(&question)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) if self.watch(socket.as_fd(), token, epoll::EventFlags::IN) => {
                if let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) {
                    pending.transport = Some(Transport::Udp(socket));
                }
            }
            _ => self.next_server(token, true),
        }
    }

    /// Asks the same server again over TCP.
    fn ask_tcp(&mut self, token: u64) {
        let deadline = Instant::now() + self.limits.upstream;
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        let Some(server) = pending.servers.front().copied() else { return self.give_up(token) };
        self.deadlines.remove(&(pending.deadline, token));
        pending.deadline = deadline;
        self.deadlines.insert((deadline, token));
        let length = u16::try_from(pending.asked.len()).unwrap_or(0);
        let mut out = [&length.to_be_bytes()[..], &pending.asked].concat();
        set_id(out.get_mut(2..).unwrap_or_default(), pending.id);
        let stream = connect(server);
        match stream {
            Ok(stream)
                if self.watch(
                    stream.as_fd(),
                    token,
                    epoll::EventFlags::IN | epoll::EventFlags::OUT,
                ) =>
            {
                if let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) {
                    pending.transport =
                        Some(Transport::Tcp { stream, out, sent: 0, answer: Vec::new() });
                }
            }
            _ => self.next_server(token, true),
        }
    }

    /// Something came from an upstream server, or can go there.
    fn progress(&mut self, token: u64) {
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        match &mut pending.transport {
            None => {}
            Some(Transport::Udp(socket)) => match socket.recv(&mut self.buffer) {
                Ok(length) => {
                    let answer = self.buffer.get(..length).unwrap_or_default().to_vec();
                    self.answered(token, answer, false);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // Nobody there.
                Err(_) => self.next_server(token, true),
            },
            Some(Transport::Tcp { stream, out, sent, answer }) => {
                while let Some(rest) = out.get(*sent..).filter(|rest| !rest.is_empty()) {
                    match stream.write(rest) {
                        Ok(length) => *sent += length,
                        Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                        Err(_) => return self.next_server(token, true),
                    }
                }
                if !out.is_empty() {
                    out.clear();
                    *sent = 0;
                    let data = epoll::EventData::new_u64(token);
                    _ = epoll::modify(&self.epoll, &*stream, data, epoll::EventFlags::IN);
                }
                loop {
                    let whole = answer
                        .get(..2)
                        .map(|head| usize::from(u16::from_be_bytes([head[0], head[1]])) + 2);
                    if whole.is_some_and(|whole| answer.len() >= whole) {
                        let mut answer = std::mem::take(answer);
                        answer.truncate(whole.unwrap_or_default());
                        answer.drain(..2);
                        return self.answered(token, answer, true);
                    }
                    match stream.read(&mut self.buffer) {
                        Ok(0) => return self.next_server(token, true),
                        Ok(length) => {
                            answer.extend_from_slice(self.buffer.get(..length).unwrap_or_default());
                        }
                        Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return self.next_server(token, true),
                    }
                }
            }
        }
    }

    fn answered(&mut self, token: u64, mut answer: Vec<u8>, over_tcp: bool) {
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        let Some(head) = read_answer(&answer, pending.id, &pending.query) else {
            // Over UDP somebody else may have guessed; the right one may still come.
            if over_tcp {
                self.next_server(token, true);
            }
            return;
        };
        set_id(&mut answer, pending.query.id);
        let failed = [Code::Failed, Code::Refused, Code::NotImplemented];
        if failed.iter().any(|code| *code as u8 == head.code) && pending.servers.len() > 1 {
            pending.refusal = Some(answer);
            return self.next_server(token, false);
        }
        if head.truncated && !over_tcp && matches!(pending.client, Client::Tcp { .. }) {
            pending.transport = None;
            return self.ask_tcp(token);
        }
        if let Some(server) = pending.servers.front() {
            self.avoid.remove(server);
        }
        self.finish(token, answer);
    }

    fn next_server(&mut self, token: u64, avoid: bool) {
        /// A container's list of servers is short; theirs of all containers together is bounded here.
        const AVOIDED: usize = 256;
        let until = Instant::now() + self.limits.avoid;
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        pending.transport = None;
        if let Some(server) = pending.servers.pop_front()
            && avoid
            && self.avoid.len() < AVOIDED
        {
            self.avoid.insert(server, until);
        }
        if pending.servers.is_empty() { self.give_up(token) } else { self.ask(token) }
    }

    fn give_up(&mut self, token: u64) {
        let Some(Entry::Pending(pending)) = self.entries.get_mut(&token) else { return };
        let answer = pending.refusal.take().unwrap_or_else(|| {
            pending.query.answer(&pending.asked, Code::Failed, &[], 0, message::UDP_LIMIT)
        });
        self.finish(token, answer);
    }

    fn finish(&mut self, token: u64, answer: Vec<u8>) {
        let Some(Entry::Pending(pending)) = self.entries.remove(&token) else { return };
        self.deadlines.remove(&(pending.deadline, token));
        let address = pending.client.address();
        if let Some(count) = self.pending.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pending.remove(&address);
            }
        }
        self.deliver(pending.client, answer);
    }

    /// Sends an answer; an empty one only ends the question.
    fn deliver(&mut self, client: Client, answer: Vec<u8>) {
        match client {
            Client::Udp { socket, to, limit } => {
                let Some(Entry::Udp { socket, .. }) = self.entries.get(&socket) else { return };
                // If it can't be sent it is lost, as any datagram may be.
                if answer.len() > limit {
                    _ = socket.send_to(&truncate(&answer), to);
                } else if !answer.is_empty() {
                    _ = socket.send_to(&answer, to);
                }
            }
            Client::Tcp { connection: token, .. } => {
                let Some(Entry::Connection(connection)) = self.entries.get_mut(&token) else {
                    return;
                };
                connection.waiting = connection.waiting.saturating_sub(1);
                if let Ok(length @ 1..) = u16::try_from(answer.len()) {
                    connection.out.extend(length.to_be_bytes());
                    connection.out.extend(answer);
                }
                // The connection's next turn sends it, and reads what had to wait.
                let data = epoll::EventData::new_u64(token);
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                _ = epoll::modify(&self.epoll, &connection.stream, data, flags);
            }
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn flush(stream: &mut TcpStream, out: &mut Vec<u8>) -> std::io::Result<()> {
    while !out.is_empty() {
        match stream.write(out) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => _ = out.drain(..length),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A connection that is being made.
fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(e) => Err(e.into()),
    }
}

/// A number that cannot be guessed.
fn random() -> Option<u16> {
    let mut bytes = [0; 2];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == 2).then_some(u16::from_ne_bytes(bytes))
}
