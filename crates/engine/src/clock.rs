//! Times as Docker writes them.

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// RFC 3339 in UTC with nanoseconds; Go's zero time for 0.
pub fn rfc3339(ns: i64) -> String {
    if ns == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    let text = match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => return "0001-01-01T00:00:00Z".into(),
    };
    // Go drops zeros at the end of the fraction.
    match text.strip_suffix('Z').and_then(|t| t.split_once('.')) {
        Some((whole, fraction)) => {
            let fraction = fraction.trim_end_matches('0');
            if fraction.is_empty() { format!("{whole}Z") } else { format!("{whole}.{fraction}Z") }
        }
        None => text,
    }
}

/// RFC 3339 in UTC with all nine digits, as `logs` writes times.
pub fn rfc3339_fixed(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(stamp) => stamp.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        Err(_) => ns.to_string(),
    }
}

/// How long ago, in Docker's words: `About a minute`, `3 hours`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (minutes + 30) / 60;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(1_000_000_000), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn durations_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3000, "50 minutes"),
            (3600, "About an hour"),
            (47 * 3600, "47 hours"),
            (10 * 86400, "10 days"),
            (20 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
