//! What building an image needs of the store: layers made of steps, and which step made which layer.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci::config::{ImageConfig, RootFs};
use oci::tar::TarReader;
use oci::{DiffId, ImageId, Reference};
use rusqlite::{Connection, OptionalExtension, params};
use rustix::mount::MountAttrFlags;

use crate::error::io;
use crate::image::NewImage;
use crate::incoming::Incoming;
use crate::layer::insert_layer;
use crate::tree::{TreeOptions, finish_stream, tree_stream};
use crate::unpack::{UnpackOptions, unpack};
use crate::{Error, ImageRecord, Result, Store, WritableLayer, files, overlay};

/// A stream that fails as soon as nobody wants it any more.
struct Wanted<'a, R> {
    inner: &'a mut R,
    wanted: &'a dyn Fn() -> bool,
}

impl<R: std::io::Read> std::io::Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !(self.wanted)() {
            return Err(std::io::Error::other("it was given up"));
        }
        self.inner.read(buffer)
    }
}

/// The result of a build step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedStep {
    /// What the step did and read.
    pub key: String,
    /// Its layer.
    pub diff_id: DiffId,
    /// The newest time among what it read, in seconds since the epoch; no file in the layer is newer.
    pub epoch: i64,
    /// The instruction.
    pub description: String,
    /// Bytes of file content in the layer.
    pub size: u64,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// When it was last used, in nanoseconds since the epoch.
    pub used_ns: i64,
    /// How often it was used.
    pub uses: u64,
    /// An image has the layer, too, so that forgetting the step gives nothing back.
    pub shared: bool,
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(CachedStep, String)> {
    let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
    let diff_id: String = row.get(1)?;
    let step = CachedStep {
        key: row.get(0)?,
        diff_id: DiffId(oci::Digest::sha256("")),
        epoch: row.get(2)?,
        description: row.get(3)?,
        size: unsigned(row.get(4)?),
        created_ns: row.get(5)?,
        used_ns: row.get(6)?,
        uses: unsigned(row.get(7)?),
        shared: row.get(8)?,
    };
    Ok((step, diff_id))
}

const COLUMNS: &str = "key, diff_id, epoch, description, size, created_ns, used_ns, uses, \
     EXISTS (SELECT 1 FROM image_layers WHERE image_layers.diff_id = build_cache.diff_id)";

impl Store {
    /// The result of the step with this key, if it is here with its layer.
    ///
    /// # Errors
    /// Those of the database.
    pub fn cached_step(&self, key: &str) -> Result<Option<CachedStep>> {
        let found = self
            .database
            .connection()
            .prepare_cached(&format!("SELECT {COLUMNS} FROM build_cache WHERE key = ?1"))?
            .query_row([key], from_row)
            .optional()?;
        let Some((step, diff_id)) = found else { return Ok(None) };
        let step = CachedStep { diff_id: diff_id.parse()?, ..step };
        Ok(self.layer_info(&step.diff_id).is_some().then_some(step))
    }

    /// All results, the one used last first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn cached_steps(&self) -> Result<Vec<CachedStep>> {
        let mut statement = self
            .database
            .connection()
            .prepare(&format!("SELECT {COLUMNS} FROM build_cache ORDER BY used_ns DESC, key"))?;
        let rows = statement.query_map([], from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        rows.into_iter()
            .map(|(step, diff_id)| Ok(CachedStep { diff_id: diff_id.parse()?, ..step }))
            .collect()
    }

    /// Notes which step made a layer that is here. Another result of the same step is replaced.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remember_step(&self, step: &CachedStep) -> Result<()> {
        self.writable_store()?;
        let now = files::now_ns();
        self.database.transaction(|tx| {
            if let Some(info) = self.layer_info(&step.diff_id) {
                insert_layer(tx, &step.diff_id, info)?;
            }
            tx.prepare_cached(
                "INSERT OR REPLACE INTO build_cache(key, diff_id, epoch, description, size, created_ns, \
                 used_ns, uses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)",
            )?
            .execute(params![
                step.key,
                step.diff_id.to_string(),
                step.epoch,
                step.description,
                signed(step.size),
                now
            ])?;
            Ok(())
        })
    }

    /// Notes that results were used.
    ///
    /// # Errors
    /// Those of the database.
    pub fn used_steps(&self, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let now = files::now_ns();
        self.database.transaction(|tx| {
            for key in keys {
                tx.prepare_cached(
                    "UPDATE build_cache SET used_ns = ?2, uses = uses + 1 WHERE key = ?1",
                )?
                .execute(params![key, now])?;
            }
            Ok(())
        })
    }

    /// Forgets the results for which `keep` says no, and removes layers that nothing else refers to.
    ///
    /// # Errors
    /// Those of the database, and of removing.
    pub fn forget_steps(
        &self,
        keep: &mut dyn FnMut(&CachedStep) -> bool,
    ) -> Result<Vec<CachedStep>> {
        self.writable_store()?;
        let mut gone = self.cached_steps()?;
        gone.retain(|step| !keep(step));
        self.database.transaction(|tx| {
            for step in &gone {
                tx.prepare_cached("DELETE FROM build_cache WHERE key = ?1")?
                    .execute([&step.key])?;
            }
            Ok::<_, Error>(())
        })?;
        self.collect_layers()?;
        Ok(gone)
    }

    /// Makes a layer of what was changed in a writable layer. No time in it is later than `epoch` (seconds since
    /// 1970), and none is finer than a second. The caller holds the store ([`Store::hold`]) until something
    /// refers to the layer. Returns its diff ID and the bytes of its files. It is given up as soon as `wanted` says no.
    ///
    /// # Errors
    /// A full disk; a file that cannot be read. Nothing is left behind then.
    pub fn commit_layer(
        &self,
        layer: &WritableLayer,
        epoch: i64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(DiffId, u64)> {
        self.writable_store()?;
        let upper = layer
            .upper()
            .try_clone_to_owned()
            .map_err(io(|| "duplicating a descriptor".to_owned()))?;
        // A layer that was made upon nothing may come to lie upon others (`COPY --link`), whose root stays as it is.
        let root = !layer.layers().is_empty();
        let options = TreeOptions { overlay: true, root, latest: Some(epoch) };
        let (mut reader, writer) = tree_stream(upper, options);
        let mut source = Wanted { inner: &mut reader, wanted };
        let what = "the step's changes";
        let staged = self.stage_layer(Incoming::Stream(&mut source), what, None, &mut ());
        finish_stream(reader, writer)?;
        let staged = staged?;
        let mut layers = layer.layers().to_vec();
        layers.push(staged.diff_id);
        self.publish_layers(&[&staged], &layers)?;
        Ok((staged.diff_id, staged.info.size))
    }

    /// Takes a layer in, compressed or not, that is to lie upon others. The caller holds the store until something refers to it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is another layer; those of reading and writing.
    pub fn import_layer(
        &self,
        below: &[DiffId],
        source: &mut dyn std::io::Read,
        expected: &DiffId,
    ) -> Result<()> {
        self.writable_store()?;
        let layers = [below, &[*expected]].concat();
        if self.layer_info(expected).is_some() {
            return self.publish_layers(&[], &layers);
        }
        let what = "a layer of a build cache";
        let staged = self.stage_layer(Incoming::Stream(source), what, None, &mut ())?;
        if staged.diff_id != *expected {
            let got = staged.diff_id;
            return Err(Error::Damaged(format!("{what}: {expected} is expected, it is {got}")));
        }
        self.publish_layers(&[&staged], &layers)
    }

    /// Makes the changes of a layer to the files below a directory.
    ///
    /// # Errors
    /// A layer that is missing; those of writing.
    pub fn apply_layer(&self, root: BorrowedFd<'_>, diff_id: &DiffId) -> Result<()> {
        // A mount is not open for changes itself.
        let root =
            files::open_dir(root, c".").map_err(io(|| "opening the files of a step".to_owned()))?;
        let own = |options: &UnpackOptions| {
            let file = std::io::BufReader::with_capacity(256 << 10, self.open_layer(diff_id)?);
            let mut tar = TarReader::new(file);
            unpack(&mut tar, root.as_fd(), options, &mut |_| Ok(()))
        };
        // What is hidden goes first: the names in an archive are in no order that would allow for less.
        own(&UnpackOptions { remove_hidden: true, ..UnpackOptions::default() })?;
        own(&UnpackOptions { skip_whiteouts: true, ..UnpackOptions::default() })?;
        Ok(())
    }

    /// Opens a layer's archive.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is missing.
    pub fn open_layer(&self, diff_id: &DiffId) -> Result<std::fs::File> {
        let path = self.layer_path(diff_id).join(crate::layer::TAR);
        std::fs::File::open(path)
            .map_err(|error| Error::Damaged(format!("the layer {diff_id} is missing: {error}")))
    }

    /// The files of these layers, mounted read-only and detached.
    ///
    /// # Errors
    /// [`Error::Mount`]; [`Error::Damaged`] if a layer is missing.
    pub fn mount_layers(&self, layers: &[DiffId]) -> Result<OwnedFd> {
        let mut lower = self.lower_of(layers)?;
        if lower.directories.len() < 2 {
            // An overlay without an upper directory needs two.
            let path = self.root.join("empty");
            lower.directories.push(files::open_path(&path)?);
            lower.paths.push(path);
        }
        overlay::mount(&lower, None, MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Adds an image of layers that are here. `config.rootfs` is set here.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a layer is missing; a configuration that no image may have.
    pub fn add_built_image(
        &self,
        mut config: ImageConfig,
        diff_ids: Vec<DiffId>,
        parent: Option<ImageId>,
        references: &[Reference],
    ) -> Result<ImageRecord> {
        self.writable_store()?;
        let lease = self.lease()?;
        let mut layers = Vec::new();
        for diff_id in &diff_ids {
            let info = self.layer_info(diff_id);
            let info =
                info.ok_or_else(|| Error::Damaged(format!("the layer {diff_id} is missing")))?;
            layers.push((*diff_id, info));
        }
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        let config_raw = config.to_bytes()?;
        let config = ImageConfig::parse(&config_raw)?;
        self.publish_layers(&[], &config.rootfs.diff_ids)?;
        let new = NewImage {
            config: &config,
            config_raw: &config_raw,
            parent,
            references,
            layers: &layers,
        };
        let added = self.add_image(&new);
        drop(lease);
        self.finish_adding(added)
    }
}

impl CachedStep {
    /// What is to be remembered of a step that was just done.
    pub fn new(key: String, diff_id: DiffId, epoch: i64, description: String, size: u64) -> Self {
        Self {
            key,
            diff_id,
            epoch,
            description,
            size,
            created_ns: 0,
            used_ns: 0,
            uses: 0,
            shared: false,
        }
    }
}

/// Layers that are kept because a step made them.
pub(crate) fn cached_layers(connection: &Connection) -> Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT DISTINCT diff_id FROM build_cache")?;
    let ids = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}
