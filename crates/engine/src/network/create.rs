//! Making networks, and removing them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;

use net::address::{self, Pool, Subnet};
use net::link::Prefix;
use rustix::fs::FlockOperation;
use store::network::{self, Network, NetworkSubnet};

use super::{DEFAULT, bridged, option, parent};
use crate::clock;
use crate::engine::{Engine, Filters};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::list::{check_filters, prune_matches};
use crate::names;
use crate::record;
use crate::types::{IpamConfig, NetworkCreate, Pruned};

/// Held while a subnet is chosen and its bridge made, by every engine of the host: so no two choose
/// the same.
const LOCK: &str = "/run/wherry-networks.lock";

fn lock() -> Option<File> {
    let file = File::options().create(true).truncate(false).write(true).open(LOCK).ok()?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// Notes an event of a network.
pub(crate) fn note(
    tx: &rusqlite::Transaction<'_>,
    at: i64,
    action: &str,
    network: &Network,
    container: Option<&str>,
) -> Result<()> {
    let mut attributes: BTreeMap<String, String> =
        [("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.clone())]
            .into();
    if let Some(container) = container {
        attributes.insert("container".into(), container.into());
    }
    events::note(tx, at, "network", action, &network.id, &attributes)
}

fn check_name(name: &str) -> Result<()> {
    // Spaces within, as Docker has them.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.- ".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || !name.bytes().all(good) || name.ends_with(' ') || name.len() > 255 {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    if matches!(name, "host" | "none" | "bridge" | "default" | "container") {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    Ok(())
}

/// Refuses options nobody knows, and values that make no sense.
fn check_options(driver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in options {
        let one_of = |known: &[&str]| {
            if known.contains(&value.as_str()) {
                return Ok(());
            }
            Err(Error::invalid(format!(
                "invalid value {value:?} of option {name}: known are {}",
                known.join(", ")
            )))
        };
        match (driver, name.as_str()) {
            (_, option::MTU) => {
                if !matches!(value.parse::<u32>(), Ok(0 | 68..=65535)) {
                    return Err(Error::invalid(format!(
                        "invalid value {value:?} of option {name}: give 68 to 65535"
                    )));
                }
            }
            (_, option::PREFIX) => net::link::check_name(&format!("{value}0"))?,
            ("bridge", option::BRIDGE) => net::link::check_name(value)?,
            ("bridge", option::ICC | option::MASQUERADE | option::DEFAULT_BRIDGE) => {
                let known = [
                    "", "0", "1", "f", "t", "F", "T", "false", "true", "FALSE", "TRUE", "False",
                    "True",
                ];
                one_of(&known)?;
            }
            ("bridge", option::PUBLISH) => {
                if value.parse::<IpAddr>().is_err() {
                    return Err(Error::invalid(format!(
                        "invalid value {value:?} of option {name}: give an address"
                    )));
                }
            }
            ("bridge", "com.docker.network.bridge.gateway_mode_ipv4")
            | ("bridge", "com.docker.network.bridge.gateway_mode_ipv6") => one_of(&["nat", ""])?,
            ("macvlan" | "ipvlan", option::PARENT) => {
                if !value.is_empty() {
                    net::link::check_name(value)?;
                }
            }
            ("macvlan", option::MACVLAN_MODE) => {
                one_of(&["", "bridge", "private", "vepa", "passthru"])?;
            }
            ("ipvlan", option::IPVLAN_MODE) => one_of(&["", "l2", "l3", "l3s"])?,
            // Docker takes any label for an option, too.
            _ if !name.starts_with("com.docker.network") => {}
            _ => {
                return Err(Error::invalid(format!(
                    "option {name} is not known to the driver {driver}; leave it out"
                )));
            }
        }
    }
    Ok(())
}

/// A subnet as it was asked for.
fn subnet(given: &IpamConfig, pick: impl FnOnce() -> Result<Prefix>) -> Result<NetworkSubnet> {
    let wrong = |what: &str, text: &str| Error::invalid(format!("invalid {what}: {text}"));
    let prefix = match given.subnet.as_str() {
        "" => pick()?,
        text => text.parse::<Prefix>().map_err(|_| wrong("subnet", text))?,
    };
    if prefix != prefix.network() {
        let network = prefix.network();
        return Err(Error::invalid(format!(
            "invalid network config:\ninvalid subnet {prefix}: it should be {network}"
        )));
    }
    let range = match given.ip_range.as_str() {
        "" => None,
        text => Some(text.parse::<Prefix>().map_err(|_| wrong("ip-range", text))?),
    };
    let address = |what: &str, text: &str| text.parse::<IpAddr>().map_err(|_| wrong(what, text));
    let gateway = match given.gateway.as_str() {
        "" => None,
        text => Some(address("gateway", text)?),
    };
    let mut reserved = BTreeMap::new();
    for (name, text) in &given.auxiliary_addresses {
        reserved.insert(name.clone(), address("aux-address", text)?);
    }
    let list = reserved.values().copied().collect();
    Ok(NetworkSubnet { id: 0, subnet: Subnet::new(prefix, range, gateway, list)?, reserved })
}

/// What a new subnet is to keep clear of.
#[derive(Debug, Default)]
struct Used {
    /// Of other networks, and for a bridge of the host's own interfaces: refused, even when asked for.
    taken: Vec<Prefix>,
    /// What the host has routes to: passed over when the subnet is ours to choose. Who names one means
    /// it (a company's 10.0.0.0/8 by way of a gateway is no reason not to have 10.5.0.0/16 here).
    routed: Vec<Prefix>,
}

/// Deletes a network unless somebody is in it; whether it did.
fn delete_unused(tx: &rusqlite::Transaction<'_>, network: &Network) -> Result<bool> {
    if !network::users(tx, &network.id)?.is_empty() {
        return Ok(false);
    }
    network::delete(tx, &network.id)?;
    Ok(true)
}

impl Engine {
    /// Makes a network; its ID.
    ///
    /// # Errors
    /// `Invalid` for what makes no sense, `Conflict` for a name in use, `Forbidden` for the names of
    /// networks that are there by themselves. Nothing is left behind then.
    pub fn create_network(&self, request: &NetworkCreate) -> Result<(String, Vec<String>)> {
        check_name(&request.name)?;
        let driver = match request.driver.as_str() {
            "" | "default" => "bridge",
            driver @ ("bridge" | "macvlan" | "ipvlan") => driver,
            driver @ ("host" | "null" | "none") => {
                let name = if driver == "host" { "host" } else { "null" };
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    format!("only one instance of \"{name}\" network is allowed"),
                ));
            }
            other => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "could not find plugin {other} in v1 plugin registry: plugin not found: \
                         known drivers are bridge, macvlan and ipvlan"
                    ),
                ));
            }
        };
        if !matches!(request.scope.as_str(), "" | "local") {
            return Err(Error::invalid(format!(
                "scope {}: this engine is not part of a cluster; its networks are local",
                request.scope
            )));
        }
        if !matches!(request.ipam.driver.as_str(), "" | "default") {
            return Err(Error::invalid(format!(
                "ipam driver {:?} is not known: addresses come from the engine (default)",
                request.ipam.driver
            )));
        }
        check_options(driver, &request.options)?;
        if driver != "bridge" && !self.network_host()?.links.knows(driver)? {
            return Err(Error::invalid(format!(
                "network {}: this kernel has no {driver} interfaces: load its module (modprobe {driver}), \
                 take a kernel that has it, or another driver",
                request.name
            )));
        }
        let id = names::new_id()?;
        let bridge = match (driver, request.options.get(option::BRIDGE)) {
            ("bridge", Some(name)) if !name.is_empty() => Some(name.clone()),
            ("bridge", _) => Some(format!("br-{}", id.get(..12).unwrap_or_default())),
            _ => None,
        };
        let _lock = lock();
        let host = self.network_host()?;
        let (existing, configs) = self.existing_bridge(host, bridge.as_deref(), request)?;
        let used = self.used_subnets(host, driver, existing)?;
        let mut network = Network {
            id: id.clone(),
            name: request.name.clone(),
            driver: driver.into(),
            bridge,
            existing,
            internal: request.internal,
            attachable: request.attachable,
            ipv6: false,
            options: request.options.clone(),
            labels: request.labels.clone(),
            created_ns: clock::now(),
            subnets: self.choose_subnets(request, &configs, used)?,
        };
        if let Some(options) = &request.ipam.options {
            let text = serde_json::to_string(options)
                .map_err(|e| Error::system("cannot write options of addresses", e))?;
            network.options.insert(option::IPAM.into(), text);
        }
        network.ipv6 = network.subnets.iter().any(|s| s.subnet.prefix.address.is_ipv6());
        if network.driver != "bridge" {
            self.make_parent(host, &network)?;
        }
        self.insert_network(&mut network)?;
        if let Err(e) = self.make_ready(host, &[&network]) {
            if let Some(bridged) = bridged(&network) {
                let _ = host.unmake(&bridged);
            }
            self.store().db().transaction(|tx| network::delete(tx, &id))?;
            return Err(e);
        }
        Ok((id, Vec::new()))
    }

    fn insert_network(&self, network: &mut Network) -> Result<()> {
        self.store().db().transaction(|tx| -> Result<()> {
            if let Some(bridge) = &network.bridge {
                let taken =
                    network::all(tx)?.into_iter().find(|n| n.bridge.as_ref() == Some(bridge));
                if let Some(other) = taken {
                    return Err(Error::new(
                        ErrorKind::Forbidden,
                        format!(
                            "networks have same bridge name: {bridge} is of network {}",
                            other.name
                        ),
                    ));
                }
            }
            network::insert(tx, network)?;
            note(tx, network.created_ns, "create", network, None)
        })
    }

    /// Whether the bridge is there and somebody else's; then its own subnets are the network's, unless
    /// others are given.
    fn existing_bridge(
        &self,
        host: &net::endpoint::Host,
        bridge: Option<&str>,
        request: &NetworkCreate,
    ) -> Result<(bool, Vec<IpamConfig>)> {
        let given = request.ipam.config.clone();
        let Some(link) = bridge.map(|name| host.links.get(name)).transpose()?.flatten() else {
            return Ok((false, given));
        };
        let tag = self.settings().network_tag();
        if let Some((engine, _, network)) = net::name::read_alias(&link.alias) {
            if engine == tag && network::by_id(self.db(), network)?.is_none() {
                // What a network that is gone has left.
                host.links.delete([link.name.as_str()])?;
                return Ok((false, given));
            }
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("interface {} is of another network already; name another", link.name),
            ));
        }
        if link.kind != "bridge" {
            return Err(Error::invalid(format!(
                "interface {} is there and no bridge; name another",
                link.name
            )));
        }
        let addresses = host.links.addresses()?;
        let own = addresses.iter().filter(|(index, prefix)| {
            *index == link.index && (prefix.address.is_ipv4() || request.enable_ipv6 == Some(true))
        });
        let own: Vec<IpamConfig> = own
            .map(|(_, prefix)| IpamConfig {
                subnet: prefix.network().to_string(),
                gateway: prefix.address.to_string(),
                ..IpamConfig::default()
            })
            .filter(|c| !c.subnet.starts_with("fe80"))
            .collect();
        Ok((true, if given.is_empty() { own } else { given }))
    }

    /// What the subnets of a new network must keep clear of. A bridge that is there already has its
    /// subnets on the host, and a macvlan's are those of the parent's own network.
    fn used_subnets(
        &self,
        host: &net::endpoint::Host,
        driver: &str,
        existing: bool,
    ) -> Result<Used> {
        let mut used = Used::default();
        if !existing {
            used.routed = host.links.routed()?;
            if driver == "bridge" {
                let addresses = host.links.addresses()?;
                used.taken.extend(addresses.iter().map(|(_, prefix)| prefix.network()));
            }
        }
        for network in network::all(self.db())? {
            used.taken.extend(network.subnets.iter().map(|s| s.subnet.prefix));
        }
        Ok(used)
    }

    /// The subnets of a new network: those given, and where a family has none, a free one.
    fn choose_subnets(
        &self,
        request: &NetworkCreate,
        configs: &[IpamConfig],
        mut used: Used,
    ) -> Result<Vec<NetworkSubnet>> {
        let (v4, v6) = (request.enable_ipv4 != Some(false), request.enable_ipv6 == Some(true));
        if !v4 && !v6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
        let mut subnets: Vec<NetworkSubnet> = Vec::new();
        for config in configs {
            let six = config.subnet.contains(':')
                || config.subnet.is_empty() && config.gateway.contains(':');
            let made = subnet(config, || {
                if request
                    .ipam
                    .config
                    .iter()
                    .any(|c| !c.ip_range.is_empty() || !c.gateway.is_empty())
                {
                    let what = if config.ip_range.is_empty() { "gateway" } else { "ip-range" };
                    return Err(Error::invalid(format!("a subnet is needed with --{what}")));
                }
                self.free_subnet(six, &used)
            })?;
            let prefix = made.subnet.prefix;
            if prefix.address.is_ipv6() && !v6 {
                // As in Docker: an IPv6 subnet means nothing without --ipv6.
                continue;
            }
            if prefix.address.is_ipv4() && !v4 {
                return Err(Error::invalid(format!(
                    "subnet {prefix} is given, but IPv4 is not enabled"
                )));
            }
            address::check_free(prefix, &used.taken)
                .map_err(|e| Error::new(ErrorKind::Forbidden, e.to_string()))?;
            used.taken.push(prefix);
            subnets.push(made);
        }
        for (wanted, six) in [(v4, false), (v6, true)] {
            if wanted && !subnets.iter().any(|s| s.subnet.prefix.address.is_ipv6() == six) {
                let prefix = self.free_subnet(six, &used)?;
                used.taken.push(prefix);
                let subnet = Subnet::new(prefix, None, None, Vec::new())?;
                subnets.push(NetworkSubnet { id: 0, subnet, reserved: BTreeMap::new() });
            }
        }
        Ok(subnets)
    }

    fn free_subnet(&self, six: bool, used: &Used) -> Result<Prefix> {
        let mut pools: Vec<Pool> = match self.settings().address_pools.as_slice() {
            [] => address::default_pools(),
            pools => pools.to_vec(),
        };
        pools.retain(|pool| pool.base.address.is_ipv6() == six);
        if six && pools.is_empty() {
            let tag = self.settings().network_tag();
            let seed = u64::from_str_radix(&tag, 16).unwrap_or(1);
            pools.push(address::ipv6_pool(seed));
        }
        Ok(address::free_subnet(&pools, &[used.taken.as_slice(), &used.routed].concat())?)
    }

    /// The network of containers that name none; made when it is first needed, or when the settings
    /// say something new of it and nobody uses it.
    pub(crate) fn default_network(&self) -> Result<Network> {
        if let Some(network) = network::by_name(self.db(), DEFAULT)? {
            if self.is_as_set(&network) {
                return Ok(network);
            }
            let _lock = lock();
            if !self.store().db().transaction(|tx| delete_unused(tx, &network))? {
                return Ok(network);
            }
            if let Some(bridged) = bridged(&network) {
                self.network_host()?.unmake(&bridged)?;
            }
        }
        let settings = self.settings();
        let _lock = lock();
        if let Some(network) = network::by_name(self.db(), DEFAULT)? {
            return Ok(network);
        }
        let mut options: BTreeMap<String, String> = [
            (option::DEFAULT_BRIDGE, "true"),
            (option::ICC, "true"),
            (option::MASQUERADE, "true"),
            (option::PUBLISH, "0.0.0.0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        options.insert(option::BRIDGE.into(), settings.bridge_name());
        let mtu = if settings.bridge_mtu == 0 { 1500 } else { settings.bridge_mtu };
        options.insert(option::MTU.into(), mtu.to_string());
        let mut request = NetworkCreate { name: DEFAULT.into(), options, ..Default::default() };
        if !settings.bridge_address.is_empty() {
            let prefix = crate::settings::bridge_address(&settings.bridge_address)
                .map_err(Error::invalid)?;
            request.ipam.config.push(IpamConfig {
                subnet: prefix.network().to_string(),
                gateway: prefix.address.to_string(),
                ..IpamConfig::default()
            });
        }
        let host = self.network_host()?;
        let bridge = settings.bridge_name();
        let (existing, configs) = self.existing_bridge(host, Some(&bridge), &request)?;
        let used = self.used_subnets(host, "bridge", existing)?;
        let mut network = Network {
            id: names::new_id()?,
            name: DEFAULT.into(),
            driver: "bridge".into(),
            bridge: Some(bridge),
            existing,
            internal: false,
            attachable: false,
            ipv6: false,
            subnets: self.choose_subnets(&request, &configs, used)?,
            options: request.options,
            labels: BTreeMap::new(),
            created_ns: clock::now(),
        };
        self.insert_network(&mut network)?;
        Ok(network)
    }

    /// Makes the default network's bridge, if it is not there. A range that somebody else has begun
    /// to use since it was chosen is changed first, if nobody is in the network.
    pub(super) fn bring_default_up(
        &self,
        host: &net::endpoint::Host,
        network: Network,
    ) -> Result<Network> {
        let there = || -> Result<bool> {
            Ok(match &network.bridge {
                Some(bridge) => host.links.get(bridge)?.is_some(),
                None => true,
            })
        };
        if there()? {
            return Ok(network);
        }
        let routed = host.links.routed()?;
        // Another start may have made it meanwhile, and then its own range is among those.
        if there()? {
            return Ok(network);
        }
        let mut network = network;
        let clash = |network: &Network| {
            network.subnets.iter().any(|s| routed.iter().any(|r| r.overlaps(s.subnet.prefix)))
        };
        if clash(&network)
            && self.settings().bridge_address.is_empty()
            && self.store().db().transaction(|tx| delete_unused(tx, &network))?
        {
            network = self.default_network()?;
        }
        let _lock = lock();
        self.make_ready(host, &[&network])?;
        Ok(network)
    }

    /// Whether the default network is what the settings say.
    fn is_as_set(&self, network: &Network) -> bool {
        let settings = self.settings();
        let mtu = if settings.bridge_mtu == 0 { 1500 } else { settings.bridge_mtu };
        let gateways: Vec<String> =
            super::gateways(network).iter().map(ToString::to_string).collect();
        network.bridge.as_deref() == Some(settings.bridge_name().as_str())
            && super::mtu(network) == mtu
            && (settings.bridge_address.is_empty() || gateways.contains(&settings.bridge_address))
    }

    /// Removes a network that nobody is in.
    ///
    /// # Errors
    /// `Forbidden` for networks that are there by themselves and those with running containers.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        if matches!(name, "host" | "none") {
            return Err(predefined(name));
        }
        self.reconcile()?;
        let network = network::find(self.db(), name)?;
        if network.name == DEFAULT {
            return Err(predefined(DEFAULT));
        }
        self.remove_unused(&network)
    }

    fn remove_unused(&self, network: &Network) -> Result<()> {
        let users = network::users(self.db(), &network.id)?;
        if !users.is_empty() {
            // Perhaps nobody has noticed yet that they ended.
            self.reconcile_all()?;
        }
        let host = self.network_host()?;
        self.store().db().transaction(|tx| -> Result<()> {
            let users = network::users(tx, &network.id)?;
            if !users.is_empty() {
                let list: Vec<String> = users
                    .iter()
                    .filter_map(|id| record::by_id(tx, id).ok().flatten())
                    .map(|r| format!("name:\"{}\" id:\"{}\"", r.name, r.id.get(..12).unwrap_or("")))
                    .collect();
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    format!(
                        "error while removing network: network {} has active endpoints ({})",
                        network.name,
                        list.join(", ")
                    ),
                ));
            }
            // A start reserves its address before it looks for the bridge, so whoever comes after
            // this finds that the network is gone.
            self.unmake_network(host, network)?;
            if network::delete(tx, &network.id)? {
                note(tx, clock::now(), "destroy", network, None)?;
            }
            Ok(())
        })
    }

    /// Takes a network's interfaces and rules away; they can be made again.
    fn unmake_network(&self, host: &net::endpoint::Host, network: &Network) -> Result<()> {
        match bridged(network) {
            Some(bridged) => Ok(host.unmake(&bridged)?),
            None => {
                let name = parent(network);
                let own = network.options.get(option::PARENT).is_none_or(String::is_empty);
                if own { Ok(host.links.delete([name.as_str()])?) } else { Ok(()) }
            }
        }
    }

    /// Removes all networks that no container is connected to, running or not. Interfaces of the
    /// default network, which stays, go too while nobody runs in it.
    pub fn prune_networks(&self, filters: &Filters) -> Result<Pruned> {
        check_filters(filters, &["until", "label", "label!"])?;
        self.reconcile_all()?;
        let mut pruned = Pruned::default();
        for network in network::all(self.db())? {
            if network.name == DEFAULT {
                continue;
            }
            let unused = network::endpoints_in(self.db(), &network.id)?.is_empty();
            if !unused || !prune_matches(filters, network.created_ns, &network.labels)? {
                continue;
            }
            match self.remove_unused(&network) {
                Ok(()) => pruned.deleted.push(network.name),
                // Somebody began to use it meanwhile.
                Err(e) if e.kind == ErrorKind::Forbidden => {}
                Err(e) => return Err(e),
            }
        }
        if filters.is_empty() {
            self.put_default_away()?;
        }
        if !pruned.deleted.is_empty() {
            self.note_prune("network", 0)?;
        }
        Ok(pruned)
    }

    /// Takes the default network's bridge away while nobody needs it, and the rules with it if no
    /// other network is left.
    fn put_default_away(&self) -> Result<()> {
        let host = self.network_host()?;
        self.store().db().transaction(|tx| -> Result<()> {
            let (default, others): (Vec<Network>, Vec<Network>) =
                network::all(tx)?.into_iter().partition(|network| network.name == DEFAULT);
            for network in default {
                if !network::users(tx, &network.id)?.is_empty() {
                    return Ok(());
                }
                self.unmake_network(host, &network)?;
            }
            if others.is_empty() {
                host.remove_rules()?;
            }
            Ok(())
        })
    }
}

fn predefined(name: &str) -> Error {
    Error::new(
        ErrorKind::Forbidden,
        format!("{name} is a pre-defined network and cannot be removed"),
    )
}
