//! Connections that the kernel still remembers.
//!
//! A datagram of a flow that is known goes where the first one went, whatever the maps say now. Who
//! keeps sending to a published UDP port would talk to a container that is gone, for as long as it
//! sends; so the flows of a container go with its ports.

use std::net::IpAddr;

use rustix::io::Errno;

use super::{ip_of, octets};
use crate::error::Result;
use crate::netlink::{ACK, Batch, DUMP, Socket, attribute};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const FILTER: u16 = 25;
const FILTER_REPLY: u16 = 2;
/// Compare the source address only.
const BY_SOURCE: u32 = 1;
/// Deleted in one go; a start and an end of a container don't wait for more.
const AT_ONCE: usize = 512;

/// Forgets flows that are answered by an address, all but TCP's: those end by themselves.
pub(super) fn forget(socket: &Socket, address: IpAddr) -> Result<()> {
    let family = ip_of(address).number();
    let head = [family, 0, 0, 0];
    let mut batch = Batch::new();
    batch.message(GET, DUMP, &head, format!("list the connections of {address}"));
    let tuple = batch.open(TUPLE_REPLY);
    let ip = batch.open(TUPLE_IP);
    batch.put(if address.is_ipv4() { 1 } else { 3 }, &octets(address));
    batch.close(ip);
    batch.close(tuple);
    let filter = batch.open(FILTER);
    batch.number(FILTER_REPLY, BY_SOURCE);
    batch.close(filter);
    let mut tuples: Vec<Vec<u8>> = Vec::new();
    socket.transact(&mut batch, |reply| {
        let data = reply.body.get(4..).unwrap_or_default();
        let tuple = attribute(data, TUPLE_ORIGINAL);
        // The kernel filters, if it is not older than 5.8; we look again.
        let answers = attribute(data, TUPLE_REPLY)
            .and_then(|tuple| attribute(tuple, TUPLE_IP))
            .and_then(|ip| attribute(ip, if address.is_ipv4() { 1 } else { 3 }))
            .is_some_and(|source| source == octets(address));
        if answers && protocol(tuple.unwrap_or_default()) != Some(6) {
            tuples.extend(tuple.map(<[u8]>::to_vec));
        }
    })?;
    let mut errors = Vec::new();
    for some in tuples.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for tuple in some {
            batch.message(DELETE, ACK, &head, format!("forget a connection of {address}"));
            let nest = batch.open(TUPLE_ORIGINAL);
            batch.raw(tuple);
            batch.close(nest);
        }
        errors.extend(socket.transact_all(&mut batch, &mut |_| ())?);
    }
    // They end on their own too.
    errors.retain(|e| e.errno() != Some(Errno::NOENT));
    crate::error::all(errors)
}

fn protocol(tuple: &[u8]) -> Option<u8> {
    attribute(attribute(tuple, 2)?, 1)?.first().copied()
}
