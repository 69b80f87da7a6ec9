//! Sizes and times for people, as Docker writes them.

fn scaled(mut value: f64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut index = 0usize;
    while value >= base && index.saturating_add(1) < units.len() {
        value /= base;
        index = index.saturating_add(1);
    }
    (value, units.get(index).copied().unwrap_or_default())
}

/// Up to `digits` significant digits, no trailing zeros: Go's `%.ng`.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = i32::try_from(digits).unwrap_or(4) - 1 - magnitude;
    let decimals = usize::try_from(decimals).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

const DECIMAL: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `12.3MB`: three significant digits, a step is 1000.
pub(crate) fn size3(bytes: i64) -> String {
    let (value, unit) = scaled(bytes as f64, 1000.0, DECIMAL);
    format!("{}{unit}", significant(value, 3))
}

/// `12.34MB`: four significant digits, a step is 1000.
pub(crate) fn size(bytes: i64) -> String {
    let (value, unit) = scaled(bytes as f64, 1000.0, DECIMAL);
    format!("{}{unit}", significant(value, 4))
}

/// `12.34MiB`: four significant digits, a step is 1024.
pub(crate) fn size1024(bytes: f64) -> String {
    let (value, unit) = scaled(bytes, 1024.0, BINARY);
    format!("{}{unit}", significant(value, 4))
}

/// `5 minutes`: a span of time in whole units, in words.
pub(crate) fn duration(seconds: i64) -> String {
    let hours = ((seconds as f64) / 3600.0 + 0.5).floor() as i64;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

/// `5 minutes ago`, or nothing for a time that never was.
pub(crate) fn ago(then: i64, now: i64) -> String {
    if then <= 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", duration(now.saturating_sub(then)))
}

/// Seconds since 1970 as `2025-01-02 13:23:37 +0000 UTC`, in the zone of this machine.
pub(crate) fn stamp(seconds: i64) -> String {
    let Ok(stamp) = jiff::Timestamp::from_second(seconds) else {
        return seconds.to_string();
    };
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Seconds since 1970 as RFC 3339, in the zone of this machine.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let Ok(stamp) = jiff::Timestamp::from_second(seconds) else {
        return seconds.to_string();
    };
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::system());
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    text.strip_suffix("+00:00").map(|t| format!("{t}Z")).unwrap_or(text)
}

/// Nanoseconds since 1970 as `events` writes them: nine digits, the zone of this machine.
pub(crate) fn nano_local(nanos: i64) -> String {
    let Ok(stamp) = jiff::Timestamp::from_nanosecond(i128::from(nanos)) else {
        return nanos.to_string();
    };
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::system());
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    text.strip_suffix("+00:00").map(|t| format!("{t}Z")).unwrap_or(text)
}

/// Cuts to `max` letters, the last of them `…`.
pub(crate) fn ellipsis(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    if max > 0 {
        cut.push('…');
    }
    cut
}

/// The first twelve digits of an id, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, digits)| digits);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_few_digits() {
        assert_eq!(size(0), "0B");
        assert_eq!(size3(999), "999B");
        assert_eq!(size3(1000), "1kB");
        assert_eq!(size3(123_456_789), "123MB");
        assert_eq!(size(123_456_789), "123.5MB");
        assert_eq!(size3(1_234_567), "1.23MB");
        assert_eq!(size1024(1_048_576.0), "1MiB");
        assert_eq!(size1024(1_000_000.0), "976.6KiB");
    }

    #[test]
    fn spans_are_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (15 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
        assert_eq!(ago(100, 160), "About a minute ago");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abc", 4), "abc");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("ab"), "ab");
    }

    #[test]
    fn times_have_nine_digits() {}
}
