//! The verbs about volumes.

use std::collections::BTreeMap;

use crate::clock::{self, rfc3339};
use crate::engine::{Engine, Filters};
use crate::error::{Error, Result};
use crate::events;
use crate::list::{check_filters, has_label, prune_matches};
use crate::types::{Pruned, Volume};

/// Names of filters that `volume ls` knows.
pub(crate) const FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];

fn shown(volume: store::Volume) -> Volume {
    let or_null = |map: BTreeMap<String, String>| Some(map).filter(|m| !m.is_empty());
    Volume {
        created_at: rfc3339(volume.created_ns),
        driver: volume.driver,
        labels: or_null(volume.labels),
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name,
        options: or_null(volume.options),
        scope: "local".into(),
        usage_data: None,
    }
}

impl Engine {
    /// Makes a volume; one of that name with the same options is left as it is.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        driver: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume> {
        let existed = name.is_some_and(|name| self.store().volume(name).is_ok());
        let volume = self.store().volume_create(
            name.filter(|n| !n.is_empty()),
            &store::VolumeOptions { driver: driver.into(), options, labels },
        )?;
        if !existed {
            self.note_volume("create", &volume.name)?;
        }
        Ok(shown(volume))
    }

    fn note_volume(&self, action: &str, name: &str) -> Result<()> {
        let attributes = [("driver".to_owned(), "local".to_owned())].into();
        self.store()
            .db()
            .transaction(|tx| events::note(tx, clock::now(), "volume", action, name, &attributes))
    }

    /// Volumes, by name.
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        check_filters(filters, &FILTERS)?;
        let mut list = Vec::new();
        for volume in self.store().volumes()? {
            let mut fits = true;
            for (name, values) in filters {
                fits &= match name.as_str() {
                    "dangling" => {
                        let wanted = match values.first().map(String::as_str) {
                            Some("true" | "1") => true,
                            Some("false" | "0") => false,
                            other => {
                                let value = other.unwrap_or("");
                                return Err(Error::invalid(format!(
                                    "invalid filter 'dangling={value}'"
                                )));
                            }
                        };
                        self.store().volume_users(&volume.name)?.is_empty() == wanted
                    }
                    "driver" => values.contains(&volume.driver),
                    "label" => values.iter().all(|v| has_label(&volume.labels, v)),
                    "name" => values.iter().any(|v| volume.name.contains(v.as_str())),
                    _ => true,
                };
            }
            if fits {
                list.push(shown(volume));
            }
        }
        Ok(list)
    }

    /// One volume.
    pub fn inspect_volume(&self, name: &str) -> Result<Volume> {
        Ok(shown(self.store().volume(name)?))
    }

    /// Removes a volume that no container names. With `force` one that does not exist is
    /// no error.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        self.reconcile()?;
        let existed = self.store().volume(name).is_ok();
        self.store().volume_remove(name, force)?;
        if existed { self.note_volume("destroy", name) } else { Ok(()) }
    }

    /// Removes volumes that no container names: the anonymous ones, or `all`.
    pub fn prune_volumes(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        check_filters(filters, &["all", "label", "label!"])?;
        self.reconcile_all()?;
        let all = all
            || filters.get("all").and_then(|v| v.first()).is_some_and(|v| v == "true" || v == "1");
        let rest: Filters = filters
            .iter()
            .filter(|(k, _)| *k != "all")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut pruned = Pruned::default();
        for volume in self.store().volumes()? {
            let unused = self.store().volume_users(&volume.name)?.is_empty();
            if !unused
                || !(all || volume.anonymous)
                || !prune_matches(&rest, volume.created_ns, &volume.labels)?
            {
                continue;
            }
            let size = self.store().volume_size(&volume.name).unwrap_or(0);
            match self.store().volume_remove(&volume.name, true) {
                Ok(()) => {}
                // Somebody began to use it meanwhile.
                Err(store::Error::VolumeInUse { .. }) => continue,
                Err(e) => return Err(e.into()),
            }
            self.note_volume("destroy", &volume.name)?;
            pruned.deleted.push(volume.name);
            pruned.space_reclaimed += size;
        }
        if !pruned.deleted.is_empty() {
            self.note_prune("volume", pruned.space_reclaimed)?;
        }
        Ok(pruned)
    }
}
