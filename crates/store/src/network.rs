//! Networks, and what containers hold of them: addresses and ports.
//!
//! Everything is a function over a connection or a transaction, because the engine joins these rows
//! with those of its containers in one transaction. Whoever writes holds the write lock from the
//! transaction's start ([`crate::Database::transaction`]), so two processes never hand out the same
//! address or port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use net::address::{Leases, State, Subnet, allocate};
use net::filter::{Port, Protocol};
use net::link::Prefix;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::{Error, Result, files};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan` or `ipvlan`.
    pub driver: String,
    /// The bridge's interface, or `None` for a driver without one.
    pub bridge: Option<String>,
    /// The bridge is somebody else's.
    pub existing: bool,
    /// There is no way out.
    pub internal: bool,
    /// As it was asked for; it means nothing here.
    pub attachable: bool,
    /// It has IPv6 subnets.
    pub ipv6: bool,
    /// Options of the driver as they were given.
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Its subnets, in the order they were given.
    pub subnets: Vec<NetworkSubnet>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSubnet {
    /// Its row; 0 before it has one.
    pub id: i64,
    /// The subnet, its range and its gateway.
    pub subnet: Subnet,
    /// Addresses that no container gets, by name.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// The container's ID.
    pub container: String,
    /// The network's ID.
    pub network_id: String,
    /// The network's name when they were connected.
    pub network: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// In the order they were connected.
    pub position: i64,
    /// The interface inside while it runs, else empty.
    pub interface: String,
    /// What was asked for: JSON that is the engine's affair.
    pub wanted: String,
    /// The addresses of the last run.
    pub last: Vec<IpAddr>,
}

/// An address that a container holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The subnet's row.
    pub subnet: i64,
    /// The address with the subnet's length.
    pub address: Prefix,
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn wrong(index: usize, what: &str) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(index, kind, what.to_owned().into())
}

fn read_bytes(index: usize, bytes: &[u8]) -> rusqlite::Result<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(four)));
    }
    let sixteen = <[u8; 16]>::try_from(bytes).map_err(|_| wrong(index, "no address"))?;
    Ok(IpAddr::V6(Ipv6Addr::from(sixteen)))
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    row.get_ref(index)?.as_str()?.parse().map_err(|_| wrong(index, "not what it should be"))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Invalid(error.to_string()))
}

const COLUMNS: &str = "id, name, driver, bridge, existing, internal, attachable, ipv6, options, \
                       labels, created_ns";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Network> {
    Ok(Network {
        id: row.get(0)?,
        name: row.get(1)?,
        driver: row.get(2)?,
        bridge: row.get(3)?,
        existing: row.get(4)?,
        internal: row.get(5)?,
        attachable: row.get(6)?,
        ipv6: row.get(7)?,
        options: from_json(row, 8)?,
        labels: from_json(row, 9)?,
        created_ns: row.get(10)?,
        subnets: Vec::new(),
    })
}

fn with_subnets(db: &Connection, mut network: Network) -> Result<Network> {
    let mut statement = db.prepare_cached(
        "SELECT id, prefix, range, gateway, reserved FROM subnets WHERE network_id = ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([&network.id], |row| {
        let reserved: BTreeMap<String, IpAddr> = from_json(row, 4)?;
        Ok(NetworkSubnet {
            id: row.get(0)?,
            subnet: Subnet {
                prefix: parsed(row, 1)?,
                range: row.get_ref(2)?.as_str_or_null()?.map(|_| parsed(row, 2)).transpose()?,
                gateway: row.get_ref(3)?.as_str_or_null()?.map(|_| parsed(row, 3)).transpose()?,
                reserved: reserved.values().copied().collect(),
            },
            reserved,
        })
    })?;
    network.subnets = rows.collect::<rusqlite::Result<_>>()?;
    Ok(network)
}

/// All networks, by name.
pub fn all(db: &Connection) -> Result<Vec<Network>> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM networks ORDER BY name"))?;
    let rows = statement.query_map([], from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().map(|network| with_subnets(db, network)).collect()
}

fn one(db: &Connection, column: &str, value: &str) -> Result<Option<Network>> {
    let row = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM networks WHERE {column} = ?1"))?
        .query_row([value], from_row)
        .optional()?;
    row.map(|network| with_subnets(db, network)).transpose()
}

/// The network with this ID.
pub fn by_id(db: &Connection, id: &str) -> Result<Option<Network>> {
    one(db, "id", id)
}

/// The network with this name.
pub fn by_name(db: &Connection, name: &str) -> Result<Option<Network>> {
    one(db, "name", name)
}

/// The network with this ID, name, or beginning of an ID that no other has.
///
/// # Errors
/// [`Error::NoSuchNetwork`], [`Error::AmbiguousNetwork`].
pub fn find(db: &Connection, name: &str) -> Result<Network> {
    if let Some(network) = by_id(db, name)? {
        return Ok(network);
    }
    if let Some(network) = by_name(db, name)? {
        return Ok(network);
    }
    let missing = || Error::NoSuchNetwork(name.to_owned());
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let ids: Vec<String> = db
        .prepare_cached("SELECT id FROM networks WHERE id >= ?1 AND id < ?1 || 'g'")?
        .query_map([name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    match ids.as_slice() {
        [id] => by_id(db, id)?.ok_or_else(missing),
        [] => Err(missing()),
        several => Err(Error::AmbiguousNetwork(name.to_owned(), several.len())),
    }
}

/// Inserts a network with its subnets, whose rows are noted in it.
///
/// # Errors
/// [`Error::NetworkExists`] if the name is taken.
pub fn insert(tx: &Transaction<'_>, network: &mut Network) -> Result<()> {
    if by_name(tx, &network.name)?.is_some() {
        return Err(Error::NetworkExists(network.name.clone()));
    }
    tx.prepare_cached(&format!(
        "INSERT INTO networks({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?
    .execute(params![
        network.id,
        network.name,
        network.driver,
        network.bridge,
        network.existing,
        network.internal,
        network.attachable,
        network.ipv6,
        json(&network.options)?,
        json(&network.labels)?,
        network.created_ns,
    ])?;
    for subnet in &mut network.subnets {
        tx.prepare_cached(
            "INSERT INTO subnets(network_id, prefix, range, gateway, reserved) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            network.id,
            subnet.subnet.prefix.to_string(),
            subnet.subnet.range.map(|range| range.to_string()),
            subnet.subnet.gateway.map(|gateway| gateway.to_string()),
            json(&subnet.reserved)?,
        ])?;
        subnet.id = tx.last_insert_rowid();
    }
    Ok(())
}

/// Removes a network with its subnets; false if there was none.
pub fn delete(tx: &Transaction<'_>, id: &str) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM networks WHERE id = ?1")?.execute([id])? > 0)
}

/// IDs of containers that hold addresses of a network: those that run, or are being started.
pub fn users(db: &Connection, network: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT holder FROM addresses WHERE holder IS NOT NULL \
         AND subnet_id IN (SELECT id FROM subnets WHERE network_id = ?1) \
         UNION SELECT container_id FROM endpoints WHERE network_id = ?1 AND interface <> ''",
    )?;
    let rows = statement.query_map([network], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

// --- endpoints ---------------------------------------------------------------------------

const ENDPOINT: &str = "container_id, network_id, network, id, position, interface, wanted, last";

fn endpoint_from_row(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    Ok(Endpoint {
        container: row.get(0)?,
        network_id: row.get(1)?,
        network: row.get(2)?,
        id: row.get(3)?,
        position: row.get(4)?,
        interface: row.get(5)?,
        wanted: row.get(6)?,
        last: from_json(row, 7)?,
    })
}

/// A container's endpoints, in the order they were connected.
pub fn endpoints_of(db: &Connection, container: &str) -> Result<Vec<Endpoint>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {ENDPOINT} FROM endpoints WHERE container_id = ?1 ORDER BY position"
    ))?;
    let rows = statement.query_map([container], endpoint_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A network's endpoints.
pub fn endpoints_in(db: &Connection, network: &str) -> Result<Vec<Endpoint>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {ENDPOINT} FROM endpoints WHERE network_id = ?1 ORDER BY container_id"
    ))?;
    let rows = statement.query_map([network], endpoint_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Every endpoint there is.
pub fn endpoints(db: &Connection) -> Result<Vec<Endpoint>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {ENDPOINT} FROM endpoints ORDER BY container_id, position"
    ))?;
    let rows = statement.query_map([], endpoint_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Inserts an endpoint, last in the order, or replaces what is known of it.
pub fn put_endpoint(tx: &Transaction<'_>, endpoint: &Endpoint) -> Result<()> {
    tx.prepare_cached(&format!(
        "INSERT INTO endpoints({ENDPOINT}) VALUES (?1, ?2, ?3, ?4, \
         (SELECT coalesce(max(position), -1) + 1 FROM endpoints WHERE container_id = ?1), \
         ?5, ?6, ?7) \
         ON CONFLICT(container_id, network_id) DO UPDATE SET network = excluded.network, \
         interface = excluded.interface, wanted = excluded.wanted, last = excluded.last"
    ))?
    .execute(params![
        endpoint.container,
        endpoint.network_id,
        endpoint.network,
        endpoint.id,
        endpoint.interface,
        endpoint.wanted,
        json(&endpoint.last)?,
    ])?;
    Ok(())
}

/// Removes an endpoint; false if there was none.
pub fn delete_endpoint(tx: &Transaction<'_>, container: &str, network: &str) -> Result<bool> {
    let mut statement =
        tx.prepare_cached("DELETE FROM endpoints WHERE container_id = ?1 AND network_id = ?2")?;
    Ok(statement.execute([container, network])? > 0)
}

// --- addresses ---------------------------------------------------------------------------

/// The rows of one subnet, as [`allocate`] sees them.
struct Rows<'a> {
    tx: &'a Transaction<'a>,
    subnet: i64,
    holder: &'a str,
}

impl Leases for Rows<'_> {
    type Error = Error;

    fn state(&mut self, address: IpAddr) -> Result<State> {
        let held: Option<bool> = self
            .tx
            .prepare_cached(
                "SELECT holder IS NOT NULL FROM addresses WHERE subnet_id = ?1 AND address = ?2",
            )?
            .query_row(params![self.subnet, bytes(address)], |row| row.get(0))
            .optional()?;
        Ok(match held {
            None => State::Fresh,
            Some(true) => State::Held,
            Some(false) => State::Free,
        })
    }

    fn cursor(&mut self) -> Result<Option<IpAddr>> {
        let raw: Option<Vec<u8>> = self
            .tx
            .prepare_cached("SELECT cursor FROM subnets WHERE id = ?1")?
            .query_row([self.subnet], |row| row.get(0))?;
        Ok(raw.map(|raw| read_bytes(0, &raw)).transpose()?)
    }

    fn set_cursor(&mut self, address: IpAddr) -> Result<()> {
        self.tx
            .prepare_cached("UPDATE subnets SET cursor = ?2 WHERE id = ?1")?
            .execute(params![self.subnet, bytes(address)])?;
        Ok(())
    }

    fn oldest_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>> {
        let raw: Option<Vec<u8>> = self
            .tx
            .prepare_cached(
                "SELECT address FROM addresses WHERE subnet_id = ?1 AND holder IS NULL \
                 AND address BETWEEN ?2 AND ?3 ORDER BY released LIMIT 1",
            )?
            .query_row(params![self.subnet, bytes(first), bytes(last)], |row| row.get(0))
            .optional()?;
        Ok(raw.map(|raw| read_bytes(0, &raw)).transpose()?)
    }

    fn hold(&mut self, address: IpAddr) -> Result<()> {
        self.tx
            .prepare_cached(
                "INSERT INTO addresses(subnet_id, address, holder, released) VALUES (?1, ?2, ?3, 0) \
                 ON CONFLICT(subnet_id, address) DO UPDATE SET holder = excluded.holder",
            )?
            .execute(params![self.subnet, bytes(address), self.holder])?;
        Ok(())
    }
}

/// Gives a container an address of a subnet: the one it wants; else the one it had (`last`), if nobody
/// has taken it; else the next.
///
/// # Errors
/// [`Error::Net`] if there is none, or the one wanted is not to be had.
pub fn hold(
    tx: &Transaction<'_>,
    subnet: &NetworkSubnet,
    container: &str,
    wanted: Option<IpAddr>,
    last: &[IpAddr],
) -> Result<Held> {
    let mut rows = Rows { tx, subnet: subnet.id, holder: container };
    let mut again = wanted;
    for address in last.iter().filter(|a| wanted.is_none() && subnet.subnet.prefix.contains(**a)) {
        if rows.state(*address)? != State::Held {
            again = Some(*address);
        }
    }
    let address = allocate(&subnet.subnet, again, &mut rows)?;
    Ok(Held { subnet: subnet.id, address: Prefix { address, length: subnet.subnet.prefix.length } })
}

/// The addresses a container holds, with their networks' IDs.
pub fn held_by(db: &Connection, container: &str) -> Result<Vec<(String, Prefix)>> {
    let mut statement = db.prepare_cached(
        "SELECT s.network_id, s.prefix, a.address FROM addresses a JOIN subnets s \
         ON s.id = a.subnet_id WHERE a.holder = ?1 ORDER BY length(a.address), a.address",
    )?;
    let rows = statement.query_map([container], |row| {
        let prefix: Prefix = parsed(row, 1)?;
        let address = read_bytes(2, row.get_ref(2)?.as_blob()?)?;
        Ok((row.get(0)?, Prefix { address, length: prefix.length }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Every address of a network that is held, with its holder.
pub fn held_in(db: &Connection, network: &str) -> Result<Vec<(String, Prefix)>> {
    let mut statement = db.prepare_cached(
        "SELECT a.holder, s.prefix, a.address FROM subnets s JOIN addresses a \
         ON a.subnet_id = s.id WHERE s.network_id = ?1 AND a.holder IS NOT NULL \
         ORDER BY length(a.address), a.address",
    )?;
    let rows = statement.query_map([network], |row| {
        let prefix: Prefix = parsed(row, 1)?;
        let address = read_bytes(2, row.get_ref(2)?.as_blob()?)?;
        Ok((row.get(0)?, Prefix { address, length: prefix.length }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Who holds an address of a network.
pub fn holder_of(db: &Connection, network: &str, address: IpAddr) -> Result<Option<String>> {
    let holder: Option<Option<String>> = db
        .prepare_cached(
            "SELECT holder FROM addresses WHERE address = ?2 AND subnet_id IN \
             (SELECT id FROM subnets WHERE network_id = ?1)",
        )?
        .query_row(params![network, bytes(address)], |row| row.get(0))
        .optional()?;
    Ok(holder.flatten())
}

/// Addresses given back that are remembered, for each subnet. Those of longer ago count as never given:
/// the cursor comes to them after all others.
const REMEMBERED: u32 = 256;

/// Gives a container's addresses back: those of one network, or all.
pub fn release_addresses(
    tx: &Transaction<'_>,
    container: &str,
    network: Option<&str>,
) -> Result<()> {
    let mut released = tx.prepare_cached(
        "UPDATE addresses SET holder = NULL, released = ?2 WHERE holder = ?1 AND (?3 IS NULL OR \
         subnet_id IN (SELECT id FROM subnets WHERE network_id = ?3)) RETURNING subnet_id",
    )?;
    let subnets = released
        .query_map(params![container, files::now_ns(), network], |row| row.get(0))?
        .collect::<rusqlite::Result<BTreeSet<i64>>>()?;
    for subnet in subnets {
        tx.prepare_cached(
            "DELETE FROM addresses WHERE subnet_id = ?1 AND holder IS NULL AND released <= \
             (SELECT released FROM addresses WHERE subnet_id = ?1 AND holder IS NULL \
             ORDER BY released DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute([subnet, i64::from(REMEMBERED)])?;
    }
    Ok(())
}

// --- ports -------------------------------------------------------------------------------

fn port_from_row(row: &Row<'_>) -> rusqlite::Result<(String, Port)> {
    let number: u8 = row.get(1)?;
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| *p as u8 == number)
        .ok_or_else(|| wrong(1, "no protocol with ports"))?;
    let port = Port {
        protocol,
        host: parsed(row, 2)?,
        host_port: row.get(3)?,
        container: parsed(row, 4)?,
        container_port: row.get(5)?,
    };
    Ok((row.get(0)?, port))
}

const PORT: &str = "container_id, protocol, host, host_port, container, container_port";

/// Every published port with its container.
pub fn ports(db: &Connection) -> Result<Vec<(String, Port)>> {
    let mut statement = db.prepare_cached(&format!("SELECT {PORT} FROM ports"))?;
    let rows = statement.query_map([], port_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The ports a container publishes.
pub fn ports_of(db: &Connection, container: &str) -> Result<Vec<Port>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {PORT} FROM ports WHERE container_id = ?1 ORDER BY protocol, container_port, host"
    ))?;
    let rows = statement.query_map([container], |row| port_from_row(row).map(|(_, port)| port))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Who publishes a port of the host in such a way that another cannot: at the same address, or one of
/// the two at all addresses of the family.
pub fn publisher(
    db: &Connection,
    protocol: Protocol,
    host: IpAddr,
    host_port: u16,
) -> Result<Option<String>> {
    let mut statement = db.prepare_cached(
        "SELECT container_id, host FROM ports WHERE protocol = ?1 AND host_port = ?2",
    )?;
    let rows = statement.query_map(params![protocol as u8, host_port], |row| {
        Ok((row.get::<_, String>(0)?, parsed::<IpAddr>(row, 1)?))
    })?;
    for row in rows {
        let (container, other) = row?;
        let all = other.is_unspecified() || host.is_unspecified();
        if other.is_ipv4() == host.is_ipv4() && (all || other == host) {
            return Ok(Some(container));
        }
    }
    Ok(None)
}

/// Takes a port of the host for a container.
///
/// # Errors
/// [`Error::Net`] with `PortTaken` if another container has it.
pub fn take_port(tx: &Transaction<'_>, container: &str, port: &Port) -> Result<()> {
    if publisher(tx, port.protocol, port.host, port.host_port)?.is_some() {
        let host = std::net::SocketAddr::new(port.host, port.host_port);
        return Err(net::Error::PortTaken(host.to_string()).into());
    }
    tx.prepare_cached(&format!("INSERT INTO ports({PORT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"))?
        .execute(params![
            container,
            port.protocol as u8,
            port.host.to_string(),
            port.host_port,
            port.container.to_string(),
            port.container_port,
        ])?;
    Ok(())
}

/// Gives all ports of a container back.
pub fn release_ports(tx: &Transaction<'_>, container: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM ports WHERE container_id = ?1")?.execute([container])?;
    Ok(())
}

// --- starts ------------------------------------------------------------------------------

/// Notes that a process has reserved something for a container that it is about to start.
pub fn note_start(tx: &Transaction<'_>, container: &str, pid: i32, start_time: u64) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO starts VALUES (?1, ?2, ?3)")?.execute(params![
        container,
        pid,
        start_time.cast_signed()
    ])?;
    Ok(())
}

/// The start is over.
pub fn forget_start(tx: &Transaction<'_>, container: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM starts WHERE container_id = ?1")?.execute([container])?;
    Ok(())
}

/// Starts under way: container, pid, start time of that process.
pub fn starts(db: &Connection) -> Result<Vec<(String, i32, u64)>> {
    let mut statement = db.prepare_cached("SELECT container_id, pid, start_time FROM starts")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Containers that hold addresses or ports.
pub fn holders(db: &Connection) -> Result<Vec<String>> {
    let mut statement = db.prepare_cached(
        "SELECT holder FROM addresses WHERE holder IS NOT NULL UNION SELECT container_id FROM ports \
         UNION SELECT container_id FROM starts \
         UNION SELECT container_id FROM endpoints WHERE interface <> ''",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Gives back everything a container holds of networks while it runs.
pub fn release(tx: &Transaction<'_>, container: &str) -> Result<()> {
    release_ports(tx, container)?;
    release_but_ports(tx, container)
}

/// The same but for its ports, which must be taken out of the kernel first.
pub fn release_but_ports(tx: &Transaction<'_>, container: &str) -> Result<()> {
    release_addresses(tx, container, None)?;
    forget_start(tx, container)?;
    tx.prepare_cached(
        "UPDATE endpoints SET interface = '' WHERE container_id = ?1 AND interface <> ''",
    )?
    .execute([container])?;
    Ok(())
}
