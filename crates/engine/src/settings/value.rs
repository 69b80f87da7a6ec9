//! Values of settings as text.

use super::{Settings, StorageForm};

const LEVELS: &[&str] = &["debug", "info", "warn", "error", "fatal"];
const DRIVERS: &[&str] = &["json-file", "local", "none", "passthrough"];

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Settings {
    /// Sets a key whose value is one text.
    pub(super) fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
        match key {
            "cgroup-parent" => self.cgroup_parent = text.to_owned(),
            "data-root" => self.data_root = text.into(),
            "run-root" => self.run_root = text.into(),
            "debug" => {
                self.debug = match text {
                    "1" | "true" => true,
                    "0" | "false" | "" => false,
                    _ => return Err(format!("{text:?} is neither true nor false")),
                }
            }
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
