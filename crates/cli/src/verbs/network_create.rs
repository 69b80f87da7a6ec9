//! `network create`: make a network.

use std::collections::BTreeMap;

use engine::types::{Ipam, IpamConfig, NetworkCreate};

use super::one;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::env::{check_label, pairs};
use crate::values::number::parse_bool;

/// Options of `network create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Means nothing here: for clusters
    #[arg(long)]
    attachable: bool,
    /// Address that no container gets (name=address)
    #[arg(long, value_name = "map")]
    aux_address: Vec<String>,
    /// Refused: for clusters
    #[arg(long, value_name = "string")]
    config_from: Option<String>,
    /// Refused: for clusters
    #[arg(long)]
    config_only: bool,
    /// Driver: bridge, macvlan or ipvlan
    #[arg(long, short = 'd', value_name = "string", default_value = "bridge")]
    driver: String,
    /// Address of the bridge, or of the router of a macvlan
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Refused: for clusters
    #[arg(long)]
    ingress: bool,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Give containers addresses of this part of the subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Where addresses come from; only "default"
    #[arg(long, value_name = "string", default_value = "default")]
    ipam_driver: String,
    /// Option of the driver of addresses
    #[arg(long, value_name = "map")]
    ipam_opt: Vec<String>,
    /// Give containers IPv4 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    ipv4: Option<bool>,
    /// Give containers IPv6 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = parse_bool)]
    ipv6: Option<bool>,
    /// Set a label (name=value)
    #[arg(long, value_name = "list", value_parser = check_label)]
    label: Vec<String>,
    /// Option of the driver (com.docker.network.driver.mtu=9000)
    #[arg(long, short = 'o', value_name = "map")]
    opt: Vec<String>,
    /// Only "local"
    #[arg(long, value_name = "string")]
    scope: Option<String>,
    /// Subnet (10.5.0.0/16)
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    subnet: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["network", "create"]], "[OPTIONS] NETWORK", "Make a network").args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        let cluster = [
            ("--config-from", self.config_from.is_some()),
            ("--config-only", self.config_only),
            ("--ingress", self.ingress),
        ];
        if let Some((flag, _)) = cluster.iter().find(|(_, given)| *given) {
            return Err(Failure::new(
                1,
                format!("{flag} is for networks of a cluster, which this engine is not part of; leave it out"),
            )
            .into());
        }
        let config = subnets(&self).map_err(|message| Failure::new(1, message))?;
        let request = NetworkCreate {
            name: one(&self.args)?.to_owned(),
            driver: self.driver.clone(),
            scope: self.scope.clone().unwrap_or_default(),
            internal: self.internal,
            attachable: self.attachable,
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Ipam {
                driver: self.ipam_driver.clone(),
                options: Some(pairs(&self.ipam_opt)),
                config,
            },
            options: pairs(&self.opt),
            labels: pairs(&self.label),
        };
        let (id, warnings) = context.engine()?.create_network(&request)?;
        for warning in warnings {
            context::note(&format!("WARNING: {warning}"));
        }
        context::println(&id)?;
        Ok(0)
    }
}

/// Whether an address, or a subnet's first, is in a subnet. Texts that are neither are the engine's to
/// refuse.
fn is_in(address: &str, subnet: &str) -> bool {
    let bits = |text: &str| -> Option<(bool, u128)> {
        match text.parse::<std::net::IpAddr>().ok()? {
            std::net::IpAddr::V4(a) => Some((true, u128::from(u32::from(a)))),
            std::net::IpAddr::V6(a) => Some((false, u128::from(a))),
        }
    };
    let Some((network, length)) = subnet.split_once('/') else { return false };
    let address = address.split('/').next().unwrap_or(address);
    let (Some((v4, network)), Some((other, address))) = (bits(network), bits(address)) else {
        return false;
    };
    let Ok(length) = length.parse::<u32>() else { return false };
    let width: u32 = if v4 { 32 } else { 128 };
    let rest = width.saturating_sub(length);
    let cut = |n: u128| n.checked_shr(rest).unwrap_or(0);
    v4 == other && cut(network) == cut(address)
}

/// Subnets with the ranges, gateways and addresses that are in them.
fn subnets(args: &Args) -> Result<Vec<IpamConfig>, String> {
    if args.subnet.len() < args.ip_range.len() || args.subnet.len() < args.gateway.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    let mut all: Vec<IpamConfig> = Vec::new();
    for subnet in &args.subnet {
        let inside =
            |other: &IpamConfig| is_in(subnet, &other.subnet) || is_in(&other.subnet, subnet);
        if all.iter().any(inside) {
            return Err("multiple overlapping subnet configuration is not supported".to_owned());
        }
        all.push(IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
    }
    let mut place = |what: &str, address: &str, set: &mut dyn FnMut(&mut IpamConfig) -> bool| {
        let Some(config) = all.iter_mut().find(|config| is_in(address, &config.subnet)) else {
            return Err(format!("no matching subnet for {what} {address}"));
        };
        if set(config) {
            return Ok(());
        }
        Err(format!(
            "cannot configure multiple {what}s ({address}) on the same subnet ({})",
            config.subnet
        ))
    };
    for range in &args.ip_range {
        place("range", range, &mut |config| {
            let free = config.ip_range.is_empty();
            config.ip_range.clone_from(range);
            free
        })?;
    }
    for gateway in &args.gateway {
        place("gateway", gateway, &mut |config| {
            let free = config.gateway.is_empty();
            config.gateway.clone_from(gateway);
            free
        })?;
    }
    let reserved: BTreeMap<String, String> = pairs(&args.aux_address);
    for (name, address) in &reserved {
        place("aux-address", address, &mut |config| {
            config.auxiliary_addresses.insert(name.clone(), address.clone());
            true
        })?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_subnets() {
        assert!(is_in("10.1.2.3", "10.1.0.0/16") && is_in("10.1.128.0/17", "10.1.0.0/16"));
        assert!(!is_in("10.2.0.1", "10.1.0.0/16") && !is_in("fd00::1", "10.1.0.0/16"));
        assert!(is_in("fd00::1", "fd00::/64") && is_in("1.2.3.4", "0.0.0.0/0"));
        assert!(!is_in("x", "10.0.0.0/8") && !is_in("10.0.0.1", "x"));
    }
}
