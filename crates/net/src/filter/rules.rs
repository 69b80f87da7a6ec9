//! The one table: its sets, chains and rules. They are the same whatever runs; only the sets'
//! elements change.

use super::expression::{Ip, REG, Rule, Verdict};
use crate::netlink::{APPEND, Batch, CREATE, EXCL};

/// Written into the table; another number means other rules.
pub(super) const VERSION: &str = "wherry rules 1";

/// nftables' family `inet`: IPv4 and IPv6.
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10;

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENTS: u16 = 12;
pub(super) const GET_ELEMENTS: u16 = 13;
pub(super) const DELETE_ELEMENTS: u16 = 14;

const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
const IFNAME: u32 = 41;

/// Begins a message of nftables.
pub(super) fn message(batch: &mut Batch, kind: u16, flags: u16, action: String) {
    batch.message((SUBSYSTEM << 8) | kind, flags, &[INET, 0, 0, 0], action);
}

/// A transaction: all that `fill` writes takes effect at once, or nothing.
pub(super) fn transaction(action: &str, fill: impl FnOnce(&mut Batch)) -> Batch {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mut batch = Batch::new();
    batch.message(16, 0, &[0, 0, high, low], action.to_owned());
    fill(&mut batch);
    batch.acknowledge();
    batch.message(17, 0, &[0, 0, high, low], action.to_owned());
    batch
}

/// A text that programs which list rules show as a comment.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let text = text.get(..text.len().min(127)).unwrap_or_default();
    let length = u8::try_from(text.len() + 1).unwrap_or(128);
    [&[0, length], text, &[0]].concat()
}

/// A chain's type, hook and priority.
type Base = (&'static str, u32, i32);

struct Set<'a> {
    name: String,
    /// Types and their lengths in bytes.
    key: &'a [(u32, u32)],
    data: &'a [(u32, u32)],
    interval: bool,
}

fn joined(parts: &[(u32, u32)]) -> (u32, u32) {
    let kind = parts.iter().fold(0, |all, (kind, _)| (all << 6) | kind);
    (kind, parts.iter().map(|(_, length)| length.next_multiple_of(4)).sum())
}

/// What may have to be there before: nothing (`exclusive`), or it is replaced.
pub(super) fn write(batch: &mut Batch, table: &str, exclusive: bool) {
    let about = |what: &str| format!("create {what} of nftables table {table}");
    let flags = CREATE | if exclusive { EXCL } else { 0 };
    let make = |batch: &mut Batch| {
        message(batch, NEW_TABLE, flags, format!("create nftables table {table}"));
        batch.text(1, table);
        batch.put(6, &comment(VERSION));
    };
    make(batch);
    if !exclusive {
        // A table that is there now, or the one just made, goes with all that is in it.
        message(batch, DELETE_TABLE, 0, format!("replace nftables table {table}"));
        batch.text(1, table);
        make(batch);
    }
    let mut number = 0;
    let mut set = |batch: &mut Batch, set: &Set<'_>| {
        number += 1;
        message(batch, NEW_SET, CREATE | EXCL, about(&format!("set {}", set.name)));
        batch.text(1, table);
        batch.text(2, &set.name);
        let concatenated = set.key.len() > 1;
        let flags = if set.interval { 4 } else { 0 }
            | if set.data.is_empty() { 0 } else { 8 }
            | if concatenated && set.interval { 0x80 } else { 0 };
        batch.number_be(3, flags);
        let (kind, length) = joined(set.key);
        batch.number_be(4, kind);
        batch.number_be(5, length);
        if !set.data.is_empty() {
            let (data_kind, data_length) = joined(set.data);
            batch.number_be(6, data_kind);
            batch.number_be(7, data_length);
        }
        if concatenated && set.interval {
            let description = batch.open(9);
            let fields = batch.open(2);
            for (_, length) in set.key {
                let field = batch.open(1);
                batch.number_be(1, *length);
                batch.close(field);
            }
            batch.close(fields);
            batch.close(description);
        }
        batch.number_be(10, number);
        if kind == IFNAME {
            // Tells programs that list the set how to show its names: in the machine's byte order.
            let order = [&[0, 4][..], &1u32.to_ne_bytes()].concat();
            batch.put(13, &order);
        }
    };
    let plain = |name: &str, key| Set { name: name.into(), key, data: &[], interval: false };
    set(batch, &plain("bridges", &[(IFNAME, 16)]));
    set(batch, &plain("internal", &[(IFNAME, 16)]));
    set(batch, &plain("pairs", &[(IFNAME, 16), (IFNAME, 16)]));
    for (ip, kind) in [(Ip::V4, (IPV4, 4)), (Ip::V6, (IPV6, 16))] {
        let suffix = ip.suffix();
        let named = |name: &str| format!("{name}{suffix}");
        set(
            batch,
            &Set {
                name: named("ports"),
                key: &[(PROTOCOL, 1), kind, (SERVICE, 2)],
                data: &[kind, (SERVICE, 2)],
                interval: false,
            },
        );
        set(
            batch,
            &Set {
                name: named("any"),
                key: &[(PROTOCOL, 1), (SERVICE, 2)],
                data: &[kind, (SERVICE, 2)],
                interval: false,
            },
        );
        set(
            batch,
            &Set { name: named("local"), key: &[(IFNAME, 16), kind], data: &[], interval: true },
        );
        set(batch, &Set { name: named("masquerade"), key: &[kind], data: &[], interval: true });
    }

    let chains: [(&str, Option<Base>); 7] = [
        ("publish", None),
        ("publish-any", None),
        ("raw", Some(("filter", 0, -300))),
        ("prerouting", Some(("nat", 0, -100))),
        ("output", Some(("nat", 3, -100))),
        ("postrouting", Some(("nat", 4, 100))),
        ("forward", Some(("filter", 2, 0))),
    ];
    for (name, base) in chains {
        message(batch, NEW_CHAIN, CREATE | EXCL, about(&format!("chain {name}")));
        batch.text(1, table);
        batch.text(3, name);
        if let Some((kind, hook, priority)) = base {
            let nest = batch.open(4);
            batch.number_be(1, hook);
            batch.number_be(2, priority.cast_unsigned());
            batch.close(nest);
            batch.number_be(5, 1);
            batch.text(7, kind);
        }
    }
    rules(&mut |chain, write| {
        message(batch, NEW_RULE, CREATE | APPEND, about(&format!("a rule in chain {chain}")));
        batch.text(1, table);
        batch.text(2, chain);
        let nest = batch.open(4);
        write(&mut Rule(batch));
        batch.close(nest);
    });
}

/// A table that leads what this host itself sends to one port of one of its addresses to others there.
/// It may not be there before (`exclusive`), or is replaced.
pub(super) fn write_redirect(
    batch: &mut Batch,
    table: &str,
    (address, port): (std::net::Ipv4Addr, u16),
    to: &[(u8, u16)],
    exclusive: bool,
) {
    let about = |what: &str| format!("create {what} of nftables table {table}");
    if !exclusive {
        message(batch, NEW_TABLE, CREATE, about("a table"));
        batch.text(1, table);
        message(batch, DELETE_TABLE, 0, format!("replace nftables table {table}"));
        batch.text(1, table);
    }
    message(batch, NEW_TABLE, CREATE | EXCL, format!("create nftables table {table}"));
    batch.text(1, table);
    message(batch, NEW_CHAIN, CREATE | EXCL, about("chain output"));
    batch.text(1, table);
    batch.text(3, "output");
    let nest = batch.open(4);
    batch.number_be(1, 3);
    batch.number_be(2, (-100i32).cast_unsigned());
    batch.close(nest);
    batch.number_be(5, 1);
    batch.text(7, "nat");
    for (protocol, new) in to {
        message(batch, NEW_RULE, CREATE | APPEND, about("a rule in chain output"));
        batch.text(1, table);
        batch.text(2, "output");
        let nest = batch.open(4);
        Rule(batch)
            .only_to(*protocol, address, port)
            .load(REG, &address.octets())
            .load(REG + 1, &new.to_be_bytes())
            .translate(Ip::V4, REG, REG + 1);
        batch.close(nest);
    }
}

type Add<'a> = &'a mut dyn FnMut(&str, &dyn Fn(&mut Rule<'_>));

fn rules(add: Add<'_>) {
    let families = [Ip::V4, Ip::V6];

    // Loopback publishing lets the bridges route 127.0.0.0/8; nobody outside may profit from it.
    add("raw", &|r| {
        r.family(Ip::V4)
            .only_to_loopback(Ip::V4)
            .incoming(REG)
            .in_set("bridges", REG)
            .verdict(Verdict::Drop)
    });
    add("raw", &|r| {
        r.family(Ip::V4)
            .only_from_loopback(Ip::V4)
            .incoming(REG)
            .in_set("bridges", REG)
            .verdict(Verdict::Drop)
    });

    // What is published on 127.0.0.1 is not for other hosts, who may send there all the same.
    for ip in families {
        add("prerouting", &|r| r.family(ip).only_to_loopback(ip).verdict(Verdict::Return));
    }
    add("prerouting", &|r| r.verdict(Verdict::Jump("publish")));
    // The kernel doesn't route from ::1 to elsewhere, so the host's own ::1 is left alone.
    add("output", &|r| r.family(Ip::V6).only_to_loopback(Ip::V6).verdict(Verdict::Return));
    add("output", &|r| r.verdict(Verdict::Jump("publish")));

    for ip in families {
        let words = ip.bytes() / 4;
        add("publish", &|r| {
            r.family(ip)
                .protocol(REG)
                .destination(ip, REG + 1)
                .destination_port(REG + 1 + words)
                .in_map(&format!("ports{}", ip.suffix()), REG, REG)
                .translate(ip, REG, REG + words);
        });
    }
    add("publish", &|r| r.only_to_local().verdict(Verdict::Goto("publish-any")));
    for ip in families {
        let words = ip.bytes() / 4;
        add("publish-any", &|r| {
            r.family(ip)
                .protocol(REG)
                .destination_port(REG + 1)
                .in_map(&format!("any{}", ip.suffix()), REG, REG)
                .translate(ip, REG, REG + words);
        });
    }

    for ip in families {
        let local = format!("local{}", ip.suffix());
        // A container that reaches one of its own network, or itself, by a published port: the
        // answer must come back through the host.
        add("postrouting", &|r| {
            r.family(ip)
                .translated()
                .outgoing(REG)
                .source(ip, REG + 4)
                .in_set(&local, REG)
                .masquerade()
        });
        add("postrouting", &|r| {
            r.family(ip)
                .outgoing(REG)
                .source(ip, REG + 4)
                .in_set(&local, REG)
                .verdict(Verdict::Return)
        });
        add("postrouting", &|r| {
            let set = format!("masquerade{}", ip.suffix());
            r.family(ip).source(ip, REG).in_set(&set, REG).masquerade()
        });
    }
    add("postrouting", &|r| {
        r.family(Ip::V4)
            .only_from_loopback(Ip::V4)
            .translated()
            .outgoing(REG)
            .in_set("bridges", REG)
            .masquerade()
    });

    const ESTABLISHED: u32 = 2;
    const RELATED: u32 = 4;
    add("forward", &|r| r.state(ESTABLISHED | RELATED).verdict(Verdict::Accept));
    add("forward", &|r| {
        r.incoming(REG).outgoing(REG + 4).in_set("pairs", REG).verdict(Verdict::Accept)
    });
    add("forward", &|r| r.incoming(REG).in_set("internal", REG).verdict(Verdict::Drop));
    add("forward", &|r| r.outgoing(REG).in_set("internal", REG).verdict(Verdict::Drop));
    add("forward", &|r| {
        r.outgoing(REG).in_set("bridges", REG).translated().verdict(Verdict::Accept)
    });
    add("forward", &|r| r.outgoing(REG).in_set("bridges", REG).verdict(Verdict::Drop));
}
