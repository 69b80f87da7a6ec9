//! Names and ids for what a person did not name.

use crate::error::{Error, Result};

const QUALITIES: [&str; 48] = [
    "able", "amber", "brave", "breezy", "bright", "brisk", "calm", "clear", "clever", "cosy",
    "crisp", "daring", "eager", "early", "easy", "fair", "fast", "fleet", "fond", "frank", "fresh",
    "gentle", "glad", "golden", "grand", "hardy", "honest", "keen", "kind", "level", "light",
    "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble", "patient", "plain", "quiet",
    "ready", "sharp", "silver", "steady", "swift", "true", "warm",
];

const BOATS: [&str; 48] = [
    "barge", "barque", "bawley", "brig", "buoy", "caique", "canoe", "caravel", "catboat",
    "clipper", "coble", "cog", "coracle", "curragh", "cutter", "dhow", "dinghy", "dory", "ferry",
    "felucca", "frigate", "galleon", "galley", "gig", "gondola", "hoy", "junk", "kayak",
    "keelboat", "ketch", "launch", "lighter", "longship", "lugger", "pinnace", "pram", "punt",
    "raft", "sampan", "schooner", "scow", "shallop", "skiff", "sloop", "smack", "tender",
    "trawler", "yawl",
];

/// Random bytes from the kernel.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::system("no random numbers", std::io::Error::from(e)))?;
    Ok(bytes)
}

/// Hexadecimal digits of an id.
pub(crate) const ID_LENGTH: usize = 64;

/// A new id: 64 hex digits, the first of which are not all decimal, so that a short id
/// is never taken for a number.
pub(crate) fn new_id() -> Result<String> {
    use std::fmt::Write as _;
    loop {
        let mut id = String::with_capacity(ID_LENGTH);
        for byte in random::<32>()? {
            let _ = write!(id, "{byte:02x}");
        }
        if id.bytes().take(12).any(|b| b.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// A made-up name; with `retry` above 0 a number makes a clash unlikely.
pub(crate) fn made_up(retry: u32) -> Result<String> {
    let [a, b, c, d] = random::<4>()?;
    let quality = QUALITIES.get(usize::from(a) % QUALITIES.len()).unwrap_or(&"fair");
    let boat = BOATS.get(usize::from(b) % BOATS.len()).unwrap_or(&"wherry");
    Ok(match retry {
        0 => format!("{quality}_{boat}"),
        _ => format!("{quality}_{boat}{}", u16::from_be_bytes([c, d])),
    })
}

/// Checks a name a person gave.
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.clone().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && bytes.next().is_some() && bare.len() <= 255 {
        Ok(bare)
    } else {
        Err(Error::invalid(format!(
            "Invalid container name ({bare}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["ab", "a.b-c_d", "/web1", "0a"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "a b", "ä1", "/", "a/b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_a_letter_early() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), ID_LENGTH);
        assert!(id[..12].bytes().any(|b| b.is_ascii_alphabetic()));
        assert!(check(&made_up(0).unwrap()).is_ok());
    }
}
