//! Bringing the kernel in line with the database, and the database with what runs.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;

use net::endpoint::Host;
use net::filter::Port;
use net::link::{Link, Links};
use net::name;
use net::netlink::Batch;
use store::network::{self, Network};

use super::bridged;
use super::start::Joined;
use crate::engine::Engine;
use crate::error::Result;
use crate::record::{self, Record};
use crate::types::NetworkRepair;

/// There as long as the networks have been looked at since the run root was made.
const MARK: &str = "networks";

/// Takes a container's ports out of the kernel.
pub(super) fn release_ports(
    tx: &rusqlite::Transaction<'_>,
    host: &Host,
    container: &str,
) -> Result<()> {
    let published = network::ports_of(tx, container)?;
    if published.is_empty() {
        return Ok(());
    }
    match host.release(&published) {
        // There are no rules at all.
        Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

impl Engine {
    /// Containers that may hold something of networks: those that run, and those being started.
    fn holders_now(&self, db: &rusqlite::Connection) -> Result<BTreeSet<String>> {
        let mut now: BTreeSet<String> = record::live(db)?.into_iter().map(|r| r.id).collect();
        for (container, pid, start_time) in network::starts(db)? {
            let starter = runtime::state::ProcessIdentity { pid, start_time };
            // When the starter was killed the keeper may still be at it.
            let under_way = || -> Result<bool> {
                let Some(record) = record::by_id(db, &container)? else { return Ok(false) };
                Ok(self.has_processes(&record) || self.was_written_lately(&record))
            };
            if starter.alive() || under_way()? {
                now.insert(container);
            }
        }
        Ok(now)
    }

    /// Gives back what containers hold that do not run: the ports of those that have ended, which
    /// [`Engine::release_networks`] leaves here, and all that starts have reserved which were
    /// killed. How many containers that were.
    ///
    /// The ports are taken out of the kernel within the transaction that gives them back: a moment
    /// later they may be somebody else's.
    pub(crate) fn release_stale(&self) -> Result<usize> {
        let holders = network::holders(self.db())?;
        if holders.is_empty() {
            return Ok(0);
        }
        let now = self.holders_now(self.db())?;
        if holders.iter().all(|holder| now.contains(holder)) {
            return Ok(0);
        }
        let host = self.network_host()?;
        self.store().db().transaction(|tx| -> Result<usize> {
            // What was true a moment ago may not be any more.
            let now = self.holders_now(tx)?;
            let mut released = 0;
            for holder in network::holders(tx)? {
                if now.contains(&holder) {
                    continue;
                }
                release_ports(tx, host, &holder)?;
                network::release(tx, &holder)?;
                released += 1;
            }
            Ok(released)
        })
    }

    /// Makes the table of rules anew, with all that should be in it.
    pub(super) fn rebuild_rules(&self, host: &Host) -> Result<()> {
        // Nobody reserves a port meanwhile.
        self.store().db().transaction(|tx| -> Result<()> {
            let networks: Vec<_> =
                network::all(tx)?.iter().filter_map(bridged).map(|n| n.rules()).collect();
            let ports: Vec<(Port, String)> =
                network::ports(tx)?.into_iter().map(|(owner, port)| (port, owner)).collect();
            Ok(host.rebuild(&networks, &ports)?)
        })
    }

    /// The first look at networks in a run root: after a boot, or when it was lost.
    pub(super) fn look_once(&self) -> Result<()> {
        let mark = self.run_root().join(MARK);
        if mark.exists() {
            return Ok(());
        }
        // First, so that what the repair itself does needs no other.
        let _ = std::fs::write(&mark, b"");
        let report = self.repair_networks()?;
        for line in report.done.iter().chain(&report.failed) {
            self.debug(line);
        }
        Ok(())
    }

    /// Compares networks as they should be with those of the kernel, and mends what differs. It goes
    /// on after an error.
    pub fn repair_networks(&self) -> Result<NetworkRepair> {
        let mut report = NetworkRepair::default();
        self.reconcile_all()?;
        let stale = self.release_stale()?;
        if stale > 0 {
            report.done.push(format!("gave back addresses and ports of {stale} that do not run"));
        }
        let networks = network::all(self.db())?;
        let host = self.network_host()?;
        let mut used: Vec<&Network> = Vec::new();
        for network in &networks {
            if !network::users(self.db(), &network.id)?.is_empty() {
                used.push(network);
            }
        }
        self.repair_rules(host, &used, &mut report);
        self.repair_bridges(host, &used, &mut report);
        self.remove_strays(host, &networks, &mut report)?;
        for record in record::live_records(self.db())? {
            let rows = network::endpoints_of(self.db(), &record.id)?;
            for joined in self.joined_now(&record, &rows)? {
                if let Err(e) = self.repair_endpoint(host, &record, &joined, &mut report) {
                    report.failed.push(format!("container {}: {}", record.name, e.message));
                }
            }
        }
        self.repair_ports(host, &mut report)?;
        self.repair_host_names(&mut report);
        Ok(report)
    }

    fn repair_rules(&self, host: &Host, used: &[&Network], report: &mut NetworkRepair) {
        if used.is_empty() {
            return;
        }
        let v6 = used.iter().any(|n| n.ipv6 && !n.internal);
        let fresh = match host.prepare(v6) {
            Err(net::Error::OtherRules(_)) => true,
            Ok(made) => made,
            Err(e) => return report.failed.push(e.to_string()),
        };
        if fresh {
            match self.rebuild_rules(host) {
                Ok(()) => report.done.push("made the table of rules anew".into()),
                Err(e) => report.failed.push(e.message),
            }
        }
    }

    fn repair_bridges(&self, host: &Host, used: &[&Network], report: &mut NetworkRepair) {
        for network in used {
            let Some(bridged) = bridged(network) else {
                if let Err(e) = self.make_parent(host, network) {
                    report.failed.push(e.message);
                }
                continue;
            };
            let missing = host.links.get(&bridged.bridge).is_ok_and(|link| link.is_none());
            // What is there already costs nothing to ask for again.
            match host.make(&bridged) {
                Ok(()) if missing => report.done.push(format!(
                    "made bridge {} of network {} anew",
                    bridged.bridge, network.name
                )),
                Ok(()) => {}
                Err(e) => report.failed.push(e.to_string()),
            }
        }
    }

    /// Interfaces of ours that belong to nobody.
    fn remove_strays(
        &self,
        host: &Host,
        networks: &[Network],
        report: &mut NetworkRepair,
    ) -> Result<()> {
        let inventory = host.inventory()?;
        let holders = self.holders_now(self.db())?;
        for (interface, container, network) in inventory.interfaces {
            let known = match container.as_str() {
                "-" if network == net::endpoint::INPUT => self.settings().publish_respects_input,
                "-" => networks.iter().any(|n| n.id == network),
                container => holders.contains(container),
            };
            if known {
                continue;
            }
            match host.links.delete([interface.as_str()]) {
                Ok(()) => report.done.push(format!("removed interface {interface}, of nobody")),
                Err(e) => report.failed.push(e.to_string()),
            }
        }
        Ok(())
    }

    /// A running container's interface: there, and in its bridge.
    fn repair_endpoint(
        &self,
        host: &Host,
        record: &Record,
        joined: &Joined,
        report: &mut NetworkRepair,
    ) -> Result<()> {
        let namespace = self.namespace_of(record)?;
        let inside = Links::open_in(namespace.as_fd())?.get(&joined.endpoint.interface)?;
        let tag = self.settings().network_tag();
        let outside: Option<Link> =
            host.links.get(&name::host_end(&tag, &record.id, &joined.network.id))?;
        let name = &joined.network.name;
        match (inside, outside, &joined.network.bridge) {
            (Some(_), _, None) => {}
            (Some(_), Some(link), Some(bridge)) => {
                let bridge = host.links.index(bridge)?;
                if link.master != bridge {
                    let mut batch = Batch::new();
                    batch.master(link.index, bridge);
                    host.links.commit(&mut batch)?;
                    report
                        .done
                        .push(format!("put container {} back into network {name}", record.name));
                }
            }
            _ => {
                // Its ports are seen to later, all at once.
                let again = Joined { ports: Vec::new(), ..joined.clone() };
                self.plug_one(host, &again, namespace.as_fd())?;
                self.await_ports(std::slice::from_ref(&again))?;
                report
                    .done
                    .push(format!("plugged container {} into network {name} anew", record.name));
            }
        }
        Ok(())
    }

    /// What the maps of published ports have, and what they should.
    fn repair_ports(&self, host: &Host, report: &mut NetworkRepair) -> Result<()> {
        self.store().db().transaction(|tx| -> Result<()> {
            let wanted: HashMap<Port, String> =
                network::ports(tx)?.into_iter().map(|(owner, port)| (port, owner)).collect();
            let there = host.inventory()?.filter.ports;
            let extra: Vec<Port> = there
                .iter()
                .filter(|(port, owner)| wanted.get(port) != Some(owner))
                .map(|(port, _)| port.clone())
                .collect();
            if !extra.is_empty() {
                host.filter.unpublish(&extra)?;
                report.done.push(format!("took back {} published ports of nobody", extra.len()));
            }
            // Those that are being started are published by who starts them.
            let starting: BTreeSet<String> =
                network::starts(tx)?.into_iter().map(|(container, ..)| container).collect();
            for (port, owner) in &wanted {
                let published = there.iter().any(|(p, o)| p == port && o == owner);
                if !published && !starting.contains(owner) {
                    host.filter.publish(std::slice::from_ref(port), owner)?;
                    report.done.push(format!("published {port} again"));
                }
            }
            Ok(())
        })
    }
}
