//! Namespaces that stand for hosts. Nothing here touches the network of the machine.
#![allow(dead_code, unreachable_pub)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use net::endpoint::{Endpoint, Host, Network};
use net::filter::{Port, Protocol};
use net::link::{Links, NewLink, Prefix};
use net::namespace::within;
use net::netlink::Batch;

/// A network namespace that lives as long as this.
pub struct Namespace(pub OwnedFd);

impl Namespace {
    pub fn new() -> Self {
        std::thread::spawn(|| {
            sys::namespace::unshare(sys::clone::NEWNET).unwrap();
            let fd = OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap());
            let mut batch = Batch::new();
            batch.up(1, true);
            Links::open().unwrap().commit(&mut batch).unwrap();
            Self(fd)
        })
        .join()
        .unwrap()
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(self.0.as_fd(), work).unwrap()
    }

    /// Answers each TCP connection with `word` and the peer's address, until the process ends.
    pub fn serve(&self, address: &str, word: &'static str) {
        let listener = self.run(|| TcpListener::bind(address)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().map(|p| p.ip().to_string()).unwrap_or_default();
                    let mut request = [0; 1];
                    while stream.read_exact(&mut request).is_ok() {
                        if request[0] == b'.' {
                            _ = stream.write_all(format!("{word} {peer}").as_bytes());
                            break;
                        }
                    }
                });
            }
        });
    }

    /// What a server answers: its word, and whom it saw.
    pub fn ask(&self, address: &str) -> std::io::Result<(String, IpAddr)> {
        self.ask_with(address, 1)
    }

    /// The same with a request of so many bytes.
    pub fn ask_with(&self, address: &str, size: usize) -> std::io::Result<(String, IpAddr)> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(1500))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut request = vec![b'x'; size - 1];
            request.push(b'.');
            stream.write_all(&request)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (word, peer) = answer.split_once(' ').unwrap();
            Ok((word.to_owned(), peer.parse().unwrap()))
        })
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }
}

/// A host with the engine's table, and another host next to it: 192.0.2.1 and 192.0.2.9,
/// 2001:db8::1 and 2001:db8::9.
pub struct World {
    pub host: Namespace,
    pub outside: Namespace,
    pub engine: Host,
    next: AtomicU32,
}

pub const HOST: &str = "192.0.2.1";
pub const OUTSIDE: &str = "192.0.2.9";

impl World {
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    pub fn with_mtu(mtu: u32) -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        let links = Links::open_in(host.0.as_fd()).unwrap();
        let mut batch = Batch::new();
        let link = |name| NewLink { name, mtu, mac: None };
        batch.veth(&link("up0"), 0, &link("up0"), outside.0.as_fd());
        links.commit(&mut batch).unwrap();
        for (namespace, v4, v6) in [
            (&host, "192.0.2.1/24", "2001:db8::1/64"),
            (&outside, "192.0.2.9/24", "2001:db8::9/64"),
        ] {
            let links = Links::open_in(namespace.0.as_fd()).unwrap();
            let index = links.index("up0").unwrap();
            let mut batch = Batch::new();
            batch.address(index, v4.parse().unwrap());
            batch.address(index, v6.parse().unwrap());
            batch.up(index, true);
            links.commit(&mut batch).unwrap();
        }
        let engine = Host::open_in(host.0.as_fd(), "test").unwrap();
        assert!(host.run(|| engine.prepare(true)).unwrap());
        assert!(!host.run(|| engine.prepare(true)).unwrap());
        Self { host, outside, engine, next: AtomicU32::new(1) }
    }

    pub fn network(
        &self,
        name: &str,
        gateways: &[&str],
        change: impl FnOnce(&mut Network),
    ) -> Network {
        let mut network = Network {
            id: format!("{name:0>64}"),
            bridge: format!("br-{name}"),
            existing: false,
            gateways: gateways.iter().map(|g| g.parse().unwrap()).collect(),
            mtu: 0,
            icc: true,
            internal: false,
            masquerade: true,
        };
        change(&mut network);
        self.host.run(|| self.engine.make(&network)).unwrap();
        network
    }

    pub fn endpoint(&self, addresses: &[&str], ports: &[Port]) -> Endpoint {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Endpoint {
            container: format!("{number:064x}"),
            interface: "eth0".into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect::<Vec<Prefix>>(),
            mac: None,
            default_route: true,
            ports: ports.to_vec(),
        }
    }

    pub fn container(
        &self,
        network: &Network,
        addresses: &[&str],
        ports: &[Port],
    ) -> (Namespace, Endpoint) {
        let namespace = Namespace::new();
        let endpoint = self.endpoint(addresses, ports);
        self.engine.plug(network, &endpoint, namespace.0.as_fd()).unwrap();
        (namespace, endpoint)
    }
}

pub fn port(host: &str, container: &str) -> Port {
    let (host, container): (SocketAddr, SocketAddr) =
        (host.parse().unwrap(), container.parse().unwrap());
    Port {
        protocol: Protocol::Tcp,
        host: host.ip(),
        host_port: host.port(),
        container: container.ip(),
        container_port: container.port(),
    }
}
