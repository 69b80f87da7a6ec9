//! The expressions of nftables' rules, as the kernel wants them.
//!
//! A rule is a list of small instructions over registers of 4 bytes. A lookup's key lies in
//! neighbouring registers, each part padded to 4 bytes.

use crate::netlink::Batch;

/// The registers of 4 bytes begin at this number.
pub(super) const REG: u32 = 8;
const VERDICT: u32 = 0;
const LIST_ELEM: u16 = 1;

/// One rule's expressions, being written.
pub(super) struct Rule<'a>(pub(super) &'a mut Batch);

/// What happens with a packet.
#[derive(Clone, Copy)]
pub(super) enum Verdict<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

/// The two families of the network layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(super) fn bytes(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    pub(super) fn suffix(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    fn source(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    fn destination(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }
}

impl Rule<'_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Batch)) -> &mut Self {
        let element = self.0.open(LIST_ELEM);
        self.0.text(1, name);
        let nest = self.0.open(2);
        data(self.0);
        self.0.close(nest);
        self.0.close(element);
        self
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |b| {
            b.number_be(1, register);
            b.number_be(2, key);
        })
    }

    fn compare(&mut self, register: u32, different: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |b| {
            b.number_be(1, register);
            b.number_be(2, u32::from(different));
            let data = b.open(3);
            b.put(1, value);
            b.close(data);
        })
    }

    fn mask(&mut self, register: u32, mask: &[u8]) -> &mut Self {
        self.bits(register, mask, &vec![0; mask.len()])
    }

    /// Keeps the bits of `mask` and turns those of `flip`.
    fn bits(&mut self, register: u32, mask: &[u8], flip: &[u8]) -> &mut Self {
        self.expression("bitwise", |b| {
            b.number_be(1, register);
            b.number_be(2, register);
            b.number_be(3, u32::try_from(mask.len()).unwrap_or(4));
            for (kind, value) in [(4, mask), (5, flip)] {
                let data = b.open(kind);
                b.put(1, value);
                b.close(data);
            }
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |b| {
            b.number_be(1, register);
            b.number_be(2, base);
            b.number_be(3, offset);
            b.number_be(4, length);
        })
    }

    /// Only IPv4, or only IPv6.
    pub(super) fn family(&mut self, ip: Ip) -> &mut Self {
        self.meta(15, REG).compare(REG, false, &[ip.number()])
    }

    pub(super) fn incoming(&mut self, register: u32) -> &mut Self {
        self.meta(6, register)
    }

    /// Only what comes from one interface.
    pub(super) fn only_incoming(&mut self, name: &str) -> &mut Self {
        self.incoming(REG).compare(REG, false, &super::interface(name))
    }

    pub(super) fn outgoing(&mut self, register: u32) -> &mut Self {
        self.meta(7, register)
    }

    pub(super) fn protocol(&mut self, register: u32) -> &mut Self {
        self.meta(16, register)
    }

    pub(super) fn source(&mut self, ip: Ip, register: u32) -> &mut Self {
        self.payload(1, ip.source(), ip.bytes(), register)
    }

    pub(super) fn destination(&mut self, ip: Ip, register: u32) -> &mut Self {
        self.payload(1, ip.destination(), ip.bytes(), register)
    }

    pub(super) fn destination_port(&mut self, register: u32) -> &mut Self {
        self.payload(2, 2, 2, register)
    }

    /// Only what comes from the host's loopback addresses.
    pub(super) fn only_from_loopback(&mut self, ip: Ip) -> &mut Self {
        self.source(ip, REG).is_loopback(ip)
    }

    /// Only what goes there.
    pub(super) fn only_to_loopback(&mut self, ip: Ip) -> &mut Self {
        self.destination(ip, REG).is_loopback(ip)
    }

    fn is_loopback(&mut self, ip: Ip) -> &mut Self {
        match ip {
            Ip::V4 => self.mask(REG, &[255, 0, 0, 0]).compare(REG, false, &[127, 0, 0, 0]),
            Ip::V6 => self.compare(REG, false, &std::net::Ipv6Addr::LOCALHOST.octets()),
        }
    }

    /// Only what goes to an address of this host.
    pub(super) fn only_to_local(&mut self) -> &mut Self {
        self.expression("fib", |b| {
            b.number_be(1, REG);
            b.number_be(2, 3);
            b.number_be(3, 2);
        })
        .compare(REG, false, &2u32.to_ne_bytes())
    }

    /// Only connections whose state is one of these bits.
    pub(super) fn state(&mut self, bits: u32) -> &mut Self {
        self.tracked(0, bits)
    }

    /// Only connections whose destination was translated.
    pub(super) fn translated(&mut self) -> &mut Self {
        self.tracked(2, 1 << 5)
    }

    fn tracked(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |b| {
            b.number_be(1, REG);
            b.number_be(2, key);
        })
        .mask(REG, &bits.to_ne_bytes())
        .compare(REG, true, &[0; 4])
    }

    /// Only packets with a bit of their mark set.
    pub(super) fn marked(&mut self, bit: u32) -> &mut Self {
        self.meta(3, REG).mask(REG, &bit.to_ne_bytes()).compare(REG, true, &[0; 4])
    }

    /// Sets a bit of the packet's mark, or takes it away.
    pub(super) fn mark(&mut self, bit: u32, on: bool) -> &mut Self {
        let flip = if on { bit } else { 0 };
        self.meta(3, REG).bits(REG, &(!bit).to_ne_bytes(), &flip.to_ne_bytes());
        self.expression("meta", |b| {
            b.number_be(2, 3);
            b.number_be(3, REG);
        })
    }

    /// Sends a copy out by the interface of this number, towards an address.
    pub(super) fn copy_to(&mut self, address: &[u8], interface: u32) -> &mut Self {
        self.load(REG, address).load(REG + 4, &interface.to_ne_bytes()).expression("dup", |b| {
            b.number_be(1, REG);
            b.number_be(2, REG + 4);
        })
    }

    /// Only if the key in the registers from `register` on is in the set.
    pub(super) fn in_set(&mut self, set: &str, register: u32) -> &mut Self {
        self.expression("lookup", |b| {
            b.text(1, set);
            b.number_be(2, register);
        })
    }

    /// Only if the key is in the map; what it leads to is put from `to` on.
    pub(super) fn in_map(&mut self, map: &str, register: u32, to: u32) -> &mut Self {
        self.expression("lookup", |b| {
            b.text(1, map);
            b.number_be(2, register);
            b.number_be(3, to);
        })
    }

    /// Only one protocol, one IPv4 address and port of destination.
    pub(super) fn only_to(
        &mut self,
        protocol: u8,
        address: std::net::Ipv4Addr,
        port: u16,
    ) -> &mut Self {
        self.family(Ip::V4)
            .protocol(REG)
            .compare(REG, false, &[protocol])
            .destination(Ip::V4, REG)
            .compare(REG, false, &address.octets())
            .destination_port(REG)
            .compare(REG, false, &port.to_be_bytes())
    }

    /// Puts a value into registers.
    pub(super) fn load(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |b| {
            b.number_be(1, register);
            let data = b.open(2);
            b.put(1, value);
            b.close(data);
        })
    }

    /// Sends to the address and port in registers.
    pub(super) fn translate(&mut self, ip: Ip, address: u32, port: u32) {
        self.expression("nat", |b| {
            b.number_be(1, 1);
            b.number_be(2, u32::from(ip.number()));
            b.number_be(3, address);
            b.number_be(5, port);
        });
    }

    /// Gives the sender's address of the interface it leaves by.
    pub(super) fn masquerade(&mut self) {
        self.expression("masq", |_| ());
    }

    pub(super) fn verdict(&mut self, verdict: Verdict<'_>) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0i32, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        self.expression("immediate", |b| {
            b.number_be(1, VERDICT);
            let data = b.open(2);
            let nest = b.open(2);
            b.number_be(1, code.cast_unsigned());
            if let Some(chain) = chain {
                b.text(2, chain);
            }
            b.close(nest);
            b.close(data);
        });
    }
}
