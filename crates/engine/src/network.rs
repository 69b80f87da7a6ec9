//! Networks: the rows of the database joined with what the kernel has.
//!
//! What a person asks for is in the database (`store::network`); interfaces and rules (`net`) follow
//! from it and from what runs, and are made when they are first needed: a network's bridge with its
//! first container after a boot, the default network with the first container of all.
//!
//! Start reading at [`start`]: what a container's start does. `create` makes and removes networks,
//! `connect` changes what running containers are in, `repair` compares the database with the kernel,
//! `names` is the name server's process, `host_names` and `resolver` have the host ask it, too.

mod connect;
pub(crate) mod create;
pub(crate) mod files;
mod host_names;
mod link;
pub(crate) mod names;
mod ports;
mod repair;
mod resolver;
mod show;
pub(crate) mod start;

use std::net::IpAddr;

use net::endpoint::Host;
use net::link::{IpvlanMode, MacvlanMode, Parented, Prefix};
use store::network::{self, Network};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use ports::{check as check_ports, matches as port_matches};

/// Name of the network of containers that name none.
pub(crate) const DEFAULT: &str = "bridge";

/// Options of the bridge driver.
pub(crate) mod option {
    pub(crate) const BRIDGE: &str = "com.docker.network.bridge.name";
    pub(crate) const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub(crate) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub(crate) const PUBLISH: &str = "com.docker.network.bridge.host_binding_ipv4";
    pub(crate) const MTU: &str = "com.docker.network.driver.mtu";
    pub(crate) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
    pub(crate) const PREFIX: &str = "com.docker.network.container_iface_prefix";
    /// Ours, and not shown: the options for addresses, as JSON, if any were given at all.
    pub(crate) const IPAM: &str = "wherry.ipam-options";
    pub(crate) const PARENT: &str = "parent";
    pub(crate) const MACVLAN_MODE: &str = "macvlan_mode";
    pub(crate) const IPVLAN_MODE: &str = "ipvlan_mode";
}

/// Whether a network mode names a network with interfaces of its own.
pub(crate) fn is_network(mode: &str) -> bool {
    !matches!(mode, "none" | "host") && !mode.starts_with("container:")
}

/// A switch among the options: `true`, `1`, …, or what it is by default.
fn switch(network: &Network, name: &str, default: bool) -> bool {
    network.options.get(name).map_or(default, |value| is_true(value))
}

fn is_true(value: &str) -> bool {
    matches!(value, "" | "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The largest packet; 0 for the kernel's default.
fn mtu(network: &Network) -> u32 {
    network.options.get(option::MTU).and_then(|mtu| mtu.parse().ok()).unwrap_or(0)
}

/// Gateways with the lengths of their subnets.
fn gateways(network: &Network) -> Vec<Prefix> {
    let gateway = |s: &store::network::NetworkSubnet| {
        s.subnet.gateway.map(|address| Prefix { address, length: s.subnet.prefix.length })
    };
    network.subnets.iter().filter_map(gateway).collect()
}

/// What `net` needs to know of a network with a bridge.
fn bridged(network: &Network) -> Option<net::endpoint::Network> {
    Some(net::endpoint::Network {
        id: network.id.clone(),
        bridge: network.bridge.clone()?,
        existing: network.existing,
        gateways: gateways(network),
        mtu: mtu(network),
        icc: switch(network, option::ICC, true),
        internal: network.internal,
        masquerade: switch(network, option::MASQUERADE, true),
    })
}

/// How a network without a bridge is on its parent.
fn parented(network: &Network) -> Parented {
    let mode = |name| network.options.get(name).map(String::as_str).unwrap_or_default();
    if network.driver == "ipvlan" {
        return Parented::Ipvlan(match mode(option::IPVLAN_MODE) {
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3S,
            _ => IpvlanMode::L2,
        });
    }
    Parented::Macvlan(match mode(option::MACVLAN_MODE) {
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        _ => MacvlanMode::Bridge,
    })
}

/// The parent interface of a network without a bridge; without one it has a dummy of its own.
fn parent(network: &Network) -> String {
    match network.options.get(option::PARENT) {
        Some(parent) if !parent.is_empty() => parent.clone(),
        _ => format!("dm-{}", network.id.get(..12).unwrap_or_default()),
    }
}

impl Engine {
    /// The network a mode names; the default one is made if it is not there yet.
    pub(crate) fn network_of_mode(&self, mode: &str) -> Result<Network> {
        match mode {
            "default" | DEFAULT => self.default_network(),
            mode => Ok(network::find(self.db(), mode)?),
        }
    }

    /// Makes what a network needs in the kernel, or what is missing of it.
    pub(crate) fn make_ready(&self, host: &Host, networks: &[&Network]) -> Result<()> {
        self.look_once()?;
        let v6 = networks.iter().any(|n| n.ipv6 && !n.internal);
        let fresh = match host.prepare(v6) {
            // The rules of another version of this program.
            Err(net::Error::OtherRules(_)) => true,
            other => other?,
        };
        for network in networks {
            match bridged(network) {
                Some(bridged) => {
                    if fresh || host.links.get(&bridged.bridge)?.is_none() {
                        host.make(&bridged).or_else(|e| match e {
                            net::Error::OtherRules(_) => Ok(()),
                            e => Err(e),
                        })?;
                    }
                }
                None => self.make_parent(host, network)?,
            }
        }
        if fresh {
            self.rebuild_rules(host)?;
        }
        Ok(())
    }

    /// A network without a named parent is on an interface of its own that leads nowhere.
    fn make_parent(&self, host: &Host, network: &Network) -> Result<()> {
        let name = parent(network);
        if host.links.get(&name)?.is_some() {
            return Ok(());
        }
        if network.options.get(option::PARENT).is_some_and(|p| !p.is_empty()) {
            return Err(Error::new(
                ErrorKind::System,
                format!(
                    "network {}: its parent interface {name} is not there; make it, or make the \
                     network anew",
                    network.name
                ),
            ));
        }
        let mut batch = net::netlink::Batch::new();
        batch.dummy(&net::link::NewLink { name: &name, mtu: mtu(network), mac: None });
        match host.links.commit(&mut batch) {
            Err(e) if e.errno() == Some(rustix::io::Errno::EXIST) => {}
            other => other?,
        }
        let mut batch = net::netlink::Batch::new();
        batch.alias(&name, &net::name::alias(&self.settings().network_tag(), "-", &network.id));
        batch.up(host.links.index(&name)?, true);
        Ok(host.links.commit(&mut batch)?)
    }
}

/// The addresses of a family as `inspect` shows them.
fn of_family(addresses: &[Prefix], v4: bool) -> Option<Prefix> {
    addresses.iter().find(|a| a.address.is_ipv4() == v4).copied()
}

/// The gateway for an address.
fn gateway_for(network: &Network, address: IpAddr) -> Option<IpAddr> {
    let subnet = network.subnets.iter().find(|s| s.subnet.prefix.contains(address))?;
    subnet.subnet.gateway
}
