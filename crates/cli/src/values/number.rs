//! Numbers and switches, as Go's `strconv` reads them.

/// `true`, `false` and their short forms.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

fn digits(text: &str) -> Option<(u32, &str)> {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    let (radix, rest) = match lower.as_deref() {
        Some("0x") => (16, text.get(2..)?),
        Some("0o") => (8, text.get(2..)?),
        Some("0b") => (2, text.get(2..)?),
        _ if text.len() > 1 && text.starts_with('0') => (8, text.get(1..)?),
        _ => (10, text),
    };
    (!rest.is_empty() && rest.chars().all(|c| c.is_digit(radix))).then_some((radix, rest))
}

/// A signed integer; `0x`, `0o` and `0b` are known.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, rest) = digits(rest)
        .ok_or_else(|| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
    let signed = if negative { format!("-{rest}") } else { rest.to_owned() };
    i64::from_str_radix(&signed, radix)
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: value out of range"))
}

/// An unsigned integer of 16 bits.
pub(crate) fn parse_u16(text: &str) -> Result<u16, String> {
    let (radix, rest) = digits(text)
        .ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))?;
    u16::from_str_radix(rest, radix)
        .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

/// An unsigned integer.
pub(crate) fn parse_u64(text: &str) -> Result<u64, String> {
    let (radix, rest) = digits(text)
        .ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))?;
    u64::from_str_radix(rest, radix)
        .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

/// `--cpus`: a number of CPUs, answered in units of 1e-9.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    if let Some((over, under)) = text.split_once('/') {
        let over: i128 = over.parse().map_err(|_| wrong())?;
        let under: i128 = under.parse().map_err(|_| wrong())?;
        let nano = over.checked_mul(1_000_000_000).ok_or_else(wrong)?;
        if under <= 0 {
            return Err(wrong());
        }
        if nano.checked_rem(under) != Some(0) {
            return Err("value is too precise".to_owned());
        }
        return i64::try_from(nano.checked_div(under).unwrap_or(0)).map_err(|_| wrong());
    }
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() && part.is_empty()
        || !whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit())
    {
        return Err(wrong());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let all = format!("{}{part:0<9}", if whole.is_empty() { "0" } else { whole });
    let nano: i64 = all.parse().map_err(|_| wrong())?;
    Ok(if negative { nano.saturating_neg() } else { nano })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_go_reads_them() {
        assert_eq!(parse_int("-12"), Ok(-12));
        assert_eq!(parse_int("0x1f"), Ok(31));
        assert_eq!(parse_int("010"), Ok(8));
        assert_eq!(parse_int("0"), Ok(0));
        assert_eq!(
            parse_int("z"),
            Err("strconv.ParseInt: parsing \"z\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_u16("99999999"),
            Err("strconv.ParseUint: parsing \"99999999\": value out of range".to_owned())
        );
        assert!(parse_u64("-1").is_err());
        assert!(parse_int("-0x8000000000000000").is_ok());
    }

    #[test]
    fn cpus_are_exact_or_refused() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus(".5"), Ok(500_000_000));
        assert_eq!(parse_cpus("1/4"), Ok(250_000_000));
        assert_eq!(parse_cpus("1.0000000000"), Ok(1_000_000_000));
        assert_eq!(parse_cpus("0.0000000001"), Err("value is too precise".to_owned()));
        assert_eq!(parse_cpus("x"), Err("failed to parse x as a rational number".to_owned()));
        assert!(parse_cpus("").is_err());
        assert!(parse_cpus("1/0").is_err());
    }
}
