//! `ps` and `inspect`.

use std::collections::BTreeMap;

use crate::clock::{self, human_duration, rfc3339};
use crate::engine::{Engine, Filters, ListOptions};
use crate::error::{Error, Result};
use crate::record::{self, Record, State};
use crate::spec::Security;
use crate::types::{
    ContainerInspect, ContainerState, ContainerSummary, GraphDriver, SummaryHostConfig,
    SummaryNetworks,
};

/// Names of filters that `ps` knows.
pub(crate) const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// Refuses filters nobody knows.
pub(crate) fn check_filters(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            Err(Error::invalid(format!("invalid filter '{name}': known are {}", known.join(", "))))
        }
    }
}

/// Whether labels have `key` or `key=value`.
pub(crate) fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

/// Reads a time of a filter: RFC 3339, seconds since 1970, or a duration before now; nanoseconds since 1970.
///
/// # Errors
/// A text that is none of these.
pub fn parse_time(text: &str) -> Result<i64> {
    let invalid = || {
        Error::invalid(format!(
            "failed to parse time {text:?}: give a duration such as 24h, a date or seconds since 1970"
        ))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return i64::try_from(time.as_nanosecond()).map_err(|_| invalid());
    }
    if let Ok(duration) = oci::instruction::duration(text) {
        return Ok(clock::now().saturating_sub(duration));
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>()
        && let Ok(time) = time.to_zoned(jiff::tz::TimeZone::system())
    {
        return i64::try_from(time.timestamp().as_nanosecond()).map_err(|_| invalid());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>()
        && let Ok(time) = date.to_zoned(jiff::tz::TimeZone::system())
    {
        return i64::try_from(time.timestamp().as_nanosecond()).map_err(|_| invalid());
    }
    Err(invalid())
}

/// Whether something is to be pruned, by the filters `until`, `label` and `label!`.
pub(crate) fn prune_matches(
    filters: &Filters,
    created_ns: i64,
    labels: &BTreeMap<String, String>,
) -> Result<bool> {
    for (name, values) in filters {
        let fits = match name.as_str() {
            "until" => {
                let mut all = true;
                for value in values {
                    all &= created_ns < parse_time(value)?;
                }
                all
            }
            "label" => values.iter().all(|v| has_label(labels, v)),
            "label!" => !values.iter().any(|v| has_label(labels, v)),
            _ => true,
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// For people: `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
fn status_text(record: &Record, now: i64) -> String {
    let ago = |ns: i64| human_duration((now - ns).max(0) / 1_000_000_000);
    let up = || {
        let health = match record.run.health.as_ref().map(|h| h.status.as_str()) {
            Some("starting") => " (health: starting)",
            Some("healthy") => " (healthy)",
            Some("unhealthy") => " (unhealthy)",
            _ => "",
        };
        format!("Up {}{health}", ago(record.started_ns))
    };
    match record.state {
        State::Created => "Created".into(),
        State::Running => up(),
        State::Paused => format!("{} (Paused)", up()),
        State::Restarting => {
            format!("Restarting ({}) {} ago", record.exit_code, ago(record.finished_ns))
        }
        State::Removing => "Removal In Progress".into(),
        State::Dead => "Dead".into(),
        State::Exited if record.finished_ns == 0 => "Created".into(),
        State::Exited => format!("Exited ({}) {} ago", record.exit_code, ago(record.finished_ns)),
    }
}

fn health_of(record: &Record) -> &str {
    record.run.health.as_ref().map_or("none", |h| h.status.as_str())
}

/// The command for people: arguments with spaces in quotes.
fn command_line(argv: &[String]) -> String {
    let mut line = String::new();
    for (n, argument) in argv.iter().enumerate() {
        match (n, argument.contains(' ')) {
            (0, _) => line.push_str(argument),
            (_, true) => line.push_str(&format!(" '{argument}'")),
            (_, false) => line.push_str(&format!(" {argument}")),
        }
    }
    line
}

impl Engine {
    fn summary(&self, record: &Record, now: i64) -> Result<ContainerSummary> {
        let definition = &record.definition;
        let image = match (&definition.rootfs, &record.image_id) {
            (Some(rootfs), _) => rootfs.path.clone(),
            _ => definition.config.image.clone(),
        };
        let networks = self.endpoints_shown(record)?;
        let networks = networks.into_iter().map(|(name, e)| (name, Box::new(e))).collect();
        Ok(ContainerSummary {
            id: record.id.clone(),
            names: vec![format!("/{}", record.name)],
            image,
            image_id: record.image_id.clone().unwrap_or_default(),
            command: command_line(&definition.argv),
            created: record.created_ns / 1_000_000_000,
            ports: self.ports_shown(record)?,
            size_rw: None,
            size_root_fs: None,
            labels: definition.config.labels.clone(),
            state: record.state.name().into(),
            status: status_text(record, now),
            host_config: SummaryHostConfig { network_mode: definition.host.network_mode.clone() },
            network_settings: SummaryNetworks { networks },
            mounts: definition.mounts.iter().map(|m| m.point.clone()).collect(),
        })
    }

    /// Rows of `ps`, the youngest first.
    pub fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let filters = &options.filters;
        check_filters(filters, &FILTERS)?;
        self.check_filter_values(filters)?;
        // What each of them is doing is read first; again only if it was not true any more.
        self.reconcile()?;
        let mut outlines = record::outlines(self.db())?;
        if self.compare(outlines.iter().filter(|o| o.state.is_live()).map(|o| &o.run))?.changed {
            outlines = record::outlines(self.db())?;
        }
        let bound = |name: &str| -> Result<Option<Record>> {
            match filters.get(name).and_then(|v| v.first()) {
                Some(other) => Ok(Some(record::find(self.db(), other)?)),
                None => Ok(None),
            }
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let ancestors = self.ancestors(filters)?;
        let asks_state = filters.contains_key("status") || filters.contains_key("exited");
        let all = options.all
            || options.limit.is_some()
            || asks_state
            || filters.contains_key("before")
            || filters.contains_key("since");
        let now = clock::now();
        let mut rows = Vec::new();
        let _snapshot = self.db().unchecked_transaction()?;
        for outline in outlines {
            let created_ns = outline.created_ns;
            let shown = all || outline.state.is_live() || outline.state == State::Restarting;
            let placed = before.as_ref().is_none_or(|b| created_ns < b.created_ns)
                && since.as_ref().is_none_or(|s| created_ns > s.created_ns);
            if !shown || !placed {
                continue;
            }
            let Some(record) = record::by_id(self.db(), &outline.run.id)? else { continue };
            if record.definition.builder.is_some() || !matches(&record, filters, &ancestors) {
                continue;
            }
            if !self.network_filters_match(&record, filters)? {
                continue;
            }
            let mut row = self.summary(&record, now)?;
            if options.size {
                let (rw, root) = self.sizes(&record)?;
                (row.size_rw, row.size_root_fs) = (Some(rw), Some(root));
            }
            rows.push(row);
            if options.limit.is_some_and(|limit| limit > 0 && rows.len() >= limit) {
                break;
            }
        }
        Ok(rows)
    }

    fn check_filter_values(&self, filters: &Filters) -> Result<()> {
        for value in filters.get("status").into_iter().flatten() {
            let known =
                ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
            if !known.contains(&value.as_str()) {
                return Err(Error::invalid(format!(
                    "invalid filter 'status={value}': known are {}",
                    known.join(", ")
                )));
            }
        }
        for value in filters.get("health").into_iter().flatten() {
            if !["none", "starting", "healthy", "unhealthy"].contains(&value.as_str()) {
                return Err(Error::invalid(format!(
                    "Unrecognised filter value for health: {value}"
                )));
            }
        }
        for value in filters.get("exited").into_iter().flatten() {
            if value.parse::<i32>().is_err() {
                return Err(Error::invalid(format!(
                    "invalid filter 'exited={value}': give a number"
                )));
            }
        }
        Ok(())
    }

    /// Ids of images for the filter `ancestor`; an image that is not here has no
    /// containers.
    fn ancestors(&self, filters: &Filters) -> Result<Option<Vec<String>>> {
        let Some(names) = filters.get("ancestor") else { return Ok(None) };
        let mut ids = Vec::new();
        for name in names {
            match self.store().image(name) {
                Ok(image) => ids.push(image.id.to_string()),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Some(ids))
    }

    /// Bytes of the writable layer, and of the whole root filesystem.
    pub(crate) fn sizes(&self, record: &Record) -> Result<(i64, i64)> {
        let own = match self.store().writable(&record.id) {
            Ok(layer) => layer.size()?,
            Err(e) if e.is_not_found() => 0,
            Err(e) => return Err(e.into()),
        };
        let image = match record.image_id.as_deref().map(str::parse) {
            Some(Ok(id)) => self.store().image_by_id(&id).map_or(0, |i| i.size),
            _ => 0,
        };
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok((signed(own), signed(own.saturating_add(image))))
    }

    /// Everything about a container.
    pub fn inspect(&self, name: &str, size: bool) -> Result<ContainerInspect> {
        let record = self.current(name)?;
        let running = match record.state.is_live() {
            true => self.keeper().running(&record.id)?,
            false => None,
        };
        let (size_rw, size_root_fs) = match size {
            true => {
                let (rw, root) = self.sizes(&record)?;
                (Some(rw), Some(root))
            }
            false => (None, None),
        };
        let definition = record.definition.clone();
        let directory = self.store().container_directory(&record.id);
        let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let driver = definition.host.log_config.r#type.as_str();
        let log_path =
            if matches!(driver, "none" | "passthrough") { String::new() } else { file("journal") };
        let mut data = BTreeMap::new();
        data.insert("UpperDir".to_owned(), file("upper"));
        data.insert("WorkDir".to_owned(), file("work"));
        if let Ok(layer) = self.store().writable(&record.id) {
            let paths = layer.lower_paths();
            let paths: Vec<_> = paths.iter().map(|p| p.to_string_lossy()).collect();
            data.insert("LowerDir".to_owned(), paths.join(":"));
        }
        let security =
            Security::parse(definition.host.security_opt.as_deref().unwrap_or_default())?;
        Ok(ContainerInspect {
            created: rfc3339(record.created_ns),
            path: definition.argv.first().cloned().unwrap_or_default(),
            args: definition.argv.get(1..).unwrap_or_default().to_vec(),
            state: state(&record),
            image: record.image_id.clone().unwrap_or_default(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path,
            name: format!("/{}", record.name),
            restart_count: record.restarts,
            driver: "overlay".into(),
            platform: "linux".into(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: security.apparmor.unwrap_or_default(),
            exec_ids: running
                .map(|r| r.execs.into_keys().collect::<Vec<_>>())
                .filter(|l| !l.is_empty()),
            host_config: {
                let mut host = definition.host.clone();
                // Records of the first versions have none, which means our own.
                if host.runtime.is_empty() {
                    crate::foreign::OWN[0].clone_into(&mut host.runtime);
                }
                host
            },
            graph_driver: GraphDriver { data: Some(data), name: "overlay".into() },
            size_rw,
            size_root_fs,
            mounts: definition.mounts.iter().map(|m| m.point.clone()).collect(),
            network_settings: self.network_settings(&record)?,
            config: {
                let mut config = definition.config;
                if config.hostname.is_empty() {
                    config.hostname = record.id.get(..12).unwrap_or_default().to_owned();
                }
                config
            },
            rootfs: definition.rootfs,
            id: record.id,
        })
    }

    /// For `info`: running, paused, stopped containers, and images.
    pub fn counts(&self) -> Result<(usize, usize, usize, usize)> {
        self.reconcile_all()?;
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        let mut statement =
            self.db().prepare(
            "SELECT state, count(*) FROM containers WHERE json_extract(CAST(config AS TEXT), '$.builder') IS NULL \
             GROUP BY state",
        )?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)? as usize)))?;
        for row in rows {
            match row? {
                (state, n) if state == "running" => running += n,
                (state, n) if state == "paused" => paused += n,
                (_, n) => stopped += n,
            }
        }
        let images: u32 =
            self.db().query_row("SELECT count(*) FROM images", [], |row| row.get(0))?;
        Ok((running, paused, stopped, images as usize))
    }
}

fn state(record: &Record) -> ContainerState {
    ContainerState {
        status: record.state.name().into(),
        running: record.state.is_live() || record.state == State::Restarting,
        paused: record.state == State::Paused,
        restarting: record.state == State::Restarting,
        oom_killed: record.oom_killed,
        dead: record.state == State::Dead,
        pid: record.pid,
        exit_code: record.exit_code,
        error: record.error.clone(),
        started_at: rfc3339(record.started_ns),
        finished_at: rfc3339(record.finished_ns),
        health: record.run.health.clone(),
    }
}

/// Whether a name has the filter's value somewhere; `^` and `$` tie it to the ends.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (end, rest) = match rest.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let with_slash = format!("/{name}");
    [name, with_slash.as_str()].into_iter().any(|name| match (start, end) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    })
}

fn matches(record: &Record, filters: &Filters, ancestors: &Option<Vec<String>>) -> bool {
    let definition = &record.definition;
    filters.iter().all(|(name, values)| match name.as_str() {
        // All labels must be there; of the others one value is enough.
        "label" => values.iter().all(|v| has_label(&definition.config.labels, v)),
        "ancestor" => ancestors
            .as_ref()
            .is_some_and(|ids| record.image_id.as_ref().is_some_and(|id| ids.contains(id))),
        "before" | "since" => true,
        _ => values.iter().any(|value| match name.as_str() {
            "id" => record.id.starts_with(value.as_str()),
            "name" => name_matches(&record.name, value),
            "status" => record.state.name() == value,
            "exited" => record.state == State::Exited && value.parse() == Ok(record.exit_code),
            "health" => health_of(record) == value,
            // Looked at elsewhere: they need more than the record.
            "network" | "publish" => true,
            "volume" => definition.mounts.iter().any(|m| {
                m.point.name == *value || m.point.destination == *value || m.point.source == *value
            }),
            "expose" => definition.config.exposed_ports.as_ref().is_some_and(|ports| {
                ports.keys().any(|port| crate::network::port_matches(port, value))
            }),
            "is-task" => value == "false",
            "isolation" => value == "default" || value.is_empty(),
            _ => false,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_parts_and_ends() {
        for (name, pattern, want) in [
            ("web1", "web", true),
            ("web1", "^web1$", true),
            ("web1", "^/web1$", true),
            ("aweb", "^web", false),
            ("web", "b$", true),
        ] {
            assert_eq!(name_matches(name, pattern), want, "{name} {pattern}");
        }
    }

    #[test]
    fn times_of_filters() {
        assert_eq!(parse_time("10").unwrap(), 10_000_000_000);
        assert_eq!(parse_time("1970-01-01T00:00:01Z").unwrap(), 1_000_000_000);
        let hour = clock::now() - parse_time("1h").unwrap();
        assert!((hour - 3_600_000_000_000).abs() < 1_000_000_000);
        assert!(parse_time("soon").is_err());
    }
}
