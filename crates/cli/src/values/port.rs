//! `-p` and `--expose`: ports and ranges of ports.

use std::collections::BTreeMap;

use engine::types::PortBinding;

/// Published ports by `port/protocol`.
pub(crate) type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

fn port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().map_err(|e| {
        let why = if *e.kind() == std::num::IntErrorKind::PosOverflow {
            "value out of range"
        } else {
            "invalid syntax"
        };
        format!("strconv.ParseUint: parsing {text:?}: {why}")
    })
}

/// `80` or `80-90`, both ends included.
pub(crate) fn parse_range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    let Some((first, last)) = text.split_once('-') else {
        let one = port(text)?;
        return Ok((one, one));
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}

fn protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let lower = protocol.to_lowercase();
    match lower.as_str() {
        "" => Ok((ports, "tcp".to_owned())),
        "tcp" | "udp" | "sctp" => Ok((ports, lower)),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

/// One `-p`: `[[ip:][host]:]container[/protocol]`, or `published=…,target=…`.
pub(crate) fn parse_publish(text: &str, into: &mut Bindings) -> Result<(), String> {
    if text.contains('=') {
        return parse_long(text, into);
    }
    let (spec, protocol) = protocol(text)?;
    let (rest, container) = spec.rsplit_once(':').unwrap_or(("", spec));
    let (ip, host) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (ip, host) =
                rest.split_once(']').ok_or_else(|| format!("invalid IP address: {text}"))?;
            (ip, host.strip_prefix(':').unwrap_or(host))
        }
        None => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) =
        parse_range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    add(ip, host, (first, last), &protocol, text, into)
}

fn add(
    ip: &str,
    host: &str,
    (first, last): (u16, u16),
    protocol: &str,
    text: &str,
    into: &mut Bindings,
) -> Result<(), String> {
    let range = match host {
        "" => None,
        host => Some(parse_range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    let count = last.saturating_sub(first);
    if let Some((low, high)) = range
        && high.saturating_sub(low) != count
        && count != 0
    {
        return Err(format!("invalid ranges specified for container and host Ports: {text}"));
    }
    for i in 0..=count {
        let host_port = match range {
            None => String::new(),
            // One port in the container and several on the host: any that is free.
            Some((low, high)) if count == 0 && low != high => format!("{low}-{high}"),
            Some((low, _)) => low.saturating_add(i).to_string(),
        };
        let key = format!("{}/{protocol}", first.saturating_add(i));
        into.entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding { host_ip: ip.to_owned(), host_port });
    }
    Ok(())
}

fn parse_long(text: &str, into: &mut Bindings) -> Result<(), String> {
    let (mut target, mut published, mut proto) = ("", "", "tcp".to_owned());
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => proto = protocol(&format!("0/{value}"))?.1,
            "mode" if matches!(value, "ingress" | "host") => {}
            "mode" => {
                return Err(format!(
                    "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                ));
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if target.is_empty() {
        return Err("missing mandatory field 'target'".to_owned());
    }
    let range = parse_range(target).map_err(|_| format!("invalid containerPort: {target}"))?;
    add("", published, range, &proto, text, into)
}

/// One `--expose`: the ports as `port/protocol`.
pub(crate) fn parse_expose(text: &str) -> Result<Vec<String>, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = protocol(text)?;
    let (first, last) = parse_range(ports)
        .map_err(|e| format!("invalid range format for --expose: {text}, error: {e}"))?;
    Ok((first..=last).map(|p| format!("{p}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Vec<(String, String, String)> {
        let mut all = Bindings::new();
        parse_publish(text, &mut all).unwrap();
        all.into_iter()
            .flat_map(|(key, list)| {
                list.unwrap_or_default()
                    .into_iter()
                    .map(move |b| (key.clone(), b.host_ip, b.host_port))
            })
            .collect()
    }

    fn row(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.to_owned(), b.to_owned(), c.to_owned())
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(one("80"), [row("80/tcp", "", "")]);
        assert_eq!(one("8080:80/udp"), [row("80/udp", "", "8080")]);
        assert_eq!(one("127.0.0.1:8080:80"), [row("80/tcp", "127.0.0.1", "8080")]);
        assert_eq!(one("127.0.0.1::80"), [row("80/tcp", "127.0.0.1", "")]);
        assert_eq!(one("[::1]:8080:80"), [row("80/tcp", "::1", "8080")]);
        assert_eq!(one("8080-8081:80-81"), [row("80/tcp", "", "8080"), row("81/tcp", "", "8081")]);
        assert_eq!(one("8080-8090:80"), [row("80/tcp", "", "8080-8090")]);
        assert_eq!(one("published=1,target=2,protocol=udp"), [row("2/udp", "", "1")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut all = Bindings::new();
        assert_eq!(parse_publish("x", &mut all), Err("invalid containerPort: x".to_owned()));
        assert_eq!(parse_publish("y:80", &mut all), Err("invalid hostPort: y".to_owned()));
        assert_eq!(parse_publish("80/foo", &mut all), Err("invalid proto: foo".to_owned()));
        assert!(parse_publish("1-3:80-81", &mut all).is_err());
        assert!(parse_publish("80-70", &mut all).is_err());
        assert!(parse_publish("a.b:1:2", &mut all).is_err());
        assert!(parse_publish("", &mut all).is_err());
        assert_eq!(
            parse_expose("z"),
            Err("invalid range format for --expose: z, error: strconv.ParseUint: parsing \"z\": invalid syntax".to_owned())
        );
        assert_eq!(parse_expose("80-81/udp").map(|v| v.join(",")), Ok("80/udp,81/udp".to_owned()));
    }
}
