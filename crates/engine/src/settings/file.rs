//! The settings file: TOML, unknown keys are errors that name their line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{KEYS, Origin, Runtime, Settings};
use crate::error::{Error, Result};
use crate::types::Ulimit;

/// A file that holds more than this is no settings file.
const MOST: usize = 1 << 20;

impl Settings {
    /// Reads the text of the settings file.
    pub(super) fn read_file(&mut self, path: &Path, text: &str) -> Result<()> {
        let at = |offset: usize| {
            let before = text.as_bytes().get(..offset).unwrap_or_default();
            before.iter().filter(|b| **b == b'\n').count().saturating_add(1)
        };
        let fail = |offset: usize, why: String| {
            Error::invalid(format!("{}:{}: {why}", path.display(), at(offset)))
        };
        if text.len() > MOST {
            return Err(fail(0, "larger than 1 MiB; this is no settings file".to_owned()));
        }
        let table = DeTable::parse(text).map_err(|e| {
            let start = e.span().map_or(0, |s| s.start);
            fail(start, e.message().to_owned())
        })?;
        for (key, value) in table.into_inner() {
            let offset = key.span().start;
            let name = key.into_inner();
            let Some(known) = KEYS.iter().find(|k| **k == name.as_ref()) else {
                let hint = nearest(&name)
                    .map(|k| format!("; did you mean {k:?}?"))
                    .unwrap_or_else(|| format!("; known are {}", KEYS.join(", ")));
                return Err(fail(offset, format!("unknown key {name:?}{hint}")));
            };
            let start = value.span().start;
            self.set_value(known, value).map_err(|why| fail(start, format!("{known}: {why}")))?;
            let origin = Origin::File { path: path.to_owned(), line: at(offset) };
            self.origins.insert(known, origin);
        }
        Ok(())
    }

    fn set_value(&mut self, key: &'static str, value: Spanned<DeValue<'_>>) -> Result<(), String> {
        match (key, value.into_inner()) {
            ("log-opts", DeValue::Table(table)) => {
                for (name, value) in table {
                    let text = scalar(value.into_inner())?;
                    self.log_opts.insert(name.into_inner().into_owned(), text);
                }
                Ok(())
            }
            ("runtimes", DeValue::Table(table)) => {
                for (name, value) in table {
                    let name = name.into_inner().into_owned();
                    let runtime = runtime(value.into_inner())
                        .map_err(|why| format!("runtime {name:?}: {why}"))?;
                    self.runtimes.insert(name, runtime);
                }
                Ok(())
            }
            ("default-ulimits", DeValue::Table(table)) => {
                self.default_ulimits.clear();
                for (name, value) in table {
                    let name = name.into_inner().into_owned();
                    let text = scalar(value.into_inner())?;
                    let (soft, hard) = text.split_once(':').unwrap_or((&text, &text));
                    let number = |s: &str| {
                        s.parse::<i64>().map_err(|_| {
                            format!("limit {name:?}: {s:?} is no number; write \"soft:hard\"")
                        })
                    };
                    let (soft, hard) = (number(soft)?, number(hard)?);
                    if hard != -1 && (soft == -1 || soft > hard) {
                        return Err(format!("limit {name:?}: soft {soft} is above hard {hard}"));
                    }
                    self.default_ulimits.push(Ulimit { name: name.clone(), hard, soft });
                }
                Ok(())
            }
            ("log-opts" | "runtimes" | "default-ulimits", _) => {
                Err("must be a table of names and values".to_owned())
            }
            ("debug", DeValue::Boolean(on)) => {
                self.debug = on;
                Ok(())
            }
            ("publish-respects-input", DeValue::Boolean(on)) => {
                self.publish_respects_input = on;
                Ok(())
            }
            ("debug" | "publish-respects-input", _) => Err("must be true or false".to_owned()),
            ("shm-size" | "bridge-mtu", value @ DeValue::Integer(_)) => {
                self.set_text(key, &scalar(value)?)
            }
            (key, DeValue::String(text)) => self.set_text(key, &text),
            _ => Err("must be a text in quotes".to_owned()),
        }
    }
}

fn scalar(value: DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|n| n.to_string())
            .map_err(|_| "a number is too large".to_owned()),
        DeValue::Boolean(on) => Ok(on.to_string()),
        _ => Err("values must be texts, numbers or true and false".to_owned()),
    }
}

fn runtime(value: DeValue<'_>) -> Result<Runtime, String> {
    let path = |text: &str| {
        if text.starts_with('/') {
            Ok(text.into())
        } else {
            Err(format!("{text:?} is no absolute path"))
        }
    };
    match value {
        DeValue::String(text) => Ok(Runtime { path: path(&text)?, args: Vec::new() }),
        DeValue::Table(table) => {
            let mut runtime = Runtime::default();
            for (key, value) in table {
                match (key.into_inner().as_ref(), value.into_inner()) {
                    ("path", DeValue::String(text)) => runtime.path = path(&text)?,
                    ("args", DeValue::Array(items)) => {
                        for item in items {
                            runtime.args.push(scalar(item.into_inner())?);
                        }
                    }
                    (other, _) => {
                        return Err(format!("{other:?}: known are path (text) and args (list)"));
                    }
                }
            }
            if runtime.path.as_os_str().is_empty() {
                return Err("path is missing".to_owned());
            }
            Ok(runtime)
        }
        _ => Err("must be a path, or a table with path and args".to_owned()),
    }
}

/// A known key that differs by little: same letters but for case, dashes and one letter.
fn nearest(name: &str) -> Option<&'static str> {
    let plain = |s: &str| -> Vec<char> {
        s.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
    };
    let wanted = plain(name);
    KEYS.iter().copied().find(|key| {
        let key = plain(key);
        let (short, long) =
            if key.len() < wanted.len() { (&key, &wanted) } else { (&wanted, &key) };
        let same = short.iter().zip(long.iter()).take_while(|(a, b)| a == b).count();
        let tail = short.iter().rev().zip(long.iter().rev()).take_while(|(a, b)| a == b).count();
        long.len().saturating_sub(short.len()) <= 1
            && same.saturating_add(tail) >= long.len().saturating_sub(1)
    })
}
