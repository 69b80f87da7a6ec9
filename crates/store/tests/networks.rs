//! Networks in the database: addresses, ports, and the step to a schema that has them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

mod common;

use common::Scratch;
use net::address::Subnet;
use net::filter::{Port, Protocol};
use store::network::{self, Endpoint, Network, NetworkSubnet};
use store::{Durability, Error, OpenOptions, Store};

fn open(scratch: &Scratch) -> Store {
    let options = OpenOptions { durability: Durability::None, ..OpenOptions::default() };
    Store::open(&scratch.root(), options).unwrap()
}

fn subnet(prefix: &str) -> NetworkSubnet {
    let subnet = Subnet::new(prefix.parse().unwrap(), None, None, vec![]).unwrap();
    NetworkSubnet { id: 0, subnet, reserved: BTreeMap::new() }
}

fn make(store: &Store, name: &str, subnets: &[&str]) -> Network {
    let mut network = Network {
        id: format!("{:0>64}", name.bytes().map(|b| format!("{b:02x}")).collect::<String>()),
        name: name.into(),
        driver: "bridge".into(),
        bridge: Some(format!("br-{name}")),
        existing: false,
        internal: false,
        attachable: false,
        ipv6: false,
        options: [("a".to_owned(), "b".to_owned())].into(),
        labels: BTreeMap::new(),
        created_ns: 7,
        subnets: subnets.iter().map(|s| subnet(s)).collect(),
    };
    store.db().transaction(|tx| network::insert(tx, &mut network)).unwrap();
    network
}

fn take(store: &Store, network: &Network, holder: &str, last: &[IpAddr]) -> IpAddr {
    let held = store
        .db()
        .transaction(|tx| network::hold(tx, &network.subnets[0], holder, None, last))
        .unwrap();
    held.address.address
}

fn release(store: &Store, holder: &str) {
    store.db().transaction(|tx| network::release(tx, holder)).unwrap();
}

#[test]
fn networks_come_back_as_they_were_made() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let made = make(&store, "ab", &["10.1.0.0/24", "fd00:1::/64"]);
    let db = store.db().connection();
    assert_eq!(network::find(db, "ab").unwrap(), made);
    assert_eq!(network::find(db, &made.id).unwrap(), made);
    let mut again = made.clone();
    again.id = "f".repeat(64);
    let refused = store.db().transaction(|tx| network::insert(tx, &mut again));
    assert!(matches!(refused, Err(Error::NetworkExists(name)) if name == "ab"));
    assert!(matches!(network::find(db, "nope"), Err(Error::NoSuchNetwork(_))));
    make(&store, "cd", &["10.2.0.0/24"]);
    assert!(matches!(network::find(db, "00"), Err(Error::AmbiguousNetwork(_, 2))));
    assert!(store.db().transaction(|tx| network::delete(tx, &made.id)).unwrap());
    let left: i64 = db.query_row("SELECT count(*) FROM subnets", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[test]
fn addresses_come_back_late_and_to_their_own_first() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let network = make(&store, "n", &["10.1.0.0/29"]);
    let a = take(&store, &network, "a", &[]);
    let b = take(&store, &network, "b", &[]);
    assert_eq!([a.to_string(), b.to_string()], ["10.1.0.2", "10.1.0.3"]);
    release(&store, "a");
    release(&store, "b");
    assert_eq!(take(&store, &network, "c", &[]).to_string(), "10.1.0.4");
    assert_eq!(take(&store, &network, "b", &[b]), b, "its own again");
    assert_eq!(take(&store, &network, "d", &[b]).to_string(), "10.1.0.5", "taken: the next");
    let wanted = |address: IpAddr| {
        let subnet = &network.subnets[0];
        store.db().transaction(|tx| network::hold(tx, subnet, "e", Some(address), &[]))
    };
    assert!(wanted(b).is_err());
    assert_eq!(wanted(a).unwrap().address.to_string(), "10.1.0.2/29");
    let held = network::held_by(store.db().connection(), "e").unwrap();
    assert_eq!(held, [(network.id.clone(), "10.1.0.2/29".parse().unwrap())]);
    assert_eq!(
        network::holder_of(store.db().connection(), &network.id, a).unwrap().as_deref(),
        Some("e")
    );
}

#[test]
fn many_at_once_never_get_the_same() {
    let scratch = Scratch::new();
    let network = make(&open(&scratch), "n", &["10.1.0.0/24"]);
    let given: Vec<IpAddr> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (scratch, network) = (&scratch, &network);
                scope.spawn(move || {
                    let store = open(scratch);
                    let holder = format!("c{n}");
                    (0..25).map(|_| take(&store, network, &holder, &[])).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 200);
}

#[test]
fn a_port_is_published_once() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let take = |who: &str, protocol, host: &str, host_port| {
        let host: IpAddr = host.parse().unwrap();
        let container = if host.is_ipv4() { "10.1.0.2" } else { "fd00::2" };
        let container = container.parse().unwrap();
        let port = Port { protocol, host, host_port, container, container_port: 80 };
        store.db().transaction(|tx| network::take_port(tx, who, &port))
    };
    take("a", Protocol::Tcp, "0.0.0.0", 80).unwrap();
    let refused = take("b", Protocol::Tcp, "127.0.0.1", 80).unwrap_err().to_string();
    assert!(refused.contains("Bind for 127.0.0.1:80 failed: port is already allocated"));
    take("b", Protocol::Udp, "127.0.0.1", 80).unwrap();
    take("b", Protocol::Tcp, "::", 80).unwrap();
    assert!(take("c", Protocol::Tcp, "::1", 80).is_err());
    assert!(take("c", Protocol::Udp, "0.0.0.0", 80).is_err());
    take("c", Protocol::Udp, "127.0.0.2", 80).unwrap();
    assert_eq!(network::ports_of(store.db().connection(), "b").unwrap().len(), 2);
    release(&store, "a");
    take("c", Protocol::Tcp, "127.0.0.1", 80).unwrap();
    assert_eq!(network::holders(store.db().connection()).unwrap(), ["b", "c"]);
}

#[test]
fn endpoints_keep_their_order_and_go_with_their_container() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let db = store.db();
    let count = |tx: &rusqlite::Transaction<'_>| {
        tx.execute(
            "INSERT INTO containers(id, name, created_ns, state, config) \
             VALUES ('c', 'c', 0, 'created', x'7b7d')",
            [],
        )
    };
    db.transaction(|tx| count(tx).map_err(Error::from)).unwrap();
    for name in ["z", "a"] {
        let endpoint = Endpoint {
            container: "c".into(),
            network_id: name.into(),
            network: name.into(),
            wanted: "{}".into(),
            ..Endpoint::default()
        };
        db.transaction(|tx| network::put_endpoint(tx, &endpoint)).unwrap();
        db.transaction(|tx| network::put_endpoint(tx, &endpoint)).unwrap();
    }
    let names: Vec<_> = network::endpoints_of(db.connection(), "c").unwrap();
    let names: Vec<_> = names.iter().map(|e| (e.network.as_str(), e.position)).collect();
    assert_eq!(names, [("z", 0), ("a", 1)]);
    db.connection().execute("DELETE FROM containers", []).unwrap();
    assert!(network::endpoints(db.connection()).unwrap().is_empty());
}

#[test]
fn a_database_without_networks_is_taken_over() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    // As the version before left it.
    store
        .db()
        .connection()
        .execute_batch(
            "DROP TABLE build_cache; DROP TABLE addresses; DROP TABLE subnets; DROP TABLE networks; DROP TABLE endpoints; \
             DROP TABLE ports; DROP TABLE starts; PRAGMA user_version = 2; \
             INSERT INTO containers(id, name, created_ns, state, config) \
             VALUES ('old', 'old', 0, 'exited', x'7b7d');",
        )
        .unwrap();
    drop(store);
    let store = open(&scratch);
    make(&store, "n", &["10.1.0.0/24"]);
    let db = store.db().connection();
    let version: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
    assert_eq!(version, 4);
    let old: i64 = db.query_row("SELECT count(*) FROM containers", [], |r| r.get(0)).unwrap();
    assert_eq!(old, 1);
    assert!(network::endpoints_of(db, "old").unwrap().is_empty());
}

/// A network that is used for years does not remember every address it ever gave.
#[test]
fn only_the_last_addresses_given_back_are_remembered() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let network = make(&store, "ab", &["10.1.0.0/22"]);
    let stays = take(&store, &network, "stays", &[]);
    let mut given = Vec::new();
    for round in 0..1500 {
        let address = take(&store, &network, "one", &[]);
        // Neither what is held nor what was held lately.
        let lately = given.iter().rev().take(250);
        assert!(address != stays && lately.into_iter().all(|a| *a != address), "round {round}");
        given.push(address);
        release(&store, "one");
    }
    let rows: i64 = store
        .db()
        .connection()
        .query_row("SELECT count(*) FROM addresses", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 257);
    // Its own address comes back to a container though it was forgotten.
    let first = given[1000];
    assert_eq!(take(&store, &network, "one", &[first]), first);
}
