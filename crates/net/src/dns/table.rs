//! Which names there are.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is one of ours, with these addresses of both families.
    Addresses(Vec<IpAddr>),
    /// The upstream servers are to be asked.
    Elsewhere,
    /// It can't exist elsewhere either.
    NoSuchName,
}

/// Where the server gets names from.
pub trait Names {
    /// The addresses of a name, in lower case and without its last dot, as seen from a network
    /// (`scope`).
    fn addresses(&mut self, scope: u64, name: &str) -> Found;

    /// The names of an address; empty if it is none of ours.
    fn names(&mut self, scope: u64, address: IpAddr) -> Vec<String>;

    /// The servers that are asked for everything else, in order.
    fn upstreams(&mut self, scope: u64) -> Vec<SocketAddr>;
}

/// Names in memory: by network, each with the addresses of all who have it.
#[derive(Debug, Clone, Default)]
pub struct Table {
    scopes: HashMap<u64, Scope>,
}

#[derive(Debug, Clone, Default)]
struct Scope {
    forward: HashMap<String, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, Vec<String>>,
    upstreams: Vec<SocketAddr>,
}

impl Table {
    /// Without names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the servers that a network's other questions go to.
    pub fn set_upstreams(&mut self, scope: u64, upstreams: Vec<SocketAddr>) {
        self.scopes.entry(scope).or_default().upstreams = upstreams;
    }

    /// Adds a name for addresses. Several containers may have the same alias. The name added first
    /// to an address is the one it is called by.
    pub fn add(&mut self, scope: u64, name: &str, addresses: &[IpAddr]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let scope = self.scopes.entry(scope).or_default();
        let known = scope.forward.entry(name.clone()).or_default();
        for address in addresses {
            if !known.contains(address) {
                known.push(*address);
            }
            let names = scope.reverse.entry(*address).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }

    /// Forgets all names of an address.
    pub fn remove(&mut self, scope: u64, address: IpAddr) {
        let Some(scope) = self.scopes.get_mut(&scope) else { return };
        for name in scope.reverse.remove(&address).unwrap_or_default() {
            if let Some(addresses) = scope.forward.get_mut(&name) {
                addresses.retain(|other| *other != address);
                if addresses.is_empty() {
                    scope.forward.remove(&name);
                }
            }
        }
    }

    /// Forgets a network.
    pub fn remove_scope(&mut self, scope: u64) {
        self.scopes.remove(&scope);
    }
}

impl Names for Table {
    fn addresses(&mut self, scope: u64, name: &str) -> Found {
        match self.scopes.get(&scope).and_then(|scope| scope.forward.get(name)) {
            Some(addresses) => Found::Addresses(addresses.clone()),
            None => Found::Elsewhere,
        }
    }

    fn names(&mut self, scope: u64, address: IpAddr) -> Vec<String> {
        let names = self.scopes.get(&scope).and_then(|scope| scope.reverse.get(&address));
        names.cloned().unwrap_or_default()
    }

    fn upstreams(&mut self, scope: u64) -> Vec<SocketAddr> {
        self.scopes.get(&scope).map(|scope| scope.upstreams.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_aliases() {
        let mut table = Table::new();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap());
        table.add(1, "One", &[a]);
        table.add(1, "web", &[a]);
        table.add(1, "web", &[b]);
        assert_eq!(table.addresses(1, "one"), Found::Addresses(vec![a]));
        assert_eq!(table.addresses(1, "web"), Found::Addresses(vec![a, b]));
        assert_eq!(table.addresses(2, "web"), Found::Elsewhere);
        assert_eq!(table.names(1, a), ["one", "web"]);
        table.remove(1, a);
        assert_eq!(table.addresses(1, "one"), Found::Elsewhere);
        assert_eq!(table.addresses(1, "web"), Found::Addresses(vec![b]));
        table.remove_scope(1);
        assert_eq!(table.addresses(1, "web"), Found::Elsewhere);
    }
}
