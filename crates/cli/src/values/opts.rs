//! The smaller options of `run`: limits, hosts, links, security, restart policies.

use engine::types::{RestartPolicy, Ulimit};

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, values) =
        text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |s: &str| {
        s.parse::<i64>().map_err(|e| {
            let why = if matches!(
                e.kind(),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            ) {
                "value out of range"
            } else {
                "invalid syntax"
            };
            format!("strconv.ParseInt: parsing {s:?}: {why}")
        })
    };
    let mut parts = values.split(':');
    let soft = number(parts.next().unwrap_or_default())?;
    let hard = parts.next().map(number).transpose()?.unwrap_or(soft);
    if parts.next().is_some() {
        return Err(format!(
            "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
        ));
    }
    if hard != -1 && (soft == -1 || soft > hard) {
        let soft = if soft == -1 { "-1".to_owned() } else { soft.to_string() };
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:max]`
pub(crate) fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    if text.is_empty() {
        return Ok(RestartPolicy::default());
    }
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let maximum_retry_count = match count {
        None => 0,
        Some(count) => {
            let count: i64 = count.parse().map_err(|_| {
                "invalid restart policy format: maximum retry count must be an integer".to_owned()
            })?;
            u32::try_from(count).map_err(|_| {
                "invalid restart policy: maximum retry count cannot be negative".to_owned()
            })?
        }
    };
    match name {
        "on-failure" => {}
        "no" | "always" | "unless-stopped" if maximum_retry_count == 0 => {}
        "no" | "always" | "unless-stopped" => {
            return Err(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .to_owned(),
            );
        }
        _ => {
            return Err(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

/// `host:address`, also `host=address`.
pub(crate) fn parse_extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || address.is_empty() {
        return Err(bad());
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

/// An address.
pub(crate) fn parse_ip(text: &str) -> Result<String, String> {
    text.trim()
        .parse::<std::net::IpAddr>()
        .map(|ip| ip.to_string())
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// A search domain; `.` clears the list.
pub(crate) fn parse_dns_search(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if trimmed == "." {
        return Ok(trimmed.to_owned());
    }
    let name = trimmed.strip_suffix('.').unwrap_or(trimmed);
    let good = !name.is_empty()
        && name.len() <= 254
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    if good { Ok(trimmed.to_owned()) } else { Err(format!("{text} is not a valid domain")) }
}

/// `container[:alias]`
pub(crate) fn parse_link(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] if !name.is_empty() => Ok(format!("{name}:{name}")),
        [name, alias] if !name.is_empty() && !alias.is_empty() => Ok(text.to_owned()),
        [""] => Err("empty string specified for links".to_owned()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

/// `stdin`, `stdout`, `stderr`
pub(crate) fn parse_attach(text: &str) -> Result<String, String> {
    let lower = text.to_lowercase();
    match lower.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(lower),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// `name=value` of a kernel parameter that has a namespace.
pub(crate) fn parse_sysctl(text: &str) -> Result<String, String> {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let refused = || format!("sysctl '{text}' is not allowed");
    let (name, _) = text.split_once('=').ok_or_else(refused)?;
    let name = name.replace('/', ".");
    if NAMES.contains(&name.as_str()) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
    {
        Ok(text.to_owned())
    } else {
        Err(refused())
    }
}

/// A MAC address, written with colons.
pub(crate) fn check_mac(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let good = matches!(parts.len(), 6 | 8)
        && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if good { Ok(()) } else { Err(format!("{text} is not a valid mac address")) }
}

/// `private`, `host`, `container:NAME` and what else a namespace option allows.
pub(crate) fn check_namespace(
    value: &str,
    allowed: &[&str],
    container: bool,
    message: &str,
) -> Result<(), String> {
    let joins = container
        && value
            .split_once(':')
            .is_some_and(|(kind, name)| kind == "container" && !name.is_empty());
    if value.is_empty() || allowed.contains(&value) || joins {
        Ok(())
    } else {
        Err(format!("{message}: {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        assert_eq!(
            parse_ulimit("nofile=1024:2048"),
            Ok(Ulimit { name: "nofile".into(), soft: 1024, hard: 2048 })
        );
        assert_eq!(parse_ulimit("core=-1").map(|u| u.hard), Ok(-1));
        assert_eq!(parse_ulimit("a"), Err("invalid ulimit argument: a".to_owned()));
        assert_eq!(
            parse_ulimit("nofile=x"),
            Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_ulimit("nofile=5:3"),
            Err("ulimit soft limit must be less than or equal to hard limit: 5 > 3".to_owned())
        );
        assert!(parse_ulimit("nofile=1:2:3").is_err());
        assert!(parse_ulimit("foo=1").is_err());
    }

    #[test]
    fn restart_policies() {
        assert_eq!(parse_restart("").map(|p| p.name), Ok("no".to_owned()));
        assert_eq!(parse_restart("on-failure:3").map(|p| p.maximum_retry_count), Ok(3));
        assert!(parse_restart("always:3").is_err());
        assert!(parse_restart("on-failure:x").is_err());
        assert!(parse_restart(":3").is_err());
        assert!(parse_restart("foo").is_err());
    }

    #[test]
    fn hosts_and_names() {
        assert_eq!(parse_extra_host("a:1.2.3.4"), Ok("a:1.2.3.4".to_owned()));
        assert_eq!(parse_extra_host("a=[::1]"), Ok("a:::1".to_owned()));
        assert_eq!(parse_extra_host("a:host-gateway"), Ok("a:host-gateway".to_owned()));
        assert!(parse_extra_host("x").is_err());
        assert!(parse_ip("x").is_err());
        assert!(parse_dns_search("a_b.example").is_ok());
        assert!(parse_dns_search("-a").is_err());
        assert_eq!(parse_link("a"), Ok("a:a".to_owned()));
        assert!(parse_link("a:b:c").is_err());
        assert!(parse_attach("STDIN").is_ok());
        assert!(parse_attach("foo").is_err());
        assert!(parse_sysctl("net.ipv4.ip_forward=1").is_ok());
        assert_eq!(parse_sysctl("a"), Err("sysctl 'a' is not allowed".to_owned()));
        assert!(check_mac("92:d0:c6:0a:29:33").is_ok());
        assert!(check_mac("x").is_err());
        assert!(check_namespace("container:a", &["host"], true, "no").is_ok());
        assert!(check_namespace("foo", &["host"], true, "no").is_err());
    }
}
