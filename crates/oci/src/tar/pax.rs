//! Pax extended headers: records of the form `length keyword=value\n` (POSIX.1-2001, pax).

use super::Time;

/// Splits a header into its records, in order. None if a record is malformed.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        // Some writers pad with NULs.
        if bytes.iter().all(|b| *b == 0) {
            break;
        }
        let space = bytes.iter().take(20).position(|b| *b == b' ')?;
        let length = decimal(bytes.get(..space)?)?;
        let length = usize::try_from(length).ok()?;
        let record = bytes.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let key = record.get(..equals)?;
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        records.push((key.to_vec(), record.get(equals + 1..)?.to_vec()));
        bytes = bytes.get(length..)?;
    }
    Some(records)
}

/// Unsigned decimal digits, nothing else.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in bytes {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// A time as decimal seconds with an optional fraction; may be negative.
pub(super) fn time(bytes: &[u8]) -> Option<Time> {
    let (negative, bytes) = match bytes.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, bytes),
    };
    let mut parts = bytes.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds: u32 = 0;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for i in 0..9 {
            let digit = fraction.get(i).map_or(0, |b| b - b'0');
            nanoseconds = nanoseconds * 10 + u32::from(digit);
        }
    }
    match (negative, nanoseconds) {
        (false, _) => Some(Time { seconds, nanoseconds }),
        (true, 0) => Some(Time { seconds: -seconds, nanoseconds }),
        (true, n) => Some(Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - n }),
    }
}

/// One record. The length counts itself.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        let at = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(time(b"1.5"), at(1, 500_000_000));
        assert_eq!(time(b"1.0000000019"), at(1, 1));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b""), None);
        assert_eq!(time(b"99999999999999999999"), None);
    }

    proptest! {
        #[test]
        fn records_round_trip(records in prop::collection::vec(("[a-zA-Z.]{1,20}", any::<Vec<u8>>()), 0..5)) {
            let records: Vec<_> = records.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            let mut bytes = Vec::new();
            for (key, value) in &records {
                push_record(&mut bytes, key, value);
            }
            prop_assert_eq!(parse(&bytes).unwrap(), records);
        }

        #[test]
        fn never_panics(bytes in any::<Vec<u8>>()) {
            let _ = parse(&bytes);
            let _ = time(&bytes);
        }
    }
}
