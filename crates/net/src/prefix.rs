//! Addresses with the length of a network's prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address, host bits and all.
    pub address: IpAddr,
    /// Bits of the network, at most 32 or 128.
    pub length: u8,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl std::str::FromStr for Prefix {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("invalid CIDR address: {given}"));
        let (address, length) = given.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        Self::new(address, length).ok_or_else(wrong)
    }
}

impl Prefix {
    /// Unless the length is larger than the address.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let limit = if address.is_ipv4() { 32 } else { 128 };
        (length <= limit).then_some(Self { address, length })
    }

    /// The network: host bits are zero.
    pub fn network(self) -> Self {
        Self { address: self.edge(false), length: self.length }
    }

    /// The last address.
    pub fn last(self) -> IpAddr {
        self.edge(true)
    }

    fn edge(self, ones: bool) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                let bits = u32::from(a);
                IpAddr::V4(Ipv4Addr::from(if ones { bits | host } else { bits & !host }))
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                let bits = u128::from(a);
                IpAddr::V6(Ipv6Addr::from(if ones { bits | host } else { bits & !host }))
            }
        }
    }

    /// Whether an address is inside.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, length: self.length }.network() == self.network()
    }

    /// Whether two networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let wider = if self.length <= other.length { self } else { other };
        let inner = if self.length <= other.length { other } else { self };
        wider.contains(inner.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let p: Prefix = "172.17.5.9/16".parse().unwrap();
        assert_eq!(p.network().to_string(), "172.17.0.0/16");
        assert_eq!(p.last().to_string(), "172.17.255.255");
        assert!(p.contains("172.17.0.1".parse().unwrap()));
        assert!(!p.contains("172.18.0.1".parse().unwrap()));
        assert!(p.overlaps("172.16.0.0/12".parse().unwrap()));
        assert!(!p.overlaps("172.18.0.0/16".parse().unwrap()));
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.overlaps(p) && p.overlaps(all) && !all.contains("::1".parse().unwrap()));
        assert_eq!("::/0".parse::<Prefix>().unwrap().last().to_string().len(), 39);
        assert!("1.2.3.4/33".parse::<Prefix>().is_err());
    }
}
