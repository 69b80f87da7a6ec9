//! Plugging a container into a network, and pulling it out again.
//!
//! [`Host`] holds the sockets of the namespace where the bridges are. [`Host::plug`] is the one call
//! of a start: it makes the interfaces (one system call), sets up the container's side (a short
//! thread in its namespace) and publishes ports (one system call, if there are any). Nothing is
//! locked but what the kernel locks, so any number of starts do it at once.
//!
//! [`Host::unplug`] needs only names, so it can run long after a crash; it goes on after an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Error, Result, all};
use crate::filter::{self, Filter, Port, Protocol};
use crate::link::{Links, Mac, NewLink, Parented, Prefix, check_name};
use crate::name;
use crate::namespace::{set_sysctl, within};
use crate::netlink::Batch;

/// A network with a bridge of its own, or with an existing one.
#[derive(Debug, Clone)]
pub struct Network {
    /// The network's ID.
    pub id: String,
    /// The bridge's name.
    pub bridge: String,
    /// The bridge is somebody else's: it is neither made nor removed, nor are its addresses.
    pub existing: bool,
    /// The subnets' gateways with the subnets' lengths; these are the bridge's addresses.
    pub gateways: Vec<Prefix>,
    /// The largest packet, in bytes; 0 for 1500.
    pub mtu: u32,
    /// Containers may talk to each other.
    pub icc: bool,
    /// There is no way out and none in.
    pub internal: bool,
    /// What leaves gets the host's address.
    pub masquerade: bool,
}

impl Network {
    /// What the rules need to know of it.
    pub fn rules(&self) -> filter::Network {
        filter::Network {
            bridge: self.bridge.clone(),
            subnets: self.gateways.iter().map(|gateway| gateway.network()).collect(),
            icc: self.icc,
            internal: self.internal,
            masquerade: self.masquerade,
        }
    }

    fn mtu(&self) -> u32 {
        if self.mtu == 0 { 1500 } else { self.mtu }
    }
}

/// A container's place in a network.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The container's ID.
    pub container: String,
    /// The name of the interface inside: `eth0`, `eth1`, …
    pub interface: String,
    /// Its addresses with the subnets' lengths.
    pub addresses: Vec<Prefix>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The default route leads here. A container has one such endpoint for each family.
    pub default_route: bool,
    /// Published ports.
    pub ports: Vec<Port>,
}

/// What of ours is in a namespace, for comparison with what should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Interfaces of this engine: name, container, network.
    pub interfaces: Vec<(String, String, String)>,
    /// What the filter's table contains.
    pub filter: filter::Contents,
}

/// The namespace where bridges and rules are: the host's, in every case but tests and rootless use.
#[derive(Debug)]
pub struct Host {
    engine: String,
    /// Interfaces.
    pub links: Links,
    /// Rules.
    pub filter: Filter,
    respects_input: bool,
}

impl Host {
    /// The caller's namespace. `engine` tells engines apart: a few letters and digits that follow
    /// from the engine's folders. The filter's table is called `wherry-ENGINE`.
    pub fn open(engine: &str) -> Result<Self> {
        Ok(Self {
            engine: engine.into(),
            links: Links::open()?,
            filter: Filter::open(&table(engine))?,
            respects_input: false,
        })
    }

    /// Another namespace.
    pub fn open_in(namespace: BorrowedFd<'_>, engine: &str) -> Result<Self> {
        within(namespace, || Self::open(engine))?
    }

    /// Makes what all networks need, unless it is there: the table, and forwarding of packets.
    /// Must be called in the host's namespace. Returns whether the table was made and is empty.
    pub fn prepare(&self, ipv6: bool) -> Result<bool> {
        set_sysctl("ipv4/ip_forward", "1")?;
        if ipv6 {
            set_sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        self.filter.ensure(self.input()?.as_ref())
    }

    /// Has connections from elsewhere to published ports pass the host's input chains, as if the
    /// program listened on the host itself.
    ///
    /// The kernel translates addresses before it decides whether a packet is for the host; translated
    /// packets never see the input hook. So those that begin a connection are left as they are there.
    /// Our chain stands behind all others of the input hook: who comes so far was let through. It sends
    /// a copy out by one end of a pair of interfaces and drops the packet; the copy comes in by the
    /// other end, where addresses are translated. All later packets of the connection go straight.
    pub fn respecting_input(self, yes: bool) -> Self {
        Self { respects_input: yes, filter: self.filter.with_input(yes), ..self }
    }

    fn circle(&self) -> (String, String) {
        let short = self.engine.get(..8).unwrap_or(&self.engine);
        (format!("whin-{short}o"), format!("whin-{short}i"))
    }

    /// The pair of interfaces of [`Self::respecting_input`], made unless it is there.
    fn input(&self) -> Result<Option<filter::Input>> {
        /// A host's address for no purpose (RFC 7600): the kernel checks where packets come from only
        /// on interfaces that have one.
        const DUMMY: Prefix =
            Prefix { address: IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), length: 32 };
        if !self.respects_input {
            return Ok(None);
        }
        let (out, back) = self.circle();
        let v6 = std::path::Path::new("/proc/sys/net/ipv6/conf").exists();
        let known =
            |link: crate::link::Link| filter::Input { index: link.index, back: back.clone(), v6 };
        // Switched on last of all: what is on is whole, whoever was killed.
        if let Some(link) = self.links.get(&out)?.filter(|link| link.up) {
            return Ok(Some(known(link)));
        }
        let mut batch = Batch::new();
        batch.circle(&out, &back);
        for name in [&out, &back] {
            batch.alias(name, &name::alias(&self.engine, "-", INPUT));
        }
        // Somebody else may make it at the same time.
        let mut errors = self.links.commit_all(&mut batch)?;
        errors.retain(|e| e.errno() != Some(Errno::EXIST));
        all(errors)?;
        for name in [&out, &back] {
            if v6 {
                _ = set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "0");
            }
            // Wherever the sender is, the way back to it leads elsewhere.
            set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
        }
        let mut batch = Batch::new();
        batch.address(self.links.index(&back)?, DUMMY);
        batch.up_without_neighbours(self.links.index(&back)?);
        batch.up_without_neighbours(self.links.index(&out)?);
        let mut errors = self.links.commit_all(&mut batch)?;
        errors.retain(|e| e.errno() != Some(Errno::EXIST));
        all(errors)?;
        let link = self.links.get(&out)?;
        link.map(|link| Some(known(link)))
            .ok_or_else(|| Error::kernel(format!("find {out}"), Errno::NODEV))
    }

    /// Replaces the table of rules with one that has these networks and ports.
    pub fn rebuild(&self, networks: &[filter::Network], ports: &[(Port, String)]) -> Result<()> {
        self.filter.rebuild(self.input()?.as_ref(), networks, ports)
    }

    /// Removes the rules with all that is in them.
    pub fn remove_rules(&self) -> Result<()> {
        let (out, _) = self.circle();
        let mut errors: Vec<_> = self.filter.remove().err().into_iter().collect();
        if self.links.get(&out)?.is_some() {
            errors.extend(self.links.delete([out.as_str()]).err());
        }
        all(errors)
    }

    /// Makes a network's bridge with its addresses and rules, or what is missing of them. Must be
    /// called in the host's namespace.
    pub fn make(&self, network: &Network) -> Result<()> {
        check_name(&network.bridge)?;
        let index = match self.links.get(&network.bridge)? {
            Some(link) => link.index,
            None if network.existing => self.links.index(&network.bridge)?,
            None => {
                let mut batch = Batch::new();
                batch.bridge(&NewLink {
                    name: &network.bridge,
                    mtu: network.mtu(),
                    mac: Some(self.bridge_mac(network)),
                });
                batch.alias(&network.bridge, &name::alias(&self.engine, "-", &network.id));
                // Somebody else may make it at the same time.
                let mut errors = self.links.commit_all(&mut batch)?;
                errors.retain(|e| e.errno() != Some(Errno::EXIST));
                all(errors)?;
                self.links.index(&network.bridge)?
            }
        };
        if !network.existing {
            let v6 = network.gateways.iter().any(|gateway| gateway.address.is_ipv6());
            if v6 {
                _ = set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", network.bridge), "0");
                // Forwarding hosts take no router's word, and nobody else has our addresses.
                set_sysctl(&format!("ipv6/conf/{}/accept_dad", network.bridge), "0")?;
            }
            let mut batch = Batch::new();
            for gateway in &network.gateways {
                batch.address(index, *gateway);
            }
            if v6 {
                batch.up(index, true);
            } else {
                batch.up_without_link_local(index);
            }
            let mut errors = self.links.commit_all(&mut batch)?;
            errors.retain(|e| e.errno() != Some(Errno::EXIST));
            all(errors)?;
        }
        if network.gateways.iter().any(|gateway| gateway.address.is_ipv4()) {
            // For ports published on 127.0.0.1; the filter keeps everybody else from using it.
            set_sysctl(&format!("ipv4/conf/{}/route_localnet", network.bridge), "1")?;
        }
        self.filter.add_network(&network.rules())
    }

    fn bridge_mac(&self, network: &Network) -> Mac {
        let v4 = network.gateways.iter().find_map(|gateway| match gateway.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        v4.map(Mac::of_address).unwrap_or_else(|| {
            let name = name::host_end(&self.engine, "-", &network.id);
            let mut bytes = [0x02, 0x42, 0, 0, 0, 0];
            for (place, byte) in bytes.iter_mut().skip(2).zip(name.bytes().skip(2)) {
                *place = byte;
            }
            Mac(bytes)
        })
    }

    /// Removes a network's bridge and rules; what is gone is no error.
    pub fn unmake(&self, network: &Network) -> Result<()> {
        let mut errors = Vec::new();
        if !network.existing {
            errors.extend(self.links.delete([network.bridge.as_str()]).err());
        }
        errors.extend(self.filter.delete_network(&network.rules()).err());
        all(errors)
    }

    /// Plugs a container's namespace into a network and waits until packets get through. If it fails,
    /// what it made is undone.
    pub fn plug(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        self.begin_plug(network, endpoint, namespace)?;
        self.wait_for_port(network, &endpoint.container)
    }

    /// As [`Self::plug`], for who has other things to do before [`Self::wait_for_port`].
    pub fn begin_plug(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        check_name(&endpoint.interface)?;
        let here = name::host_end(&self.engine, &endpoint.container, &network.id);
        let bridge = self.links.index(&network.bridge)?;
        let mac = endpoint.mac.or_else(|| {
            endpoint.addresses.iter().find_map(|prefix| match prefix.address {
                IpAddr::V4(address) => Some(Mac::of_address(address)),
                IpAddr::V6(_) => None,
            })
        });
        let mut batch = Batch::new();
        batch.veth(
            &NewLink { name: &here, mtu: network.mtu(), mac: None },
            bridge,
            &NewLink { name: &endpoint.interface, mtu: network.mtu(), mac },
            namespace,
        );
        let alias = name::alias(&self.engine, &endpoint.container, &network.id);
        batch.port(&here, &alias, !network.icc, true);
        let mut made = self.links.commit(&mut batch);
        if made.as_ref().is_err_and(|e| e.errno() == Some(Errno::EXIST))
            && within(namespace, || Links::open()?.get(&endpoint.interface))??.is_none()
        {
            // The pair of this container's last run: the kernel takes its time after the end of a
            // namespace.
            self.links.delete([here.as_str()])?;
            made = self.links.commit(&mut batch);
        }
        if let Err(e) = made {
            // A pair that was there before is not ours to remove.
            if e.errno() != Some(Errno::EXIST) {
                _ = self.links.delete([here.as_str()]);
            }
            return Err(e);
        }
        let gateways = if network.internal { &[][..] } else { &network.gateways[..] };
        within(namespace, || settle(endpoint, gateways))
            .and_then(|settled| settled)
            .and_then(|()| self.filter.publish(&endpoint.ports, &endpoint.container))
            .inspect_err(|_| _ = self.links.delete([here.as_str()]))
    }

    /// Waits until the bridge forwards to a port. The kernel notices by itself that both ends of a pair
    /// are on, mostly at once; on a busy host it may take some milliseconds, and a first packet that is
    /// lost costs a connection a second. A bridge that listens for loops first is not waited for.
    pub fn wait_for_port(&self, network: &Network, container: &str) -> Result<()> {
        let name = name::host_end(&self.engine, container, &network.id);
        const DISABLED: Option<u8> = Some(0);
        const PATIENCE: Duration = Duration::from_millis(200);
        const PAUSE: Duration = Duration::from_micros(200);
        let begin = Instant::now();
        while self.links.get(&name)?.is_some_and(|link| link.port_state == DISABLED) {
            // The bridge is off: not for us to wait for.
            if begin.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Gives a container's namespace an interface on a parent of this namespace (macvlan, ipvlan).
    /// Its gateway is somewhere outside; it has no published ports.
    pub fn plug_parented(
        &self,
        parent: &str,
        kind: Parented,
        mtu: u32,
        gateways: &[Prefix],
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        check_name(&endpoint.interface)?;
        let parent = self.links.index(parent)?;
        // ipvlan has the parent's hardware address.
        let mac = endpoint.mac.filter(|_| matches!(kind, Parented::Macvlan(_)));
        let mut batch = Batch::new();
        let link = NewLink { name: &endpoint.interface, mtu, mac };
        batch.parented(&link, parent, kind, namespace);
        self.links.commit(&mut batch)?;
        within(namespace, || {
            settle(endpoint, gateways).inspect_err(|_| {
                let links = Links::open();
                _ = links.and_then(|links| links.delete([endpoint.interface.as_str()]));
            })
        })?
    }

    /// Takes back the ports of a container that has ended. Its interfaces are left to the kernel, which
    /// removes them with the namespace; that spares the wait [`Self::unplug`] has.
    pub fn release(&self, ports: &[Port]) -> Result<()> {
        let mut errors = Vec::new();
        if !ports.is_empty() {
            errors.extend(self.filter.unpublish(ports).err());
            let mut addresses: Vec<_> =
                ports.iter().filter(|p| p.protocol != Protocol::Tcp).map(|p| p.container).collect();
            addresses.sort();
            addresses.dedup();
            for address in addresses {
                errors.extend(self.filter.forget_flows(address).err());
            }
        }
        all(errors)
    }

    /// Pulls a container out of a network: its ports first, then its interfaces, both ends. All is
    /// tried; what is gone is no error.
    pub fn unplug(&self, network: &str, container: &str, ports: &[Port]) -> Result<()> {
        let here = name::host_end(&self.engine, container, network);
        let mut errors: Vec<_> = self.release(ports).err().into_iter().collect();
        errors.extend(self.links.delete([here.as_str()]).err());
        all(errors)
    }

    /// What of this engine is there.
    pub fn inventory(&self) -> Result<Inventory> {
        let mut interfaces = Vec::new();
        for link in self.links.list()? {
            if let Some((engine, container, network)) = name::read_alias(&link.alias)
                && engine == self.engine
            {
                interfaces.push((link.name.clone(), container.into(), network.into()));
            }
        }
        let filter = match self.filter.contents() {
            Err(e) if e.errno() == Some(Errno::NOENT) => filter::Contents::default(),
            other => other?,
        };
        Ok(Inventory { interfaces, filter })
    }
}

/// What stands in the alias of the interfaces of [`Host::respecting_input`] in place of a network.
pub const INPUT: &str = "input";

/// The name of an engine's table.
pub fn table(engine: &str) -> String {
    format!("wherry-{engine}")
}

/// Switches the loopback interface of a container's namespace on.
pub fn loopback(namespace: BorrowedFd<'_>) -> Result<()> {
    let mut batch = Batch::new();
    batch.up(LOOPBACK, true);
    Links::open_in(namespace)?.commit(&mut batch)
}

/// The same for the caller's namespace.
pub fn loopback_here() -> Result<()> {
    let mut batch = Batch::new();
    batch.up(LOOPBACK, true);
    Links::open()?.commit(&mut batch)
}

/// In every namespace the loopback interface is number 1.
const LOOPBACK: u32 = 1;

/// Sets up the container's side, from inside.
fn settle(endpoint: &Endpoint, gateways: &[Prefix]) -> Result<()> {
    let links = Links::open()?;
    let index = links.index(&endpoint.interface)?;
    let v6 = endpoint.addresses.iter().any(|prefix| prefix.address.is_ipv6());
    let mut batch = Batch::new();
    batch.up(LOOPBACK, true);
    if v6 {
        let base = format!("ipv6/conf/{}", endpoint.interface);
        set_sysctl(&format!("{base}/disable_ipv6"), "0")?;
        set_sysctl(&format!("{base}/accept_dad"), "0")?;
    }
    for prefix in &endpoint.addresses {
        batch.address(index, *prefix);
    }
    if v6 {
        batch.up(index, true);
    } else {
        batch.up_without_link_local(index);
    }
    if endpoint.default_route {
        for (any, family_is_v4) in
            [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), true), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), false)]
        {
            let ours = endpoint.addresses.iter().find(|p| p.address.is_ipv4() == family_is_v4);
            let Some(ours) = ours else { continue };
            // The gateway of the subnet the address is in.
            let gateway = gateways
                .iter()
                .filter(|g| g.address.is_ipv4() == family_is_v4)
                .max_by_key(|gateway| gateway.contains(ours.address));
            if let (Some(gateway), Some(to)) = (gateway, Prefix::new(any, 0)) {
                batch.route(to, Some(gateway.address), index, !ours.contains(gateway.address));
            }
        }
    }
    links.commit(&mut batch).map_err(|e| match e {
        Error::Kernel { action, errno, remedy } => Error::Kernel {
            action: format!(
                "{action} ({} of container {})",
                endpoint.interface,
                short(&endpoint.container)
            ),
            errno,
            remedy,
        },
        other => other,
    })
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
