//! The name server, asked over real sockets; upstream servers are threads of the test.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use net::dns::message::{
    A, AAAA, Code, PTR, Query, Record, read_addresses, read_answer, read_names, reverse_name,
};
use net::dns::{Limits, Server, Table};

const SCOPE: u64 = 7;

/// A UDP and a TCP socket with one address.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Somebody else may have that port of TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Server>>,
}

impl Running {
    fn new(mut table: Table, limits: Limits) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let mut server = Server::new(limits).unwrap();
        server.add_udp(udp, SCOPE).unwrap();
        server.add_tcp(tcp, SCOPE).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                server.step(&mut table, Duration::from_millis(20)).unwrap();
            }
            server
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn udp(&self, query: &Query) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&query.write().unwrap(), self.address).unwrap();
        let mut buffer = vec![0; 65535];
        let length = socket.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    fn tcp(&self, query: &Query) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write_tcp(&mut stream, &query.write().unwrap());
        read_tcp(&mut stream).unwrap()
    }

    fn end(mut self) -> Server {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_tcp(stream: &mut TcpStream, message: &[u8]) {
    let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
    stream.write_all(&framed).unwrap();
}

fn read_tcp(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// An upstream server that answers with so many addresses, or an error.
fn upstream(code: Code, count: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let (udp, tcp) = sockets();
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let answer = move |message: &[u8], limit: Option<usize>| {
        let query = Query::read(message).unwrap();
        let records: Vec<_> = (0..count)
            .map(|n| {
                Record::Address(IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + u32::from(n))))
            })
            .collect();
        query.answer(message, code, &records, 60, limit.unwrap_or(query.udp_limit()))
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::Relaxed);
            _ = udp.send_to(&answer(&buffer[..length], None), from);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { break };
            if let Ok(message) = read_tcp(&mut stream) {
                write_tcp(&mut stream, &answer(&message, Some(65535)));
            }
        }
    });
    (address, asked)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 15
}

#[test]
fn names_of_containers() {
    let mut table = Table::new();
    table.add(SCOPE, "web", &[ip("10.0.0.2"), ip("fd00::2")]);
    table.add(SCOPE, "pool", &[ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.4")]);
    table.add(SCOPE + 1, "elsewhere", &[ip("10.1.0.2")]);
    let server = Running::new(table, Limits::default());
    for ask in [Running::udp, Running::tcp] {
        let get = |name: &str, kind| ask(&server, &Query::new(99, name, kind));
        assert_eq!(read_addresses(&get("web", A)).unwrap(), [ip("10.0.0.2")]);
        assert_eq!(read_addresses(&get("WEB", AAAA)).unwrap(), [ip("fd00::2")]);
        // There is such a name, but not of this kind.
        let none = get("pool", AAAA);
        assert_eq!((code(&none), read_addresses(&none).unwrap().len()), (0, 0));
        assert_eq!(read_names(&get(&reverse_name(ip("10.0.0.2")), PTR)).unwrap(), ["web", "pool"]);
        assert_eq!(read_names(&get(&reverse_name(ip("fd00::2")), PTR)).unwrap(), ["web"]);
        // Another network's names are not seen; there are no upstream servers.
        assert_eq!(code(&get("elsewhere", A)), Code::NoSuchName as u8);
        assert_eq!(code(&get("a.example", A)), Code::Failed as u8);
        // Each of them comes first in turn.
        let firsts: std::collections::HashSet<_> =
            (0..6).map(|_| read_addresses(&get("pool", A)).unwrap()[0]).collect();
        assert_eq!(firsts.len(), 3);
    }
    let answer = server.udp(&Query::new(99, "web", A));
    assert!(read_answer(&answer, 99, &Query::new(99, "web", A)).is_some());
}

#[test]
fn others_are_asked() {
    let (good, asked) = upstream(Code::Ok, 3);
    let (failing, failed) = upstream(Code::Failed, 0);
    // Nobody there, and somebody who never answers.
    let refused = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut table = Table::new();
    table.set_upstreams(SCOPE, vec![failing, refused, silent.local_addr().unwrap(), good]);
    let limits = Limits { upstream: Duration::from_millis(300), ..Limits::default() };
    let server = Running::new(table, limits);
    let begin = Instant::now();
    let answer = server.udp(&Query::new(1, "example.org", A));
    assert_eq!(read_addresses(&answer).unwrap().len(), 3);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!((asked.load(Ordering::Relaxed), failed.load(Ordering::Relaxed)), (1, 1));
    // Those who did not answer are not asked again before the good one.
    let begin = Instant::now();
    assert_eq!(read_addresses(&server.udp(&Query::new(2, "example.org", A))).unwrap().len(), 3);
    assert!(begin.elapsed() < Duration::from_millis(290));
    assert_eq!(read_addresses(&server.tcp(&Query::new(3, "example.org", A))).unwrap().len(), 3);
    assert_eq!(server.end().pending(), 0);
}

#[test]
fn large_answers() {
    let (large, _) = upstream(Code::Ok, 4000);
    let mut table = Table::new();
    table.set_upstreams(SCOPE, vec![large]);
    let server = Running::new(table, Limits::default());
    let query = Query::new(5, "large.example", A);
    let short = server.udp(&query);
    assert!(read_answer(&short, 5, &query).unwrap().truncated && short.len() <= 512);
    let whole = server.tcp(&query);
    assert!(whole.len() > 64_000);
    assert_eq!(read_addresses(&whole).unwrap().len(), 4000);
    // Who can take more over UDP gets more.
    let mut wide = query.clone();
    wide.udp_size = Some(4096);
    let more = server.udp(&wide);
    assert!(more.len() > 2000 && more.len() <= 4096);
}

#[test]
fn all_fail() {
    let (failing, _) = upstream(Code::Refused, 0);
    let mut table = Table::new();
    table.set_upstreams(SCOPE, vec![failing, failing]);
    let server = Running::new(table, Limits::default());
    assert_eq!(code(&server.udp(&Query::new(1, "example.org", A))), Code::Refused as u8);
}

#[test]
fn it_is_bounded() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut table = Table::new();
    table.set_upstreams(SCOPE, vec![silent.local_addr().unwrap()]);
    table.add(SCOPE, "web", &[ip("10.0.0.2")]);
    let limits = Limits {
        pending: 4,
        connections: 3,
        upstream: Duration::from_secs(30),
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Running::new(table, limits);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for id in 0..6 {
        socket.send_to(&Query::new(id, "example.org", A).write().unwrap(), server.address).unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..2 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(code(&buffer[..length]), Code::Refused as u8);
    }
    // Names of containers are still answered.
    assert_eq!(read_addresses(&server.udp(&Query::new(9, "web", A))).unwrap().len(), 1);

    // More connections than are allowed are closed, silent ones too.
    let mut streams: Vec<_> = (0..5).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    // Nonsense is refused or ignored, and the server lives.
    for bytes in [&b""[..], b"x", &[0; 12], &[255; 600]] {
        socket.send_to(bytes, server.address).unwrap();
        if let Ok(mut stream) = TcpStream::connect(server.address) {
            _ = stream.write_all(bytes);
        }
    }
    assert_eq!(read_addresses(&server.udp(&Query::new(9, "web", A))).unwrap().len(), 1);
    assert_eq!(server.end().pending(), 4);
}

#[test]
fn many_questions_on_one_connection() {
    let (good, _) = upstream(Code::Ok, 1);
    let mut table = Table::new();
    table.add(SCOPE, "web", &[ip("10.0.0.2")]);
    table.set_upstreams(SCOPE, vec![good]);
    let server = Running::new(table, Limits::default());
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut all = Vec::new();
    for id in 0..100 {
        let name = if id % 2 == 0 { "web" } else { "example.org" };
        let message = Query::new(id, name, A).write().unwrap();
        all.extend((message.len() as u16).to_be_bytes());
        all.extend(message);
    }
    // In pieces that end anywhere.
    for piece in all.chunks(37) {
        stream.write_all(piece).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut seen: Vec<u16> = (0..100)
        .map(|_| {
            let answer = read_tcp(&mut stream).unwrap();
            assert_eq!(read_addresses(&answer).unwrap().len(), 1);
            u16::from_be_bytes([answer[0], answer[1]])
        })
        .collect();
    seen.sort();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert!(read_tcp(&mut stream).is_err());
}
