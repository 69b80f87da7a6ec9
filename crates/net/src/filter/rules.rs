//! The one table: its sets, chains and rules. They are the same whatever runs; only the sets'
//! elements change.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Input;
use super::expression::{Ip, REG, Rule, Verdict};
use crate::netlink::{APPEND, Batch, CREATE, EXCL};

/// Written into the table; another number means other rules.
const VERSION: &str = "wherry rules 1";

/// What is written into a table.
pub(super) fn version(input: Option<&Input>) -> Vec<u8> {
    match input {
        None => comment(VERSION),
        Some(input) => comment(&format!("{VERSION} input {}", input.index)),
    }
}

/// The bit of the mark of packets that the host's input chains have let through. No other packet has
/// it: it is set and looked at in two chains that follow each other.
const PASSED: u32 = 0x2000_0000;
/// Behind all chains that decide whether a packet comes in. (The kernel confirms connections at the
/// greatest number.)
const LAST: i32 = i32::MAX - 8;
/// Where copies are sent; nobody has these addresses, and nobody is asked for them.
const NOWHERE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 0, 11), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

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
    message_of(batch, INET, kind, flags, action);
}

fn message_of(batch: &mut Batch, family: u8, kind: u16, flags: u16, action: String) {
    batch.message((SUBSYSTEM << 8) | kind, flags, &[family, 0, 0, 0], action);
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
pub(super) fn write(batch: &mut Batch, table: &str, exclusive: bool, input: Option<&Input>) {
    let about = |what: &str| format!("create {what} of nftables table {table}");
    let flags = CREATE | if exclusive { EXCL } else { 0 };
    let make = |batch: &mut Batch| {
        message(batch, NEW_TABLE, flags, format!("create nftables table {table}"));
        batch.text(1, table);
        batch.put(6, &version(input));
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
        if input.is_some() {
            // A rule with a look into a map that leads nowhere can't be written in nft's language.
            set(
                batch,
                &Set {
                    name: named("open-ports"),
                    key: &[(PROTOCOL, 1), kind, (SERVICE, 2)],
                    data: &[],
                    interval: false,
                },
            );
            set(batch, &plain(&named("open-any"), &[(PROTOCOL, 1), (SERVICE, 2)]));
        }
        set(
            batch,
            &Set { name: named("local"), key: &[(IFNAME, 16), kind], data: &[], interval: true },
        );
        set(batch, &Set { name: named("masquerade"), key: &[kind], data: &[], interval: true });
    }

    let mut chains: Vec<(&str, Option<Base>)> = vec![
        ("publish", None),
        ("publish-any", None),
        ("raw", Some(("filter", 0, -300))),
        ("prerouting", Some(("nat", 0, -100))),
        ("output", Some(("nat", 3, -100))),
        ("postrouting", Some(("nat", 4, 100))),
        ("forward", Some(("filter", 2, 0))),
    ];
    if input.is_some() {
        chains.push(("input", Some(("filter", 1, LAST))));
    }
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
    rules(input, &mut |chain, write| {
        message(batch, NEW_RULE, CREATE | APPEND, about(&format!("a rule in chain {chain}")));
        batch.text(1, table);
        batch.text(2, chain);
        let nest = batch.open(4);
        write(&mut Rule(batch));
        batch.close(nest);
    });
    if !exclusive || input.is_some() {
        write_copies(batch, table, input);
    }
}

/// Tables of one family each: only those can have a packet copied.
fn write_copies(batch: &mut Batch, table: &str, input: Option<&Input>) {
    let about = |what: &str| format!("{what} of nftables table {table}");
    for ip in [Ip::V4, Ip::V6] {
        let begin = |batch: &mut Batch, kind, flags, what: &str| {
            message_of(batch, ip.number(), kind, flags, about(what));
            batch.text(1, table);
        };
        begin(batch, NEW_TABLE, CREATE, "replace the copies");
        begin(batch, DELETE_TABLE, 0, "replace the copies");
        let Some(input) = input.filter(|input| ip == Ip::V4 || input.v6) else { continue };
        begin(batch, NEW_TABLE, CREATE, "create the copies");
        begin(batch, NEW_CHAIN, CREATE | EXCL, "create chain input");
        batch.text(3, "input");
        let nest = batch.open(4);
        batch.number_be(1, 1);
        batch.number_be(2, (LAST + 1).cast_unsigned());
        batch.close(nest);
        batch.number_be(5, 1);
        batch.text(7, "filter");
        let address = match ip {
            Ip::V4 => NOWHERE.0.octets().to_vec(),
            Ip::V6 => NOWHERE.1.octets().to_vec(),
        };
        begin(batch, NEW_RULE, CREATE | APPEND, "create a rule in chain input");
        batch.text(2, "input");
        let nest = batch.open(4);
        Rule(batch).marked(PASSED).copy_to(&address, input.index).verdict(Verdict::Drop);
        batch.close(nest);
    }
}

/// Removes the tables of [`write_copies`].
pub(super) fn remove_copies(batch: &mut Batch, table: &str) {
    write_copies(batch, table, None);
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

fn rules(input: Option<&Input>, add: Add<'_>) {
    let families = [Ip::V4, Ip::V6];
    const NEW: u32 = 8;

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
    match input {
        None => add("prerouting", &|r| r.verdict(Verdict::Jump("publish"))),
        // What comes in goes the way of everything that is for the host, past all chains that may
        // drop it. At the end a copy of what was let through is sent in a circle, and comes back here.
        Some(input) => {
            add("raw", &|r| _ = r.only_incoming(&input.back).mark(PASSED, false));
            add("prerouting", &|r| {
                r.only_incoming(&input.back).verdict(Verdict::Jump("publish"));
            });
            for ip in families {
                let words = ip.bytes() / 4;
                add("input", &|r| {
                    r.state(NEW)
                        .family(ip)
                        .protocol(REG)
                        .destination(ip, REG + 1)
                        .destination_port(REG + 1 + words)
                        .in_set(&format!("open-ports{}", ip.suffix()), REG)
                        .mark(PASSED, true);
                });
                add("input", &|r| {
                    r.state(NEW)
                        .family(ip)
                        .only_to_local()
                        .protocol(REG)
                        .destination_port(REG + 1)
                        .in_set(&format!("open-any{}", ip.suffix()), REG)
                        .mark(PASSED, true);
                });
            }
            // What others send to 127.0.0.1 is not for what is published there.
            for ip in families {
                add("input", &|r| _ = r.family(ip).only_to_loopback(ip).mark(PASSED, false));
            }
        }
    }
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
