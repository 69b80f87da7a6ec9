//! Proxies, and which hosts are reached without one.

use std::net::IpAddr;

/// The proxies in force, as the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` give them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https`.
    pub https: Option<String>,
    /// For `http`.
    pub http: Option<String>,
    /// Hosts that are reached directly: names (with the names below them), addresses, networks
    /// (`10.0.0.0/8`), `*`; separated by commas.
    pub no_proxy: String,
}

impl Proxies {
    /// The proxy for a host, without its port. Hosts of this machine are never asked for by proxy.
    pub fn of(&self, scheme: &str, host: &str, port: u16) -> Option<&str> {
        let proxy = if scheme == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_deref().filter(|proxy| !proxy.is_empty())?;
        (!is_loopback(host) && !self.is_direct(host, port)).then_some(proxy)
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.no_proxy.split([',', ' ']).map(str::trim).filter(|e| !e.is_empty()).any(|entry| {
            if entry == "*" {
                return true;
            }
            let entry = entry.to_ascii_lowercase();
            if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
                return in_network(address, network, bits);
            }
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                    (name, digits.parse::<u16>().ok())
                }
                _ => (entry.as_str(), None),
            };
            if wanted.is_some_and(|wanted| wanted != port) {
                return false;
            }
            let name = name.trim_matches(['[', ']']);
            if let Some(address) = address {
                return name.parse() == Ok(address);
            }
            // `.a` and `*.a` are what is below a; `a` is a itself, too.
            match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
                Some(above) => below(&host, above),
                None => host == name || below(&host, name),
            }
        })
    }
}

fn below(host: &str, above: &str) -> bool {
    host.strip_suffix(above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

/// The host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions() {
        let proxies = Proxies {
            https: Some("http://proxy:3128".into()),
            http: None,
            no_proxy: "example.com, .below.org,10.0.0.0/8,*.star.net,port.com:5000,::2,fd00::/8"
                .into(),
        };
        for (host, port, proxied) in [
            ("example.com", 443, false),
            ("a.example.com", 443, false),
            ("badexample.com", 443, true),
            ("below.org", 443, true),
            ("x.below.org", 443, false),
            ("x.star.net", 443, false),
            ("10.1.2.3", 443, false),
            ("11.1.2.3", 443, true),
            ("port.com", 5000, false),
            ("port.com", 443, true),
            ("localhost", 443, false),
            ("127.0.0.5", 443, false),
            ("::2", 443, false),
            ("[fd00::9]", 443, false),
            ("fe00::9", 443, true),
        ] {
            assert_eq!(proxies.of("https", host, port).is_some(), proxied, "{host}:{port}");
        }
        assert!(proxies.of("http", "other", 80).is_none());
        let all = Proxies { no_proxy: "*".into(), ..proxies };
        assert!(all.of("https", "other", 443).is_none());
    }
}
