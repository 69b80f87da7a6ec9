//! Detach keys: `ctrl-p,ctrl-q`.

/// What detaches when nobody said otherwise.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// The bytes a sequence of keys sends.
pub(crate) fn parse_keys(text: &str) -> Result<Vec<u8>, String> {
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
}
