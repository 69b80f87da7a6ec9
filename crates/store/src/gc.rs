//! Repair and clean-up: what killed processes left, and what nothing refers to any more.

use std::collections::HashSet;
use std::os::fd::AsFd;

use oci::{ChainId, DiffId};

use crate::image::{referenced_chains, referenced_layers};
use crate::ingest::{PARTIAL, PARTIAL_LIFE};
use crate::layer::insert_layer;
use crate::temporary::owner_lives;
use crate::writable::read_record;
use crate::{Error, Result, Store, files};

/// What [`Store::gc`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Layers that nothing referred to.
    pub layers: Vec<DiffId>,
    /// Bytes on disk that they, stale temporary files and the trash took.
    pub reclaimed: u64,
    /// Somebody was adding images, so that layers and blobs were left for the next time.
    pub busy: bool,
}

/// Set when layers should be removed but somebody was adding some.
const PENDING: &str = "collect";

impl Store {
    /// Removes what killed processes left, layers and blobs that nothing refers to, and empties the trash. Safe at
    /// any time, and when several processes do it at once.
    ///
    /// # Errors
    /// The first error, after having gone on with the rest.
    pub fn gc(&self) -> Result<GcReport> {
        self.writable_store()?;
        let temporary = self.root.join("tmp");
        let before = directory_bytes(&temporary)?;
        self.remove_stale_temporaries();
        let mut report = GcReport::default();
        let collected = self.collect_now();
        let trash = directory_bytes(&self.root.join("trash"))?;
        let emptied = self.empty_trash();
        match collected? {
            Some(layers) => report.layers = layers,
            None => report.busy = true,
        }
        emptied?;
        let left =
            directory_bytes(&temporary)?.saturating_add(directory_bytes(&self.root.join("trash"))?);
        report.reclaimed = before.saturating_add(trash).saturating_sub(left);
        self.database.checkpoint_if_large()?;
        Ok(report)
    }

    /// Removes what killed processes left in `tmp/`. Errors do not matter: the next one tries again.
    pub(crate) fn remove_stale_temporaries(&self) {
        let Ok(fd) = files::open_path(&self.root.join("tmp")) else { return };
        for name in files::names(&fd).unwrap_or_default() {
            let text = name.to_string_lossy();
            if text.starts_with("lock-") {
                // Whoever takes it removes it again.
                let _ = self.named_lock_if_free(text.trim_start_matches("lock-"));
                continue;
            }
            if text.starts_with(PARTIAL) {
                self.remove_partial(&text, PARTIAL_LIFE);
                continue;
            }
            let owner = text.strip_prefix("version-").map_or_else(
                || owner_lives(&text),
                |pid| pid.parse().is_ok_and(|pid| crate::temporary::start_time(pid).is_some()),
            );
            if !owner {
                let _ = files::remove_tree(fd.as_fd(), &name);
            }
        }
    }

    /// Removes layers and blobs that nothing refers to, and their bytes. If somebody is adding images,
    /// whoever ends last does it.
    pub(crate) fn collect_layers(&self) -> Result<Vec<DiffId>> {
        let mut collected = self.collect_now()?;
        if collected.is_none() {
            self.database.transaction(|tx| {
                tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, '1')", [PENDING])?;
                Ok::<_, Error>(())
            })?;
            // The others may have ended before they could see the mark. And a container's start, which
            // takes the lock for a moment, never looks at it: so a few more tries.
            for _ in 0..10 {
                collected = self.collect_now()?;
                if collected.is_some() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        self.empty_trash()?;
        Ok(collected.unwrap_or_default())
    }

    /// The end of adding an image: does what an earlier removal could not, and if adding failed (a
    /// full disk), takes back the layer that was published for it.
    pub(crate) fn finish_adding<T>(&self, added: Result<T>) -> Result<T> {
        match added {
            Ok(value) => self.collect_if_pending().map(|()| value),
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.collect_layers();
                Err(error)
            }
        }
    }

    /// Does what an earlier removal could not.
    fn collect_if_pending(&self) -> Result<()> {
        let pending = self
            .database
            .connection()
            .prepare_cached("SELECT 1 FROM meta WHERE key = ?1")?
            .exists([PENDING])?;
        if pending {
            self.collect_layers()?;
        }
        Ok(())
    }

    fn collect_now(&self) -> Result<Option<Vec<DiffId>>> {
        let Some(_lease) = self.try_exclusive()? else { return Ok(None) };
        // Nobody adds an image or a writable layer from here on.
        let mut wanted: HashSet<String> = referenced_layers(self.database.connection())?;
        let mut chains = referenced_chains(self.database.connection())?;
        let containers = self.root.join("containers");
        wanted.extend(crate::build_cache::cached_layers(self.database.connection())?);
        // What an interrupted pull has so far; it will be asked for again.
        wanted.extend(self.leased_layers()?);
        for name in self.directory_names("containers")? {
            match read_record(&containers.join(&name)) {
                Ok(Some(record)) => {
                    wanted.extend(record.layers.iter().map(DiffId::to_string));
                    chains.extend(ChainId::of(&record.layers).map(|id| id.hex()));
                }
                Ok(None) => {}
                // Torn by a crash of the machine. Such a layer cannot be mounted any more, so it needs
                // nothing.
                Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // What the database must forget is forgotten, durably, before the files go.
        let mut unwanted = Vec::new();
        for name in self.directory_names("layers")? {
            match format!("sha256:{name}").parse::<DiffId>() {
                Ok(diff_id) if !wanted.contains(&diff_id.to_string()) => unwanted.push(diff_id),
                _ => {}
            }
        }
        let mut indexes = self.directory_names("chains")?;
        indexes.retain(|name| !chains.contains(name));
        let named = self.named_by_indexes()?;
        let mut blobs = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let directory = format!("blobs/{algorithm}");
            if !self.root.join(&directory).is_dir() {
                continue;
            }
            for name in self.directory_names(&directory)? {
                let digest = format!("{algorithm}:{name}");
                let known = self
                    .database
                    .connection()
                    .prepare_cached("SELECT 1 FROM images WHERE id = ?1")?
                    .exists([&digest])?;
                let named = digest.parse().is_ok_and(|digest| named.contains(&digest));
                if !known && !named {
                    blobs.push(format!("{directory}/{name}"));
                }
            }
        }
        self.database.transaction(|tx| {
            for diff_id in &unwanted {
                tx.prepare_cached("DELETE FROM layers WHERE diff_id = ?1")?
                    .execute([diff_id.to_string()])?;
            }
            // Layers of containers whose image is gone keep their row; it says what they cost.
            for id in &wanted {
                let diff_id: DiffId = id.parse()?;
                let known =
                    tx.prepare_cached("SELECT 1 FROM layers WHERE diff_id = ?1")?.exists([id])?;
                if let (false, Some(info)) = (known, self.layer_info(&diff_id)) {
                    insert_layer(tx, &diff_id, info)?;
                }
            }
            tx.execute("DELETE FROM meta WHERE key = ?1", [PENDING])?;
            crate::ingest::forget_expired(tx)?;
            Ok::<_, Error>(())
        })?;
        if !unwanted.is_empty() || !blobs.is_empty() {
            self.database.sync()?;
        }
        // An index can always be made again, so the database need not forget it first.
        for name in indexes {
            self.discard(&self.root.join("chains").join(name))?;
        }
        for diff_id in &unwanted {
            self.discard(&self.layer_path(diff_id))?;
        }
        for name in blobs {
            self.discard(&self.root.join(name))?;
        }
        Ok(Some(unwanted))
    }

    /// Names in a directory of the store that are UTF-8, sorted.
    pub(crate) fn directory_names(&self, directory: &str) -> Result<Vec<String>> {
        let path = self.root.join(directory);
        let fd = files::open_path(&path)?;
        let names = files::names(&fd)
            .map_err(crate::error::io(|| format!("reading {}", path.display())))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }
}

/// Bytes of a file, or of a directory with all that is in it. Not existing is nothing.
pub(crate) fn directory_bytes(path: &std::path::Path) -> Result<u64> {
    use rustix::fs::{AtFlags, CWD, FileType};
    let what = || format!("measuring {}", path.display());
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let fd = files::open_path(path)?;
            files::disk_bytes(fd.as_fd()).map_err(crate::error::io(what))
        }
        Ok(stat) => Ok(files::blocks(&stat)),
        Err(rustix::io::Errno::NOENT) => Ok(0),
        Err(error) => Err(crate::error::io(what)(error)),
    }
}
