//! Questions and answers as bytes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// An IPv4 address.
pub const A: u16 = 1;
/// A name for an address.
pub const PTR: u16 = 12;
/// An IPv6 address.
pub const AAAA: u16 = 28;
/// Everything.
pub const ANY: u16 = 255;
const OPT: u16 = 41;
const IN: u16 = 1;

/// Bytes of the head.
pub const HEAD: usize = 12;
/// What a UDP answer may have unless the question says otherwise.
pub const UDP_LIMIT: usize = 512;
/// The longest name as bytes of a message.
const NAME_LIMIT: usize = 255;

/// The kinds of outcome (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// There is an answer, or there is none of this kind.
    Ok = 0,
    /// The question could not be read.
    Malformed = 1,
    /// No upstream server could answer.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Something else than a question.
    NotImplemented = 4,
    /// Too many questions at once.
    Refused = 5,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Chosen by who asks.
    pub id: u16,
    /// 0 for a question.
    pub opcode: u8,
    /// The server is asked to ask others.
    pub recursion: bool,
    /// The name in lower case, without the last dot; `\` and three digits for bytes that are not
    /// printed, `\.` for a dot within a label.
    pub name: String,
    /// [`A`], [`AAAA`], …
    pub kind: u16,
    /// 1 for the Internet.
    pub class: u16,
    /// The largest answer over UDP, if the question says so.
    pub udp_size: Option<u16>,
    /// Where the question's bytes end in the message.
    end: usize,
}

/// A record of an answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address of the name asked for.
    Address(IpAddr),
    /// A name of the address asked for.
    Name(String),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Reads a name: as text, and where it ends. Pointers go only backwards, so it always ends.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut end, mut limit, mut length) = (start, None, start, 1usize);
    loop {
        let head = *bytes.get(at)?;
        match head {
            0 => return Some((name, end.unwrap_or(at.checked_add(1)?))),
            1..=63 => {
                let from = at.checked_add(1)?;
                let to = from.checked_add(usize::from(head))?;
                length = length.checked_add(usize::from(head) + 1)?;
                if length > NAME_LIMIT {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in bytes.get(from..to)? {
                    match byte.to_ascii_lowercase() {
                        b @ (b'.' | b'\\') => {
                            name.push('\\');
                            name.push(char::from(b));
                        }
                        b @ 0x21..=0x7e => name.push(char::from(b)),
                        b => _ = write!(name, "\\{b:03}"),
                    }
                }
                at = to;
            }
            192..=255 => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                // Never into the head, which is not text and changes.
                if target >= limit || target < HEAD {
                    return None;
                }
                end = end.or(at.checked_add(2));
                limit = target;
                at = target;
            }
            _ => return None,
        }
    }
}

/// Writes a name as labels; nothing if it is not one.
fn write_name(out: &mut Vec<u8>, name: &str) -> Option<()> {
    let begin = out.len();
    let mut label = Vec::new();
    let mut finish = |label: &mut Vec<u8>| {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.append(label);
        Some(())
    };
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => finish(&mut label)?,
            b'\\' => {
                let first = bytes.next()?;
                if first.is_ascii_digit() {
                    let mut value = u16::from(first - b'0');
                    for _ in 0..2 {
                        let digit = bytes.next().filter(u8::is_ascii_digit)?;
                        value = value * 10 + u16::from(digit - b'0');
                    }
                    label.push(u8::try_from(value).ok()?);
                } else {
                    label.push(first);
                }
            }
            byte => label.push(byte),
        }
    }
    if !name.is_empty() {
        finish(&mut label)?;
    }
    out.push(0);
    (out.len() - begin <= NAME_LIMIT).then_some(())
}

impl Query {
    /// Reads a message with one question. Records behind it are passed over but for the one that
    /// tells the size.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let short = || Error::Dns("it ends early");
        let flags = u16_at(bytes, 2).ok_or_else(short)?;
        if flags & 0x8000 != 0 {
            return Err(Error::Dns("it is not a question"));
        }
        let count = |n: usize| u16_at(bytes, 4 + 2 * n).ok_or_else(short);
        if count(0)? != 1 {
            return Err(Error::Dns("it has not one question"));
        }
        let (name, at) = read_name(bytes, HEAD).ok_or(Error::Dns("a name cannot be read"))?;
        let mut query = Self {
            id: u16_at(bytes, 0).ok_or_else(short)?,
            opcode: u8::try_from((flags >> 11) & 15).unwrap_or(15),
            recursion: flags & 0x100 != 0,
            name,
            kind: u16_at(bytes, at).ok_or_else(short)?,
            class: u16_at(bytes, at + 2).ok_or_else(short)?,
            udp_size: None,
            end: at + 4,
        };
        let records = usize::from(count(1)?) + usize::from(count(2)?) + usize::from(count(3)?);
        let mut at = query.end;
        for _ in 0..records.min(32) {
            // Malformed records don't make the question worse.
            let Some((_, next)) = read_name(bytes, at) else { break };
            let (Some(kind), Some(class)) = (u16_at(bytes, next), u16_at(bytes, next + 2)) else {
                break;
            };
            let Some(length) = u16_at(bytes, next + 8) else { break };
            if kind == OPT {
                query.udp_size = Some(class);
            }
            at = next + 10 + usize::from(length);
        }
        Ok(query)
    }

    /// A question, as bytes.
    pub fn write(&self) -> Option<Vec<u8>> {
        let flags = (u16::from(self.opcode & 15) << 11) | (u16::from(self.recursion) << 8);
        let additional = u16::from(self.udp_size.is_some());
        let mut out = Vec::new();
        for number in [self.id, flags, 1, 0, 0, additional] {
            out.extend(number.to_be_bytes());
        }
        write_name(&mut out, &self.name)?;
        out.extend(self.kind.to_be_bytes());
        out.extend(self.class.to_be_bytes());
        if let Some(size) = self.udp_size {
            out.extend([0, 0, 41]);
            out.extend(size.to_be_bytes());
            out.extend([0; 6]);
        }
        Some(out)
    }

    /// A question for tests and tools.
    pub fn new(id: u16, name: &str, kind: u16) -> Self {
        Self {
            id,
            opcode: 0,
            recursion: true,
            name: name.to_ascii_lowercase(),
            kind,
            class: IN,
            udp_size: None,
            end: 0,
        }
    }

    /// Whether this is a question about names of the Internet, as all are.
    pub fn is_ordinary(&self) -> bool {
        self.opcode == 0 && (self.class == IN || self.class == ANY)
    }

    /// The largest answer over UDP.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.udp_size.unwrap_or(0)).max(UDP_LIMIT)
    }

    /// The answer. `asked` are the bytes that were read. What is larger than `limit` bytes is left out
    /// and marked so.
    pub fn answer(
        &self,
        asked: &[u8],
        code: Code,
        records: &[Record],
        ttl: u32,
        limit: usize,
    ) -> Vec<u8> {
        // The question as it was, with its upper case letters: some check that.
        let question = asked.get(HEAD..self.end).unwrap_or_default();
        let mut out = vec![0; HEAD];
        out.extend_from_slice(question);
        // The answer's size field takes 11 bytes.
        let room = limit.saturating_sub(if self.udp_size.is_some() { 11 } else { 0 });
        let (mut count, mut truncated) = (0u16, false);
        for record in records {
            let before = out.len();
            let written = write_record(&mut out, record, ttl);
            if written.is_none() {
                out.truncate(before);
            } else if out.len() > room || count == u16::MAX {
                out.truncate(before);
                truncated = true;
                break;
            } else {
                count += 1;
            }
        }
        if self.udp_size.is_some() {
            out.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        }
        // An answer, recursion available, from who knows.
        let authoritative = code == Code::Ok || code == Code::NoSuchName;
        let flags = 0x8080
            | (u16::from(self.opcode & 15) << 11)
            | (u16::from(authoritative) << 10)
            | (u16::from(truncated) << 9)
            | (u16::from(self.recursion) << 8)
            | u16::from(code as u8);
        let additional = u16::from(self.udp_size.is_some());
        let questions = u16::from(!question.is_empty());
        let head = [self.id, flags, questions, count, 0, additional];
        for (place, number) in out.chunks_exact_mut(2).zip(head) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        out
    }
}

fn write_record(out: &mut Vec<u8>, record: &Record, ttl: u32) -> Option<()> {
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(a)) => (A, a.octets().to_vec()),
        Record::Address(IpAddr::V6(a)) => (AAAA, a.octets().to_vec()),
        Record::Name(name) => {
            let mut data = Vec::new();
            write_name(&mut data, name)?;
            (PTR, data)
        }
    };
    // The name is the one asked for, at the end of the head.
    out.extend([0xc0, 12]);
    out.extend(kind.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    out.extend(data);
    Some(())
}

/// What matters of an upstream server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The outcome.
    pub code: u8,
    /// Something was left out; it must be asked for over TCP.
    pub truncated: bool,
}

/// Reads the head of an answer, if it is one to this question: the same number, name and kind.
pub fn read_answer(bytes: &[u8], id: u16, query: &Query) -> Option<Head> {
    let flags = u16_at(bytes, 2)?;
    if u16_at(bytes, 0)? != id || flags & 0x8000 == 0 {
        return None;
    }
    let head = Head { code: u8::try_from(flags & 15).ok()?, truncated: flags & 0x200 != 0 };
    match u16_at(bytes, 4)? {
        // Some leave the question out when they fail.
        0 if head.code != 0 => Some(head),
        1 => {
            let (name, at) = read_name(bytes, HEAD)?;
            let same = name == query.name && u16_at(bytes, at)? == query.kind;
            same.then_some(head)
        }
        _ => None,
    }
}

/// Gives a message another number.
pub fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// The first part of an answer that is too large for UDP: the question, marked as truncated.
pub fn truncate(bytes: &[u8]) -> Vec<u8> {
    let end = read_name(bytes, HEAD).map_or(HEAD, |(_, at)| at + 4);
    let mut out = bytes.get(..end).unwrap_or_default().to_vec();
    if let Some(flags) = out.get_mut(2) {
        *flags |= 2;
    }
    if let Some(counts) = out.get_mut(6..HEAD) {
        counts.fill(0);
    }
    out
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` is about.
pub fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = digits.split('.');
        for place in octets.iter_mut().rev() {
            *place = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut count) = (0u128, 0);
    for part in digits.rsplit('.') {
        let digit = (part.len() == 1).then(|| u128::from_str_radix(part, 16).ok())??;
        bits = bits.wrapping_shl(4) | digit;
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from(bits)))
}

/// The name under which an address's names are asked for.
pub fn reverse_name(address: IpAddr) -> String {
    let mut name = String::new();
    match address {
        IpAddr::V4(a) => {
            for octet in a.octets().iter().rev() {
                _ = write!(name, "{octet}.");
            }
            name.push_str("in-addr.arpa");
        }
        IpAddr::V6(a) => {
            for octet in a.octets().iter().rev() {
                _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
            name.push_str("ip6.arpa");
        }
    }
    name
}

/// The addresses in an answer, for tests and tools.
pub fn read_addresses(bytes: &[u8]) -> Option<Vec<IpAddr>> {
    let mut at = HEAD;
    for _ in 0..u16_at(bytes, 4)? {
        at = read_name(bytes, at)?.1.checked_add(4)?;
    }
    let mut all = Vec::new();
    for _ in 0..u16_at(bytes, 6)? {
        let next = read_name(bytes, at)?.1;
        let length = usize::from(u16_at(bytes, next + 8)?);
        let data = bytes.get(next + 10..next + 10 + length)?;
        match u16_at(bytes, next)? {
            A => all.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            AAAA => all.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
        at = next + 10 + length;
    }
    Some(all)
}

/// The names that the records of an answer lead to, for tests and tools.
pub fn read_names(bytes: &[u8]) -> Option<Vec<String>> {
    let mut at = HEAD;
    for _ in 0..u16_at(bytes, 4)? {
        at = read_name(bytes, at)?.1.checked_add(4)?;
    }
    let mut all = Vec::new();
    for _ in 0..u16_at(bytes, 6)? {
        let next = read_name(bytes, at)?.1;
        if u16_at(bytes, next)? == PTR {
            all.push(read_name(bytes, next + 10)?.0);
        }
        at = next + 10 + usize::from(u16_at(bytes, next + 8)?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pointers_that_turn_in_circles_end() {
        let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        assert!(Query::read(&bytes).is_err());
        bytes[13] = 14;
        assert!(Query::read(&bytes).is_err());
        // A label that the fuzzer found in the head.
        bytes[13] = 4;
        assert!(Query::read(&bytes).is_err());
    }

    #[test]
    fn answers_that_are_too_large() {
        let query = Query { udp_size: Some(600), ..Query::new(7, "many", A) };
        let asked = query.write().unwrap();
        let query = Query::read(&asked).unwrap();
        let records: Vec<_> =
            (0..200u8).map(|n| Record::Address(IpAddr::V4([10, 0, 0, n].into()))).collect();
        let answer = query.answer(&asked, Code::Ok, &records, 0, query.udp_limit());
        assert!(answer.len() <= 600 && answer.len() > 570);
        assert!(read_answer(&answer, 7, &query).unwrap().truncated);
        let whole = query.answer(&asked, Code::Ok, &records, 0, 65535);
        assert_eq!(read_addresses(&whole).unwrap().len(), 200);
        let cut = truncate(&whole);
        assert!(read_answer(&cut, 7, &query).unwrap().truncated);
        assert_eq!(read_addresses(&cut).unwrap(), [] as [IpAddr; 0]);
    }

    #[test]
    fn the_question_comes_back_as_it_was_asked() {
        let mut asked = Query::new(7, "example.org", A).write().unwrap();
        asked[13] = b'E';
        let query = Query::read(&asked).unwrap();
        assert_eq!(query.name, "example.org");
        let answer = query.answer(&asked, Code::NoSuchName, &[], 0, 512);
        assert_eq!(answer[12..], asked[12..]);
        assert_eq!(read_answer(&answer, 7, &query).unwrap().code, 3);
        assert!(read_answer(&answer, 8, &query).is_none());
        assert!(read_answer(&answer, 7, &Query::new(7, "example.com", A)).is_none());
        assert!(read_answer(&asked, 7, &query).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(query) = Query::read(&bytes) {
                let answer = query.answer(&bytes, Code::Failed, &[], 0, 512);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
            _ = read_addresses(&bytes);
            _ = read_names(&bytes);
            _ = truncate(&bytes);
        }

        #[test]
        fn names_survive(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut bytes: Vec<u8> = Query::new(1, "", A).write().unwrap()[..HEAD].to_vec();
            for label in &labels {
                bytes.push(label.len() as u8);
                bytes.extend(label);
            }
            bytes.extend([0, 0, 1, 0, 1]);
            let query = Query::read(&bytes).unwrap();
            let again = query.write().unwrap();
            prop_assert_eq!(again.to_ascii_lowercase(), bytes.to_ascii_lowercase());
            prop_assert_eq!(Query::read(&again).unwrap().name, query.name);
        }

        #[test]
        fn addresses_and_their_names(bits: u128, v6: bool) {
            let address = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            prop_assert_eq!(reverse_address(&reverse_name(address)), Some(address));
        }
    }
}
