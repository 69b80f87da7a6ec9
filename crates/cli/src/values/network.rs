//! `--network`: a name, or a name with what is asked for there.

use engine::types::{EndpointIpam, EndpointSettings};

/// One `--network`: `NAME`, or `name=NAME,alias=…,ip=…,ip6=…,mac-address=…,link-local-ip=…,
/// driver-opt=KEY=VALUE,gw-priority=N`.
pub(crate) fn parse(text: &str) -> Result<(String, EndpointSettings), String> {
    let mut settings = EndpointSettings::default();
    let mut name = String::new();
    if !text.contains('=') {
        text.clone_into(&mut name);
    } else {
        let mut ipam = EndpointIpam::default();
        for field in super::mount::csv(text)? {
            let wrong = || format!("invalid field {field} in --network {text}");
            let (key, value) = field.split_once('=').ok_or_else(wrong)?;
            let key = key.trim().to_lowercase();
            let value = value.trim();
            match key.as_str() {
                "name" => value.clone_into(&mut name),
                "alias" => settings.aliases.get_or_insert_default().push(value.to_owned()),
                "driver-opt" => {
                    let (option, value) = value.split_once('=').ok_or_else(|| {
                        "invalid key value pair format in driver options".to_owned()
                    })?;
                    let options = settings.driver_opts.get_or_insert_default();
                    options.insert(option.to_owned(), value.to_owned());
                }
                "ip" => ipam.ipv4_address = address(value, false)?,
                "ip6" => ipam.ipv6_address = address(value, true)?,
                "link-local-ip" => ipam.link_local_ips.push(super::opts::parse_ip(value)?),
                "mac-address" => {
                    super::opts::check_mac(value)?;
                    value.clone_into(&mut settings.mac_address);
                }
                "gw-priority" => {
                    settings.gw_priority =
                        value.parse().map_err(|_| format!("invalid gw-priority: {value}"))?;
                }
                _ => return Err(format!("invalid field key {key}")),
            }
        }
        if ipam != EndpointIpam::default() {
            settings.ipam_config = Some(ipam);
        }
    }
    if name.is_empty() {
        return Err("no name set for network".to_owned());
    }
    Ok((name, settings))
}

fn address(text: &str, six: bool) -> Result<String, String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_ipv6() == six => Ok(address.to_string()),
        _ => Err(format!("invalid {} address: {text}", if six { "IPv6" } else { "IPv4" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fields() {
        assert_eq!(parse("a"), Ok(("a".to_owned(), EndpointSettings::default())));
        let (name, settings) = parse("name=b,alias=x,alias=y,ip=10.0.0.5,gw-priority=3").unwrap();
        assert_eq!(name, "b");
        assert_eq!(settings.aliases, Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(settings.ipam_config.unwrap().ipv4_address, "10.0.0.5");
        assert_eq!(settings.gw_priority, 3);
        for bad in ["", "alias=x", "name=b,ip=fd00::1", "name=b,color=red", "name=b,driver-opt=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
