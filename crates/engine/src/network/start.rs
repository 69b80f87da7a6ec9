//! What a start does about networks: addresses and ports are reserved in one transaction, then the
//! namespace is made and plugged in by the caller, so that any number of starts do it at once.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use net::endpoint::{Endpoint as Plug, Host};
use net::filter::Port;
use net::link::{Mac, Prefix};
use store::network::{self, Endpoint, Network};

use super::create::note;
use super::names::Questions;
use super::repair::release_ports;
use super::{DEFAULT, bridged, gateways, mtu, option, parent, parented, ports};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::types::EndpointSettings;

/// A container's place in one network, for this run.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) network: Network,
    pub(crate) endpoint: Endpoint,
    pub(crate) wanted: EndpointSettings,
    pub(crate) addresses: Vec<Prefix>,
    pub(crate) default_route: bool,
    pub(crate) ports: Vec<Port>,
}

/// What a start got: a namespace that is plugged in.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) namespace: OwnedFd,
    pub(crate) joined: Vec<Joined>,
    /// Where questions for names arrive, until the name server has it.
    pub(crate) questions: Option<Questions>,
    /// The name server, which was given that and has not answered yet.
    pub(crate) names: Option<UnixStream>,
}

impl Joined {
    /// Names are resolved for containers in networks that people made.
    pub(crate) fn has_names(&self) -> bool {
        self.network.name != DEFAULT
    }

    pub(crate) fn mac(&self) -> Result<Option<Mac>> {
        match self.wanted.mac_address.as_str() {
            "" => Ok(None),
            text => Ok(Some(text.parse()?)),
        }
    }

    fn plug(&self) -> Result<Plug> {
        let link_local = self.wanted.ipam_config.iter().flat_map(|ipam| &ipam.link_local_ips);
        Ok(Plug {
            container: self.endpoint.container.clone(),
            interface: self.endpoint.interface.clone(),
            addresses: self
                .addresses
                .iter()
                .copied()
                // Last: what the container is called by comes first.
                .chain(link_local.filter_map(|text| self::link_local(text)))
                .collect(),
            mac: self.mac()?,
            default_route: self.default_route,
            ports: self.ports.clone(),
        })
    }
}

/// A network namespace, held by its descriptor only, with its loopback switched on.
///
/// With names, the thread that made it goes on to listen for questions, while the caller plugs the
/// namespace in.
fn new_namespace(
    with_names: bool,
) -> Result<(OwnedFd, JoinHandle<std::io::Result<Option<Questions>>>)> {
    let failed = |e: std::io::Error| Error::system("cannot make a network namespace", e);
    let (made, namespace) = std::sync::mpsc::sync_channel(1);
    let make = || -> std::io::Result<OwnedFd> {
        sys::namespace::unshare(sys::clone::NEWNET)?;
        net::endpoint::loopback_here().map_err(std::io::Error::other)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    let work = move || {
        let namespace = make();
        let goes_on = with_names && namespace.is_ok();
        // Whoever does not wait any more does not want the sockets either.
        let heard = made.send(namespace).is_ok();
        (goes_on && heard).then(Questions::listen).transpose()
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(work).map_err(failed)?;
    let namespace = namespace
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("a thread ended early")))
        .map_err(failed)?;
    Ok((namespace, thread))
}

/// An address that is good on one link only, with the length of its network.
pub(super) fn link_local(text: &str) -> Option<Prefix> {
    let address: IpAddr = text.parse().ok()?;
    let length = match address {
        IpAddr::V4(v4) if v4.is_link_local() => 16,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 64,
        _ => return None,
    };
    Prefix::new(address, length)
}

/// The address asked for in a subnet's family, if one was.
fn wanted_address(wanted: &EndpointSettings, v4: bool) -> Result<Option<IpAddr>> {
    let text = match (&wanted.ipam_config, v4) {
        (None, _) => return Ok(None),
        (Some(ipam), true) => ipam.ipv4_address.as_str(),
        (Some(ipam), false) => ipam.ipv6_address.as_str(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() == v4 => Ok(Some(address)),
        _ => Err(Error::invalid(format!("invalid IP address: {text}"))),
    }
}

/// Takes a container's addresses in a network: one of each family.
pub(super) fn hold(
    tx: &rusqlite::Transaction<'_>,
    network: &Network,
    endpoint: &Endpoint,
    wanted: &EndpointSettings,
) -> Result<Vec<Prefix>> {
    let mut addresses = Vec::new();
    for v4 in [true, false] {
        let asked = wanted_address(wanted, v4)?;
        let family = || network.subnets.iter().filter(|s| s.subnet.prefix.address.is_ipv4() == v4);
        if family().next().is_none() {
            if let Some(address) = asked {
                return Err(not_in(network, address));
            }
            continue;
        }
        let mut failure = None;
        let fitting =
            family().filter(|s| asked.is_none_or(|address| s.subnet.prefix.contains(address)));
        let mut found = None;
        for subnet in fitting {
            match network::hold(tx, subnet, &endpoint.container, asked, &endpoint.last) {
                Ok(held) => {
                    found = Some(held.address);
                    break;
                }
                // The next subnet may have one.
                Err(e @ store::Error::Net(net::Error::NoAddress { .. })) => failure = Some(e),
                Err(e) => return Err(e.into()),
            }
        }
        match (found, failure, asked) {
            (Some(address), _, _) => addresses.push(address),
            (None, Some(e), _) => return Err(e.into()),
            (None, None, Some(address)) => return Err(not_in(network, address)),
            (None, None, None) => {}
        }
    }
    Ok(addresses)
}

fn not_in(network: &Network, address: IpAddr) -> Error {
    Error::invalid(format!(
        "invalid config for network {}: invalid endpoint settings: no configured subnet or ip-range \
         contain the IP address {address}",
        network.name
    ))
}

/// The first of `eth0`, `eth1`, … that no other endpoint has.
pub(super) fn interface_name(network: &Network, taken: &[String]) -> String {
    let prefix = network.options.get(option::PREFIX).map_or("eth", String::as_str);
    (0..=taken.len())
        .map(|n| format!("{prefix}{n}"))
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| format!("{prefix}0"))
}

pub(super) fn read_wanted(endpoint: &Endpoint) -> EndpointSettings {
    serde_json::from_str(&endpoint.wanted).unwrap_or_default()
}

/// Which endpoint the default route leads through: the highest priority first, then the one connected
/// first; never an internal network.
pub(super) fn choose_route(joined: &mut [Joined]) {
    let best = joined
        .iter()
        .enumerate()
        .filter(|(_, j)| !j.network.internal && !gateways(&j.network).is_empty())
        .min_by_key(|(n, j)| (std::cmp::Reverse(j.wanted.gw_priority), *n))
        .map(|(n, _)| n);
    for (n, joined) in joined.iter_mut().enumerate() {
        joined.default_route = Some(n) == best;
    }
}

impl Engine {
    /// Makes a container's namespace and plugs it into its networks; `None` if it has none.
    ///
    /// What it reserved is given back by [`Engine::give_back`]; the interfaces go with the namespace.
    pub(crate) fn attach_networks(
        &self,
        record: &Record,
        rows: Vec<Endpoint>,
    ) -> Result<Option<Attached>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let host = self.network_host()?;
        let mut joined = Vec::new();
        for endpoint in rows {
            let mut network = self.network_of(&endpoint)?;
            if network.name == DEFAULT {
                // Some hosts let nobody make bridges.
                network = self.bring_default_up(host, network).map_err(|e| Error {
                    message: format!("{}; --network none does without", e.message),
                    ..e
                })?;
            }
            let wanted = read_wanted(&endpoint);
            joined.push(Joined {
                network,
                endpoint,
                wanted,
                addresses: Vec::new(),
                default_route: false,
                ports: Vec::new(),
            });
        }
        choose_route(&mut joined);
        // Ended containers that nobody has looked at may still hold what this one wants.
        if let Err(first) = self.reserve(host, record, &mut joined) {
            if !matches!(first.kind, ErrorKind::System | ErrorKind::Invalid) {
                return Err(first);
            }
            self.reconcile_all()?;
            self.reserve(host, record, &mut joined)?;
        }
        self.plug_all(record, host, joined).inspect_err(|_| self.give_back(record)).map(Some)
    }

    /// An endpoint's network: the one with its ID, or with its name if that one is gone.
    pub(super) fn network_of(&self, endpoint: &Endpoint) -> Result<Network> {
        if let Some(network) = network::by_id(self.db(), &endpoint.network_id)? {
            return Ok(network);
        }
        if endpoint.network == DEFAULT {
            return self.default_network();
        }
        network::by_name(self.db(), &endpoint.network)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("network {} not found", endpoint.network))
        })
    }

    /// Takes addresses and ports for a run, all or nothing.
    fn reserve(&self, host: &Host, record: &Record, joined: &mut [Joined]) -> Result<()> {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let start_time = runtime::state::ProcessIdentity::of(me)?.start_time;
        self.store().db().transaction(|tx| -> Result<()> {
            for (container, pid, start_time) in network::starts(tx)? {
                let other = runtime::state::ProcessIdentity { pid, start_time };
                if container == record.id && pid != me && other.alive() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("container {} is being started by another process", record.name),
                    ));
                }
            }
            if crate::record::by_id(tx, &record.id)?.is_some_and(|now| now.state.is_live()) {
                return Err(Error::new(
                    ErrorKind::NotModified,
                    format!("container {} is already running", record.name),
                ));
            }
            // Of an earlier run, or of a start that was killed.
            release_ports(tx, host, &record.id)?;
            network::release(tx, &record.id)?;
            network::note_start(tx, &record.id, me, start_time)?;
            let mut taken: Vec<String> = Vec::new();
            for joined in joined.iter_mut() {
                if network::by_id(tx, &joined.network.id)?.is_none() {
                    let name = &joined.network.name;
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("network {name} not found"),
                    ));
                }
                joined.addresses = hold(tx, &joined.network, &joined.endpoint, &joined.wanted)?;
                let endpoint = &mut joined.endpoint;
                if endpoint.network_id != joined.network.id {
                    // The network was made anew under its name.
                    network::delete_endpoint(tx, &record.id, &endpoint.network_id)?;
                    endpoint.network_id.clone_from(&joined.network.id);
                }
                endpoint.interface = interface_name(&joined.network, &taken);
                endpoint.last = joined.addresses.iter().map(|a| a.address).collect();
                taken.push(endpoint.interface.clone());
                network::put_endpoint(tx, endpoint)?;
            }
            // Ports lead to the endpoint that answers go out by.
            if let Some(joined) =
                joined.iter_mut().find(|j| j.default_route && j.network.bridge.is_some())
            {
                joined.ports =
                    ports::take(tx, record, &joined.addresses, self.publish_at(&joined.network))
                        .map_err(|e| Error {
                            message: format!(
                                "failed to set up container networking: driver failed programming \
                                 external connectivity on endpoint {} ({}): {}",
                                record.name, joined.endpoint.id, e.message
                            ),
                            ..e
                        })?;
            }
            Ok(())
        })
    }

    /// Where a network's ports are published unless they name an address; `None`: everywhere.
    pub(super) fn publish_at(&self, network: &Network) -> Option<IpAddr> {
        let own: Option<IpAddr> =
            network.options.get(option::PUBLISH).and_then(|text| text.parse().ok());
        own.filter(|address| !address.is_unspecified())
            .or(self.settings().publish_address)
            .filter(|address| !address.is_unspecified())
    }

    fn plug_all(&self, record: &Record, host: &Host, joined: Vec<Joined>) -> Result<Attached> {
        let networks: Vec<&Network> = joined.iter().map(|j| &j.network).collect();
        self.make_ready(host, &networks)?;
        let has_names = joined.iter().any(Joined::has_names);
        let (namespace, listening) = new_namespace(has_names)?;
        for joined in &joined {
            self.plug_one(host, joined, namespace.as_fd())?;
        }
        let questions = listening
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a thread ended early")))
            .map_err(super::names::cannot_listen(&record.id))?;
        Ok(Attached { namespace, joined, questions, names: None })
    }

    /// Waits until the bridges forward to a container's ports.
    pub(crate) fn await_ports(&self, joined: &[Joined]) -> Result<()> {
        for joined in joined {
            if let Some(bridged) = bridged(&joined.network) {
                self.network_host()?.wait_for_port(&bridged, &joined.endpoint.container)?;
            }
        }
        Ok(())
    }

    /// Plugs a namespace into one network; [`Engine::await_ports`] is to follow.
    pub(super) fn plug_one(
        &self,
        host: &Host,
        joined: &Joined,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        let plug = joined.plug()?;
        let network = &joined.network;
        match bridged(network) {
            Some(bridged) => match host.begin_plug(&bridged, &plug, namespace) {
                // Somebody put the bridge away between our look and now.
                Err(e) if e.errno() == Some(rustix::io::Errno::NODEV) => {
                    host.make(&bridged)?;
                    host.begin_plug(&bridged, &plug, namespace)
                }
                other => other,
            }?,
            None => {
                let routes = if network.internal { Vec::new() } else { gateways(network) };
                host.plug_parented(
                    &parent(network),
                    parented(network),
                    mtu(network),
                    &routes,
                    &plug,
                    namespace,
                )?;
            }
        }
        Ok(())
    }

    /// Gives back what a start that failed has reserved; its own error is what matters.
    pub(crate) fn give_back(&self, record: &Record) {
        let give = || -> Result<()> {
            let host = self.network_host()?;
            self.store().db().transaction(|tx| -> Result<()> {
                release_ports(tx, host, &record.id)?;
                Ok(network::release(tx, &record.id)?)
            })
        };
        if let Err(e) = give() {
            self.debug(&e.message);
        }
    }

    /// Gives the addresses of a container back that has ended.
    ///
    /// Its ports are left to [`Engine::release_stale`], which the steward does at once: to take them
    /// out of the kernel makes the process that does it wait at its own end, and nobody should wait
    /// for that after a run.
    pub(crate) fn release_networks(
        &self,
        tx: &rusqlite::Transaction<'_>,
        record: &Record,
        at: i64,
    ) -> Result<()> {
        let rows = network::endpoints_of(tx, &record.id)?;
        if rows.is_empty() {
            return Ok(());
        }
        let known = record.definition.builder.is_none();
        for row in rows.iter().filter(|row| known && !row.interface.is_empty()) {
            if let Some(network) = network::by_id(tx, &row.network_id)? {
                note(tx, at, "disconnect", &network, Some(&record.id))?;
            }
        }
        Ok(network::release_but_ports(tx, &record.id)?)
    }

    /// A container's endpoints; whoever of them has names will need the name server, which is called
    /// now if it does not run. It begins while everything else of the start is done.
    pub(crate) fn endpoints_to_join(&self, record: &Record) -> Result<Vec<Endpoint>> {
        let rows = network::endpoints_of(self.db(), &record.id)?;
        if rows.iter().any(|row| row.network != DEFAULT) {
            self.call_names()?;
        }
        Ok(rows)
    }

    /// Gives the name server the sockets where the container's questions arrive. From now on none is
    /// lost: it waits until the server has come to it.
    pub(crate) fn hand_names_over(&self, record: &Record, attached: &mut Attached) -> Result<()> {
        if let Some(questions) = &attached.questions {
            let namespace = attached.namespace.as_fd();
            attached.names = Some(self.reach_names(&record.id, namespace, Some(questions))?);
        }
        Ok(())
    }

    /// Hears whether the name server has them, once the container runs. If it was killed meanwhile, the
    /// next one gets them. That names are not answered is no reason to end a container that runs.
    pub(crate) fn confirm_names(&self, record: &Record, attached: &mut Attached) {
        let (Some(stream), Some(questions)) = (attached.names.take(), attached.questions.take())
        else {
            return;
        };
        if super::names::hear_answer(stream).is_ok_and(|answer| answer.trim() == "ok") {
            return;
        }
        let namespace = attached.namespace.as_fd();
        if let Err(e) = self.serve_names(&record.id, namespace, Some(&questions)) {
            self.debug(&e.message);
        }
    }

    /// The start is over and the container runs.
    pub(crate) fn networks_started(
        &self,
        tx: &rusqlite::Transaction<'_>,
        record: &Record,
        attached: &Attached,
        at: i64,
    ) -> Result<()> {
        network::forget_start(tx, &record.id)?;
        if record.definition.builder.is_some() {
            return Ok(());
        }
        for joined in &attached.joined {
            note(tx, at, "connect", &joined.network, Some(&record.id))?;
        }
        Ok(())
    }

    /// Notes the networks a new container is to be connected to.
    pub(crate) fn insert_endpoints(
        tx: &rusqlite::Transaction<'_>,
        id: &str,
        endpoints: &[Endpoint],
    ) -> Result<()> {
        for endpoint in endpoints {
            let endpoint = Endpoint { container: id.to_owned(), ..endpoint.clone() };
            network::put_endpoint(tx, &endpoint)?;
        }
        Ok(())
    }

    /// When the container has ended somebody must take its end in at once: it has names.
    pub(crate) fn has_names(attached: Option<&Attached>) -> bool {
        attached.is_some_and(|attached| attached.joined.iter().any(Joined::has_names))
    }

    /// When the container has ended the steward must take its ports back, whoever else is there.
    pub(crate) fn has_ports(attached: Option<&Attached>) -> bool {
        attached.is_some_and(|attached| attached.joined.iter().any(|j| !j.ports.is_empty()))
    }
}
