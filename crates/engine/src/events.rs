//! Events: what happened to containers, images and volumes, in order, never lost and
//! never without bound.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use crate::engine::{Engine, EventOptions, Filters};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::types::{Event, EventActor};

/// Events kept; older ones are dropped.
const KEPT: i64 = 20_000;

/// Notes an event.
pub(crate) fn note(
    tx: &Transaction<'_>,
    time_ns: i64,
    kind: &str,
    action: &str,
    id: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<()> {
    let attributes =
        serde_json::to_string(attributes).map_err(|e| Error::system("cannot write an event", e))?;
    tx.prepare_cached(
        "INSERT INTO events(time_ns, type, action, actor_id, attributes) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![time_ns, kind, action, id, attributes])?;
    let seq = tx.last_insert_rowid();
    if seq % 256 == 0 {
        tx.execute("DELETE FROM events WHERE seq <= ?1", [seq - KEPT])?;
    }
    Ok(())
}

/// Notes an event of a container, with its image, name and labels.
pub(crate) fn note_container(
    tx: &Transaction<'_>,
    time_ns: i64,
    action: &str,
    record: &Record,
    more: &[(&str, String)],
) -> Result<()> {
    // Nobody knows the containers of builds.
    if record.definition.builder.is_some() {
        return Ok(());
    }
    let config = &record.definition.config;
    let (image, labels) = (&config.image, &config.labels);
    let subject = Subject { id: &record.id, name: &record.name, image, labels };
    note_subject(tx, time_ns, action, subject, more)
}

/// What an event says of the container it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// As it was asked for.
    pub(crate) image: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// As [`note_container`], without a record.
pub(crate) fn note_subject(
    tx: &Transaction<'_>,
    time_ns: i64,
    action: &str,
    subject: Subject<'_>,
    more: &[(&str, String)],
) -> Result<()> {
    let mut attributes = subject.labels.clone();
    attributes.insert("image".into(), subject.image.to_owned());
    attributes.insert("name".into(), subject.name.to_owned());
    for (key, value) in more {
        attributes.insert((*key).to_owned(), value.clone());
    }
    note(tx, time_ns, "container", action, subject.id, &attributes)
}

/// How many events are read at a time.
const PAGE: usize = 1000;

/// The next events after this number, as they were written down.
fn read_after(db: &Connection, seq: i64) -> Result<Vec<(i64, Event)>> {
    read(db, "WHERE seq > ?1 ORDER BY seq LIMIT 1000", params![seq])
}

/// The next events up to the number `last`, as they happened, after that of time and number `after`. What is reported
/// is written down later than what happened at the same time.
fn read_past(db: &Connection, last: i64, after: (i64, i64)) -> Result<Vec<(i64, Event)>> {
    let which = "WHERE seq <= ?1 AND (time_ns, seq) > (?2, ?3) ORDER BY time_ns, seq LIMIT 1000";
    read(db, which, params![last, after.0, after.1])
}

fn read(db: &Connection, which: &str, params: impl rusqlite::Params) -> Result<Vec<(i64, Event)>> {
    let query =
        format!("SELECT seq, time_ns, type, action, actor_id, attributes FROM events {which}");
    let mut statement = db.prepare_cached(&query)?;
    let rows = statement.query_map(params, |row| {
        let time_ns: i64 = row.get(1)?;
        let attributes: BTreeMap<String, String> =
            serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default();
        let kind: String = row.get(2)?;
        let action: String = row.get(3)?;
        let id: String = row.get(4)?;
        let old_names = kind == "container" || kind == "image";
        Ok((
            row.get(0)?,
            Event {
                status: if old_names { action.clone() } else { String::new() },
                id: if old_names { id.clone() } else { String::new() },
                from: if kind == "container" {
                    attributes.get("image").cloned().unwrap_or_default()
                } else {
                    String::new()
                },
                kind,
                action,
                actor: EventActor { id, attributes },
                scope: "local".into(),
                time: time_ns.div_euclid(1_000_000_000),
                time_nano: time_ns,
            },
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Names of filters that `events` knows.
pub(crate) const FILTERS: [&str; 10] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "scope",
    "type",
    "volume",
];

/// Whether filters let an event through.
pub fn event_matches(event: &Event, filters: &Filters) -> bool {
    filters.iter().all(|(name, values)| {
        let attribute = |key: &str| event.actor.attributes.get(key).map(String::as_str);
        let actor = |kind: &str, value: &str| {
            event.kind == kind
                && (event.actor.id == value
                    || (!value.is_empty() && event.actor.id.starts_with(value))
                    || attribute("name") == Some(value))
        };
        values.iter().any(|value| match name.as_str() {
            // `exec_start: sh` is found as `exec_start`.
            "event" => {
                event.action == *value || event.action.split(':').next() == Some(value.as_str())
            }
            "type" => event.kind == *value,
            "scope" => event.scope == *value,
            "container" => actor("container", value),
            "volume" => actor("volume", value),
            "network" => actor("network", value),
            "image" => {
                actor("image", value)
                    || attribute("image").is_some_and(|image| {
                        image == value
                            || image.split_once(':').is_some_and(|(name, _)| name == value)
                    })
            }
            "label" => match value.split_once('=') {
                Some((key, wanted)) => attribute(key) == Some(wanted),
                None => attribute(value).is_some(),
            },
            "daemon" => event.kind == "daemon",
            _ => false,
        })
    })
}

impl Engine {
    /// Whether all names of filters are known.
    pub fn check_event_filters(&self, filters: &Filters) -> Result<()> {
        crate::list::check_filters(filters, &FILTERS)
    }

    /// Past events, then, until `until` or for ever, new ones. `sink` returns false to stop.
    pub fn events(&self, options: EventOptions, sink: &mut dyn FnMut(Event) -> bool) -> Result<()> {
        crate::list::check_filters(&options.filters, &FILTERS)?;
        let now = crate::clock::now();
        let past_only = options.until.is_some_and(|until| until <= now);
        let mut watch = if past_only { None } else { Some(crate::watch::Watch::new(self)?) };
        // Whether whoever listens wants more.
        let mut tell = |event: Event| {
            let early = options.since.is_some_and(|since| event.time_nano < since);
            let late = options.until.is_some_and(|until| event.time_nano > until);
            early || late || !event_matches(&event, &options.filters) || sink(event)
        };
        self.reconcile()?;
        let mut seq: i64 =
            self.db()
                .query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?;
        if let Some(since) = options.since {
            let mut after = (since.saturating_sub(1), i64::MAX);
            loop {
                let events = read_past(self.db(), seq, after)?;
                let full = events.len() == PAGE;
                for (number, event) in events {
                    after = (event.time_nano, number);
                    if !tell(event) {
                        return Ok(());
                    }
                }
                if !full {
                    break;
                }
            }
        }
        loop {
            loop {
                let events = read_after(self.db(), seq)?;
                let full = events.len() == PAGE;
                for (number, event) in events {
                    seq = number;
                    if !tell(event) {
                        return Ok(());
                    }
                }
                if !full {
                    break;
                }
            }
            let Some(watch) = &mut watch else { return Ok(()) };
            let left = match options.until {
                Some(until) => {
                    let left = until.saturating_sub(crate::clock::now());
                    let Ok(left) = u64::try_from(left) else { return Ok(()) };
                    Some(Duration::from_nanos(left))
                }
                None => None,
            };
            watch.wait(left)?;
            self.reconcile()?;
        }
    }
}
