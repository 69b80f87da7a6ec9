//! Detach keys: `ctrl-p,ctrl-q`, and how they are found in what is typed.

/// What detaches when nobody said otherwise.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// The bytes a sequence of keys sends.
///
/// # Errors
/// Says which key is not known.
pub fn parse_keys(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for key in text.split(',') {
        let mut letters = key.chars();
        match (letters.next(), letters.next()) {
            (Some(one), None) => {
                let mut buffer = [0u8; 4];
                bytes.extend_from_slice(one.encode_utf8(&mut buffer).as_bytes());
            }
            _ => bytes.push(control(key)?),
        }
    }
    Ok(bytes)
}

fn control(key: &str) -> Result<u8, String> {
    if key.is_empty() {
        return Err("a key of the detach sequence is empty; write keys as ctrl-p,ctrl-q".into());
    }
    let unknown = || {
        format!(
            "Unknown character: '{key}'; detach keys are single characters or ctrl- and one of a-z @ [ \\ ] ^ _"
        )
    };
    let rest = key.strip_prefix("ctrl-").ok_or_else(unknown)?;
    match rest.as_bytes() {
        [letter @ b'a'..=b'z'] => Ok(letter.saturating_sub(b'a').saturating_add(1)),
        b"@" => Ok(0),
        b"[" => Ok(27),
        b"\\" => Ok(28),
        b"]" => Ok(29),
        b"^" => Ok(30),
        b"_" => Ok(31),
        _ => Err(unknown()),
    }
}

/// Finds the detach keys in what is typed.
#[derive(Debug, Default)]
pub struct Finder {
    wanted: Vec<u8>,
    matched: usize,
}

impl Finder {
    /// Looks for these bytes; for none at all it finds nothing.
    pub fn new(wanted: Vec<u8>) -> Self {
        Self { wanted, matched: 0 }
    }

    /// What to pass on of `typed`; true when the keys were all there.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.wanted.get(self.matched) == Some(byte) {
                self.matched = self.matched.saturating_add(1);
                if self.matched == self.wanted.len() {
                    return (out, true);
                }
                continue;
            }
            if self.matched > 0 {
                out.extend_from_slice(self.wanted.get(..self.matched).unwrap_or_default());
                self.matched = 0;
                if self.wanted.first() == Some(byte) {
                    self.matched = 1;
                    continue;
                }
            }
            out.push(*byte);
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_become_bytes() {
        assert_eq!(parse_keys(DEFAULT), Ok(vec![16, 17]));
        assert_eq!(parse_keys("ctrl-a,a"), Ok(vec![1, b'a']));
        assert_eq!(parse_keys("ctrl-@,ctrl-_"), Ok(vec![0, 31]));
        assert!(parse_keys("zz").is_err());
        assert!(parse_keys("a,,b").is_err());
        assert!(parse_keys("ctrl-1").is_err());
    }

    fn keys() -> Finder {
        Finder::new(vec![16, 17])
    }

    #[test]
    fn keys_are_found_across_reads() {
        let mut k = keys();
        assert_eq!(k.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(k.filter(b"\x11rest"), (Vec::new(), true));
    }

    #[test]
    fn half_the_keys_pass_on() {
        let mut k = keys();
        assert_eq!(k.filter(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(k.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(k.filter(b"\x11"), (Vec::new(), true));
    }
}
