//! `storage migrate`: from unpacked directories to image filesystems, or back, while containers run.
//!
//! Archives are there in both forms, so what the new form needs is made from them, and what the old
//! one needs is removed when the new one is complete and verified. Each step can be done
//! again: a migration that was killed is taken up where it stopped by calling it once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use oci::digest::Hasher;
use oci::{ChainId, DiffId};
use rustix::fs::FlockOperation;

use crate::chain::Known;
use crate::error::io;
use crate::gc::directory_bytes;
use crate::layer::{DIFF, SPARSE, TAR};
use crate::writable::read_record;
use crate::{Error, FormChoice, Progress, Result, Store, files};

/// `storage`: the form that was chosen by a migration.
const CHOICE: &str = "storage";

/// What [`Store::migrate`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrateReport {
    /// Layers in the store; each is as its digest says.
    pub layers: usize,
    /// Directories that were unpacked, or indexes that were made.
    pub made: usize,
    /// Layers whose other form was removed.
    pub removed: usize,
    /// Layers whose other form is still used by running containers. Another migration, after those
    /// have ended, removes it.
    pub in_use: Vec<DiffId>,
    /// Bytes on disk that were given back.
    pub freed: u64,
}

impl Store {
    /// The form a migration has chosen for this data root.
    pub(crate) fn chosen_form(&self) -> FormChoice {
        let raw = files::read_small(&self.root.join(CHOICE), 64).unwrap_or_default();
        match raw.trim_ascii() {
            b"directories" => FormChoice::Directories,
            b"erofs" => FormChoice::Erofs,
            _ => FormChoice::Auto,
        }
    }

    /// Brings all layers into a form, and keeps to it from now on. Containers may run meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store was opened for another form, or this host cannot mount it;
    /// [`Error::Damaged`] for a layer that is not what its digest says, whose other form is
    /// then left alone; a full disk.
    pub fn migrate(&self, to: FormChoice, progress: &mut dyn Progress) -> Result<MigrateReport> {
        self.writable_store()?;
        let name = match to {
            FormChoice::Directories => "directories",
            FormChoice::Erofs => "erofs",
            FormChoice::Auto => {
                let known = "the form is not named: use directories or erofs";
                return Err(Error::Invalid(known.to_owned()));
            }
        };
        if ![FormChoice::Auto, to].contains(&self.options.form) {
            return Err(Error::Invalid(format!(
                "the configuration says another form than {name}: set storage to auto or {name} first"
            )));
        }
        // New containers use the new form from here on.
        let before = self.chosen_form();
        self.choose(name)?;
        let options = crate::OpenOptions { form: to, ..self.options };
        let store = Store::open(&self.root, options)?;
        if let Err(error) = store.form() {
            // It does not work here: as it was.
            match before {
                FormChoice::Auto => self.discard(&self.root.join(CHOICE))?,
                FormChoice::Directories => self.choose("directories")?,
                FormChoice::Erofs => self.choose("erofs")?,
            }
            return Err(error);
        }
        self.remove_stale_temporaries();
        store.convert(to, progress)
    }

    fn choose(&self, name: &str) -> Result<()> {
        let path = self.root.join(CHOICE);
        let what = || format!("writing {}", path.display());
        let temporary = self.temporary()?;
        let new = temporary.path().join(CHOICE);
        std::fs::write(&new, format!("{name}\n")).map_err(io(what))?;
        if self.durable() {
            File::open(&new).and_then(|file| file.sync_all()).map_err(io(what))?;
        }
        std::fs::rename(&new, &path).map_err(io(what))?;
        self.sync_parent(&path)
    }

    fn convert(&self, to: FormChoice, progress: &mut dyn Progress) -> Result<MigrateReport> {
        let mut report = MigrateReport::default();
        // No layer goes meanwhile.
        let lease = self.lease()?;
        let chains = self.chains_in_use()?;
        let layers: BTreeSet<DiffId> = chains.values().flatten().copied().collect();
        report.layers = layers.len();
        let total = Some(layers.len() as u64);
        for (number, diff_id) in layers.iter().enumerate() {
            progress.update("layers", number as u64, total);
            match to {
                FormChoice::Directories => report.made += usize::from(self.unpack_layer(diff_id)?),
                // The directory may be the last good copy of what an archive has lost.
                _ => self.verify_layer(diff_id)?,
            }
        }
        progress.update("layers", report.layers as u64, total);
        if to != FormChoice::Directories {
            for layers in chains.values() {
                report.made += usize::from(self.verify_chain(layers)?);
            }
        }
        drop(lease);
        match to {
            FormChoice::Directories => self.remove_indexes(&layers, &mut report)?,
            _ => self.remove_directories(&layers, &mut report)?,
        }
        self.empty_trash()?;
        Ok(report)
    }

    /// The layers of every image and every writable layer, by chain.
    fn chains_in_use(&self) -> Result<BTreeMap<String, Vec<DiffId>>> {
        let mut chains = BTreeMap::new();
        let mut add = |layers: Vec<DiffId>| {
            if let Some(id) = ChainId::of(&layers) {
                chains.insert(id.hex(), layers);
            }
        };
        for image in self.images()? {
            add(image.layers);
        }
        for name in self.directory_names("containers")? {
            match read_record(&self.root.join("containers").join(name)) {
                Ok(Some(record)) => add(record.layers),
                // Torn by a crash of the machine: it cannot be mounted any more.
                Ok(None) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(chains)
    }

    fn verify_layer(&self, diff_id: &DiffId) -> Result<()> {
        let path = self.layer_path(diff_id).join(TAR);
        let reading = || format!("reading {}", path.display());
        let mut file = File::open(&path).map_err(io(reading))?;
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 512 << 10];
        loop {
            let n = file.read(&mut buffer).map_err(io(reading))?;
            if n == 0 {
                break;
            }
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
        if DiffId(hasher.finish()) != *diff_id {
            return Err(Error::Damaged(format!(
                "{} does not have the digest {diff_id}: remove the images of this layer and load them \
                 again",
                path.display()
            )));
        }
        Ok(())
    }

    /// Makes the index of a chain, or makes it again to compare. Returns whether it is new.
    fn verify_chain(&self, layers: &[DiffId]) -> Result<bool> {
        if self.chain_info(layers).is_none() {
            self.chain(layers)?;
            return Ok(true);
        }
        let (info, index) = self.make_index(layers, &Known::new())?;
        let path = self.index_path(layers)?;
        let same = self.chain_info(layers).is_some_and(|there| there == info)
            && std::fs::read(&path).is_ok_and(|there| there == index);
        if !same {
            // Everything about it is known, so it is mended.
            if let Some(directory) = path.parent() {
                self.discard(directory)?;
            }
            self.chain(layers)?;
        }
        Ok(!same)
    }

    fn remove_indexes(&self, layers: &BTreeSet<DiffId>, report: &mut MigrateReport) -> Result<()> {
        // Whoever has mounted one has it open and keeps it.
        let mut going: Vec<PathBuf> = self
            .directory_names("chains")?
            .into_iter()
            .map(|name| self.root.join("chains").join(name))
            .collect();
        report.removed = layers.len();
        going.extend(layers.iter().map(|diff_id| self.layer_path(diff_id).join(SPARSE)));
        for path in going {
            report.freed = report.freed.saturating_add(directory_bytes(&path)?);
            self.discard(&path)?;
        }
        Ok(())
    }

    fn remove_directories(
        &self,
        layers: &BTreeSet<DiffId>,
        report: &mut MigrateReport,
    ) -> Result<()> {
        let running = self.layers_of_running()?;
        for diff_id in layers {
            let path = self.layer_path(diff_id).join(DIFF);
            let Ok(fd) = files::open_path(&path) else { continue };
            // Somebody who has it open is about to start a container on it.
            let free = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok();
            if !free || running.contains(diff_id) {
                report.in_use.push(*diff_id);
                continue;
            }
            report.freed = report.freed.saturating_add(directory_bytes(&path)?);
            self.discard(&path)?;
            report.removed += 1;
        }
        Ok(())
    }

    fn layers_of_running(&self) -> Result<HashSet<DiffId>> {
        let connection = self.database.connection();
        let mut statement = connection.prepare(
            "SELECT id FROM containers WHERE state NOT IN ('created', 'exited', 'dead')",
        )?;
        let ids = statement
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut layers = HashSet::new();
        for id in ids {
            if let Some(record) = read_record(&self.container_directory(&id))? {
                layers.extend(record.layers);
            }
        }
        Ok(layers)
    }
}
