//! Which ports of the host lead to a container.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use net::filter::{Port, Protocol};
use net::link::Prefix;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use store::network;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::types::PortBinding;

/// `80/tcp` as a number and a protocol.
pub(crate) fn parse(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(Error::invalid(format!("invalid port {text}: protocol {other}"))),
    };
    let port: u16 = port
        .parse()
        .map_err(|_| Error::invalid(format!("invalid port specification: {text:?}")))?;
    if port == 0 {
        return Err(Error::invalid(format!("invalid port specification: {text:?}")));
    }
    Ok((port, protocol))
}

/// Whether `80/tcp` is what a filter asks for: `80`, `80/tcp`, `80-90/udp`. Docker's filter means TCP
/// where no protocol is said.
pub(crate) fn matches(port: &str, filter: &str) -> bool {
    let (range, protocol) = filter.split_once('/').unwrap_or((filter, "tcp"));
    let (number, own) = port.split_once('/').unwrap_or((port, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (number.parse::<u16>(), first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(number), Ok(first), Ok(last)) => {
            own.eq_ignore_ascii_case(protocol) && (first..=last).contains(&number)
        }
        _ => false,
    }
}

/// The host's ports of a binding: none is any that is free.
fn host_range(text: &str) -> Result<Option<(u16, u16)>> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let wrong = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || last < first { Err(wrong()) } else { Ok(Some((first, last))) }
}

/// Checks the bindings of a request before anything is made, and says of what can't be reached.
pub(crate) fn check(
    bindings: &BTreeMap<String, Option<Vec<PortBinding>>>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for (port, list) in bindings {
        parse(port)?;
        for binding in list.iter().flatten() {
            host_range(&binding.host_port)?;
            if binding.host_ip.is_empty() {
                continue;
            }
            let Ok(address) = binding.host_ip.parse::<IpAddr>() else {
                return Err(Error::invalid(format!("invalid IP address: {}", binding.host_ip)));
            };
            if address == Ipv6Addr::LOCALHOST {
                warnings.push(format!(
                    "Port {port} is published on [::1], where nobody reaches it: the kernel does not \
                     lead from ::1 elsewhere; publish it on 127.0.0.1"
                ));
            } else if bind(Protocol::Udp, SocketAddr::new(address, 0)) == Some(Errno::ADDRNOTAVAIL)
            {
                warnings.push(format!(
                    "Port {port} is published on {address}, which is not an address of this host: it \
                     answers once the host has it"
                ));
            }
        }
    }
    Ok(())
}

/// A port that is to be published.
struct Wanted {
    protocol: Protocol,
    container_port: u16,
    hosts: Vec<IpAddr>,
    range: Option<(u16, u16)>,
}

fn wanted(record: &Record, publish_at: Option<IpAddr>) -> Result<Vec<Wanted>> {
    let host = &record.definition.host;
    let mut list = Vec::new();
    let mut add = |port: &str, binding: &PortBinding| -> Result<()> {
        let (container_port, protocol) = parse(port)?;
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let hosts = match binding.host_ip.as_str() {
            "" => publish_at.map_or(any.to_vec(), |address| vec![address]),
            text => vec![
                text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?,
            ],
        };
        let range = host_range(&binding.host_port)?;
        list.push(Wanted { protocol, container_port, hosts, range });
        Ok(())
    };
    let free = PortBinding::default();
    for (port, bindings) in &host.port_bindings {
        match bindings.as_deref() {
            None | Some([]) => add(port, &free)?,
            Some(bindings) => bindings.iter().try_for_each(|binding| add(port, binding))?,
        }
    }
    if host.publish_all_ports {
        let exposed = record.definition.config.exposed_ports.iter().flat_map(BTreeMap::keys);
        for port in exposed.filter(|port| !host.port_bindings.contains_key(*port)) {
            add(port, &free)?;
        }
    }
    // Those that want one port first, so that nobody is given it by chance.
    list.sort_by_key(|w| w.range.map_or(u32::MAX, |(first, last)| u32::from(last - first)));
    Ok(list)
}

/// Whether a program of the host listens there.
fn in_use(protocol: Protocol, address: SocketAddr) -> bool {
    bind(protocol, address) == Some(Errno::ADDRINUSE)
}

/// Why nobody could listen there. Nothing is kept open: what is published is the kernel's affair, and the database's
/// who may.
fn bind(protocol: Protocol, address: SocketAddr) -> Option<Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, rustix::net::ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, rustix::net::ipproto::UDP),
        Protocol::Sctp => return None,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)).ok()?;
    if protocol == Protocol::Tcp {
        // Connections that have just ended are in nobody's way.
        _ = rustix::net::sockopt::set_socket_reuseaddr(&socket, true);
    }
    if !address.is_ipv4() {
        _ = rustix::net::sockopt::set_ipv6_v6only(&socket, true);
    }
    rustix::net::bind(&socket, &address).err()
}

/// The range of ports that the kernel gives by itself.
fn ephemeral() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first < last => (first, last),
        _ => (32768, 60999),
    }
}

/// Takes the ports a container publishes, in the database.
///
/// # Errors
/// `System` with Docker's words if one is taken.
pub(super) fn take(
    tx: &rusqlite::Transaction<'_>,
    record: &Record,
    addresses: &[Prefix],
    publish_at: Option<IpAddr>,
) -> Result<Vec<Port>> {
    let mut taken = Vec::new();
    for want in wanted(record, publish_at)? {
        // The families that both sides have.
        let pairs: Vec<(IpAddr, IpAddr)> = want
            .hosts
            .iter()
            .filter_map(|host| {
                let container = super::of_family(addresses, host.is_ipv4())?;
                Some((*host, container.address))
            })
            .collect();
        let free = |host_port: u16| -> Result<bool> {
            for (host, _) in &pairs {
                let held = network::publisher(tx, want.protocol, *host, host_port)?.is_some();
                if held || in_use(want.protocol, SocketAddr::new(*host, host_port)) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let (first, last) = want.range.unwrap_or_else(ephemeral);
        let count = u32::from(last - first) + 1;
        // Containers begin at different places, so that few have to look twice.
        let begin = match want.range {
            Some(_) => 0,
            None => {
                let id = record.id.get(..8).and_then(|id| u32::from_str_radix(id, 16).ok());
                id.unwrap_or(0) % count
            }
        };
        let mut found = None;
        for step in 0..count {
            let offset = begin.wrapping_add(step) % count;
            let Ok(candidate) = u16::try_from(u32::from(first) + offset) else { continue };
            if pairs.is_empty() || free(candidate)? {
                found = Some(candidate);
                break;
            }
        }
        let Some(host_port) = found else {
            return Err(refusal(tx, &want, &pairs, (first, last)));
        };
        for (host, container) in pairs {
            let port = Port {
                protocol: want.protocol,
                host,
                host_port,
                container,
                container_port: want.container_port,
            };
            network::take_port(tx, &record.id, &port)?;
            taken.push(port);
        }
    }
    Ok(taken)
}

fn refusal(
    tx: &rusqlite::Transaction<'_>,
    want: &Wanted,
    pairs: &[(IpAddr, IpAddr)],
    (first, last): (u16, u16),
) -> Error {
    let host = pairs.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(host, _)| *host);
    if first != last {
        return Error::new(
            ErrorKind::System,
            format!(
                "Bind for {} failed: all ports {first}-{last} are allocated",
                SocketAddr::new(host, 0)
            ),
        );
    }
    for (host, _) in pairs {
        if let Ok(Some(holder)) = network::publisher(tx, want.protocol, *host, first) {
            let holder = holder.get(..12).unwrap_or(&holder).to_owned();
            return Error::new(
                ErrorKind::System,
                format!(
                    "Bind for {} failed: port is already allocated (by container {holder}); \
                     publish another one, or stop that container",
                    SocketAddr::new(*host, first)
                ),
            );
        }
    }
    Error::new(
        ErrorKind::System,
        format!(
            "failed to bind host port {}/{}: address already in use: a program of the host listens \
             there; publish another port, or stop it",
            SocketAddr::new(host, first),
            want.protocol
        ),
    )
}

/// `NetworkSettings.Ports`: what is published, and what is only exposed.
pub(super) fn shown(
    record: &Record,
    published: &[Port],
) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut ports: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for exposed in record.definition.config.exposed_ports.iter().flat_map(BTreeMap::keys) {
        ports.insert(exposed.clone(), None);
    }
    for port in published {
        let key = format!("{}/{}", port.container_port, port.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(PortBinding {
            host_ip: port.host.to_string(),
            host_port: port.host_port.to_string(),
        });
    }
    ports
}

/// `Ports` of a row of `ps`.
pub(super) fn summary(record: &Record, published: &[Port]) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for (key, bindings) in shown(record, published) {
        let Ok((port, protocol)) = parse(&key) else { continue };
        let protocol = protocol.to_string();
        match bindings {
            None => rows.push(serde_json::json!({"PrivatePort": port, "Type": protocol})),
            Some(bindings) => {
                for binding in bindings {
                    rows.push(serde_json::json!({
                        "IP": binding.host_ip,
                        "PrivatePort": port,
                        "PublicPort": binding.host_port.parse::<u16>().unwrap_or(0),
                        "Type": protocol,
                    }));
                }
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80/tcp").unwrap(), (80, Protocol::Tcp));
        assert_eq!(parse("53/UDP").unwrap(), (53, Protocol::Udp));
        for bad in ["0/tcp", "x", "80/x", "70000"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(host_range("").unwrap(), None);
        assert_eq!(host_range("80-90").unwrap(), Some((80, 90)));
        assert!(host_range("90-80").is_err() && host_range("-").is_err());
    }

    #[test]
    fn a_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(in_use(Protocol::Tcp, address));
        assert!(in_use(Protocol::Tcp, SocketAddr::new("0.0.0.0".parse().unwrap(), address.port())));
        assert!(!in_use(Protocol::Udp, address));
    }
}
