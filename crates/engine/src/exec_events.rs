//! What the events say of execs.
//!
//! An exec opens no database. The keeper leaves two reports of it in the run root, of its start and of its end, with
//! a note that says of what; whichever process of the engine comes next takes them in, as it does with the ends of
//! containers. Who asks for events is such a process, and who waits for them is woken by the report.

use std::collections::BTreeMap;

use keeper::protocol::ExecReport;
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::{self, Subject};
use crate::exec::Made;
use crate::exec_basis::Basis;
use crate::reconcile::cannot_read_reports;
use crate::record::Record;
use crate::types::ExecConfig;

/// The key in the table `meta` of the reports that the last transaction has taken in: who was killed before it could
/// remove their files leaves them to be found again.
const TAKEN: &str = "exec-reports";

/// What the events say of an exec beside its id and its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    container: String,
    name: String,
    image: String,
    labels: BTreeMap<String, String>,
    words: String,
    /// The start is the first that is heard of it.
    #[serde(default)]
    first: bool,
}

fn words(config: &ExecConfig) -> String {
    config.cmd.as_deref().unwrap_or_default().join(" ")
}

impl Note {
    /// Of an exec that will be started later.
    pub(crate) fn new(record: &Record, config: &ExecConfig) -> Note {
        let made = &record.definition.config;
        Note {
            container: record.id.clone(),
            name: record.name.clone(),
            image: made.image.clone(),
            labels: made.labels.clone(),
            words: words(config),
            first: false,
        }
    }

    /// Of an exec that is being started.
    pub(crate) fn of(basis: Basis, made: Made, config: &ExecConfig) -> Note {
        let Basis { id, name, image, labels, .. } = basis;
        let first = made == Made::Now;
        Note { container: id, name, image, labels, words: words(config), first }
    }

    /// As the keeper gets it and gives it back.
    pub(crate) fn for_keeper(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    fn say(
        &self,
        tx: &Transaction<'_>,
        at: i64,
        action: &str,
        more: &[(&str, String)],
    ) -> Result<()> {
        let subject = Subject {
            id: &self.container,
            name: &self.name,
            image: &self.image,
            labels: &self.labels,
        };
        events::note_subject(tx, at, action, subject, more)
    }

    /// It was made.
    pub(crate) fn created(&self, tx: &Transaction<'_>, exec: &str, at: i64) -> Result<()> {
        let action = format!("exec_create: {}", self.words);
        self.say(tx, at, &action, &[("execID", exec.to_owned())])
    }

    /// It runs.
    pub(crate) fn begun(&self, tx: &Transaction<'_>, exec: &str, at: i64) -> Result<()> {
        if self.first {
            self.created(tx, exec, at)?;
        }
        let action = format!("exec_start: {}", self.words);
        self.say(tx, at, &action, &[("execID", exec.to_owned())])
    }

    fn report(tx: &Transaction<'_>, report: &ExecReport) -> Result<()> {
        // Of another version; there is nobody to complain to.
        let Ok(note) = serde_json::from_str::<Note>(&report.note) else { return Ok(()) };
        match report.code {
            None => note.begun(tx, &report.exec, report.at),
            Some(code) => {
                let more = [("execID", report.exec.clone()), ("exitCode", code.to_string())];
                note.say(tx, report.at, "exec_die", &more)
            }
        }
    }
}

impl Engine {
    /// Takes in the keeper's reports of execs.
    pub(crate) fn take_in_execs(&self) -> Result<()> {
        let names = self.store().db().transaction(|tx| -> Result<Vec<String>> {
            // As they are now, when nobody else can take them in: what another has taken in before is either gone
            // or among those of the last transaction.
            let reports = self.keeper().exec_reports().map_err(cannot_read_reports)?;
            let last: Option<String> = tx
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([TAKEN], |row| row.get(0))
                .optional()?;
            let last: Vec<String> =
                last.and_then(|names| serde_json::from_str(&names).ok()).unwrap_or_default();
            let mut names = Vec::with_capacity(reports.len());
            for report in &reports {
                let name = report.file_name();
                if !last.contains(&name) {
                    Note::report(tx, report)?;
                }
                names.push(name);
            }
            let taken = serde_json::to_string(&names)
                .map_err(|e| Error::system("cannot keep the names of reports", e))?;
            tx.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)")?
                .execute(params![TAKEN, taken])?;
            Ok(names)
        })?;
        names.iter().for_each(|name| self.keeper().forget_report(name));
        Ok(())
    }
}
