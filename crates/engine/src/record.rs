//! The record of a container: what the database knows of it.

use runtime::state::ProcessIdentity;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::names;
use crate::types::{Config, Health, HostConfig, Mount, MountPoint, Rootfs};

/// What was decided when the container was created; changes only by `rename` and `update`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Definition {
    #[serde(serialize_with = "sparse")]
    pub(crate) config: Config,
    #[serde(serialize_with = "sparse")]
    pub(crate) host: HostConfig,
    pub(crate) rootfs: Option<Rootfs>,
    /// Entry point and command together.
    pub(crate) argv: Vec<String>,
    /// Mounts beyond the root filesystem and the engine's own, in the order they are made.
    pub(crate) mounts: Vec<PlannedMount>,
    /// It is a step of a build: nobody's container but that process's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) builder: Option<ProcessIdentity>,
}

/// Leaves out the fields that have their default value: that is most of them, and `ps` reads all records.
fn sparse<T: Serialize + Default, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let whole = |value: &T| serde_json::to_value(value).map_err(serde::ser::Error::custom);
    let (mut fields, default) = (whole(value)?, whole(&T::default())?);
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|key, value| default.get(key) != Some(value));
    }
    fields.serialize(serializer)
}

/// A mount as it was understood at creation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PlannedMount {
    /// As it was asked for, in the long form.
    pub(crate) mount: Mount,
    /// For `inspect`.
    pub(crate) point: MountPoint,
    /// Options of a `tmpfs`, or of a `-v`.
    pub(crate) options: Vec<String>,
    /// An anonymous volume, removed with the container by `rm -v` and `--rm`.
    pub(crate) anonymous: bool,
}

/// What is known only of the present or last run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Run {
    /// Path of its cgroup below the root of each hierarchy.
    pub(crate) cgroup: Option<String>,
    /// A person stopped it: no restart policy but `always` starts it again, and that only
    /// with the engine's own start.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stopped_by_hand: bool,
    /// It was stopped because the host ends: no restart policy starts it again before the engine's own start, and
    /// that as if it had gone on until the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) halted: bool,
    /// When the restart policy starts it again, ns since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart_at: Option<i64>,
    /// It can not be started at all; the restart policy has given up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gave_up: bool,
    /// Pause before the next restart, ns.
    pub(crate) restart_delay: i64,
    /// Result of the health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
    /// An OCI runtime other than our own runs it; its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) foreign_runtime: Option<String>,
}

/// What a container is doing, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Removing,
    Dead,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Restarting => "restarting",
            State::Exited => "exited",
            State::Removing => "removing",
            State::Dead => "dead",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "created" => State::Created,
            "running" => State::Running,
            "paused" => State::Paused,
            "restarting" => State::Restarting,
            "removing" => State::Removing,
            "dead" => State::Dead,
            _ => State::Exited,
        }
    }

    /// A process of it lives.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, State::Running | State::Paused)
    }
}

/// The record of a container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created_ns: i64,
    pub(crate) state: State,
    pub(crate) image_id: Option<String>,
    pub(crate) definition: Definition,
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    pub(crate) started_ns: i64,
    pub(crate) finished_ns: i64,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    pub(crate) restarts: u32,
    pub(crate) error: String,
    pub(crate) run: Run,
}

impl Record {
    /// A container that was never started, with no name yet.
    pub(crate) fn new(id: String, image_id: Option<String>, definition: Definition) -> Self {
        Self {
            id,
            name: String::new(),
            created_ns: clock::now(),
            state: State::Created,
            image_id,
            definition,
            pid: 0,
            start_time: 0,
            boot_id: String::new(),
            started_ns: 0,
            finished_ns: 0,
            exit_code: 0,
            oom_killed: false,
            restarts: 0,
            error: String::new(),
            run: Run::default(),
        }
    }
}

const COLUMNS: &str = "id, name, created_ns, state, image_id, config, pid, start_time, boot_id, \
     started_ns, finished_ns, exit_code, oom_killed, restarts, error, runtime";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    let json = |index: usize| -> rusqlite::Result<Vec<u8>> {
        Ok(row.get::<_, Option<Vec<u8>>>(index)?.unwrap_or_default())
    };
    let bad = |index, e: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, Box::new(e))
    };
    let run = json(15)?;
    Ok(Record {
        id: row.get(0)?,
        name: row.get(1)?,
        created_ns: row.get(2)?,
        state: State::parse(&row.get::<_, String>(3)?),
        image_id: row.get(4)?,
        definition: serde_json::from_slice(&json(5)?).map_err(|e| bad(5, e))?,
        pid: row.get::<_, Option<i32>>(6)?.unwrap_or(0),
        start_time: row.get::<_, Option<i64>>(7)?.unwrap_or(0).cast_unsigned(),
        boot_id: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
        started_ns: row.get::<_, Option<i64>>(9)?.unwrap_or(0),
        finished_ns: row.get::<_, Option<i64>>(10)?.unwrap_or(0),
        exit_code: row.get::<_, Option<i32>>(11)?.unwrap_or(0),
        oom_killed: row.get(12)?,
        restarts: row.get(13)?,
        error: row.get::<_, Option<String>>(14)?.unwrap_or_default(),
        run: if run.is_empty() {
            Run::default()
        } else {
            serde_json::from_slice(&run).map_err(|e| bad(15, e))?
        },
    })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::system("cannot write a record", e))
}

/// Fails with `Conflict` if a container has this name.
pub(crate) fn check_name_free(tx: &Transaction<'_>, name: &str) -> Result<()> {
    let taken: Option<String> = tx
        .prepare_cached("SELECT id FROM containers WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(id) = taken {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{id}\". \
                 You have to remove (or rename) that container to be able to reuse that name.",
                name
            ),
        ));
    }
    Ok(())
}

/// Inserts a new record; `Conflict` if the name is taken.
pub(crate) fn insert(tx: &Transaction<'_>, r: &Record) -> Result<()> {
    check_name_free(tx, &r.name)?;
    tx.prepare_cached(
        "INSERT INTO containers(id, name, created_ns, state, image_id, config, runtime) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        r.id,
        r.name,
        r.created_ns,
        r.state.name(),
        r.image_id,
        json(&r.definition)?,
        json(&r.run)?
    ])?;
    for volume in r.definition.mounts.iter().filter(|m| m.mount.r#type == "volume") {
        tx.prepare_cached("INSERT OR IGNORE INTO container_volumes VALUES (?1, ?2)")?
            .execute([&r.id, &volume.mount.source])?;
    }
    Ok(())
}

/// Writes all that changes in the life of a container; not its definition or its name.
pub(crate) fn update(tx: &Transaction<'_>, r: &Record) -> Result<()> {
    tx.prepare_cached(
        "UPDATE containers SET state = ?2, pid = ?3, start_time = ?4, boot_id = ?5, \
         started_ns = ?6, finished_ns = ?7, exit_code = ?8, oom_killed = ?9, restarts = ?10, \
         error = ?11, runtime = ?12 WHERE id = ?1",
    )?
    .execute(params![
        r.id,
        r.state.name(),
        r.pid,
        r.start_time.cast_signed(),
        r.boot_id,
        r.started_ns,
        r.finished_ns,
        r.exit_code,
        r.oom_killed,
        r.restarts,
        r.error,
        json(&r.run)?
    ])?;
    Ok(())
}

/// Writes a changed definition.
pub(crate) fn update_definition(tx: &Transaction<'_>, r: &Record) -> Result<()> {
    tx.execute(
        "UPDATE containers SET config = ?2 WHERE id = ?1",
        params![r.id, json(&r.definition)?],
    )?;
    Ok(())
}

/// The present name of the container with exactly this id.
pub(crate) fn name_of(db: &Connection, id: &str) -> Result<Option<String>> {
    Ok(db
        .prepare_cached("SELECT name FROM containers WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?)
}

/// What the container with exactly this id is doing, and when its present or last run began.
pub(crate) fn step_of(db: &Connection, id: &str) -> Result<Option<(State, i64)>> {
    Ok(db
        .prepare_cached("SELECT state, started_ns FROM containers WHERE id = ?1")?
        .query_row([id], |row| {
            let state = State::parse(row.get_ref(0)?.as_str()?);
            Ok((state, row.get::<_, Option<i64>>(1)?.unwrap_or(0)))
        })
        .optional()?)
}

/// The record with exactly this id.
pub(crate) fn by_id(db: &Connection, id: &str) -> Result<Option<Record>> {
    Ok(db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()?)
}

/// The record with this id, name (with or without a leading slash), or unambiguous
/// beginning of an id, in Docker's order of preference.
pub(crate) fn find(db: &Connection, name: &str) -> Result<Record> {
    let missing = || Error::new(ErrorKind::NotFound, format!("No such container: {name}"));
    let bare = name.strip_prefix('/').unwrap_or(name);
    if bare.is_empty() {
        return Err(missing());
    }
    if bare.len() == names::ID_LENGTH
        && let Some(record) = by_id(db, bare)?
    {
        return Ok(record);
    }
    let by_name = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE name = ?1"))?
        .query_row([bare], from_row)
        .optional()?;
    if let Some(record) = by_name {
        return Ok(record);
    }
    if !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM containers WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2"
    ))?;
    let mut found = statement.query_map([bare], from_row)?.collect::<Result<Vec<_>, _>>()?;
    match (found.pop(), found.pop()) {
        (Some(record), None) => Ok(record),
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "multiple IDs found with provided prefix: {name}: give more digits"
        ))),
        _ => Err(missing()),
    }
}

/// All records, the youngest first.
pub(crate) fn all(db: &Connection) -> Result<Vec<Record>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM containers ORDER BY created_ns DESC, id"
    ))?;
    Ok(statement.query_map([], from_row)?.collect::<Result<_, _>>()?)
}

/// What tells one run of a container from another.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
    pub(crate) started_ns: i64,
}

impl Live {
    /// The run that a record tells of.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            id: record.id.clone(),
            pid: record.pid,
            start_time: record.start_time,
            boot_id: record.boot_id.clone(),
            started_ns: record.started_ns,
        }
    }
}

/// What a container is doing, without what it is.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) run: Live,
    pub(crate) created_ns: i64,
    pub(crate) state: State,
}

const OUTLINE: &str = "id, pid, start_time, boot_id, started_ns, created_ns, state";

fn outline_from_row(row: &Row<'_>) -> rusqlite::Result<Outline> {
    Ok(Outline {
        run: Live {
            id: row.get(0)?,
            pid: row.get::<_, Option<i32>>(1)?.unwrap_or(0),
            start_time: row.get::<_, Option<i64>>(2)?.unwrap_or(0).cast_unsigned(),
            boot_id: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            started_ns: row.get::<_, Option<i64>>(4)?.unwrap_or(0),
        },
        created_ns: row.get(5)?,
        state: State::parse(row.get_ref(6)?.as_str()?),
    })
}

/// Of all containers, the youngest first. Their definitions are not read: with thousands of containers that would take
/// longer than all else.
pub(crate) fn outlines(db: &Connection) -> Result<Vec<Outline>> {
    let mut statement = db.prepare_cached(&format!("SELECT {OUTLINE} FROM containers"))?;
    let mut all = statement.query_map([], outline_from_row)?.collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| b.created_ns.cmp(&a.created_ns).then_with(|| a.run.id.cmp(&b.run.id)));
    Ok(all)
}

/// The runs of containers that are stored as running.
pub(crate) fn live(db: &Connection) -> Result<Vec<Live>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {OUTLINE} FROM containers WHERE state IN ('running', 'paused')"
    ))?;
    let rows = statement.query_map([], outline_from_row)?;
    Ok(rows.map(|row| row.map(|outline| outline.run)).collect::<Result<_, _>>()?)
}

/// The records of containers that are stored as running.
pub(crate) fn live_records(db: &Connection) -> Result<Vec<Record>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM containers WHERE state IN ('running', 'paused')"
    ))?;
    Ok(statement.query_map([], from_row)?.collect::<Result<_, _>>()?)
}

/// Removes a record; false if there was none.
pub(crate) fn delete(tx: &Transaction<'_>, id: &str) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM containers WHERE id = ?1")?.execute([id])? > 0)
}

/// A record that says nothing, for tests.
#[cfg(test)]
pub(crate) fn tests_record(name: &str) -> Record {
    Record {
        name: name.into(),
        state: State::Exited,
        ..Record::new(name.into(), None, Definition::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RestartPolicy;

    #[test]
    fn what_has_its_default_value_is_left_out_and_comes_back() {
        let restart_policy = RestartPolicy { maximum_retry_count: 3, ..RestartPolicy::default() };
        let definition = Definition {
            config: Config { image: "bb".into(), tty: true, ..Config::default() },
            host: HostConfig {
                network_mode: "none".into(),
                restart_policy,
                ..HostConfig::default()
            },
            argv: vec!["true".into()],
            ..Definition::default()
        };
        let text = String::from_utf8(json(&definition).unwrap()).unwrap();
        assert!(text.starts_with(r#"{"config":{"Image":"bb","Tty":true},"host":{"#), "{text}");
        assert!(text.len() < 250, "{text}");
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
        // As older versions wrote it.
        let whole = serde_json::json!({
            "config": definition.config, "host": definition.host, "argv": definition.argv, "mounts": [],
        });
        assert_eq!(serde_json::from_value::<Definition>(whole).unwrap(), definition);
        let run = Run { restart_delay: 7, halted: true, ..Run::default() };
        assert_eq!(serde_json::from_slice::<Run>(&json(&run).unwrap()).unwrap(), run);
    }
}
