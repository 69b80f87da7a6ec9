//! Connect a container to a network.

use engine::types::{EndpointIpam, EndpointSettings};

use super::two;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::env::pairs;
use crate::values::number::parse_int;
use crate::values::opts::{parse_ip, parse_link};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name others find the container by in this network
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    alias: Vec<String>,
    /// Option of the driver
    #[arg(long, value_name = "strings")]
    driver_opt: Vec<String>,
    /// The default route leads to the network with the highest
    #[arg(long, value_name = "int", value_parser = parse_int)]
    gw_priority: Option<i64>,
    /// IPv4 address
    #[arg(long, value_name = "string", value_parser = parse_ip)]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "string", value_parser = parse_ip)]
    ip6: Option<String>,
    /// Link to another container (name:alias)
    #[arg(long, value_name = "list", value_parser = parse_link)]
    link: Vec<String>,
    /// Link-local address
    #[arg(long, value_name = "strings", value_parser = parse_ip)]
    link_local_ip: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["network", "connect"]],
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
    )
    .args(2, 2);

    fn run(self, context: &Context) -> Outcome {
        let [network, container] = two(&self.args)?;
        let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let ipam = EndpointIpam {
            ipv4_address: self.ip.clone().unwrap_or_default(),
            ipv6_address: self.ip6.clone().unwrap_or_default(),
            link_local_ips: self.link_local_ip.clone(),
        };
        let settings = EndpointSettings {
            ipam_config: (ipam != EndpointIpam::default()).then_some(ipam),
            aliases: given(&self.alias),
            links: given(&self.link),
            driver_opts: (!self.driver_opt.is_empty()).then(|| pairs(&self.driver_opt)),
            gw_priority: self.gw_priority.unwrap_or(0),
            ..EndpointSettings::default()
        };
        context.engine()?.connect_network(network, container, &settings)?;
        Ok(0)
    }
}
