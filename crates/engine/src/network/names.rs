//! The name server's process: names of containers for containers, in networks that people made.
//!
//! It listens at 127.0.0.11 in each container's own namespace, as Docker's does, so that no address
//! of the host is taken and no firewall is in the way. It holds nothing but those sockets: each
//! question is answered from the database. A start makes the sockets and hands them over before the
//! program runs ([`Engine::hand_names_over`]), so that questions wait there until the server has come
//! to them; when it begins it goes through all containers that run.
//!
//! `names.sock` in the run root is there as long as it should run, `names.lock` is locked by the one
//! that does: another waits for its turn.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keeper::protocol::Request;
use net::dns::{Found, Limits, Names, Server};
use net::filter::{Filter, Protocol};
use net::namespace::within;
use rusqlite::{Connection, params};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FlockOperation;
use store::network;

use super::DEFAULT;
use super::files::{NAME_SERVER, upstreams};
use super::host_names::{self, Wish};
use super::resolver;
use super::start::read_wanted;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record;

/// The table of rules in a container's namespace.
const TABLE: &str = "wherry-names";
/// The port of name servers.
pub(super) const PORT: u16 = 53;
/// How long a start waits for the server.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the server looks whether what it knows is still so.
const LOOK: Duration = Duration::from_millis(500);
/// How long a namespace is served whose container has not appeared.
const GRACE: Duration = Duration::from_secs(30);
/// How long the server stays when nobody is left: as long as the keeper, so that a loop of short runs
/// does not start one each time.
const LINGER: Duration = Duration::from_secs(2);
/// How often the server looks whether somebody has written the host's `resolv.conf`.
const TEND: Duration = Duration::from_secs(5);
/// What comes in place of a container's ID when the host's own wishes have changed.
const HOST: &str = "host";
/// The number of the host's sockets; containers' begin behind it.
const HOST_SCOPE: u64 = 0;

fn failed(what: &str) -> impl Fn(std::io::Error) -> Error + use<> {
    let what = format!("name server: {what}");
    move |e| Error::system(&what, e)
}

/// Device and inode: two descriptors of one namespace have the same.
type Identity = (u64, u64);

fn identity(namespace: BorrowedFd<'_>) -> Option<Identity> {
    let stat = rustix::fs::fstat(namespace).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// A namespace that is served.
struct Entry {
    container: String,
    namespace: Identity,
    udp: u64,
    tcp: u64,
    since: Instant,
    /// The container's first process, once it is known.
    process: Option<OwnedFd>,
}

/// Sockets for questions to 127.0.0.11 of a namespace.
#[derive(Debug)]
pub(crate) struct Questions {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Questions {
    /// In the caller's namespace. They are at ports that nobody asks for, and a rule leads port 53
    /// there, so that a program of the container may have port 53 of all addresses; where the kernel
    /// can't do that, they are at port 53 itself.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind((NAME_SERVER, 0))?, TcpListener::bind((NAME_SERVER, 0))?);
        let to =
            [(Protocol::Udp, udp.local_addr()?.port()), (Protocol::Tcp, tcp.local_addr()?.port())];
        let address = NAME_SERVER.parse().map_err(std::io::Error::other)?;
        let led = Filter::open(TABLE).and_then(|filter| filter.redirect((address, PORT), &to));
        if led.is_ok() {
            return Ok(Self { udp, tcp });
        }
        let udp = UdpSocket::bind((NAME_SERVER, PORT))?;
        Ok(Self { udp, tcp: TcpListener::bind((NAME_SERVER, PORT))? })
    }
}

/// What is said when a container's namespace does not let us listen.
pub(super) fn cannot_listen(container: &str) -> impl Fn(std::io::Error) -> Error + use<> {
    failed(&format!("cannot listen at {NAME_SERVER} of container {container}"))
}

/// Answers from the database.
pub(super) struct Book<'a> {
    engine: &'a Engine,
    /// Who asks, by the number of the socket that was asked.
    scopes: HashMap<u64, String>,
    /// What the host wants, while it is served.
    host: Option<Wish>,
}

/// A network the asking container is in.
struct Place {
    network: String,
    name: String,
    links: Vec<String>,
}

impl Book<'_> {
    pub(super) fn db(&self) -> &Connection {
        self.engine.db()
    }

    fn places(&self, scope: u64) -> Result<Vec<Place>> {
        let Some(container) = self.scopes.get(&scope) else { return Ok(Vec::new()) };
        let rows = network::endpoints_of(self.db(), container)?;
        Ok(rows
            .into_iter()
            .filter(|row| row.network != DEFAULT && !row.interface.is_empty())
            .map(|row| Place {
                links: read_wanted(&row).links.unwrap_or_default(),
                network: row.network_id,
                name: row.network,
            })
            .collect())
    }

    /// Containers of a network that have this name there: their own, an alias, the short ID.
    pub(super) fn holders(&self, network: &str, name: &str) -> Result<Vec<String>> {
        let mut statement = self.db().prepare_cached(
            "SELECT e.container_id FROM endpoints e JOIN containers c ON c.id = e.container_id \
             WHERE e.network_id = ?1 AND e.interface <> '' AND (lower(c.name) = ?2 \
             OR substr(c.id, 1, 12) = ?2 OR EXISTS \
             (SELECT 1 FROM json_each(e.wanted, '$.DNSNames') WHERE lower(value) = ?2))",
        )?;
        let rows = statement.query_map(params![network, name], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub(super) fn addresses_of(&self, network: &str, container: &str) -> Result<Vec<IpAddr>> {
        let held = network::held_by(self.db(), container)?;
        Ok(held.into_iter().filter(|(id, _)| id == network).map(|(_, a)| a.address).collect())
    }

    fn look(&self, scope: u64, name: &str) -> Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        for place in self.places(scope)? {
            let mut holders = Vec::new();
            for link in &place.links {
                let (target, alias) = link.split_once(':').unwrap_or((link, link));
                if alias.eq_ignore_ascii_case(name)
                    && let Ok(target) = record::find(self.db(), target)
                {
                    holders.push(target.id);
                }
            }
            holders.extend(self.holders(&place.network, name)?);
            let lower = place.name.to_ascii_lowercase();
            let qualified = name.strip_suffix(&lower).and_then(|rest| rest.strip_suffix('.'));
            if let Some(bare) = qualified {
                holders.extend(self.holders(&place.network, bare)?);
            }
            for holder in holders {
                for address in self.addresses_of(&place.network, &holder)? {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
            }
        }
        Ok(found)
    }

    fn reverse(&self, scope: u64, address: IpAddr) -> Result<Vec<String>> {
        for place in self.places(scope)? {
            if let Some(holder) = network::holder_of(self.db(), &place.network, address)?
                && let Some(record) = record::by_id(self.db(), &holder)?
            {
                return Ok(vec![format!("{}.{}", record.name, place.name)]);
            }
        }
        Ok(Vec::new())
    }

    fn ask(&self, scope: u64) -> Result<Vec<SocketAddr>> {
        let mut way_out = false;
        for place in self.places(scope)? {
            way_out |= network::by_id(self.db(), &place.network)?.is_some_and(|n| !n.internal);
        }
        let container = self.scopes.get(&scope).map(String::as_str).unwrap_or_default();
        let Some(record) = record::by_id(self.db(), container)?.filter(|_| way_out) else {
            return Ok(Vec::new());
        };
        let servers = upstreams(&record.definition.host);
        Ok(servers.into_iter().map(|address| SocketAddr::new(address, PORT)).collect())
    }
}

impl Names for Book<'_> {
    fn addresses(&mut self, scope: u64, name: &str) -> Found {
        if let (HOST_SCOPE, Some(wish)) = (scope, &self.host) {
            return self.look_for_host(wish, name).unwrap_or(Found::Elsewhere);
        }
        match self.look(scope, name) {
            Ok(found) if found.is_empty() => Found::Elsewhere,
            Ok(found) => Found::Addresses(found),
            Err(_) => Found::Elsewhere,
        }
    }

    fn names(&mut self, scope: u64, address: IpAddr) -> Vec<String> {
        if let (HOST_SCOPE, Some(wish)) = (scope, &self.host) {
            return self.reverse_for_host(wish, address).unwrap_or_default();
        }
        self.reverse(scope, address).unwrap_or_default()
    }

    fn upstreams(&mut self, scope: u64) -> Vec<SocketAddr> {
        if scope == HOST_SCOPE {
            let servers = resolver::upstreams(resolver::detect());
            return servers.into_iter().map(|address| SocketAddr::new(address, PORT)).collect();
        }
        self.ask(scope).unwrap_or_default()
    }
}

/// The server with what it serves.
struct Process<'a> {
    engine: &'a Engine,
    server: Server,
    book: Book<'a>,
    entries: Vec<Entry>,
    next: u64,
    /// The host's sockets.
    host: Option<(u64, u64)>,
    tended: Tended,
}

/// The host's `resolv.conf` as it was left.
#[derive(Debug, PartialEq, Eq)]
struct Tended(Option<(u64, i64, i64)>);

impl Tended {
    fn now() -> Self {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(resolver::FILE).ok();
        Self(file.map(|file| (file.ino(), file.mtime(), file.mtime_nsec())))
    }
}

impl Process<'_> {
    /// Listens for the host, or no more, as it wants.
    fn serve_host(&mut self) -> Result<()> {
        let wish = self.engine.wish().filter(|wish| wish.enabled);
        let address = wish.as_ref().map(|wish| wish.address);
        if self.host.is_none() || self.book.host.as_ref().map(|wish| wish.address) != address {
            if let Some((udp, tcp)) = self.host.take() {
                self.server.remove(udp);
                self.server.remove(tcp);
            }
            if let Some(address) = address {
                let (udp, tcp) = host_names::listen(address)
                    .map_err(failed(&format!("cannot listen at {address} of the host")))?;
                let udp = self.server.add_udp(udp, HOST_SCOPE)?;
                let tcp = self.server.add_tcp(tcp, HOST_SCOPE)?;
                self.host = Some((udp, tcp));
            }
        }
        self.book.host = wish;
        Ok(())
    }

    /// Sees that the host's files say what was asked for, if somebody has written them.
    fn tend(&mut self) {
        if self.book.host.is_none() || self.tended == Tended::now() {
            return;
        }
        if let Err(e) = self.engine.tend_resolver() {
            self.engine.debug(&e.message);
        }
        self.tended = Tended::now();
    }

    /// Serves a namespace, by sockets that are there already or by new ones.
    fn add(
        &mut self,
        container: &str,
        namespace: BorrowedFd<'_>,
        questions: Option<Questions>,
    ) -> Result<()> {
        let Some(this) = identity(namespace) else {
            return Err(Error::system("name server", "no namespace came"));
        };
        if self.entries.iter().any(|e| e.container == container && e.namespace == this) {
            return Ok(());
        }
        // Of an earlier run.
        self.remove(|e| e.container == container);
        let Questions { udp, tcp } = match questions {
            Some(questions) => questions,
            None => within(namespace, Questions::listen)?.map_err(cannot_listen(container))?,
        };
        let scope = self.next;
        self.next += 1;
        self.book.scopes.insert(scope, container.to_owned());
        let udp = self.server.add_udp(udp, scope)?;
        let tcp = self.server.add_tcp(tcp, scope)?;
        self.entries.push(Entry {
            container: container.to_owned(),
            namespace: this,
            udp,
            tcp,
            since: Instant::now(),
            process: None,
        });
        Ok(())
    }

    fn remove(&mut self, gone: impl Fn(&Entry) -> bool) {
        let (leave, stay): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| gone(e));
        self.entries = stay;
        for entry in leave {
            self.server.remove(entry.udp);
            self.server.remove(entry.tcp);
            let others = self.entries.iter().any(|e| e.container == entry.container);
            if !others {
                self.book.scopes.retain(|_, container| *container != entry.container);
            }
        }
    }

    /// Finds the processes of containers that have started, and lets those go that never did.
    fn look(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        for entry in self.entries.iter_mut().filter(|e| e.process.is_none()) {
            let record = record::by_id(self.engine.db(), &entry.container)?;
            let live = record.as_ref().filter(|r| r.state.is_live());
            if let Some(record) = live
                && let Ok(process) = record.identity().open()
                && let Ok(namespace) = self.engine.namespace_of(record)
                && identity(namespace.as_fd()) == Some(entry.namespace)
            {
                entry.process = Some(process);
                continue;
            }
            // A start that failed has no reservation any more.
            let starting = network::starts(self.engine.db())?
                .iter()
                .any(|(container, ..)| *container == entry.container);
            if record.is_none() || !starting || entry.since.elapsed() > GRACE {
                gone.push(entry.namespace);
            }
        }
        self.remove(|e| gone.contains(&e.namespace) && e.process.is_none());
        Ok(())
    }

    /// Everything that runs and needs names.
    fn find_all(&mut self) -> Result<()> {
        for record in record::live_records(self.engine.db())? {
            let rows = network::endpoints_of(self.engine.db(), &record.id)?;
            if !rows.iter().any(|row| row.network != DEFAULT && !row.interface.is_empty()) {
                continue;
            }
            if record.identity().alive()
                && let Ok(namespace) = self.engine.namespace_of(&record)
            {
                // One that can't be served is no reason not to serve the others.
                if let Err(e) = self.add(&record.id, namespace.as_fd(), None) {
                    self.engine.debug(&e.message);
                }
            }
        }
        Ok(())
    }

    /// Hears one start: a container's ID with a namespace, which comes last, and with the sockets where
    /// its questions arrive, unless they are to be made.
    fn hear(&mut self, stream: &UnixStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(1))).map_err(failed("a connection"))?;
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        while !bytes.contains(&b'\n') {
            match keeper::protocol::recv_some(stream.as_fd(), &mut bytes, &mut fds) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(failed("a connection")(e.into())),
            }
            if bytes.len() > 256 {
                return Ok(());
            }
        }
        let id = String::from_utf8_lossy(&bytes).trim().to_owned();
        let namespace = fds.pop();
        let mut fds = fds.into_iter();
        let questions = fds
            .next()
            .zip(fds.next())
            .map(|(udp, tcp)| Questions { udp: UdpSocket::from(udp), tcp: TcpListener::from(tcp) });
        let answer = match namespace {
            None if id == HOST => match self.serve_host() {
                Ok(()) => "ok\n".to_owned(),
                Err(e) => format!("{}\n", e.message),
            },
            Some(namespace) => match self.add(&id, namespace.as_fd(), questions) {
                Ok(()) => "ok\n".to_owned(),
                Err(e) => format!("{}\n", e.message),
            },
            None => "no namespace came\n".to_owned(),
        };
        let mut stream = stream;
        let _ = stream.write_all(answer.as_bytes());
        Ok(())
    }
}

/// What the name server says: `ok`, what is wrong, or nothing when it has gone.
pub(super) fn hear_answer(mut stream: UnixStream) -> std::io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Engine {
    fn names_socket(&self) -> PathBuf {
        self.run_root().join("names.sock")
    }

    /// Has the name server serve a container's namespace; starts it if it does not run.
    pub(crate) fn serve_names(
        &self,
        container: &str,
        namespace: BorrowedFd<'_>,
        questions: Option<&Questions>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stream = self.reach_names(container, namespace, questions)?;
            match hear_answer(stream) {
                Ok(answer) if answer.trim() == "ok" => return Ok(()),
                Ok(answer) if !answer.is_empty() => {
                    return Err(Error::system("name server", answer.trim().to_owned()));
                }
                silence if Instant::now() > deadline => {
                    let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(failed("cannot be reached")(silence.err().unwrap_or(gone)));
                }
                // It was killed, or left, in between.
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks the name server to serve a namespace; starts it if it does not run. It answers over the
    /// connection, see [`hear_answer`].
    pub(super) fn reach_names(
        &self,
        container: &str,
        namespace: BorrowedFd<'_>,
        questions: Option<&Questions>,
    ) -> Result<UnixStream> {
        let deadline = Instant::now() + PATIENCE;
        let mut called = Instant::now();
        let mut first = true;
        loop {
            match self.ask_names(container, namespace, questions) {
                Ok(stream) => return Ok(stream),
                Err(e) if Instant::now() > deadline => {
                    return Err(failed("cannot be reached")(e));
                }
                Err(_) => {}
            }
            // At first somebody has called it; it is on its way, or was killed there.
            let long = if first { 20 } else { 200 };
            if called.elapsed() > Duration::from_millis(long) {
                self.keeper().connect()?.ask(Request::Names, Vec::new())?;
                (called, first) = (Instant::now(), false);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Has the name server started if it does not run, without waiting for it.
    pub(super) fn call_names(&self) -> Result<()> {
        if UnixStream::connect(self.names_socket()).is_err() {
            self.keeper().connect()?.request(Request::Names, Vec::new())?;
        }
        Ok(())
    }

    /// Tells the name server, if it runs, that the host's wishes have changed.
    pub(super) fn tell_names_of_host(&self) -> Result<()> {
        let mut stream = UnixStream::connect(self.names_socket()).map_err(failed("its socket"))?;
        let answer = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.write_all(format!("{HOST}\n").as_bytes()))
            .and_then(|()| hear_answer(stream))
            .map_err(failed("does not answer"))?;
        match answer.trim() {
            "ok" => Ok(()),
            answer => Err(Error::system("name server", answer.to_owned())),
        }
    }

    /// Starts the name server and waits until it serves the host.
    pub(super) fn await_name_server(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.keeper().connect()?.ask(Request::Names, Vec::new())?;
        loop {
            match self.tell_names_of_host() {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Asks the name server to serve a namespace, if it runs.
    fn ask_names(
        &self,
        container: &str,
        namespace: BorrowedFd<'_>,
        questions: Option<&Questions>,
    ) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(self.names_socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let line = format!("{container}\n");
        let sockets = questions.iter().flat_map(|q| [q.udp.as_fd(), q.tcp.as_fd()]);
        let fds: Vec<_> = sockets.chain([namespace]).collect();
        keeper::protocol::send_all(stream.as_fd(), line.as_bytes(), &fds)?;
        Ok(stream)
    }

    /// Lives as the name server until nobody needs it.
    pub fn name_server(&self) -> Result<()> {
        let _ = rustix::thread::set_name(c"wherry-names");
        let lock = self.run_root().join("names.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(failed("cannot open its lock"))?;
        while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Another runs; when it was killed it is our turn, when it left it took the socket along.
            if !self.names_socket().exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let path = self.names_socket();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed("cannot make its socket"))?;
        listener.set_nonblocking(true).map_err(failed("its socket"))?;
        let mut process = Process {
            engine: self,
            server: Server::new(Limits::default())?,
            book: Book { engine: self, scopes: HashMap::new(), host: None },
            entries: Vec::new(),
            next: HOST_SCOPE + 1,
            host: None,
            tended: Tended(None),
        };
        process.find_all()?;
        // Containers have their names whatever the host has.
        if let Err(e) = process.serve_host() {
            self.debug(&e.message);
        }
        self.serve(&mut process, &listener)?;
        // Whoever comes now finds no socket and has another started.
        let _ = std::fs::remove_file(&path);
        while let Ok((stream, _)) = listener.accept() {
            drop(stream);
        }
        Ok(())
    }

    fn serve(&self, process: &mut Process<'_>, listener: &UnixListener) -> Result<()> {
        let mut looked = Instant::now();
        let mut idle = None::<Instant>;
        let mut tended = None::<Instant>;
        loop {
            if tended.is_none_or(|at| at.elapsed() >= TEND) {
                process.tend();
                tended = Some(Instant::now());
            }
            let ended: Vec<Identity> = {
                let server = process.server.as_fd();
                let waiting: Vec<&Entry> =
                    process.entries.iter().filter(|e| e.process.is_some()).collect();
                let mut fds = vec![
                    PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(server, PollFlags::IN),
                ];
                for entry in &waiting {
                    if let Some(pidfd) = &entry.process {
                        fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
                    }
                }
                let timeout = process.server.pending() > 0;
                let known = waiting.len() == process.entries.len() && !process.entries.is_empty();
                let only_host = process.entries.is_empty() && process.host.is_some();
                let timeout = match (timeout, known) {
                    (true, _) => Duration::from_millis(20),
                    // Whoever is served has a process that is watched: nothing else to look for.
                    (false, true) => TEND,
                    (false, false) if only_host => LOOK,
                    (false, false) => Duration::from_millis(50),
                };
                let timeout = rustix::time::Timespec {
                    tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1),
                    tv_nsec: timeout.subsec_nanos().into(),
                };
                match rustix::event::poll(&mut fds, Some(&timeout)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(failed("poll")(e.into())),
                }
                let over = fds.iter().skip(2).map(|fd| !fd.revents().is_empty());
                waiting.iter().zip(over).filter(|(_, o)| *o).map(|(e, _)| e.namespace).collect()
            };
            if !ended.is_empty() {
                process.remove(|e| ended.contains(&e.namespace));
            }
            process.server.step(&mut process.book, Duration::ZERO)?;
            while let Ok((stream, _)) = listener.accept() {
                // Whoever does not say who they are is of no interest.
                if let Err(e) = process.hear(&stream) {
                    self.debug(&e.message);
                }
            }
            let unknown = process.entries.iter().any(|e| e.process.is_none());
            let pause = if unknown { LOOK / 10 } else { LOOK };
            if unknown && looked.elapsed() >= pause {
                process.look()?;
                looked = Instant::now();
            }
            match (process.entries.is_empty(), idle) {
                (false, _) => idle = None,
                (true, _) if process.host.is_some() && self.host_needs_names()? => idle = None,
                (true, None) => idle = Some(Instant::now()),
                (true, Some(since)) if since.elapsed() >= LINGER => return Ok(()),
                (true, Some(_)) => {}
            }
        }
    }
}
