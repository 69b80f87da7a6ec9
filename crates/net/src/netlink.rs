//! Messages to and from the kernel: one encoder and one reader for rtnetlink and nfnetlink.
//!
//! Both families are the same thing at this level: a header, a fixed part, nested attributes. What
//! a start sends is a handful of messages of a dozen attributes, so writing them takes less than
//! translating into a library's types, and nothing has to be known twice.
//!
//! [`Batch`] gathers messages, a [`Socket`] sends all of them in one system call. The kernel
//! works inside that call, so its answers are there when it returns and nothing ever waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::error::{Error, Result};

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The smallest type that is not the protocol's own.
const FIRST_TYPE: u16 = 16;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// Attribute lengths are 16 bits; lists are cut well before.
pub(crate) const LIST_LIMIT: usize = 48 * 1024;

/// Messages that go to the kernel in one call.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// What each message does, for errors; the index is the sequence number.
    actions: Vec<String>,
    begin: usize,
    /// Something did not fit into 16 bits of length.
    oversized: bool,
}

/// A nested attribute that is being written.
#[must_use]
pub(crate) struct Nest(usize);

impl Batch {
    /// Without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a message; `action` completes the sentence "cannot …".
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fixed: &[u8], action: String) {
        self.finish();
        self.begin = self.bytes.len();
        let sequence = u32::try_from(self.actions.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
        self.actions.push(action);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes the length of the message that was begun last.
    fn finish(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.begin).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(self.begin..self.begin + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or_else(|_| {
            self.oversized = true;
            4
        });
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        if !self.oversized {
            self.bytes.extend_from_slice(value);
        }
        self.pad();
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// nfnetlink's numbers are in network order.
    pub(crate) fn number_be(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(crate) fn open(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Nest(at)
    }

    pub(crate) fn close(&mut self, nest: Nest) {
        let length = u16::try_from(self.bytes.len() - nest.0).unwrap_or_else(|_| {
            self.oversized = true;
            4
        });
        if let Some(place) = self.bytes.get_mut(nest.0..nest.0 + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// A fixed structure in the middle of attributes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Asks for an acknowledgement of the last message.
    pub(crate) fn acknowledge(&mut self) {
        if let Some(place) = self.bytes.get_mut(self.begin + 6..self.begin + 8) {
            let flags = u16::from_ne_bytes([place[0], place[1]]) | ACK;
            place.copy_from_slice(&flags.to_ne_bytes());
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn action(&self, sequence: u32) -> String {
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        self.actions.get(index).cloned().unwrap_or_else(|| "talk to the kernel".into())
    }

    /// The messages as they are sent.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        self.finish();
        &self.bytes
    }
}

/// One message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it is.
    pub kind: u16,
    /// Which request it answers.
    pub sequence: u32,
    /// The fixed part and attributes.
    pub body: &'a [u8],
}

/// Cuts received bytes into messages; what is malformed ends the list.
pub fn replies(bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length)?;
        let body = message.get(HEADER..)?;
        let reply = Reply { kind: u16_at(message, 4)?, sequence: u32_at(message, 8)?, body };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// Attributes with their kinds, flags taken away; what is malformed ends the list.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A text that ends with its first zero.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Which part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nftables.
    Netfilter,
}

/// A socket to the kernel. It belongs to the network namespace in which it was opened, for ever.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Socket {
    /// Opens one in the caller's network namespace.
    pub fn open(family: Family) -> Result<Self> {
        // rtnetlink is protocol 0.
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map(Self)
        .map_err(|e| Error::kernel(format!("open a netlink socket ({family:?})"), e))
    }

    /// Opens one in another network namespace.
    pub fn open_in(namespace: BorrowedFd<'_>, family: Family) -> Result<Self> {
        crate::namespace::within(namespace, || Self::open(family))?
    }

    /// Sends a batch and reads all answers; `each` gets the messages that are not about success.
    ///
    /// The messages before and after one that fails take effect (rtnetlink) or none does (a batch of
    /// nfnetlink); the first error is the one returned.
    pub(crate) fn transact(
        &self,
        batch: &mut Batch,
        mut each: impl FnMut(&Reply<'_>),
    ) -> Result<()> {
        if let Some(error) = self.transact_all(batch, &mut each)?.into_iter().next() {
            return Err(error);
        }
        Ok(())
    }

    /// Like [`Self::transact`], with every message's error.
    pub(crate) fn transact_all(
        &self,
        batch: &mut Batch,
        each: &mut dyn FnMut(&Reply<'_>),
    ) -> Result<Vec<Error>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let last = batch.actions.len() - 1;
        if batch.oversized {
            return Err(Error::Invalid(format!("too much at once to {}", batch.action(0))));
        }
        // The kernel takes a message only if all of it fits into the socket's send buffer.
        let size = batch.size().saturating_mul(2);
        if size > 128 * 1024 {
            _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.0, size)
                .or_else(|_| rustix::net::sockopt::set_socket_send_buffer_size(&self.0, size));
        }
        let first = batch.action(0);
        rustix::io::retry_on_intr(|| rustix::net::send(&self.0, batch.bytes(), SendFlags::empty()))
            .map_err(|e| Error::kernel(first.clone(), e))?;
        let mut buffer = vec![0u8; 32 * 1024];
        let mut errors = Vec::new();
        loop {
            let length = match rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)
            }) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(Error::kernel(batch.action(0), e)),
            };
            for reply in replies(buffer.get(..length).unwrap_or_default()) {
                // A dump tells its errors in its last message.
                let code = match reply.kind {
                    ERROR | DONE => i32_at(reply.body, 0).unwrap_or(0),
                    kind if kind >= FIRST_TYPE => {
                        each(&reply);
                        continue;
                    }
                    _ => continue,
                };
                if code < 0 {
                    let errno = Errno::from_raw_os_error(code.saturating_neg());
                    let index = reply.sequence.min(u32::try_from(last).unwrap_or(u32::MAX));
                    errors.push(Error::kernel(batch.action(index), errno));
                }
            }
        }
        Ok(errors)
    }
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut batch = Batch::new();
        batch.message(30, ACK, &[1, 2, 3, 4], "one".into());
        batch.text(3, "eth0");
        let nest = batch.open(18);
        batch.number(1, 7);
        batch.close(nest);
        batch.message(31, 0, &[], "two".into());
        let bytes = batch.bytes().to_vec();
        let all: Vec<_> = replies(&bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].sequence, all[1].kind), (30, 0, 31));
        let found = attributes(&all[0].body[4..]).collect::<Vec<_>>();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        assert_eq!(attribute(found[1].1, 1).and_then(|v| u32_at(v, 0)), Some(7));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut batch = Batch::new();
        batch.message(30, 0, &[], "one".into());
        batch.put(1, &vec![0; 70_000]);
        let socket = Socket::open(Family::Route).unwrap();
        assert!(matches!(socket.transact(&mut batch, |_| ()), Err(Error::Invalid(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for reply in replies(&bytes) {
                _ = attributes(reply.body).count();
            }
            _ = attributes(&bytes).count();
        }
    }
}
