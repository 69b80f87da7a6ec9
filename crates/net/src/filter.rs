//! Filter rules and address translation: one nftables table of the engine's own.
//!
//! The table is made once ([`Filter::ensure`]). Its rules never change; networks and published ports
//! are elements of its sets and maps, so to publish a port is one message and finding it among a
//! thousand costs what finding it among one does. No other table is read or written.
//!
//! | set | key | leads to | what |
//! |---|---|---|---|
//! | `bridges` | interface | | every bridge of this engine |
//! | `internal` | interface | | those without a way out |
//! | `pairs` | from, to | | bridges that may talk; each with itself unless containers are kept apart |
//! | `local4`, `local6` | interface, network | | what is at home where |
//! | `masquerade4`, `masquerade6` | network | | what leaves under the host's address |
//! | `ports4`, `ports6` | protocol, address, port | address, port | published at one address |
//! | `any4`, `any6` | protocol, port | address, port | published at all of the host's |
//!
//! A published port is translated only: whether anybody answers is the container's affair.

mod expression;
mod flows;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::link::{Prefix, check_name};
use crate::netlink::{
    Batch, CREATE, DUMP, EXCL, Family, LIST_LIMIT, Socket, attribute, attributes, text,
};
use expression::Ip;
use rules::{
    DELETE_ELEMENTS, DELETE_TABLE, GET_ELEMENTS, GET_TABLE, NEW_ELEMENTS, message, transaction,
};

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    fn of(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| *p as u8 == number)
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One published port. A range is as many of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Of both sides.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` or `::` for all of that family.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's address, of the same family.
    pub container: IpAddr,
    /// The container's port.
    pub container_port: u16,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = std::net::SocketAddr::new(self.host, self.host_port);
        let container = std::net::SocketAddr::new(self.container, self.container_port);
        write!(f, "{host}->{container}/{}", self.protocol)
    }
}

/// What the rules need to know of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The bridge's name.
    pub bridge: String,
    /// Its networks.
    pub subnets: Vec<Prefix>,
    /// Containers may talk to each other.
    pub icc: bool,
    /// There is no way out and none in.
    pub internal: bool,
    /// What leaves gets the host's address.
    pub masquerade: bool,
}

/// Has what comes for published ports pass the host's own input chains first: by a pair of interfaces
/// that lead to each other, see [`crate::endpoint::Host::respecting_input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Number of the interface where what was let through goes out.
    pub index: u32,
    /// The interface where it comes in again.
    pub back: String,
    /// The host has IPv6.
    pub v6: bool,
}

/// What the table contains, for comparison with what it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Published ports with the owner that was given.
    pub ports: Vec<(Port, String)>,
    /// Names of bridges.
    pub bridges: Vec<String>,
    /// Those that are internal.
    pub internal: Vec<String>,
    /// Those that may talk.
    pub pairs: Vec<(String, String)>,
    /// Networks by bridge.
    pub local: Vec<(String, Prefix)>,
}

/// One element of a set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
    end: bool,
    owner: String,
}

/// The engine's table in one network namespace.
#[derive(Debug)]
pub struct Filter {
    socket: Socket,
    table: String,
    /// The table has the sets of [`Input`], too.
    with_input: bool,
}

/// The set's name, its element.
type Change = (String, Element);

impl Filter {
    /// Of the caller's namespace. `table` names the engine, so that two engines have two tables.
    pub fn open(table: &str) -> Result<Self> {
        let socket = Socket::open(Family::Netfilter)?;
        Ok(Self { socket, table: table.into(), with_input: false })
    }

    /// Of another namespace.
    pub fn open_in(namespace: BorrowedFd<'_>, table: &str) -> Result<Self> {
        let socket = Socket::open_in(namespace, Family::Netfilter)?;
        Ok(Self { socket, table: table.into(), with_input: false })
    }

    /// For tables that are made with an [`Input`].
    pub(crate) fn with_input(self, yes: bool) -> Self {
        Self { with_input: yes, ..self }
    }

    fn port_changes<'a>(
        &self,
        ports: impl IntoIterator<Item = (&'a Port, &'a str)>,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (port, owner) in ports {
            changes.push(port_change(port, owner)?);
        }
        if self.with_input {
            let open = |(set, element): &Change| {
                (format!("open-{set}"), Element { key: element.key.clone(), ..Element::default() })
            };
            let opened: Vec<Change> = changes.iter().map(open).collect();
            changes.extend(opened);
        }
        Ok(changes)
    }

    /// Makes the table unless it is there. Returns whether it was made: then it is empty, and all
    /// networks and ports must be added, or [`Self::rebuild`] does it at once.
    ///
    /// # Errors
    /// A table of another version is [`Error::OtherRules`]; [`Self::rebuild`] replaces it.
    pub fn ensure(&self, input: Option<&Input>) -> Result<bool> {
        if self.is_there(input)? {
            return Ok(false);
        }
        let mut batch = transaction(&format!("create nftables table {}", self.table), |batch| {
            rules::write(batch, &self.table, true, input)
        });
        match self.socket.transact(&mut batch, |_| ()) {
            // Somebody else was quicker; a transaction is there as a whole.
            Err(e) if e.errno() == Some(Errno::EXIST) => self.is_there(input).map(|_| false),
            other => other.map(|()| true),
        }
    }

    fn is_there(&self, input: Option<&Input>) -> Result<bool> {
        let mut batch = Batch::new();
        message(&mut batch, GET_TABLE, 0, format!("look for nftables table {}", self.table));
        batch.text(1, &self.table);
        let mut version = None;
        let asked = self.socket.transact(&mut batch, |reply| {
            let data = reply.body.get(4..).unwrap_or_default();
            version = Some(attribute(data, 6).map(<[u8]>::to_vec).unwrap_or_default());
        });
        match asked {
            Err(e) if e.errno() == Some(Errno::NOENT) => return Ok(false),
            other => other?,
        }
        match version {
            Some(version) if version == rules::version(input) => Ok(true),
            _ => Err(Error::OtherRules(self.table.clone())),
        }
    }

    /// Replaces the whole table in one transaction: no packet sees it half done.
    pub fn rebuild(
        &self,
        input: Option<&Input>,
        networks: &[Network],
        ports: &[(Port, String)],
    ) -> Result<()> {
        let mut changes = Vec::new();
        for network in networks {
            changes.extend(network_changes(network)?);
        }
        changes
            .extend(self.port_changes(ports.iter().map(|(port, owner)| (port, owner.as_str())))?);
        let mut batch = transaction(&format!("replace nftables table {}", self.table), |batch| {
            rules::write(batch, &self.table, false, input);
            self.write(batch, NEW_ELEMENTS, CREATE, &changes, "add");
        });
        self.socket.transact(&mut batch, |_| ())
    }

    /// Makes the table one that leads what the namespace itself sends to a port of an address of its
    /// own to other ports there, by protocol. What was in the table goes.
    pub fn redirect(&self, from: (Ipv4Addr, u16), to: &[(Protocol, u16)]) -> Result<()> {
        let to: Vec<(u8, u16)> =
            to.iter().map(|(protocol, port)| (*protocol as u8, *port)).collect();
        let make = |exclusive: bool| {
            let action = format!("create nftables table {}", self.table);
            let mut batch = transaction(&action, |batch| {
                rules::write_redirect(batch, &self.table, from, &to, exclusive);
            });
            self.socket.transact(&mut batch, |_| ())
        };
        match make(true) {
            // To replace one costs a wait when the socket is closed.
            Err(e) if e.errno() == Some(Errno::EXIST) => make(false),
            other => other,
        }
    }

    /// Removes the table with all that is in it.
    pub fn remove(&self) -> Result<()> {
        let action = format!("delete nftables table {}", self.table);
        let mut batch = transaction(&action, |batch| {
            message(batch, DELETE_TABLE, 0, action.clone());
            batch.text(1, &self.table);
        });
        forgiving(self.socket.transact(&mut batch, |_| ()))?;
        let mut batch = transaction(&action, |batch| rules::remove_copies(batch, &self.table));
        self.socket.transact(&mut batch, |_| ())
    }

    /// Adds a network. Adding it again is no error.
    pub fn add_network(&self, network: &Network) -> Result<()> {
        self.apply(NEW_ELEMENTS, CREATE, &network_changes(network)?, "add")
    }

    /// Removes a network, all of its elements that are there.
    pub fn delete_network(&self, network: &Network) -> Result<()> {
        self.delete(&network_changes(network)?)
    }

    /// Publishes ports, all or none. `owner` is a container's ID.
    ///
    /// # Errors
    /// [`Error::PortTaken`], if another container has one of them.
    pub fn publish(&self, ports: &[Port], owner: &str) -> Result<()> {
        let changes = self.port_changes(ports.iter().map(|port| (port, owner)))?;
        match self.apply(NEW_ELEMENTS, CREATE | EXCL, &changes, "publish") {
            Err(e) if e.errno() == Some(Errno::EXIST) => {
                let there = self.contents()?.ports;
                let same = |a: &Port, b: &Port| {
                    (a.protocol, a.host, a.host_port) == (b.protocol, b.host, b.host_port)
                };
                let mut left = Vec::new();
                for port in ports {
                    match there.iter().find(|(other, _)| same(other, port)) {
                        Some((other, holder)) if holder == owner => left.push(other.clone()),
                        Some(_) => {
                            let host = std::net::SocketAddr::new(port.host, port.host_port);
                            return Err(Error::PortTaken(host.to_string()));
                        }
                        None => {}
                    }
                }
                // Its own, of a run that nobody could clean up after.
                self.unpublish(&left)?;
                self.apply(NEW_ELEMENTS, CREATE | EXCL, &changes, "publish")
            }
            other => other,
        }
    }

    /// Takes ports back; those that are not published are no error.
    pub fn unpublish(&self, ports: &[Port]) -> Result<()> {
        let changes = self.port_changes(ports.iter().map(|port| (port, "")))?;
        self.delete(&changes)
    }

    /// Forgets flows towards an address that the kernel remembers, but for those of TCP: what is sent
    /// to a published UDP port must reach the container that has it now. Costs a walk through the
    /// kernel's list of connections, so it is for addresses that had such ports.
    pub fn forget_flows(&self, address: IpAddr) -> Result<()> {
        flows::forget(&self.socket, address)
    }

    /// Everything in the table.
    pub fn contents(&self) -> Result<Contents> {
        let mut all = Contents::default();
        let names = |set| -> Result<Vec<String>> {
            Ok(self.elements(set)?.iter().map(|e| text(&e.key)).collect())
        };
        all.bridges = names("bridges")?;
        all.internal = names("internal")?;
        for element in self.elements("pairs")? {
            let (from, to) = element.key.split_at(element.key.len().min(16));
            all.pairs.push((text(from), text(to)));
        }
        for ip in [Ip::V4, Ip::V6] {
            for (set, any) in [("ports", false), ("any", true)] {
                for element in self.elements(&format!("{set}{}", ip.suffix()))? {
                    let port = read_port(ip, any, &element.key, element.data.as_deref());
                    all.ports.extend(port.map(|port| (port, element.owner)));
                }
            }
            for element in self.elements(&format!("local{}", ip.suffix()))? {
                let (name, from) = element.key.split_at(element.key.len().min(16));
                let to = element.key_end.as_deref().unwrap_or(&element.key).get(16..);
                let prefix = read_address(ip, from).zip(to.and_then(|to| read_address(ip, to)));
                all.local.extend(prefix.map(|(from, to)| (text(name), between(from, to))));
            }
        }
        Ok(all)
    }

    fn elements(&self, set: &str) -> Result<Vec<Element>> {
        let mut batch = Batch::new();
        let action = format!("list set {set} of nftables table {}", self.table);
        message(&mut batch, GET_ELEMENTS, DUMP, action);
        batch.text(1, &self.table);
        batch.text(2, set);
        let mut all = Vec::new();
        self.socket.transact(&mut batch, |reply| all.extend(read_elements(reply.body)))?;
        Ok(all)
    }

    fn apply(&self, kind: u16, flags: u16, changes: &[Change], verb: &str) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = transaction("begin a transaction of nftables", |batch| {
            self.write(batch, kind, flags, changes, verb);
        });
        self.socket.transact(&mut batch, |_| ())
    }

    /// All at once if all are there, otherwise one by one.
    fn delete(&self, changes: &[Change]) -> Result<()> {
        match self.apply(DELETE_ELEMENTS, 0, changes, "delete") {
            Err(e) if e.errno() == Some(Errno::NOENT) => {}
            other => return other,
        }
        let mut errors = Vec::new();
        for change in changes {
            let one = std::slice::from_ref(change);
            errors.extend(forgiving(self.apply(DELETE_ELEMENTS, 0, one, "delete")).err());
        }
        crate::error::all(errors)
    }

    fn write(&self, batch: &mut Batch, kind: u16, flags: u16, changes: &[Change], verb: &str) {
        let mut rest = changes;
        while let Some((set, _)) = rest.first() {
            let same = rest.iter().take_while(|(other, _)| other == set).count();
            let (these, others) = rest.split_at(same);
            rest = others;
            let mut these = these.iter();
            let mut next = these.next();
            while next.is_some() {
                message(
                    batch,
                    kind,
                    flags,
                    format!("{verb} elements of set {set} of nftables table {}", self.table),
                );
                batch.text(1, &self.table);
                batch.text(2, set);
                let list = batch.open(3);
                let begin = batch.size();
                while let Some((_, element)) = next {
                    write_element(batch, element);
                    next = these.next();
                    if batch.size() - begin > LIST_LIMIT {
                        break;
                    }
                }
                batch.close(list);
            }
        }
    }
}

fn forgiving(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.errno() == Some(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn write_element(batch: &mut Batch, element: &Element) {
    let nest = batch.open(1);
    let mut value = |kind, bytes: &[u8]| {
        let inner = batch.open(kind);
        batch.put(1, bytes);
        batch.close(inner);
    };
    value(1, &element.key);
    if let Some(end) = &element.key_end {
        value(10, end);
    }
    if let Some(data) = &element.data {
        value(2, data);
    }
    if element.end {
        batch.number_be(3, 1);
    }
    if !element.owner.is_empty() {
        batch.put(6, &rules::comment(&element.owner));
    }
    batch.close(nest);
}

/// Reads a list of a set's elements, as the kernel sends it.
fn read_elements(body: &[u8]) -> Vec<Element> {
    let list = body.get(4..).and_then(|data| attribute(data, 3)).unwrap_or_default();
    attributes(list)
        .map(|(_, element)| {
            let value = |kind| Some(attribute(attribute(element, kind)?, 1)?.to_vec());
            let flags = attribute(element, 3).and_then(|f| f.last().copied()).unwrap_or(0);
            Element {
                key: value(1).unwrap_or_default(),
                key_end: value(10),
                data: value(2),
                end: flags & 1 == 1,
                owner: attribute(element, 6)
                    .and_then(|user| user.get(2..))
                    .map(text)
                    .unwrap_or_default(),
            }
        })
        .collect()
}

/// How many elements a message of the kernel has that say something; for the fuzz target.
#[doc(hidden)]
pub fn count_elements(body: &[u8]) -> usize {
    let mut count = 0;
    for element in read_elements(body) {
        for ip in [Ip::V4, Ip::V6] {
            for any in [false, true] {
                let port = read_port(ip, any, &element.key, element.data.as_deref());
                count += usize::from(port.is_some());
            }
        }
    }
    count
}

fn ip_of(address: IpAddr) -> Ip {
    if address.is_ipv4() { Ip::V4 } else { Ip::V6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn service(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn port_change(port: &Port, owner: &str) -> Result<Change> {
    let ip = ip_of(port.container);
    if ip_of(port.host) != ip {
        return Err(Error::Invalid(format!(
            "cannot publish {port}: the host's and the container's address are of different families"
        )));
    }
    if port.host_port == 0 || port.container_port == 0 {
        return Err(Error::Invalid(format!("cannot publish {port}: 0 is not a port")));
    }
    let any = port.host.is_unspecified();
    let mut key = vec![port.protocol as u8, 0, 0, 0];
    if !any {
        key.extend(octets(port.host));
    }
    key.extend(service(port.host_port));
    let data = [octets(port.container), service(port.container_port).to_vec()].concat();
    let set = format!("{}{}", if any { "any" } else { "ports" }, ip.suffix());
    Ok((set, Element { key, data: Some(data), owner: owner.into(), ..Element::default() }))
}

fn read_address(ip: Ip, bytes: &[u8]) -> Option<IpAddr> {
    match ip {
        Ip::V4 => <[u8; 4]>::try_from(bytes.get(..4)?).ok().map(IpAddr::from),
        Ip::V6 => <[u8; 16]>::try_from(bytes.get(..16)?).ok().map(IpAddr::from),
    }
}

fn read_port(ip: Ip, any: bool, key: &[u8], data: Option<&[u8]>) -> Option<Port> {
    let length = usize::try_from(ip.bytes()).ok()?;
    let number = |bytes: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
    };
    let data = data?;
    let (host, at) = match (any, ip) {
        (true, Ip::V4) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4),
        (true, Ip::V6) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 4),
        (false, _) => (read_address(ip, key.get(4..)?)?, 4 + length),
    };
    Some(Port {
        protocol: Protocol::of(*key.first()?)?,
        host,
        host_port: number(key, at)?,
        container: read_address(ip, data)?,
        container_port: number(data, length)?,
    })
}

/// The network from its first and last address.
fn between(from: IpAddr, to: IpAddr) -> Prefix {
    let length = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => 0,
    };
    Prefix { address: from, length: u8::try_from(length).unwrap_or(0) }
}

/// The address behind a network, unless it is the last of all.
fn behind(prefix: Prefix) -> Option<IpAddr> {
    match prefix.last() {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

fn network_changes(network: &Network) -> Result<Vec<Change>> {
    check_name(&network.bridge)?;
    let bridge = interface(&network.bridge);
    let plain = |key: Vec<u8>| Element { key, ..Element::default() };
    let mut changes = vec![("bridges".to_owned(), plain(bridge.clone()))];
    if network.internal {
        changes.push(("internal".into(), plain(bridge.clone())));
    }
    if network.icc {
        changes.push(("pairs".into(), plain([bridge.clone(), bridge.clone()].concat())));
    }
    for subnet in &network.subnets {
        let suffix = ip_of(subnet.address).suffix();
        let first = octets(subnet.network().address);
        changes.push((
            format!("local{suffix}"),
            Element {
                key: [bridge.clone(), first.clone()].concat(),
                key_end: Some([bridge.clone(), octets(subnet.last())].concat()),
                ..Element::default()
            },
        ));
        if network.masquerade && !network.internal {
            let set = format!("masquerade{suffix}");
            changes.push((set.clone(), plain(first)));
            if let Some(end) = behind(*subnet) {
                changes.push((set, Element { key: octets(end), end: true, ..Element::default() }));
            }
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_from_their_edges() {
        for text in ["10.0.0.0/8", "10.1.2.0/24", "1.2.3.4/32", "fd00::/64", "0.0.0.0/0"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(between(prefix.address, prefix.last()), prefix);
        }
        assert_eq!(behind("255.255.0.0/16".parse().unwrap()), None);
        assert_eq!(behind("10.0.0.0/8".parse().unwrap()), Some("11.0.0.0".parse().unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let port = |host: &str, host_port| Port {
            protocol: Protocol::Tcp,
            host: host.parse().unwrap(),
            host_port,
            container: "10.0.0.2".parse().unwrap(),
            container_port: 80,
        };
        assert!(port_change(&port("::", 80), "").is_err());
        assert!(port_change(&port("0.0.0.0", 0), "").is_err());
        assert!(port_change(&port("0.0.0.0", 80), "").is_ok());
    }

    proptest! {
        #[test]
        fn ports_are_read_again(v6: bool, any: bool, host in 1u16.., container in 1u16.., bits: u128) {
            let address = if v6 { IpAddr::V6((bits | 1).into()) } else { IpAddr::V4((bits as u32 | 1).into()) };
            let all = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let port = Port {
                protocol: Protocol::Udp,
                host: if any { all } else { address },
                host_port: host,
                container: address,
                container_port: container,
            };
            let (_, element) = port_change(&port, "me").unwrap();
            let ip = ip_of(address);
            prop_assert_eq!(read_port(ip, any, &element.key, element.data.as_deref()), Some(port));
        }
    }
}
