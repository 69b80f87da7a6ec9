//! `--device`, `--device-*-bps`, `--blkio-weight-device`, `--device-cgroup-rule`.

use engine::types::{DeviceMapping, ThrottleDevice, WeightDevice};

use super::size::parse_size;

fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
        && ['r', 'w', 'm'].iter().all(|m| text.matches(*m).count() <= 1)
}

/// `host[:container][:rwm]`
pub(crate) fn parse_device(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, "", "rwm"),
        [host, second] if is_mode(second) => (*host, "", *second),
        [host, second] => (*host, *second, "rwm"),
        [host, second, mode] => (*host, *second, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    if !is_mode(mode) {
        return Err(format!("bad mode specified: {mode}"));
    }
    let container = if container.is_empty() { host } else { container };
    if !host.contains('=') && !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

fn device_and_value(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(':') {
        Some((path, value)) if !value.contains(':') => {
            if !path.starts_with("/dev/") {
                return Err(format!("bad format for device path: {text}"));
            }
            Ok((path, value))
        }
        _ => Err(format!("bad format: {text}")),
    }
}

/// `path:weight`
pub(crate) fn parse_weight_device(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_and_value(text)?;
    let weight: u16 = value.parse().map_err(|_| format!("invalid weight for device: {text}"))?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(format!("invalid weight for device: {text}"));
    }
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `path:rate[unit]`, bytes a second.
pub(crate) fn parse_throttle_bps(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_and_value(text)?;
    let rate = parse_size(value).ok().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `path:rate`, operations a second.
pub(crate) fn parse_throttle_iops(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_and_value(text)?;
    let rate = value.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `type major:minor mode`
pub(crate) fn parse_cgroup_rule(text: &str) -> Result<String, String> {
    let number = |s: &str| s == "*" || (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()));
    let parts: Vec<&str> = text.split(' ').collect();
    let good = match parts.as_slice() {
        [kind, numbers, mode] => {
            matches!(*kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(a, b)| number(a) && number(b))
                && !mode.is_empty()
                && mode.len() <= 3
                && mode.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
        }
        _ => false,
    };
    if good { Ok(text.to_owned()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let d = parse_device("/dev/null").unwrap();
        assert_eq!(
            (d.path_in_container.as_str(), d.cgroup_permissions.as_str()),
            ("/dev/null", "rwm")
        );
        let d = parse_device("/dev/null:r").unwrap();
        assert_eq!(
            (d.path_in_container.as_str(), d.cgroup_permissions.as_str()),
            ("/dev/null", "r")
        );
        let d = parse_device("/dev/null:/dev/zero:rw").unwrap();
        assert_eq!(
            (d.path_in_container.as_str(), d.cgroup_permissions.as_str()),
            ("/dev/zero", "rw")
        );
        assert!(parse_device("/dev/x:/dev/y:zzz").is_err());
        assert!(parse_device("a:b:c:d").is_err());
        assert!(parse_device("").is_err());
    }

    #[test]
    fn limits_of_devices() {
        assert_eq!(parse_throttle_bps("/dev/sda:1mb").map(|t| t.rate), Ok(1_048_576));
        assert_eq!(parse_throttle_bps("a"), Err("bad format: a".to_owned()));
        assert_eq!(parse_weight_device("a:b"), Err("bad format for device path: a:b".to_owned()));
        assert!(parse_throttle_iops("/dev/sda:1mb").is_err());
        assert_eq!(parse_weight_device("/dev/sda:500").map(|t| t.weight), Ok(500));
        assert!(parse_weight_device("/dev/sda:5").is_err());
    }

    #[test]
    fn cgroup_rules() {
        assert!(parse_cgroup_rule("c 1:3 rwm").is_ok());
        assert!(parse_cgroup_rule("a *:* rwm").is_ok());
        assert_eq!(parse_cgroup_rule("x"), Err("invalid device cgroup format 'x'".to_owned()));
    }
}
