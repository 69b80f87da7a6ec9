//! What `network ls`, `network inspect`, `inspect` and `ps` show of networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use net::link::{Mac, Prefix};
use store::network::{self, Endpoint, Network};

use super::start::read_wanted;
use super::{DEFAULT, gateway_for, of_family, ports};
use crate::clock::rfc3339;
use crate::engine::{Engine, Filters};
use crate::error::{Error, Result};
use crate::list::{check_filters, has_label};
use crate::record::{self, Record};
use crate::types::{
    EndpointSettings, Ipam, IpamConfig, Network as Shown, NetworkContainer, NetworkSettings,
};

/// Names of filters that `network ls` knows.
pub(crate) const FILTERS: [&str; 7] =
    ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// IDs of the networks that are no bridges: always the same.
const HOST: (&str, &str) = ("host", "host");
const NONE: (&str, &str) = ("none", "null");

/// The id of a network that every engine has.
fn builtin_id(name: &str) -> String {
    oci::Digest::sha256(format!("wherry network {name}")).hex()
}

fn builtin((name, driver): (&str, &str)) -> Shown {
    Shown {
        name: name.into(),
        id: builtin_id(name),
        created: rfc3339(0),
        scope: "local".into(),
        driver: driver.into(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".into(), ..Ipam::default() },
        ..Shown::default()
    }
}

fn shown(network: &Network) -> Shown {
    let config = network
        .subnets
        .iter()
        .map(|s| IpamConfig {
            subnet: s.subnet.prefix.to_string(),
            ip_range: s.subnet.range.map(|r| r.to_string()).unwrap_or_default(),
            gateway: s.subnet.gateway.map(|g| g.to_string()).unwrap_or_default(),
            auxiliary_addresses: s
                .reserved
                .iter()
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        })
        .collect();
    Shown {
        name: network.name.clone(),
        id: network.id.clone(),
        created: rfc3339(network.created_ns),
        scope: "local".into(),
        driver: network.driver.clone(),
        enable_ipv4: network.subnets.iter().any(|s| s.subnet.prefix.address.is_ipv4()),
        enable_ipv6: network.ipv6,
        ipam: Ipam {
            driver: "default".into(),
            // Docker shows what it was given: the command line an empty list, others nothing at all.
            options: network
                .options
                .get(super::option::IPAM)
                .and_then(|text| serde_json::from_str(text).ok()),
            config,
        },
        internal: network.internal,
        attachable: network.attachable,
        options: network
            .options
            .iter()
            .filter(|(name, _)| *name != super::option::IPAM)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        labels: network.labels.clone(),
        ..Shown::default()
    }
}

/// The hardware address of an endpoint that is plugged in.
fn mac(wanted: &EndpointSettings, addresses: &[Prefix], driver: &str) -> String {
    if !wanted.mac_address.is_empty() {
        return wanted.mac_address.clone();
    }
    match of_family(addresses, true).map(|a| a.address) {
        Some(IpAddr::V4(address)) if driver == "bridge" => Mac::of_address(address).to_string(),
        _ => String::new(),
    }
}

/// The names others find a container by, in a network with names.
pub(super) fn dns_names(record: &Record, wanted: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let short = record.id.get(..12).unwrap_or(&record.id).to_owned();
    let hostname = record.definition.config.hostname.clone();
    for name in wanted.aliases.iter().flatten().cloned().chain([short, hostname]) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Engine {
    /// Networks, by name.
    pub fn networks(&self, filters: &Filters) -> Result<Vec<Shown>> {
        check_filters(filters, &FILTERS)?;
        // It is there for whoever looks, as in Docker.
        self.default_network()?;
        let mut list: Vec<Shown> = network::all(self.db())?.iter().map(shown).collect();
        list.extend([builtin(HOST), builtin(NONE)]);
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found = Vec::new();
        for network in list {
            if self.fits(&network, filters)? {
                found.push(network);
            }
        }
        Ok(found)
    }

    fn fits(&self, network: &Shown, filters: &Filters) -> Result<bool> {
        let predefined = matches!(network.name.as_str(), "host" | "none" | DEFAULT);
        for (name, values) in filters {
            let mut any = false;
            for value in values {
                any |= match name.as_str() {
                    "driver" => network.driver == *value,
                    "id" => network.id.starts_with(value.as_str()),
                    "name" => network.name.contains(value.as_str()),
                    "scope" => network.scope == *value,
                    "label" => has_label(&network.labels, value),
                    "type" => match value.as_str() {
                        "builtin" => predefined,
                        "custom" => !predefined,
                        other => {
                            return Err(Error::invalid(format!(
                                "invalid filter: 'type'='{other}': known are builtin and custom"
                            )));
                        }
                    },
                    "dangling" => {
                        let wanted = match value.as_str() {
                            "true" | "1" => true,
                            "false" | "0" => false,
                            other => {
                                return Err(Error::invalid(format!(
                                    "invalid filter 'dangling={other}'"
                                )));
                            }
                        };
                        let unused =
                            !predefined && network::users(self.db(), &network.id)?.is_empty();
                        unused == wanted
                    }
                    _ => true,
                };
            }
            // All labels must be there; of the others one value is enough.
            let all = name == "label" && !values.iter().all(|v| has_label(&network.labels, v));
            if !any || all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything about a network, with the containers that run in it.
    pub fn inspect_network(&self, name: &str) -> Result<Shown> {
        self.reconcile()?;
        for predefined in [HOST, NONE] {
            let network = builtin(predefined);
            if name == network.name || name.len() >= 12 && network.id.starts_with(name) {
                return Ok(network);
            }
        }
        let network = match name {
            DEFAULT => self.default_network()?,
            name => network::find(self.db(), name)?,
        };
        let mut shown = shown(&network);
        let held = network::held_in(self.db(), &network.id)?;
        for endpoint in network::endpoints_in(self.db(), &network.id)? {
            if endpoint.interface.is_empty() {
                continue;
            }
            let Some(record) = record::by_id(self.db(), &endpoint.container)? else { continue };
            if !record.state.is_live() {
                continue;
            }
            let addresses: Vec<Prefix> =
                held.iter().filter(|(holder, _)| *holder == record.id).map(|(_, a)| *a).collect();
            let text = |v4| of_family(&addresses, v4).map(|a| a.to_string()).unwrap_or_default();
            shown.containers.insert(
                record.id.clone(),
                NetworkContainer {
                    name: record.name.clone(),
                    endpoint_id: endpoint.id.clone(),
                    mac_address: mac(&read_wanted(&endpoint), &addresses, &network.driver),
                    ipv4_address: text(true),
                    ipv6_address: text(false),
                },
            );
        }
        Ok(shown)
    }

    /// `NetworkSettings.Networks` of a container.
    pub(crate) fn endpoints_shown(
        &self,
        record: &Record,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let mode = record.definition.host.network_mode.as_str();
        let rows = network::endpoints_of(self.db(), &record.id)?;
        if rows.is_empty() {
            return Ok(match mode {
                "host" | "none" => {
                    let settings = EndpointSettings {
                        network_id: builtin_id(mode),
                        ..EndpointSettings::default()
                    };
                    [(mode.to_owned(), settings)].into()
                }
                _ => BTreeMap::new(),
            });
        }
        let held = match record.state.is_live() {
            true => network::held_by(self.db(), &record.id)?,
            false => Vec::new(),
        };
        let mut all = BTreeMap::new();
        for row in rows {
            let (name, settings) = self.endpoint_shown(record, &row, &held)?;
            all.insert(name, settings);
        }
        Ok(all)
    }

    fn endpoint_shown(
        &self,
        record: &Record,
        row: &Endpoint,
        held: &[(String, Prefix)],
    ) -> Result<(String, EndpointSettings)> {
        let mut settings = read_wanted(row);
        settings.dns_names = None;
        settings.network_id.clone_from(&row.network_id);
        if row.network != DEFAULT {
            settings.dns_names = Some(dns_names(record, &settings));
        }
        let Some(network) = network::by_id(self.db(), &row.network_id)? else {
            return Ok((row.network.clone(), settings));
        };
        if !record.state.is_live() || row.interface.is_empty() {
            return Ok((row.network.clone(), settings));
        }
        let addresses: Vec<Prefix> =
            held.iter().filter(|(id, _)| *id == network.id).map(|(_, a)| *a).collect();
        settings.endpoint_id.clone_from(&row.id);
        settings.mac_address = mac(&settings, &addresses, &network.driver);
        let gateway = |address: IpAddr| match network.internal {
            true => String::new(),
            false => gateway_for(&network, address).map(|g| g.to_string()).unwrap_or_default(),
        };
        if let Some(v4) = of_family(&addresses, true) {
            settings.ip_address = v4.address.to_string();
            settings.ip_prefix_len = v4.length;
            settings.gateway = gateway(v4.address);
        }
        if let Some(v6) = of_family(&addresses, false) {
            settings.global_ipv6_address = v6.address.to_string();
            settings.global_ipv6_prefix_len = v6.length;
            settings.ipv6_gateway = gateway(v6.address);
        }
        Ok((row.network.clone(), settings))
    }

    /// `NetworkSettings` of a container.
    pub(crate) fn network_settings(&self, record: &Record) -> Result<NetworkSettings> {
        let networks = self.endpoints_shown(record)?;
        let live = record.state.is_live();
        let mut settings = NetworkSettings::default();
        if let Some(default) = networks.get(DEFAULT) {
            settings.endpoint_id.clone_from(&default.endpoint_id);
            settings.gateway.clone_from(&default.gateway);
            settings.ip_address.clone_from(&default.ip_address);
            settings.ip_prefix_len = default.ip_prefix_len;
            settings.ipv6_gateway.clone_from(&default.ipv6_gateway);
            settings.global_ipv6_address.clone_from(&default.global_ipv6_address);
            settings.global_ipv6_prefix_len = default.global_ipv6_prefix_len;
            settings.mac_address.clone_from(&default.mac_address);
        }
        if live {
            settings.sandbox_key = format!("/proc/{}/ns/net", record.pid);
            settings.sandbox_id.clone_from(&record.id);
            let published = network::ports_of(self.db(), &record.id)?;
            if super::is_network(&record.definition.host.network_mode) {
                settings.ports = ports::shown(record, &published);
            }
        }
        settings.networks = networks;
        Ok(settings)
    }

    /// `Ports` of a row of `ps`.
    pub(crate) fn ports_shown(&self, record: &Record) -> Result<Vec<serde_json::Value>> {
        if !record.state.is_live() || !super::is_network(&record.definition.host.network_mode) {
            return Ok(Vec::new());
        }
        Ok(ports::summary(record, &network::ports_of(self.db(), &record.id)?))
    }

    /// Whether a container is in a network, by its name or the beginning of its ID.
    pub(crate) fn is_in_network(&self, record: &Record, name: &str) -> Result<bool> {
        let mode = record.definition.host.network_mode.as_str();
        let rows = network::endpoints_of(self.db(), &record.id)?;
        Ok(rows.is_empty() && mode == name
            || rows.iter().any(|row| row.network == name || row.network_id.starts_with(name)))
    }

    /// The filters `network` and `publish` of `ps`.
    pub(crate) fn network_filters_match(&self, record: &Record, filters: &Filters) -> Result<bool> {
        if let Some(values) = filters.get("network") {
            let mut any = false;
            for value in values {
                any |= self.is_in_network(record, value)?;
            }
            if !any {
                return Ok(false);
            }
        }
        if let Some(values) = filters.get("publish") {
            let published = network::ports_of(self.db(), &record.id)?;
            let fits = |value: &String| {
                published.iter().any(|port| {
                    ports::matches(&format!("{}/{}", port.host_port, port.protocol), value)
                })
            };
            return Ok(values.iter().any(fits));
        }
        Ok(true)
    }
}
