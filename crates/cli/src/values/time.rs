//! Points in time: RFC 3339, a date, seconds since 1970, or a duration before now.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::duration::parse_duration;

/// Reads a point in time; the answer is nanoseconds since 1970. `now` is too.
pub(crate) fn parse_time(text: &str, now: i64) -> Result<i64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(
            "an empty text is no time; write 2025-01-02T13:23:37Z, 42m or 1735824217".into()
        );
    }
    if let Ok(before) = parse_duration(text)
        && text != "0"
    {
        return Ok(now.saturating_sub(before));
    }
    if let Some(unix) = unix(text) {
        return Ok(unix);
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(stamp.as_nanosecond()).map_err(|_| wrong(text));
    }
    // Without a zone it is the local time, as Docker has it.
    let civil = text.trim_end_matches('Z');
    let padded = match civil.split_once('T') {
        Some((date, time)) if time.len() == 2 => format!("{date}T{time}:00"),
        _ => civil.to_owned(),
    };
    let parsed: DateTime = padded.parse().map_err(|_| wrong(text))?;
    let zone = if text.ends_with('Z') { TimeZone::UTC } else { TimeZone::system() };
    let stamp = parsed.to_zoned(zone).map_err(|_| wrong(text))?.timestamp();
    i64::try_from(stamp.as_nanosecond()).map_err(|_| wrong(text))
}

fn wrong(text: &str) -> String {
    format!(
        "invalid value for time: {text:?} is neither 2025-01-02T13:23:37Z nor 42m nor seconds since 1970"
    )
}

/// `seconds[.fraction]` since 1970.
fn unix(text: &str) -> Option<i64> {
    let (seconds, part) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().ok()?;
    if part.is_empty() || part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{part:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let now = 1_000_000_000_000_000_000;
        assert_eq!(parse_time("42m", now), Ok(now - 42 * 60 * 1_000_000_000));
        assert_eq!(parse_time("1735824217", now), Ok(1_735_824_217_000_000_000));
        assert_eq!(parse_time("1735824217.5", now), Ok(1_735_824_217_500_000_000));
        assert_eq!(parse_time("2025-01-02T13:23:37Z", now), Ok(1_735_824_217_000_000_000));
        assert_eq!(parse_time("2025-01-02T13:23:37+01:00", now), Ok(1_735_820_617_000_000_000));
        assert!(parse_time("2025-01-02", now).is_ok());
        assert!(parse_time("2025-01-02T13:23", now).is_ok());
        assert!(parse_time("yesterday", now).is_err());
        assert!(parse_time("", now).is_err());
    }
}
