//! Connecting containers to networks and taking them out, while they run or not; and what a new
//! container is to be connected to.

use std::os::fd::{AsFd, OwnedFd};

use net::link::{Links, Prefix};
use rustix::fs::{Mode, OFlags};
use store::network::{self, Endpoint, Network};

use super::create::note;
use super::start::{Joined, choose_route, hold, interface_name, link_local, read_wanted};
use super::{DEFAULT, gateways, is_network};
use crate::clock;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::record::{self, Record};
use crate::types::{Config, EndpointSettings, HostConfig, NetworkingConfig};

/// What only a network that a person made can give.
fn check_settings(network: &Network, settings: &EndpointSettings) -> Result<()> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let fixed = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
    let invalid = |what: &str| {
        Err(Error::invalid(format!(
            "invalid config for network {}: invalid endpoint settings: {what}",
            network.name
        )))
    };
    if network.name == DEFAULT {
        if fixed {
            return invalid("user specified IP address is supported on user defined networks only");
        }
        if settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
            return invalid(
                "network-scoped alias is supported only for containers in user defined networks",
            );
        }
    }
    for text in &ipam.link_local_ips {
        if link_local(text).is_none() {
            return invalid(&format!(
                "invalid link-local IP address: {text}: give one of 169.254.0.0/16 or fe80::/10"
            ));
        }
    }
    for (text, v4) in [(&ipam.ipv4_address, true), (&ipam.ipv6_address, false)] {
        if text.is_empty() {
            continue;
        }
        let address = text.parse::<std::net::IpAddr>().ok().filter(|a| a.is_ipv4() == v4);
        let Some(address) = address else { return invalid(&format!("invalid IP address: {text}")) };
        if !network.subnets.iter().any(|s| s.subnet.prefix.contains(address)) {
            return invalid(&format!(
                "no configured subnet or ip-range contain the IP address {address}"
            ));
        }
    }
    if !settings.mac_address.is_empty() {
        settings.mac_address.parse::<net::link::Mac>()?;
    }
    Ok(())
}

/// Only what was asked for; the rest is known anew each time. The names are those that the name
/// server does not see elsewhere: the container's own may change.
fn asked(settings: &EndpointSettings, hostname: &str) -> EndpointSettings {
    let mut names: Vec<String> = settings.aliases.clone().unwrap_or_default();
    names.extend([hostname.to_owned()].into_iter().filter(|name| !name.is_empty()));
    EndpointSettings {
        dns_names: Some(names),
        ipam_config: settings.ipam_config.clone(),
        links: settings.links.clone(),
        aliases: settings.aliases.clone(),
        mac_address: settings.mac_address.clone(),
        driver_opts: settings.driver_opts.clone(),
        gw_priority: settings.gw_priority,
        ..EndpointSettings::default()
    }
}

fn endpoint(
    container: &str,
    hostname: &str,
    network: &Network,
    settings: &EndpointSettings,
) -> Result<Endpoint> {
    Ok(Endpoint {
        container: container.to_owned(),
        network_id: network.id.clone(),
        network: network.name.clone(),
        id: names::new_id()?,
        wanted: serde_json::to_string(&asked(settings, hostname))
            .map_err(|e| Error::system("cannot write an endpoint", e))?,
        ..Endpoint::default()
    })
}

fn not_connected(record: &Record, network: &str) -> Error {
    Error::new(
        ErrorKind::Forbidden,
        format!("container {} is not connected to the network {network}", record.id),
    )
}

/// Modes that leave no room for networks.
fn check_mode(record: &Record) -> Result<()> {
    let mode = record.definition.host.network_mode.as_str();
    if mode == "host" {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "container cannot be disconnected from host network or connected to host network",
        ));
    }
    if mode.starts_with("container:") {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    Ok(())
}

impl Engine {
    /// The endpoints of a new container, from its mode and what was asked for of networks.
    pub(crate) fn plan_endpoints(
        &self,
        config: &Config,
        host: &HostConfig,
        networking: &NetworkingConfig,
    ) -> Result<Vec<Endpoint>> {
        let mode = host.network_mode.as_str();
        let given = &networking.endpoints_config;
        if !is_network(mode) {
            if let Some(name) = given.keys().find(|name| *name != mode) {
                return Err(Error::invalid(format!(
                    "conflicting options: network {name} can't be joined with network mode {mode}"
                )));
            }
            return Ok(Vec::new());
        }
        let first = self.network_of_mode(mode)?;
        let mut settings = EndpointSettings::default();
        let mut others = Vec::new();
        for (name, wanted) in given {
            let network = self.network_of_mode(name)?;
            if network.id == first.id {
                settings = wanted.clone();
            } else {
                others.push((network, wanted.clone()));
            }
        }
        if let Some(mac) = config.mac_address.as_ref().filter(|mac| !mac.is_empty()) {
            if !settings.mac_address.is_empty() && settings.mac_address != *mac {
                return Err(Error::invalid(
                    "conflicting options: the container's MAC address and its network's differ",
                ));
            }
            settings.mac_address.clone_from(mac);
        }
        if let Some(links) = host.links.as_ref().filter(|links| !links.is_empty()) {
            for link in links {
                let name = link.split(':').next().unwrap_or(link);
                record::find(self.db(), name).map_err(|e| Error {
                    message: format!("could not get container for {name}: {}", e.message),
                    ..e
                })?;
            }
            settings.links.get_or_insert_default().extend(links.iter().cloned());
        }
        let mut endpoints = Vec::new();
        for (network, settings) in std::iter::once((first, settings)).chain(others) {
            check_settings(&network, &settings)?;
            endpoints.push(endpoint("", &config.hostname, &network, &settings)?);
        }
        Ok(endpoints)
    }

    /// Connects a container to a network; one that runs at once.
    pub fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: &EndpointSettings,
    ) -> Result<()> {
        let record = self.current(container)?;
        check_mode(&record)?;
        if matches!(network, "host" | "none") {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("container cannot be connected to network {network} but when it is made"),
            ));
        }
        let network = self.network_of_mode(network)?;
        check_settings(&network, settings)?;
        let rows = network::endpoints_of(self.db(), &record.id)?;
        if let Some(row) = rows.iter().find(|row| row.network_id == network.id) {
            let short = record.id.get(..12).unwrap_or(&record.id);
            let _ = row;
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "endpoint with name {} already exists in network {}: container {short} is \
                     connected to it",
                    record.name, network.name
                ),
            ));
        }
        let hostname = &record.definition.config.hostname;
        let mut endpoint = endpoint(&record.id, hostname, &network, settings)?;
        if !record.state.is_live() {
            return self.store().db().transaction(|tx| -> Result<()> {
                network::put_endpoint(tx, &endpoint)?;
                self.leave_none(tx, &record, &network.name)
            });
        }
        let taken: Vec<String> = rows.iter().map(|row| row.interface.clone()).collect();
        let wanted = read_wanted(&endpoint);
        let addresses = self.store().db().transaction(|tx| -> Result<Vec<Prefix>> {
            let addresses = hold(tx, &network, &endpoint, &wanted)?;
            endpoint.interface = interface_name(&network, &taken);
            endpoint.last = addresses.iter().map(|a| a.address).collect();
            network::put_endpoint(tx, &endpoint)?;
            Ok(addresses)
        })?;
        // With another default route already there this one gets none.
        let before = self.joined_now(&record, &rows)?;
        let default_route = !network.internal
            && !gateways(&network).is_empty()
            && !before.iter().any(|j| j.default_route);
        let mut joined = Joined {
            network: network.clone(),
            endpoint,
            wanted,
            addresses,
            default_route,
            ports: Vec::new(),
        };
        let done =
            self.take_ports(&record, &mut joined).and_then(|()| self.plug_live(&record, &joined));
        if let Err(e) = done {
            self.store().db().transaction(|tx| -> Result<()> {
                network::delete_endpoint(tx, &record.id, &network.id)?;
                if !joined.ports.is_empty() {
                    network::release_ports(tx, &record.id)?;
                }
                Ok(network::release_addresses(tx, &record.id, Some(&network.id))?)
            })?;
            return Err(e);
        }
        self.store().db().transaction(|tx| -> Result<()> {
            self.leave_none(tx, &record, &network.name)?;
            note(tx, clock::now(), "connect", &network, Some(&record.id))
        })?;
        self.rewrite_files(&record)
    }

    /// Takes the ports a container publishes for an endpoint that has become its way out.
    fn take_ports(&self, record: &Record, joined: &mut Joined) -> Result<()> {
        if !joined.default_route || joined.network.bridge.is_none() {
            return Ok(());
        }
        let publish_at = self.publish_at(&joined.network);
        joined.ports = self
            .store()
            .db()
            .transaction(|tx| super::ports::take(tx, record, &joined.addresses, publish_at))?;
        Ok(())
    }

    /// A container of network `none` that is connected to one is in that one from now on.
    fn leave_none(
        &self,
        tx: &rusqlite::Transaction<'_>,
        record: &Record,
        network: &str,
    ) -> Result<()> {
        if record.definition.host.network_mode != "none" {
            return Ok(());
        }
        let Some(mut now) = record::by_id(tx, &record.id)? else { return Ok(()) };
        network.clone_into(&mut now.definition.host.network_mode);
        record::update_definition(tx, &now)
    }

    fn plug_live(&self, record: &Record, joined: &Joined) -> Result<()> {
        let host = self.network_host()?;
        self.make_ready(host, &[&joined.network])?;
        let namespace = self.namespace_of(record)?;
        self.plug_one(host, joined, namespace.as_fd())?;
        self.await_ports(std::slice::from_ref(joined))?;
        if joined.has_names() {
            self.serve_names(&record.id, namespace.as_fd(), None)?;
        }
        Ok(())
    }

    /// The network namespace of a running container.
    pub(super) fn namespace_of(&self, record: &Record) -> Result<OwnedFd> {
        let _pidfd = record.identity().open()?;
        let path = format!("/proc/{}/ns/net", record.pid);
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::system(format!("cannot open {path}"), std::io::Error::from(e)))
    }

    /// What a running container is plugged into.
    pub(super) fn joined_now(&self, record: &Record, rows: &[Endpoint]) -> Result<Vec<Joined>> {
        let held = network::held_by(self.db(), &record.id)?;
        let published = network::ports_of(self.db(), &record.id)?;
        let mut all = Vec::new();
        for row in rows.iter().filter(|row| !row.interface.is_empty()) {
            let Some(network) = network::by_id(self.db(), &row.network_id)? else { continue };
            let addresses: Vec<Prefix> =
                held.iter().filter(|(id, _)| *id == network.id).map(|(_, a)| *a).collect();
            let ports = published
                .iter()
                .filter(|port| addresses.iter().any(|a| a.address == port.container))
                .cloned()
                .collect();
            all.push(Joined {
                wanted: read_wanted(row),
                endpoint: row.clone(),
                network,
                addresses,
                default_route: false,
                ports,
            });
        }
        choose_route(&mut all);
        Ok(all)
    }

    /// Writes the files of a running container anew, in place: it has them mounted.
    fn rewrite_files(&self, record: &Record) -> Result<()> {
        let rows = network::endpoints_of(self.db(), &record.id)?;
        let joined = self.joined_now(record, &rows)?;
        let directory = self.store().container_directory(&record.id);
        self.write_resolv_conf(record, &directory, &joined)?;
        let path = directory.join("hosts");
        std::fs::write(&path, self.hosts(record, &joined)?)
            .map_err(|e| Error::system(format!("cannot write {}", path.display()), e))
    }

    /// Takes a container out of a network. With `force` also one that is gone.
    pub fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let record = match self.current(container) {
            Ok(record) => record,
            Err(e) if e.kind == ErrorKind::NotFound && force => return Ok(()),
            Err(e) => return Err(e),
        };
        check_mode(&record)?;
        let rows = network::endpoints_of(self.db(), &record.id)?;
        let row = match network::find(self.db(), network) {
            Ok(found) => rows.iter().find(|row| row.network_id == found.id),
            Err(e) => match rows.iter().find(|row| row.network == network) {
                Some(row) => Some(row),
                None => return Err(e.into()),
            },
        };
        let Some(row) = row else { return Err(not_connected(&record, network)) };
        let found = network::by_id(self.db(), &row.network_id)?;
        let live = record.state.is_live() && !row.interface.is_empty();
        if let (Some(network), true) = (&found, live) {
            let joined = self.joined_now(&record, &rows)?;
            self.unplug_live(&record, network, row, &joined)?;
        }
        self.store().db().transaction(|tx| -> Result<()> {
            network::delete_endpoint(tx, &record.id, &row.network_id)?;
            network::release_addresses(tx, &record.id, Some(&row.network_id))?;
            match (&found, live) {
                (Some(network), true) => {
                    note(tx, clock::now(), "disconnect", network, Some(&record.id))
                }
                _ => Ok(()),
            }
        })?;
        if live { self.rewrite_files(&record) } else { Ok(()) }
    }

    fn unplug_live(
        &self,
        record: &Record,
        network: &Network,
        row: &Endpoint,
        joined: &[Joined],
    ) -> Result<()> {
        let host = self.network_host()?;
        let this = joined.iter().find(|j| j.network.id == network.id);
        let ports = this.map(|j| j.ports.clone()).unwrap_or_default();
        let namespace = self.namespace_of(record)?;
        if network.bridge.is_some() {
            host.unplug(&network.id, &record.id, &ports)?;
        } else {
            Links::open_in(namespace.as_fd())?.delete([row.interface.as_str()])?;
        }
        if !ports.is_empty() {
            self.store().db().transaction(|tx| network::release_ports(tx, &record.id))?;
        }
        // Somebody else's turn to be the way out.
        if this.is_some_and(|j| j.default_route) {
            let mut left: Vec<Joined> =
                joined.iter().filter(|j| j.network.id != network.id).cloned().collect();
            choose_route(&mut left);
            if let Some(next) = left.iter_mut().find(|j| j.default_route) {
                self.move_route(next, &namespace)?;
                self.take_ports(record, next)?;
                host.filter.publish(&next.ports, &record.id)?;
            }
        }
        Ok(())
    }

    fn move_route(&self, next: &Joined, namespace: &OwnedFd) -> Result<()> {
        let links = Links::open_in(namespace.as_fd())?;
        let index = links.index(&next.endpoint.interface)?;
        let mut batch = net::netlink::Batch::new();
        for address in &next.addresses {
            let any: std::net::IpAddr = match address.address.is_ipv4() {
                true => std::net::Ipv4Addr::UNSPECIFIED.into(),
                false => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            let gateway = super::gateway_for(&next.network, address.address);
            if let (Some(gateway), Some(to)) = (gateway, Prefix::new(any, 0)) {
                batch.route(to, Some(gateway), index, false);
            }
        }
        let mut errors = links.commit_all(&mut batch)?;
        errors.retain(|e| e.errno() != Some(rustix::io::Errno::EXIST));
        match errors.into_iter().next() {
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }
}
