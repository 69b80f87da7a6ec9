//! Interfaces, addresses, routes and neighbours, by rtnetlink.
//!
//! Each function writes one message into a [`Batch`]; [`Links::commit`] sends the batch in one
//! system call. [`Links`] is a socket of one network namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::netlink::{
    ACK, Batch, CREATE, DUMP, EXCL, Family, Socket, attribute, attributes, text, u32_at,
};

pub use crate::prefix::Prefix;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_STATE: u16 = 1;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const INET6_ADDR_GEN_MODE: u16 = 8;

const UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The longest name of an interface, in bytes.
pub const NAME_LIMIT: usize = 15;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address Docker gives to a container with this IPv4 address: `02:42:` and the address.
    /// It is unique on the network because the address is, and survives a restart.
    pub fn of_address(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = Error;

    /// Six bytes in hexadecimal with `:` or `-`, not a group address.
    fn from_str(given: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("invalid MAC address: {given}"));
        let mut bytes = [0u8; 6];
        let mut parts = given.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

/// Refuses what the kernel refuses as a name, before it is asked.
pub fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > NAME_LIMIT
        || name == "."
        || name == ".."
        || name.bytes().any(|b| b == b'/' || b == b':' || b <= b' ' || b == 0x7f);
    if bad { Err(Error::Name(name.into())) } else { Ok(()) }
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge`, …; empty for hardware.
    pub kind: String,
    /// What was written about it.
    pub alias: String,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Whether it is switched on.
    pub up: bool,
    /// The number of its bridge, or 0.
    pub master: u32,
    /// The number of its other end or parent, in that one's namespace, or 0.
    pub link: u32,
    /// As a port of a bridge: disabled 0, listening 1, learning 2, forwarding 3, blocking 4.
    pub port_state: Option<u8>,
    /// As a port: cut off from the bridge's other isolated ports.
    pub isolated: bool,
    /// As a port: may get its own packets back.
    pub hairpin: bool,
}

/// An interface that is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewLink<'a> {
    /// Its name, at most [`NAME_LIMIT`] bytes.
    pub name: &'a str,
    /// The largest packet, in bytes; 0 for the kernel's default.
    pub mtu: u32,
    /// Its hardware address; by chance if there is none.
    pub mac: Option<Mac>,
}

/// How macvlan's interfaces on one parent see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// By way of the switch outside.
    Vepa,
    /// Directly.
    #[default]
    Bridge,
    /// The only interface on the parent, with its hardware address.
    Passthru,
}

/// How ipvlan's interfaces work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpvlanMode {
    /// As on a bridge.
    #[default]
    L2,
    /// Routed by the parent.
    L3,
    /// Routed, with connection tracking of the parent.
    L3S,
}

/// What a link is made as; see [`Batch::parented`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parented {
    /// An own hardware address on the parent.
    Macvlan(MacvlanMode),
    /// The parent's hardware address.
    Ipvlan(IpvlanMode),
}

fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// rtnetlink's messages.
impl Batch {
    fn describe_link(&mut self, link: &NewLink<'_>) {
        self.text(IFLA_IFNAME, link.name);
        if link.mtu != 0 {
            self.number(IFLA_MTU, link.mtu);
        }
        if let Some(mac) = link.mac {
            self.put(IFLA_ADDRESS, &mac.0);
        }
    }

    fn kind(&mut self, kind: &str) {
        let info = self.open(IFLA_LINKINFO);
        self.text(INFO_KIND, kind);
        self.close(info);
    }

    /// Makes a bridge. A fixed hardware address stays when ports come and go.
    pub fn bridge(&mut self, link: &NewLink<'_>) {
        let action = format!("create bridge {}", link.name);
        self.message(NEWLINK, ACK | CREATE | EXCL, &header(0, 0, 0), action);
        self.describe_link(link);
        self.kind("bridge");
    }

    /// Makes an interface that leads nowhere, for tests and for `--internal` macvlan networks.
    pub fn dummy(&mut self, link: &NewLink<'_>) {
        let action = format!("create interface {}", link.name);
        self.message(NEWLINK, ACK | CREATE | EXCL, &header(0, 0, 0), action);
        self.describe_link(link);
        self.kind("dummy");
    }

    /// Makes a pair of interfaces: `here` as a port of the bridge `master` (0: of none), `there` in another namespace under its final name.
    pub fn veth(
        &mut self,
        here: &NewLink<'_>,
        master: u32,
        there: &NewLink<'_>,
        namespace: BorrowedFd<'_>,
    ) {
        let action = format!("create the interface pair {} and {}", here.name, there.name);
        self.message(NEWLINK, ACK | CREATE | EXCL, &header(0, 0, 0), action);
        self.describe_link(here);
        if master != 0 {
            self.number(IFLA_MASTER, master);
        }
        let info = self.open(IFLA_LINKINFO);
        self.text(INFO_KIND, "veth");
        let data = self.open(INFO_DATA);
        let peer = self.open(VETH_INFO_PEER);
        self.raw(&header(0, 0, 0));
        self.describe_link(there);
        self.number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
        self.close(peer);
        self.close(data);
        self.close(info);
    }

    /// Makes a pair of interfaces of this namespace that lead to each other and know no neighbours:
    /// whatever goes out by one comes in by the other.
    pub fn circle(&mut self, out: &str, back: &str) {
        // One hardware address for both, so that what comes in is meant.
        const MAC: Mac = Mac([0x02, 0x42, 0, 0, 0, 1]);
        const MTU: u32 = 65_535;
        let action = format!("create the interface pair {out} and {back}");
        self.message(NEWLINK, ACK | CREATE | EXCL, &header(0, 0, 0), action);
        self.describe_link(&NewLink { name: out, mtu: MTU, mac: Some(MAC) });
        let info = self.open(IFLA_LINKINFO);
        self.text(INFO_KIND, "veth");
        let data = self.open(INFO_DATA);
        let peer = self.open(VETH_INFO_PEER);
        self.raw(&header(0, 0, 0));
        self.describe_link(&NewLink { name: back, mtu: MTU, mac: Some(MAC) });
        self.close(peer);
        self.close(data);
        self.close(info);
    }

    /// Switches an interface on that asks for no neighbours.
    pub fn up_without_neighbours(&mut self, index: u32) {
        const NO_ARP: u32 = 0x80;
        let flags = UP | NO_ARP;
        let action = format!("set interface {index} up");
        self.message(NEWLINK, ACK, &header(index, flags, flags), action);
    }

    /// Asks for an interface of a kind without saying what it needs.
    fn nothing_of(&mut self, kind: &str) {
        self.message(
            NEWLINK,
            ACK | CREATE | EXCL,
            &header(0, 0, 0),
            format!("create {kind} interface"),
        );
        self.kind(kind);
    }

    /// Makes a macvlan or ipvlan interface in another namespace, on a parent of this one.
    pub fn parented(
        &mut self,
        link: &NewLink<'_>,
        parent: u32,
        kind: Parented,
        namespace: BorrowedFd<'_>,
    ) {
        let name = match kind {
            Parented::Macvlan(_) => "macvlan",
            Parented::Ipvlan(_) => "ipvlan",
        };
        let action = format!("create {name} interface {}", link.name);
        self.message(NEWLINK, ACK | CREATE | EXCL, &header(0, 0, 0), action);
        self.describe_link(link);
        self.number(IFLA_LINK, parent);
        self.number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
        let info = self.open(IFLA_LINKINFO);
        self.text(INFO_KIND, name);
        let data = self.open(INFO_DATA);
        match kind {
            Parented::Macvlan(mode) => self.number(
                1,
                match mode {
                    MacvlanMode::Private => 1,
                    MacvlanMode::Vepa => 2,
                    MacvlanMode::Bridge => 4,
                    MacvlanMode::Passthru => 8,
                },
            ),
            Parented::Ipvlan(mode) => self.put(
                1,
                &match mode {
                    IpvlanMode::L2 => 0u16,
                    IpvlanMode::L3 => 1,
                    IpvlanMode::L3S => 2,
                }
                .to_ne_bytes(),
            ),
        }
        self.close(data);
        self.close(info);
    }

    /// Writes about a port of a bridge whose it is and how it may talk, and switches it on. It gets no
    /// IPv6 address of its own making: the bridge has one.
    pub fn port(&mut self, name: &str, alias: &str, isolated: bool, hairpin: bool) {
        let action = format!("set up bridge port {name}");
        self.message(NEWLINK, ACK, &header(0, UP, UP), action);
        self.text(IFLA_IFNAME, name);
        self.text(IFLA_IFALIAS, alias);
        self.no_link_local();
        let info = self.open(IFLA_LINKINFO);
        self.text(INFO_SLAVE_KIND, "bridge");
        let data = self.open(INFO_SLAVE_DATA);
        self.put(BRPORT_HAIRPIN, &[u8::from(hairpin)]);
        self.put(BRPORT_ISOLATED, &[u8::from(isolated)]);
        self.close(data);
        self.close(info);
    }

    /// Writes about an interface whose it is, so that a listing finds it.
    pub fn alias(&mut self, name: &str, alias: &str) {
        self.message(NEWLINK, ACK, &header(0, 0, 0), format!("name the owner of {name}"));
        self.text(IFLA_IFNAME, name);
        self.text(IFLA_IFALIAS, alias);
    }

    /// Switches an interface on or off.
    pub fn up(&mut self, index: u32, on: bool) {
        let action = format!("set interface {index} {}", if on { "up" } else { "down" });
        self.message(NEWLINK, ACK, &header(index, if on { UP } else { 0 }, UP), action);
    }

    /// Switches an interface on that is to have no IPv6 address of its own making.
    pub fn up_without_link_local(&mut self, index: u32) {
        self.message(NEWLINK, ACK, &header(index, UP, UP), format!("set interface {index} up"));
        self.no_link_local();
    }

    fn no_link_local(&mut self) {
        // A kernel that was started without IPv6 does not know the attribute.
        static IPV6: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        if !IPV6.get_or_init(|| std::path::Path::new("/proc/sys/net/ipv6/conf").exists()) {
            return;
        }
        let spec = self.open(IFLA_AF_SPEC);
        let inet6 = self.open(u16::from(AF_INET6));
        self.put(INET6_ADDR_GEN_MODE, &[1]);
        self.close(inet6);
        self.close(spec);
    }

    /// Changes the largest packet.
    pub fn mtu(&mut self, index: u32, mtu: u32) {
        self.message(
            NEWLINK,
            ACK,
            &header(index, 0, 0),
            format!("set the MTU of interface {index}"),
        );
        self.number(IFLA_MTU, mtu);
    }

    /// Makes an interface the port of a bridge, or of none (0).
    pub fn master(&mut self, index: u32, bridge: u32) {
        let action = format!("set the bridge of interface {index}");
        self.message(NEWLINK, ACK, &header(index, 0, 0), action);
        self.number(IFLA_MASTER, bridge);
    }

    /// Moves an interface into another namespace under another name. It arrives switched off and
    /// without addresses.
    pub fn relocate(&mut self, index: u32, name: &str, namespace: BorrowedFd<'_>) {
        self.message(NEWLINK, ACK, &header(index, 0, UP), format!("move interface {name}"));
        self.text(IFLA_IFNAME, name);
        self.number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
    }

    /// Removes an interface by name.
    pub fn delete(&mut self, name: &str) {
        self.message(DELLINK, ACK, &header(0, 0, 0), format!("delete interface {name}"));
        self.text(IFLA_IFNAME, name);
    }

    /// Gives an interface an address, without asking the network whether another has it.
    pub fn address(&mut self, index: u32, prefix: Prefix) {
        const NODAD: u8 = 2;
        let action = format!("add address {prefix}");
        let v6 = prefix.address.is_ipv6();
        let flags = if v6 { NODAD } else { 0 };
        let mut fixed = [family(prefix.address), prefix.length, flags, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        self.message(NEWADDR, ACK | CREATE | EXCL, &fixed, action);
        let bytes = octets(prefix.address);
        self.put(2, &bytes);
        self.put(1, &bytes);
        if !v6 && prefix.length < 31 {
            self.put(4, &octets(prefix.last()));
        }
    }

    /// Takes an address away.
    pub fn delete_address(&mut self, index: u32, prefix: Prefix) {
        let mut fixed = [family(prefix.address), prefix.length, 0, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        self.message(DELADDR, ACK, &fixed, format!("delete address {prefix}"));
        self.put(2, &octets(prefix.address));
    }

    /// A route by a gateway, or to what is on the link itself. `onlink`: the gateway is there
    /// although no address of the interface says so.
    pub fn route(&mut self, to: Prefix, gateway: Option<IpAddr>, index: u32, onlink: bool) {
        let action = match gateway {
            Some(gateway) => format!("add route to {to} by {gateway}"),
            None => format!("add route to {to}"),
        };
        self.route_message(NEWROUTE, ACK | CREATE | EXCL, to, gateway, index, onlink, action);
    }

    /// Removes a route.
    pub fn delete_route(&mut self, to: Prefix, gateway: Option<IpAddr>, index: u32) {
        let action = format!("delete route to {to}");
        self.route_message(DELROUTE, ACK, to, gateway, index, false, action);
    }

    #[allow(clippy::too_many_arguments)]
    fn route_message(
        &mut self,
        kind: u16,
        flags: u16,
        to: Prefix,
        gateway: Option<IpAddr>,
        index: u32,
        onlink: bool,
        action: String,
    ) {
        const MAIN: u8 = 254;
        const STATIC: u8 = 4;
        const UNICAST: u8 = 1;
        const ONLINK: u32 = 4;
        let scope = if gateway.is_some() || to.address.is_ipv6() { 0 } else { 253 };
        let mut fixed =
            [family(to.address), to.length, 0, 0, MAIN, STATIC, scope, UNICAST, 0, 0, 0, 0];
        if onlink {
            fixed[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
        }
        self.message(kind, flags, &fixed, action);
        if to.length > 0 {
            self.put(1, &octets(to.network().address));
        }
        if let Some(gateway) = gateway {
            self.put(5, &octets(gateway));
        }
        self.number(4, index);
    }

    /// Writes down where an address on the link is, so that nobody has to ask.
    pub fn neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) {
        const PERMANENT: u16 = 0x80;
        const REPLACE: u16 = 0x100;
        let mut fixed = [0u8; 12];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
        let action = format!("add neighbour {address}");
        self.message(NEWNEIGH, ACK | CREATE | REPLACE, &fixed, action);
        self.put(1, &octets(address));
        self.put(2, &mac.0);
    }
}

/// The interfaces of one network namespace.
#[derive(Debug)]
pub struct Links(Socket);

impl Links {
    /// Those of the caller's.
    pub fn open() -> Result<Self> {
        Socket::open(Family::Route).map(Self)
    }

    /// Those of another.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self> {
        Socket::open_in(namespace, Family::Route).map(Self)
    }

    /// Sends a batch. All messages are tried; the first error is returned.
    pub fn commit(&self, batch: &mut Batch) -> Result<()> {
        self.0.transact(batch, |_| ())
    }

    /// Sends a batch and returns each message's error.
    pub fn commit_all(&self, batch: &mut Batch) -> Result<Vec<Error>> {
        self.0.transact_all(batch, &mut |_| ())
    }

    /// One interface, if it is there.
    pub fn get(&self, name: &str) -> Result<Option<Link>> {
        let mut batch = Batch::new();
        batch.message(GETLINK, 0, &header(0, 0, 0), format!("look for interface {name}"));
        batch.text(IFLA_IFNAME, name);
        let mut found = None;
        match self.0.transact(&mut batch, |reply| found = read_link(reply.body)) {
            Err(e) if e.errno() == Some(Errno::NODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// The number of an interface that must be there.
    pub fn index(&self, name: &str) -> Result<u32> {
        match self.get(name)? {
            Some(link) => Ok(link.index),
            None => Err(Error::kernel(format!("find interface {name}"), Errno::NODEV)),
        }
    }

    /// Whether the kernel has interfaces of a kind that stands on a parent: `macvlan`, `ipvlan`. It
    /// refuses one without a parent for that reason only if it knows the kind; nothing is made.
    pub fn knows(&self, kind: &str) -> Result<bool> {
        let mut batch = Batch::new();
        batch.nothing_of(kind);
        match self.commit(&mut batch) {
            Err(e) if e.errno() == Some(Errno::OPNOTSUPP) => Ok(false),
            Err(e) if e.errno() != Some(Errno::INVAL) => Err(e),
            _ => Ok(true),
        }
    }

    /// All interfaces.
    pub fn list(&self) -> Result<Vec<Link>> {
        let mut batch = Batch::new();
        batch.message(GETLINK, DUMP, &header(0, 0, 0), "list interfaces".into());
        let mut links = Vec::new();
        self.0.transact(&mut batch, |reply| links.extend(read_link(reply.body)))?;
        Ok(links)
    }

    /// All addresses with their interfaces' numbers.
    pub fn addresses(&self) -> Result<Vec<(u32, Prefix)>> {
        let mut batch = Batch::new();
        batch.message(GETADDR, DUMP, &[0; 8], "list addresses".into());
        let mut all = Vec::new();
        self.0.transact(&mut batch, |reply| all.extend(read_address(reply.body)))?;
        Ok(all)
    }

    /// The networks that the host has routes to; the default route is not among them. New subnets
    /// must not overlap with these.
    pub fn routed(&self) -> Result<Vec<Prefix>> {
        let mut batch = Batch::new();
        batch.message(GETROUTE, DUMP, &[0; 12], "list routes".into());
        let mut all = Vec::new();
        self.0.transact(&mut batch, |reply| all.extend(read_route(reply.body)))?;
        Ok(all)
    }

    /// Removes interfaces; those that are gone are no error. Goes on after an error.
    pub fn delete<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut batch = Batch::new();
        for name in names {
            batch.delete(name);
        }
        let mut errors = self.commit_all(&mut batch)?;
        errors.retain(|e| e.errno() != Some(Errno::NODEV));
        crate::error::all(errors)
    }
}

/// Reads a message about an interface.
pub fn read_link(body: &[u8]) -> Option<Link> {
    let mut link =
        Link { index: u32_at(body, 4)?, up: u32_at(body, 8)? & UP != 0, ..Link::default() };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0)?,
            IFLA_LINK => link.link = u32_at(value, 0)?,
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_LINKINFO => {
                link.kind = attribute(value, INFO_KIND).map(text).unwrap_or_default();
                let slave = attribute(value, INFO_SLAVE_KIND).map(text);
                if slave.as_deref() == Some("bridge") {
                    let data = attribute(value, INFO_SLAVE_DATA).unwrap_or_default();
                    let byte = |kind| attribute(data, kind).and_then(|v| v.first()).copied();
                    link.port_state = byte(BRPORT_STATE);
                    link.isolated = byte(BRPORT_ISOLATED) == Some(1);
                    link.hairpin = byte(BRPORT_HAIRPIN) == Some(1);
                }
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Reads a message about an address.
pub fn read_address(body: &[u8]) -> Option<(u32, Prefix)> {
    let length = *body.get(1)?;
    let index = u32_at(body, 4)?;
    let rest = body.get(8..)?;
    let address = attribute(rest, 2).or_else(|| attribute(rest, 1)).and_then(read_ip)?;
    Some((index, Prefix::new(address, length)?))
}

/// Reads a message about a route of the main table to more than one address.
pub fn read_route(body: &[u8]) -> Option<Prefix> {
    const MAIN: u8 = 254;
    let (length, table) = (*body.get(1)?, *body.get(4)?);
    let rest = body.get(12..)?;
    if table != MAIN || length == 0 {
        return None;
    }
    Prefix::new(attribute(rest, 1).and_then(read_ip)?, length).map(Prefix::network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(
            "02:42:ac:11:00:02".parse::<Mac>().unwrap(),
            Mac::of_address([172, 17, 0, 2].into())
        );
        for bad in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "01:00:00:00:00:00", "2:4:a:1:0:2"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        assert!(check_name("wherry0").is_ok());
        for bad in ["", "a b", "a/b", "..", "0123456789abcdef", "a:b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
