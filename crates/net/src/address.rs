//! Which subnet a network gets, and which address a container.
//!
//! Nothing here holds state: who has which address is in the caller's database, seen through
//! [`Leases`]. If the caller's transaction holds the write lock from before [`allocate`] until it has
//! committed, two processes never hand out the same address.
//!
//! An address that has never been given goes first, in order; when there is none left, the one that
//! has been free for longest. So an address that somebody outside still remembers comes back as late
//! as possible, and no query grows with the size of the subnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};
use crate::link::Prefix;

/// A range that is cut into subnets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The whole range.
    pub base: Prefix,
    /// Bits of each subnet.
    pub size: u8,
}

/// The pools Docker has: 172.17.0.0/16 to 172.31.0.0/16, and 192.168.0.0/16 in pieces of /20.
pub fn default_pools() -> Vec<Pool> {
    let v4 = |a, b, length| Prefix { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), length };
    (17..=31)
        .map(|second| Pool { base: v4(172, second, 16), size: 16 })
        .chain([Pool { base: v4(192, 168, 16), size: 20 }])
        .collect()
}

/// A pool of unique local IPv6 addresses (RFC 4193) with subnets of /64. `seed` is 40 bits by chance,
/// once for each engine.
pub fn ipv6_pool(seed: u64) -> Pool {
    let bits = (0xfd_u128 << 120) | (u128::from(seed & 0xff_ffff_ffff) << 80);
    Pool { base: Prefix { address: IpAddr::V6(Ipv6Addr::from(bits)), length: 48 }, size: 64 }
}

/// The first subnet of the pools that overlaps with none in use: those of other networks, and those
/// the host has routes to ([`crate::link::Links::routed`]).
pub fn free_subnet(pools: &[Pool], used: &[Prefix]) -> Result<Prefix> {
    for pool in pools {
        let base = pool.base.network();
        if pool.size < base.length || Prefix::new(base.address, pool.size).is_none() {
            return Err(Error::Invalid(format!(
                "invalid address pool: {base} cannot be cut into networks of /{}",
                pool.size
            )));
        }
        let mut candidate = Prefix { address: base.address, length: pool.size };
        while base.contains(candidate.address) {
            let Some(obstacle) = used.iter().find(|u| u.overlaps(candidate)) else {
                return Ok(candidate);
            };
            // On behind whichever is larger, so that a wide route is passed in one step.
            let last =
                if obstacle.length < candidate.length { obstacle.last() } else { candidate.last() };
            match step(last, 1) {
                Some(next) => candidate.address = next,
                None => break,
            }
        }
    }
    Err(Error::NoSubnet)
}

/// Refuses a subnet that overlaps with one in use.
pub fn check_free(wanted: Prefix, used: &[Prefix]) -> Result<()> {
    match used.iter().find(|u| u.overlaps(wanted)) {
        Some(other) => Err(Error::Invalid(format!(
            "invalid pool request: Pool overlaps with other one on this address space: {wanted} and {other}"
        ))),
        None => Ok(()),
    }
}

/// A network's subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub prefix: Prefix,
    /// Where addresses for containers come from; the whole subnet, if there is none.
    pub range: Option<Prefix>,
    /// The bridge's address, which no container gets.
    pub gateway: Option<IpAddr>,
    /// Others that no container gets (`--aux-address`).
    pub reserved: Vec<IpAddr>,
}

impl Subnet {
    /// A subnet as it was asked for, checked and completed. Without a gateway its first address is
    /// that of `range`, or of the subnet.
    pub fn new(
        prefix: Prefix,
        range: Option<Prefix>,
        gateway: Option<IpAddr>,
        reserved: Vec<IpAddr>,
    ) -> Result<Self> {
        let prefix = prefix.network();
        let inside = |address: IpAddr, what: &str| {
            if prefix.contains(address) {
                Ok(())
            } else {
                Err(Error::Invalid(format!("no matching subnet for {what} {address}: {prefix}")))
            }
        };
        if let Some(range) = range {
            inside(range.address, "range")?;
            if range.length < prefix.length {
                return Err(Error::Invalid(format!(
                    "no matching subnet for range {range}: {prefix}"
                )));
            }
        }
        for address in &reserved {
            inside(*address, "aux-address")?;
        }
        if let Some(gateway) = gateway {
            inside(gateway, "gateway")?;
        }
        let mut subnet =
            Self { prefix, range: range.map(Prefix::network), gateway: None, reserved };
        let (first, last) = subnet.bounds();
        let mut at = Some(first);
        subnet.gateway = match gateway {
            Some(gateway) => Some(gateway),
            None => loop {
                match at {
                    Some(address) if address > last => break None,
                    Some(address) if !subnet.reserved.contains(&address) => break Some(address),
                    Some(address) => at = step(address, 1),
                    None => break None,
                }
            },
        };
        if subnet.gateway.is_none() {
            return Err(Error::Invalid(format!("no address of {prefix} is left for the gateway")));
        }
        Ok(subnet)
    }

    /// The first and the last address for containers: not the network's own (for IPv6: the routers'
    /// anycast address), nor the broadcast address, unless the subnet is too small to have them.
    fn bounds(&self) -> (IpAddr, IpAddr) {
        let range = self.range.unwrap_or(self.prefix);
        let (mut first, mut last) = (range.network().address, range.last());
        let host_bits =
            if self.prefix.address.is_ipv4() { 32 } else { 128 } - u16::from(self.prefix.length);
        if host_bits >= 2 {
            if first == self.prefix.address {
                first = step(first, 1).unwrap_or(first);
            }
            if last.is_ipv4() && last == self.prefix.last() {
                last = step(last, -1).unwrap_or(last);
            }
        }
        (first, last)
    }

    fn is_reserved(&self, address: IpAddr) -> bool {
        self.gateway == Some(address) || self.reserved.contains(&address)
    }
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was never given to anybody.
    Fresh,
    /// It was given and came back.
    Free,
    /// Somebody has it.
    Held,
}

/// The addresses of one subnet, as the caller's database knows them.
pub trait Leases {
    /// What goes wrong with the database.
    type Error: From<Error>;

    /// What is known of an address.
    fn state(&mut self, address: IpAddr) -> Result<State, Self::Error>;

    /// The last address that was given in order, if any was.
    fn cursor(&mut self) -> Result<Option<IpAddr>, Self::Error>;

    /// Remembers the last address that was given in order.
    fn set_cursor(&mut self, address: IpAddr) -> Result<(), Self::Error>;

    /// Of the free addresses (not the fresh ones) between two, the one released first.
    fn oldest_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, Self::Error>;

    /// Notes that the address is held now.
    fn hold(&mut self, address: IpAddr) -> Result<(), Self::Error>;
}

/// Takes an address: the one that is wanted, or the next.
///
/// A container may want any free address of the subnet, also outside the range (`--ip`).
pub fn allocate<L: Leases>(
    subnet: &Subnet,
    wanted: Option<IpAddr>,
    leases: &mut L,
) -> Result<IpAddr, L::Error> {
    let (first, last) = subnet.bounds();
    if let Some(address) = wanted {
        check_wanted(subnet, address)?;
        if leases.state(address)? == State::Held {
            return Err(Error::AddressUnavailable(address, "Address already in use").into());
        }
        leases.hold(address)?;
        return Ok(address);
    }
    let mut next = match leases.cursor()? {
        // A cursor outside is one of another range.
        Some(at) if at >= first && at <= last => step(at, 1),
        _ => Some(first),
    };
    while let Some(address) = next.filter(|address| *address <= last) {
        if !subnet.is_reserved(address) && leases.state(address)? == State::Fresh {
            leases.set_cursor(address)?;
            leases.hold(address)?;
            return Ok(address);
        }
        // Whoever has it asked for it, so these are few; the cursor passes each of them once.
        leases.set_cursor(address)?;
        next = step(address, 1);
    }
    if let Some(address) = leases.oldest_free(first, last)? {
        leases.hold(address)?;
        return Ok(address);
    }
    Err(Error::NoAddress {
        family: if first.is_ipv4() { 4 } else { 6 },
        pool: subnet.range.unwrap_or(subnet.prefix).to_string(),
    }
    .into())
}

fn check_wanted(subnet: &Subnet, address: IpAddr) -> Result<()> {
    if !subnet.prefix.contains(address) {
        return Err(Error::AddressUnavailable(address, "no configured subnet contains it"));
    }
    let whole = Subnet { range: None, ..subnet.clone() };
    let (first, last) = whole.bounds();
    if address < first || address > last {
        return Err(Error::AddressUnavailable(address, "it is the network's own"));
    }
    if subnet.is_reserved(address) {
        return Err(Error::AddressUnavailable(address, "Address already in use"));
    }
    Ok(())
}

fn step(address: IpAddr, by: i32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => u32::from(a).checked_add_signed(by).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => {
            u128::from(a).checked_add_signed(i128::from(by)).map(|n| IpAddr::V6(n.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    /// What the engine's table does, in memory.
    #[derive(Default)]
    struct Memory {
        /// `None`: held. Otherwise when it was released.
        rows: BTreeMap<IpAddr, Option<u64>>,
        cursor: Option<IpAddr>,
        clock: u64,
        asked: usize,
    }

    impl Memory {
        fn release(&mut self, address: IpAddr) {
            self.clock += 1;
            self.rows.insert(address, Some(self.clock));
        }
    }

    impl Leases for Memory {
        type Error = Error;

        fn state(&mut self, address: IpAddr) -> Result<State> {
            self.asked += 1;
            Ok(match self.rows.get(&address) {
                None => State::Fresh,
                Some(None) => State::Held,
                Some(Some(_)) => State::Free,
            })
        }

        fn cursor(&mut self) -> Result<Option<IpAddr>> {
            Ok(self.cursor)
        }

        fn set_cursor(&mut self, address: IpAddr) -> Result<()> {
            self.cursor = Some(address);
            Ok(())
        }

        fn oldest_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>> {
            let free = self.rows.range(first..=last).filter_map(|(a, at)| at.map(|at| (at, *a)));
            Ok(free.min().map(|(_, address)| address))
        }

        fn hold(&mut self, address: IpAddr) -> Result<()> {
            assert_ne!(self.rows.insert(address, None), Some(None), "{address} given twice");
            Ok(())
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn subnet(prefix: &str, range: Option<&str>) -> Subnet {
        Subnet::new(prefix.parse().unwrap(), range.map(|r| r.parse().unwrap()), None, vec![])
            .unwrap()
    }

    #[test]
    fn in_order_and_the_longest_free_again() {
        let subnet = subnet("10.0.0.0/29", None);
        assert_eq!(subnet.gateway, Some(ip("10.0.0.1")));
        let mut leases = Memory::default();
        let next = |leases: &mut Memory| allocate(&subnet, None, leases);
        for n in 2..=4 {
            assert_eq!(next(&mut leases).unwrap(), ip(&format!("10.0.0.{n}")));
        }
        // What is released is not what comes next.
        leases.release(ip("10.0.0.3"));
        leases.release(ip("10.0.0.2"));
        assert_eq!(next(&mut leases).unwrap(), ip("10.0.0.5"));
        assert_eq!(next(&mut leases).unwrap(), ip("10.0.0.6"));
        assert_eq!(next(&mut leases).unwrap(), ip("10.0.0.3"));
        assert_eq!(next(&mut leases).unwrap(), ip("10.0.0.2"));
        assert!(matches!(next(&mut leases), Err(Error::NoAddress { family: 4, .. })));
        leases.release(ip("10.0.0.6"));
        assert_eq!(next(&mut leases).unwrap(), ip("10.0.0.6"));
    }

    #[test]
    fn wanted_addresses() {
        let subnet = Subnet::new(
            "10.0.0.0/24".parse().unwrap(),
            Some("10.0.0.128/25".parse().unwrap()),
            Some(ip("10.0.0.254")),
            vec![ip("10.0.0.129")],
        )
        .unwrap();
        let mut leases = Memory::default();
        for bad in ["10.0.1.1", "10.0.0.0", "10.0.0.255", "10.0.0.254", "10.0.0.129", "fd00::1"] {
            assert!(allocate(&subnet, Some(ip(bad)), &mut leases).is_err(), "{bad}");
        }
        assert_eq!(allocate(&subnet, Some(ip("10.0.0.5")), &mut leases).unwrap(), ip("10.0.0.5"));
        assert!(allocate(&subnet, Some(ip("10.0.0.5")), &mut leases).is_err());
        allocate(&subnet, Some(ip("10.0.0.128")), &mut leases).unwrap();
        // The range begins in the middle, the reserved and the held are passed over.
        assert_eq!(allocate(&subnet, None, &mut leases).unwrap(), ip("10.0.0.130"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let prefix: Prefix = "10.0.0.0/24".parse().unwrap();
        assert!(Subnet::new(prefix, Some("10.0.1.0/25".parse().unwrap()), None, vec![]).is_err());
        assert!(Subnet::new(prefix, Some("10.0.0.0/16".parse().unwrap()), None, vec![]).is_err());
        assert!(Subnet::new(prefix, None, Some(ip("10.0.1.1")), vec![]).is_err());
        assert!(Subnet::new(prefix, None, None, vec![ip("10.0.1.1")]).is_err());
        let tiny = Subnet::new("10.0.0.4/32".parse().unwrap(), None, None, vec![]).unwrap();
        assert!(allocate(&tiny, None, &mut Memory::default()).is_err());
    }

    #[test]
    fn subnets() {
        let pools = default_pools();
        let list = |used: &[&str]| used.iter().map(|u| u.parse().unwrap()).collect::<Vec<Prefix>>();
        let free = |used: &[&str]| free_subnet(&pools, &list(used)).map(|p| p.to_string());
        assert_eq!(free(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(free(&["172.17.3.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(free(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(free(&["172.16.0.0/12", "192.168.0.0/18"]).unwrap(), "192.168.64.0/20");
        assert!(matches!(free(&["0.0.0.0/0"]), Err(Error::NoSubnet)));
        let six = free_subnet(&[ipv6_pool(0x12_3456_789a)], &[]).unwrap();
        assert_eq!(six.to_string(), "fd12:3456:789a::/64");
        assert!(check_free("172.17.1.0/24".parse().unwrap(), &list(&["172.17.0.0/16"])).is_err());
        assert!(
            free_subnet(&[Pool { base: "10.0.0.0/16".parse().unwrap(), size: 8 }], &[]).is_err()
        );
    }

    #[test]
    fn a_large_subnet_costs_what_a_small_one_does() {
        let subnet = subnet("10.0.0.0/8", None);
        let mut leases = Memory::default();
        for _ in 0..5000 {
            allocate(&subnet, None, &mut leases).unwrap();
        }
        assert!(leases.asked <= 5001, "{}", leases.asked);
    }

    proptest! {
        #[test]
        fn never_twice_and_never_outside(
            length in 24u8..=30,
            steps in proptest::collection::vec((any::<bool>(), any::<proptest::sample::Index>()), 1..300),
        ) {
            let subnet = subnet(&format!("10.9.8.0/{length}"), None);
            let mut leases = Memory::default();
            let mut held: Vec<IpAddr> = Vec::new();
            let mut released: Vec<IpAddr> = Vec::new();
            for (take, which) in steps {
                if take {
                    match allocate(&subnet, None, &mut leases) {
                        Ok(address) => {
                            prop_assert!(subnet.prefix.contains(address) && !subnet.is_reserved(address));
                            prop_assert!(address < subnet.prefix.last());
                            if let Some(at) = released.iter().position(|a| *a == address) {
                                prop_assert_eq!(at, 0, "an older one was free");
                                released.remove(0);
                            }
                            held.push(address);
                        }
                        Err(_) => {
                            let all: HashSet<_> = held.iter().collect();
                            prop_assert_eq!(all.len(), (1usize << (32 - length)) - 3);
                        }
                    }
                } else if !held.is_empty() {
                    let address = held.swap_remove(which.index(held.len()));
                    leases.release(address);
                    released.push(address);
                }
            }
        }
    }
}
