//! The Dockerfile instructions that only change the configuration, as `--change` of `import` and
//! `commit` takes them.

use crate::config::{ContainerConfig, Empty, Healthcheck};
use crate::{Error, Result};

/// Applies one instruction, such as `CMD ["sh"]` or `ENV A=b`, to a configuration.
///
/// # Errors
/// [`Error::Instruction`] for an instruction that is unknown, changes files, or has wrong arguments.
pub fn apply(config: &mut ContainerConfig, line: &str) -> Result<()> {
    let bad = |reason: &str| Error::Instruction(line.to_owned(), reason.to_owned());
    let line_trimmed = line.trim();
    let (name, rest) = line_trimmed
        .split_once(|c: char| c.is_ascii_whitespace())
        .map_or((line_trimmed, ""), |(name, rest)| (name, rest.trim()));
    let name = name.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(bad(&format!("{name} requires at least one argument")));
    }
    let fail = |reason: String| bad(&reason);
    match name.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            for (key, value) in pairs(rest).map_err(fail)? {
                let entry = format!("{key}={value}");
                let prefix = format!("{key}=");
                match config.env.iter_mut().find(|old| old.starts_with(&prefix)) {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).map_err(fail)?),
        "EXPOSE" => {
            for word in words(rest).map_err(fail)? {
                for port in
                    ports(&word).ok_or_else(|| bad("expected port[-port][/tcp|udp|sctp]"))?
                {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => {
            let base = if rest.starts_with('/') { "" } else { config.working_dir.as_str() };
            config.working_dir = clean_path(&format!("{base}/{rest}"));
        }
        "VOLUME" => {
            let list = match json_list(rest) {
                Some(list) => list,
                None => words(rest).map_err(fail)?,
            };
            if list.iter().any(|path| path.trim().is_empty()) {
                return Err(bad("VOLUME specified can not be an empty string"));
            }
            config.volumes.extend(list.into_iter().map(|path| (path, Empty {})));
        }
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "SHELL" => {
            config.shell = json_list(rest)
                .ok_or_else(|| bad("SHELL requires the arguments to be in JSON form"))?;
        }
        "ONBUILD" => {
            let trigger = rest.split_ascii_whitespace().next().unwrap_or_default();
            if ["ONBUILD", "FROM", "MAINTAINER"].iter().any(|no| trigger.eq_ignore_ascii_case(no)) {
                return Err(bad(&format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            config.on_build.push(rest.to_owned());
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest).map_err(fail)?),
        other => return Err(bad(&format!("{other} is not a valid change command"))),
    }
    Ok(())
}

/// `["a", "b"]` if it is that.
fn json_list(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// The exec form as it is, the shell form through the shell.
fn command(config: &ContainerConfig, text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| {
        let mut shell = config.shell.clone();
        if shell.is_empty() {
            shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        shell.push(text.to_owned());
        shell
    })
}

/// Splits at blanks; quotes group, a backslash escapes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if q == c => quote = None,
            (None | Some('"'), '\\') => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("unterminated quote".to_owned());
    }
    out.extend(word);
    Ok(out)
}

/// `a=b c="d e"`, or the old form `a b c` which sets a to `b c`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or_else(|| format!("{text} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut out = Vec::new();
    for word in words(text)? {
        match word.split_once('=') {
            Some(("", _)) => return Err("names can not be blank".to_owned()),
            Some((key, value)) => out.push((key.to_owned(), value.to_owned())),
            None => {
                return Err(format!("can't find = in {word:?}. Must be of the form: name=value"));
            }
        }
    }
    Ok(out)
}

fn ports(word: &str) -> Option<Vec<String>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if first == 0 || first > last {
        return None;
    }
    Some((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Removes `.`, `..` and doubled slashes from an absolute path.
fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn healthcheck(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while rest.starts_with("--") {
        let (option, tail) =
            rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        rest = tail.trim_start();
        let (name, value) =
            option.split_once('=').ok_or_else(|| format!("{option} needs a value: {option}=…"))?;
        match name {
            "--interval" => check.interval = duration(value)?,
            "--timeout" => check.timeout = duration(value)?,
            "--start-period" => check.start_period = duration(value)?,
            "--start-interval" => check.start_interval = duration(value)?,
            "--retries" => {
                check.retries = value.parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
                    format!("--retries must be a number of at least 0, not {value:?}")
                })?;
            }
            other => return Err(format!("unknown flag {other}")),
        }
    }
    let (kind, command) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    let command = command.trim();
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" if command.is_empty() => {
            return Err("missing command after HEALTHCHECK CMD".to_owned());
        }
        "CMD" => {
            check.test = match json_list(command) {
                Some(list) => [vec!["CMD".to_owned()], list].concat(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
        }
        other => return Err(format!("unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    Ok(check)
}

/// A Go duration (`1m30s`, `500ms`) in nanoseconds.
///
/// # Errors
/// A description of what is wrong.
pub fn duration(text: &str) -> Result<i64, String> {
    let bad = || {
        format!("invalid duration {text:?}: expected a number with a unit, such as 30s or 1m30s")
    };
    let mut rest = text;
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = tail;
    }
    // Whole nanoseconds below this bound are exact in both types.
    if total < 9e18 { Ok(total.round() as i64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(lines: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        for line in lines {
            apply(&mut config, line).unwrap();
        }
        config
    }

    #[test]
    fn instructions() {
        let config = changed(&[
            "SHELL [\"/bin/bash\", \"-c\"]",
            "cmd echo hi",
            "ENTRYPOINT [\"/x\", \"y\"]",
            "ENV A=b C=\"d e\" F=g\\ h",
            "ENV A new value",
            "EXPOSE 80 90-91/udp",
            "VOLUME [\"/a b\"]",
            "VOLUME /c /d",
            "WORKDIR /srv",
            "WORKDIR ../app/.",
            "LABEL a=b",
            "USER me",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
        ]);
        assert_eq!(config.cmd.unwrap(), ["/bin/bash", "-c", "echo hi"]);
        assert_eq!(config.entrypoint.unwrap(), ["/x", "y"]);
        assert_eq!(config.env, ["A=new value", "C=d e", "F=g h"]);
        let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["80/tcp", "90/udp", "91/udp"]);
        let volumes: Vec<_> = config.volumes.keys().map(String::as_str).collect();
        assert_eq!(volumes, ["/a b", "/c", "/d"]);
        assert_eq!(config.working_dir, "/app");
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl x"]);
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
    }

    #[test]
    fn wrong_instructions() {
        for line in [
            "",
            "CMD",
            "RUN x",
            "ENV A",
            "ENV A=\"b",
            "EXPOSE 0",
            "EXPOSE 2-1",
            "SHELL sh",
            "ONBUILD FROM x",
            "HEALTHCHECK NONE x",
            "HEALTHCHECK --interval=1 CMD x",
            "VOLUME \"\"",
        ] {
            assert!(apply(&mut ContainerConfig::default(), line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(name in "CMD|ENV|LABEL|EXPOSE|VOLUME|HEALTHCHECK|WORKDIR|SHELL", rest in "\\PC{0,30}") {
            let _ = apply(&mut ContainerConfig::default(), &format!("{name} {rest}"));
            let _ = duration(&rest);
        }
    }
}
