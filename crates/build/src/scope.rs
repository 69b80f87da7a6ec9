//! The variables of a stage: its environment, its arguments, and what is there without being declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use oci::manifest::Platform;

use crate::language::expand;

/// Arguments that need not be declared, and are in no cache key and no history.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What is the same for all stages.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    /// `ARG`s before the first `FROM`, with their values.
    pub(crate) arguments: BTreeMap<String, String>,
    /// Of the platforms.
    automatic: BTreeMap<String, String>,
    /// `--build-arg`
    given: BTreeMap<String, String>,
    /// Those of them that something declared.
    consumed: Mutex<BTreeSet<String>>,
}

fn platform_values(prefix: &str, platform: &Platform, out: &mut BTreeMap<String, String>) {
    let variant = platform.variant.clone().unwrap_or_default();
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !variant.is_empty() && platform.architecture != "arm64" {
        text = format!("{text}/{variant}");
    }
    let variant = if platform.architecture == "arm64" { String::new() } else { variant };
    for (name, value) in [
        ("PLATFORM", text),
        ("OS", platform.os.clone()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", variant),
    ] {
        out.insert(format!("{prefix}{name}"), value);
    }
}

impl Globals {
    pub(crate) fn new(given: &BTreeMap<String, String>, target: &Platform, stage: &str) -> Self {
        let mut automatic = BTreeMap::new();
        platform_values("BUILD", &Platform::host(), &mut automatic);
        platform_values("TARGET", target, &mut automatic);
        automatic.insert("TARGETSTAGE".to_owned(), stage.to_owned());
        let consumed = Mutex::default();
        Self { arguments: BTreeMap::new(), automatic, given: given.clone(), consumed }
    }

    /// What `--build-arg` says of a declared argument.
    fn given(&self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.consumed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Some(value.clone())
    }

    /// Declares an argument before the first `FROM`.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        default: Option<&str>,
        escape: char,
    ) -> Result<(), String> {
        let value = match (self.given(name), default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(self.word(default, escape)?),
            (None, None) => None,
        };
        if let Some(value) = value {
            self.arguments.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Replaces variables where only global arguments are known: `FROM`.
    pub(crate) fn word(&self, text: &str, escape: char) -> Result<String, String> {
        let get =
            |name: &str| self.arguments.get(name).or_else(|| self.automatic.get(name)).cloned();
        expand::word(text, escape, &get)
    }

    /// Build arguments that nothing declared.
    pub(crate) fn unused(&self) -> Vec<String> {
        let consumed = self.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |name: &str| {
            consumed.contains(name)
                || PROXIES.contains(&name)
                || name == "SOURCE_DATE_EPOCH"
                || self.automatic.contains_key(name)
                || name.starts_with("BUILDKIT_")
        };
        self.given.keys().filter(|name| !known(name)).cloned().collect()
    }
}

/// The variables of one stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// `ENV`: `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// Declared arguments, in order; without a value they are not set.
    arguments: Vec<(String, Option<String>)>,
}

impl Scope {
    /// With an environment and no arguments.
    pub(crate) fn new(environment: Vec<String>) -> Self {
        Self { environment, arguments: Vec::new() }
    }

    /// The value of an environment variable.
    pub(crate) fn environment(&self, name: &str) -> Option<&str> {
        let entry = self
            .environment
            .iter()
            .find(|entry| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name) == name)?;
        Some(entry.split_once('=').map_or("", |(_, value)| value))
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let same = |old: &String| old.split_once('=').is_some_and(|(old, _)| old == name);
        match self.environment.iter_mut().find(|old| same(old)) {
            Some(old) => *old = entry,
            None => self.environment.push(entry),
        }
    }

    /// Declares an argument.
    pub(crate) fn declare(
        &mut self,
        globals: &Globals,
        name: &str,
        default: Option<&str>,
        escape: char,
    ) -> Result<(), String> {
        let default = default.map(|text| self.word(globals, text, escape)).transpose()?;
        let value = globals.given(name).or(default).or_else(|| {
            globals.arguments.get(name).or_else(|| globals.automatic.get(name)).cloned()
        });
        self.arguments.retain(|(old, _)| old != name);
        self.arguments.push((name.to_owned(), value));
        Ok(())
    }

    fn get(&self, globals: &Globals, name: &str) -> Option<String> {
        if let Some(value) = self.environment(name) {
            return Some(value.to_owned());
        }
        match self.arguments.iter().find(|(known, _)| known == name) {
            Some((_, value)) => value.clone(),
            None if PROXIES.contains(&name) => globals.given.get(name).cloned(),
            None => None,
        }
    }

    /// Replaces variables.
    pub(crate) fn word(
        &self,
        globals: &Globals,
        text: &str,
        escape: char,
    ) -> Result<String, String> {
        expand::word(text, escape, &|name: &str| self.get(globals, name))
    }

    /// Replaces variables and splits at white space.
    pub(crate) fn words(
        &self,
        globals: &Globals,
        text: &str,
        escape: char,
    ) -> Result<Vec<String>, String> {
        expand::words(text, escape, &|name: &str| self.get(globals, name))
    }

    /// Declared arguments with a value that no environment variable hides, as a `RUN` gets them and its
    /// history shows them.
    pub(crate) fn for_run(&self) -> Vec<String> {
        let mut list: Vec<String> = self
            .arguments
            .iter()
            .filter(|(name, _)| self.environment(name).is_none())
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        list.sort();
        list
    }

    /// Proxies that were given, for a `RUN` only.
    pub(crate) fn proxies(&self, globals: &Globals) -> Vec<String> {
        let undeclared = |name: &&str| {
            self.environment(name).is_none()
                && !self.arguments.iter().any(|(known, _)| known == name)
        };
        PROXIES
            .iter()
            .filter(|name| undeclared(name))
            .filter_map(|name| Some(format!("{name}={}", globals.given.get(*name)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(given: &[(&str, &str)]) -> Globals {
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let platform = Platform::parse("linux/arm/v7").unwrap();
        let mut globals = Globals::new(&given, &platform, "last");
        globals.declare("G", Some("one"), '\\').unwrap();
        globals.declare("H", Some("${G}-two"), '\\').unwrap();
        globals
    }

    #[test]
    fn who_wins() {
        let globals = globals(&[("A", "given"), ("X", "nobody's"), ("http_proxy", "p")]);
        let mut scope = Scope::default();
        let mut declare = |name: &str, default: Option<&str>| {
            scope.declare(&globals, name, default, '\\').unwrap()
        };
        declare("A", Some("default"));
        declare("B", Some("$A-b"));
        declare("G", None);
        declare("H", Some("own"));
        declare("N", None);
        declare("TARGETPLATFORM", None);
        let word = |scope: &Scope, text: &str| scope.word(&globals, text, '\\').unwrap();
        assert_eq!(word(&scope, "$A $B $G $H [$N] $X"), "given given-b one own [] ");
        assert_eq!(word(&scope, "$TARGETPLATFORM$TARGETARCH"), "linux/arm/v7");
        assert_eq!(scope.proxies(&globals), ["http_proxy=p"]);
        scope.set("A", "env");
        assert_eq!(word(&scope, "$A"), "env");
        assert_eq!(scope.for_run(), ["B=given-b", "G=one", "H=own", "TARGETPLATFORM=linux/arm/v7"]);
        assert_eq!(globals.unused(), ["X"]);
        assert_eq!(globals.word("$H-$TARGETARCH", '\\').unwrap(), "one-two-arm");
    }
}
