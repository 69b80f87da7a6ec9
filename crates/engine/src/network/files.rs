//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.

use std::net::IpAddr;
use std::path::Path;

use store::network;

use super::resolver::{self, nameservers};
use super::start::Attached;
use super::{gateway_for, start::Joined};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{self, Record};
use crate::spec;
use crate::types::HostConfig;

/// Where the name server of a container's networks is, seen from inside.
pub(crate) const NAME_SERVER: &str = "127.0.0.11";
/// Asked when the host's own servers can't be reached from a container, as in Docker.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
     fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The host's `resolv.conf` as it is without us; systemd-resolved's with what it asks itself.
fn host_resolv_conf() -> String {
    let text = std::fs::read_to_string(resolver::FILE).unwrap_or_default();
    let text = resolver::without(&text, None);
    let servers = nameservers(&text);
    if !servers.is_empty() && servers.iter().all(|server| server == resolver::STUB) {
        return std::fs::read_to_string(resolver::UPSTREAM).unwrap_or(text);
    }
    text
}

fn is_loopback(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host's name servers, for questions that are no container's name. Asked from the host, where
/// its own loopback is within reach.
pub(crate) fn upstreams(host: &HostConfig) -> Vec<IpAddr> {
    let given = host.dns.as_deref().unwrap_or_default();
    let servers = if given.is_empty() { nameservers(&host_resolv_conf()) } else { given.to_vec() };
    servers.iter().filter_map(|server| server.parse().ok()).collect()
}

/// A container's `resolv.conf`. `own_names`: it has a name server of its own; `own_network`: the
/// host's loopback is out of reach.
pub(super) fn resolv_conf(host: &HostConfig, own_network: bool, own_names: bool) -> String {
    compose(&host_resolv_conf(), host, own_network, own_names)
}

fn compose(inherited: &str, host: &HostConfig, own_network: bool, own_names: bool) -> String {
    let (dns, search, options) = (
        host.dns.as_deref().unwrap_or_default(),
        host.dns_search.as_deref().unwrap_or_default(),
        host.dns_options.as_deref().unwrap_or_default(),
    );
    let kept = |line: &&str| match line.split_whitespace().next().unwrap_or("") {
        "nameserver" => {
            let server = line.split_whitespace().nth(1).unwrap_or_default();
            dns.is_empty() && !own_names && !(own_network && is_loopback(server))
        }
        "search" | "domain" => search.is_empty(),
        "options" => options.is_empty(),
        _ => true,
    };
    let mut text: String = inherited.lines().filter(kept).map(|l| format!("{l}\n")).collect();
    if own_names {
        text.push_str(&format!("nameserver {NAME_SERVER}\n"));
    } else {
        for server in dns {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if own_network && nameservers(&text).is_empty() {
            for server in PUBLIC {
                text.push_str(&format!("nameserver {server}\n"));
            }
        }
    }
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options = options.to_vec();
    let has_ndots = options.iter().any(|o| o.starts_with("ndots"))
        || host.dns_options.is_none() && text.lines().any(|l| l.contains("ndots"));
    if own_names && !has_ndots {
        // Names of containers have no dots.
        options.push("ndots:0".into());
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

impl Engine {
    /// Writes the three files of a container that is about to start.
    pub(crate) fn write_files(
        &self,
        record: &Record,
        directory: &Path,
        attached: Option<&Attached>,
    ) -> Result<()> {
        let joined = attached.map_or(&[][..], |a| &a.joined);
        let name = spec::hostname(record);
        write(directory, "hostname", &format!("{name}\n"))?;
        write(directory, "hosts", &self.hosts(record, joined)?)?;
        self.write_resolv_conf(record, directory, joined)
    }

    pub(super) fn write_resolv_conf(
        &self,
        record: &Record,
        directory: &Path,
        joined: &[Joined],
    ) -> Result<()> {
        let names = joined.iter().any(Joined::has_names);
        let text = resolv_conf(&record.definition.host, !joined.is_empty(), names);
        write(directory, "resolv.conf", &text)
    }

    /// The text of `/etc/hosts`.
    pub(super) fn hosts(&self, record: &Record, joined: &[Joined]) -> Result<String> {
        let config = &record.definition.config;
        let host = &record.definition.host;
        let shared = host.network_mode == "host";
        let mut hosts = match shared {
            true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            false => LOCAL.to_owned(),
        };
        for entry in host.extra_hosts.iter().flatten() {
            let Some((name, address)) = entry.split_once([':', '=']) else { continue };
            let address = address.trim_matches(['[', ']']);
            if address == "host-gateway" {
                for address in self.host_gateway(joined) {
                    hosts.push_str(&format!("{address}\t{name}\n"));
                }
            } else {
                hosts.push_str(&format!("{address}\t{name}\n"));
            }
        }
        for line in self.linked(record, joined)? {
            hosts.push_str(&line);
        }
        if shared {
            return Ok(hosts);
        }
        let name = spec::hostname(record);
        let names = match config.domainname.as_str() {
            "" => name.clone(),
            domain => format!("{name}.{domain} {name}"),
        };
        let own: Vec<IpAddr> =
            joined.iter().flat_map(|j| j.addresses.iter().map(|a| a.address)).collect();
        for address in &own {
            hosts.push_str(&format!("{address}\t{names}\n"));
        }
        if own.is_empty() {
            hosts.push_str(&format!("127.0.1.1\t{names}\n"));
        }
        Ok(hosts)
    }

    /// Where the host is, seen from a container: its gateway.
    fn host_gateway(&self, joined: &[Joined]) -> Vec<IpAddr> {
        let with_route = joined.iter().find(|j| j.default_route).or_else(|| joined.first());
        let gateways: Vec<IpAddr> = with_route
            .iter()
            .flat_map(|j| j.addresses.iter().filter_map(|a| gateway_for(&j.network, a.address)))
            .collect();
        if gateways.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { gateways }
    }

    /// Lines for the containers that this one is linked to in the default network, where no names are
    /// resolved.
    fn linked(&self, record: &Record, joined: &[Joined]) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for joined in joined.iter().filter(|j| !j.has_names()) {
            for link in joined.wanted.links.iter().flatten() {
                let (name, alias) = link.split_once(':').unwrap_or((link, link));
                let other = record::find(self.db(), name)?;
                let held = network::held_by(self.db(), &other.id)?;
                let address = held.into_iter().find(|(network, _)| *network == joined.network.id);
                let Some((_, address)) = address else {
                    return Err(Error::invalid(format!(
                        "Cannot link to a non running container: {} AS {}/{alias}",
                        other.name, record.name
                    )));
                };
                let short = other.id.get(..12).unwrap_or(&other.id);
                let mut names = vec![alias.to_owned()];
                for name in [short, other.name.as_str()] {
                    if !names.iter().any(|n| n == name) {
                        names.push(name.to_owned());
                    }
                }
                lines.push(format!("{}\t{}\n", address.address, names.join(" ")));
            }
        }
        Ok(lines)
    }
}

/// Writes into the file that is there, if it is: a running container has it mounted.
fn write(directory: &Path, file: &str, content: &str) -> Result<()> {
    let path = directory.join(file);
    std::fs::write(&path, content)
        .map_err(|e| Error::system(format!("cannot write {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "search example.test\nnameserver 127.0.0.1\nnameserver 10.0.0.1\noptions edns0\n";

    #[test]
    fn servers_that_a_container_can_reach() {
        let plain = HostConfig::default();
        assert_eq!(compose(HOST, &plain, false, false), HOST);
        let text = compose(HOST, &plain, true, false);
        assert_eq!(nameservers(&text), ["10.0.0.1"]);
        let text = compose("nameserver 127.0.0.1\n", &plain, true, false);
        assert_eq!(nameservers(&text), PUBLIC);
        let text = compose(HOST, &plain, true, true);
        assert_eq!(nameservers(&text), ["127.0.0.11"]);
        assert!(text.contains("search example.test\n") && text.contains("ndots:0"), "{text}");
    }

    #[test]
    fn what_was_asked_for_replaces_what_is_there() {
        let list = |l: &[&str]| Some(l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let host = HostConfig {
            dns: list(&["10.9.9.9"]),
            dns_search: list(&["."]),
            dns_options: list(&["ndots:3"]),
            ..HostConfig::default()
        };
        assert_eq!(compose(HOST, &host, true, false), "nameserver 10.9.9.9\noptions ndots:3\n");
        assert_eq!(compose(HOST, &host, true, true), "nameserver 127.0.0.11\noptions ndots:3\n");
    }
}
