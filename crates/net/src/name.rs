//! What our interfaces are called, so that anybody can tell whose they are.

/// Every interface that an engine makes on the host for a container begins with this.
pub const PREFIX: &str = "wh";

/// The host's end of a container's pair: [`PREFIX`] and 13 characters, always the same for one engine,
/// container and network. Two containers of one host get the same one of 2^64 only by a chance that
/// nobody lives to see, and the kernel refuses the second.
pub fn host_end(engine: &str, container: &str, network: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut hash = digest(&[engine, container, network]);
    let mut name = String::from(PREFIX);
    for _ in 0..13 {
        let digit = usize::try_from(hash & 31).unwrap_or(0);
        name.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
        hash >>= 5;
    }
    name
}

/// What stands in the interface's alias.
pub fn alias(engine: &str, container: &str, network: &str) -> String {
    format!("wherry {engine} {container} {network}")
}

/// The engine, container and network of an alias that [`alias`] wrote.
pub fn read_alias(alias: &str) -> Option<(&str, &str, &str)> {
    let mut words = alias.strip_prefix("wherry ")?.split(' ');
    let found = (words.next()?, words.next()?, words.next()?);
    words.next().is_none().then_some(found)
}

/// FNV-1a with 64 bits and a last mixing: the names only have to differ, nobody gains by a collision.
fn digest(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for n in 0..10_000 {
            let name = host_end("e", &format!("{n:064x}"), "net");
            assert_eq!(name.len(), 15);
            assert!(seen.insert(name));
        }
        assert_ne!(host_end("a", "b", "c"), host_end("ab", "", "c"));
        assert_eq!(host_end("a", "b", "c"), host_end("a", "b", "c"));
    }

    #[test]
    fn aliases_are_read_again() {
        assert_eq!(read_alias(&alias("e", "c", "n")), Some(("e", "c", "n")));
        assert_eq!(read_alias("something else"), None);
        assert_eq!(read_alias(""), None);
    }
}
