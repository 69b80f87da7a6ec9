//! Sizes in bytes: `512m`, `1.5G`, `64KiB`; a step is always 1024.

/// Reads a size in bytes.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let Some(end) = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ') else {
        return Err(invalid());
    };
    let next = end.saturating_add(1);
    let (number, suffix) =
        (text.get(..next).unwrap_or_default(), text.get(next..).unwrap_or_default());
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value: f64 = number
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))?;
    if !value.is_finite() || value < 0.0 || number.starts_with('-') {
        return Err(invalid());
    }
    let lower = suffix.to_ascii_lowercase();
    let bad = || format!("invalid suffix: '{suffix}'");
    let mut letters = lower.chars();
    let power = match letters.next() {
        None => return whole(value).ok_or_else(invalid),
        Some('b') if lower.len() == 1 => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        _ => return Err(bad()),
    };
    if power > 0 && !matches!(letters.as_str(), "" | "b" | "ib") {
        return Err(bad());
    }
    whole(value * 1024f64.powi(power)).ok_or_else(invalid)
}

fn whole(value: f64) -> Option<i64> {
    // The cast cuts off the fraction, as Go's conversion does; the bound is 2^63.
    (value < 9_223_372_036_854_775_808.0).then_some(value as i64)
}

/// A size, or -1 for no limit.
pub(crate) fn parse_swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_size(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_step_by_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64k", 65536),
            ("64KiB", 65536),
            ("512m", 536_870_912),
            ("1.5G", 1_610_612_736),
            ("2 gb", 2_147_483_648),
            ("1t", 1_099_511_627_776),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named() {
        assert_eq!(parse_size("x"), Err("invalid size: 'x'".to_owned()));
        assert_eq!(parse_size("-1"), Err("invalid size: '-1'".to_owned()));
        assert_eq!(parse_size("5q"), Err("invalid suffix: 'q'".to_owned()));
        assert_eq!(parse_size("5bb"), Err("invalid suffix: 'bb'".to_owned()));
        assert!(parse_size("").is_err());
        assert!(parse_size("1..2").is_err());
        assert!(parse_size("99999999999999999999").is_err());
        assert_eq!(parse_swap("-1"), Ok(-1));
    }
}
