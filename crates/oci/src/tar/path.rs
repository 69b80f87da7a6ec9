//! Names in archives, as raw bytes.

use crate::limits;

/// Cleans the name of an entry, refusing what no file can be called.
///
/// # Errors
/// Why the name is refused.
pub fn checked(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let cleaned = clean(path).ok_or("its path leads out of the root directory")?;
    if cleaned.len() > limits::MAX_PATH
        || cleaned.split(|b| *b == b'/').any(|name| name.len() > limits::MAX_NAME)
    {
        return Err("its name is longer than the kernel allows");
    }
    if cleaned.iter().filter(|b| **b == b'/').count() >= limits::MAX_PATH_DEPTH {
        return Err("it is nested too deeply");
    }
    Ok(cleaned)
}

/// Removes `.`, `..` and slashes from a name. None if it leads out.
#[must_use]
pub fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Splits a name into directory and last component; the directory is empty if there is none.
#[must_use]
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => {
            (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default())
        }
        None => (b"", path),
    }
}

/// Puts a name below a base; either may be empty.
#[must_use]
pub fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    match (base.is_empty(), path.is_empty()) {
        (true, _) => path.to_vec(),
        (_, true) => base.to_vec(),
        _ => [base, b"/", path].concat(),
    }
}

/// A name for a message, not too long.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path.get(..path.len().min(300)).unwrap_or_default()).into_owned()
}

/// As [`clean`], but `..` at the top stays at the top, as for the kernel.
#[must_use]
pub fn clean_in_root(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned() {
        assert_eq!(clean(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(clean(b"/etc/passwd").unwrap(), b"etc/passwd");
        assert_eq!(clean(b"a/../b").unwrap(), b"b");
        assert_eq!(clean(b"./").unwrap(), b"");
        assert_eq!(clean(b"a/../../b"), None);
        assert_eq!(clean(b".."), None);
        assert_eq!(clean_in_root(b"../../a"), b"a");
    }

    proptest! {
        #[test]
        fn a_clean_name_stays_inside(path in "[a./]{0,30}") {
            if let Some(cleaned) = clean(path.as_bytes()) {
                let inside = cleaned.is_empty()
                    || cleaned.split(|b| *b == b'/').all(|p| !matches!(p, b"" | b"." | b".."));
                prop_assert!(inside);
                prop_assert_eq!(clean(&cleaned).unwrap(), cleaned);
            }
        }
    }
}
