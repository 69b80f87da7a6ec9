//! Values of settings as text.

use super::{Settings, StorageForm};

const LEVELS: &[&str] = &["debug", "info", "warn", "error", "fatal"];
const DRIVERS: &[&str] = &["json-file", "local", "none", "passthrough"];

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Settings {
    /// Sets a key whose value is one text.
    pub(super) fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
        match key {
            "address-pools" => self.address_pools = pools(text)?,
            "bridge" => {
                if !text.is_empty() {
                    net::link::check_name(text).map_err(|e| e.to_string())?;
                }
                self.bridge = text.to_owned();
            }
            "bridge-address" => {
                if !text.is_empty() {
                    bridge_address(text)?;
                }
                self.bridge_address = text.to_owned();
            }
            "bridge-mtu" => {
                self.bridge_mtu = match text.parse() {
                    Ok(mtu @ (0 | 68..=65535)) => mtu,
                    _ => return Err(format!("{text:?} is no size of packets; write 68 to 65535")),
                }
            }
            "publish-address" => {
                self.publish_address = match text {
                    "" => None,
                    text => Some(
                        text.parse()
                            .map_err(|_| format!("{text:?} is no address; write 127.0.0.1"))?,
                    ),
                }
            }
            "cgroup-parent" => self.cgroup_parent = text.to_owned(),
            "data-root" => self.data_root = text.into(),
            "run-root" => self.run_root = text.into(),
            "debug" => self.debug = truth(text)?,
            "publish-respects-input" => self.publish_respects_input = truth(text)?,
            "default-runtime" => self.default_runtime = text.to_owned(),
            "detach-keys" => self.detach_keys = text.to_owned(),
            "init-path" => {
                if !text.starts_with('/') {
                    return Err(format!("{text:?} is no absolute path"));
                }
                self.init_path = Some(text.into());
            }
            "log-driver" => self.log_driver = one_of(text, DRIVERS)?,
            "log-level" => self.log_level = one_of(text, LEVELS)?,
            "registries" => self.registries = text.into(),
            "shm-size" => self.shm_size = size(text)?,
            "storage" => {
                self.storage = match text {
                    "auto" => StorageForm::Auto,
                    "directories" => StorageForm::Directories,
                    "erofs" => StorageForm::Erofs,
                    _ => {
                        return Err(format!(
                            "{text:?} is no way to keep layers; write auto, directories or erofs"
                        ));
                    }
                }
            }
            _ => return Err("takes a table, not a text".to_owned()),
        }
        Ok(())
    }

    /// A key's value as the settings file would have it.
    pub(super) fn written(&self, key: &str) -> String {
        let or = |text: &str, default: &str| quoted(if text.is_empty() { default } else { text });
        match key {
            "address-pools" => {
                let pools = match self.address_pools.as_slice() {
                    [] => net::address::default_pools(),
                    pools => pools.to_vec(),
                };
                let all: Vec<String> =
                    pools.iter().map(|pool| format!("{}:{}", pool.base, pool.size)).collect();
                quoted(&all.join(" "))
            }
            "bridge" => quoted(&self.bridge_name()),
            "bridge-address" => quoted(&self.bridge_address),
            "bridge-mtu" => {
                if self.bridge_mtu == 0 {
                    "1500".to_owned()
                } else {
                    self.bridge_mtu.to_string()
                }
            }
            "publish-address" => match self.publish_address {
                Some(address) => quoted(&address.to_string()),
                None => quoted(""),
            },
            "publish-respects-input" => self.publish_respects_input.to_string(),
            "cgroup-parent" => quoted(&self.cgroup_parent),
            "data-root" => quoted(&self.data_root.to_string_lossy()),
            "run-root" => quoted(&self.run_root.to_string_lossy()),
            "debug" => self.debug.to_string(),
            "default-runtime" => or(&self.default_runtime, "wherry"),
            "default-ulimits" => {
                let all: Vec<String> = self
                    .default_ulimits
                    .iter()
                    .map(|u| format!("{} = \"{}:{}\"", u.name, u.soft, u.hard))
                    .collect();
                table(&all)
            }
            "detach-keys" => or(&self.detach_keys, "ctrl-p,ctrl-q"),
            "init-path" => {
                quoted(&self.init_path.as_deref().unwrap_or("".as_ref()).to_string_lossy())
            }
            "log-driver" => or(&self.log_driver, "json-file"),
            "log-level" => or(&self.log_level, "info"),
            "log-opts" => {
                let all: Vec<String> =
                    self.log_opts.iter().map(|(k, v)| format!("{k} = {}", quoted(v))).collect();
                table(&all)
            }
            "registries" => or(&self.registries.to_string_lossy(), super::DEFAULT_REGISTRIES),
            "runtimes" => {
                let all: Vec<String> = self
                    .runtimes
                    .iter()
                    .map(|(name, r)| {
                        let path = quoted(&r.path.to_string_lossy());
                        if r.args.is_empty() {
                            return format!("{name} = {path}");
                        }
                        let args: Vec<String> = r.args.iter().map(|a| quoted(a)).collect();
                        format!("{name} = {{ path = {path}, args = [{}] }}", args.join(", "))
                    })
                    .collect();
                table(&all)
            }
            "shm-size" => {
                let bytes = if self.shm_size == 0 { 64 << 20 } else { self.shm_size };
                bytes.to_string()
            }
            "storage" => quoted(self.storage.as_str()),
            _ => String::new(),
        }
    }
}

/// `10.0.0.0/8:24 fd00::/48:64`: ranges, each with the size of the subnets it is cut into.
fn pools(text: &str) -> Result<Vec<net::address::Pool>, String> {
    text.split_whitespace()
        .map(|part| {
            let wrong = || format!("{part:?} is no pool; write 10.0.0.0/8:24");
            let (base, size) = part.rsplit_once(':').ok_or_else(wrong)?;
            let base: net::link::Prefix = base.parse().map_err(|_| wrong())?;
            let size: u8 = size.parse().map_err(|_| wrong())?;
            if size < base.length || net::link::Prefix::new(base.address, size).is_none() {
                return Err(wrong());
            }
            Ok(net::address::Pool { base, size })
        })
        .collect()
}

/// The default bridge's address and subnet.
pub(crate) fn bridge_address(text: &str) -> Result<net::link::Prefix, String> {
    let wrong = || format!("{text:?} is no address with its subnet's length; write 10.1.0.1/24");
    let prefix: net::link::Prefix = text.parse().map_err(|_| wrong())?;
    if prefix.address.is_ipv4() && prefix.address != prefix.network().address {
        Ok(prefix)
    } else {
        Err(wrong())
    }
}

fn table(entries: &[String]) -> String {
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is none of {}", known.join(", ")))
    }
}

/// `64m`, `1g`, `65536`: bytes, a step is 1024.
pub(super) fn size(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let body = lower.strip_suffix('b').unwrap_or(&lower);
    let body = body.strip_suffix('i').unwrap_or(body);
    let (number, shift) = match body.as_bytes().last() {
        Some(b'k') => (body.get(..body.len().saturating_sub(1)), 10),
        Some(b'm') => (body.get(..body.len().saturating_sub(1)), 20),
        Some(b'g') => (body.get(..body.len().saturating_sub(1)), 30),
        Some(b't') => (body.get(..body.len().saturating_sub(1)), 40),
        _ => (Some(body), 0),
    };
    let wrong = || format!("{text:?} is no size; write 64m, 1g or a number of bytes");
    let number: i64 = number.and_then(|n| n.trim().parse().ok()).ok_or_else(wrong)?;
    if number < 0 {
        return Err(wrong());
    }
    number.checked_mul(1i64 << shift).ok_or_else(wrong)
}
