//! Images: records, names, removal.

use std::collections::HashSet;

use oci::config::{History, ImageConfig};
use oci::{ChainId, DiffId, ImageId, Reference, limits};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::layer::{LayerInfo, insert_layer};
use crate::{Error, Result, Store, files};

/// One image.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Its ID: the digest of the configuration document.
    pub id: ImageId,
    /// Its names with tags, sorted.
    pub references: Vec<Reference>,
    /// Its names with digests, sorted.
    pub digests: Vec<Reference>,
    /// The image it was committed or built on, if that is known.
    pub parent: Option<ImageId>,
    /// Bytes of file content in its layers.
    pub size: u64,
    /// When it came into this store, in nanoseconds since the epoch.
    pub added_ns: i64,
    /// When it was last tagged, in nanoseconds since the epoch.
    pub tagged_ns: Option<i64>,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// Its configuration.
    pub config: ImageConfig,
    /// The bytes of the configuration document.
    pub config_raw: Vec<u8>,
}

/// One line of an image's history, newest first.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The image as it was after this step, if it is in the store: only the first line in most cases.
    pub id: Option<ImageId>,
    /// What the configuration says.
    pub history: History,
    /// Bytes of file content that the step added.
    pub size: u64,
    /// Names of the image as it was after this step.
    pub references: Vec<Reference>,
}

/// Something that a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This name, in its familiar form, no longer names the image.
    Untagged(String, ImageId),
    /// This image no longer exists.
    Image(ImageId),
    /// No image has these layers any more.
    Layers(ChainId),
}

/// What is needed to add an image.
pub(crate) struct NewImage<'a> {
    pub(crate) config: &'a ImageConfig,
    pub(crate) config_raw: &'a [u8],
    pub(crate) parent: Option<ImageId>,
    pub(crate) references: &'a [Reference],
    /// For layers that are new to the database; the others must be known to it.
    pub(crate) layers: &'a [(DiffId, LayerInfo)],
}

struct ImageRow {
    id: ImageId,
    parent: Option<ImageId>,
    size: u64,
    added_ns: i64,
    tagged_ns: Option<i64>,
}

const COLUMNS: &str = "id, parent, size, added_ns, tagged_ns";

fn parse_id(text: &str) -> rusqlite::Result<ImageId> {
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

impl ImageRow {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
        let id: String = row.get(0)?;
        let parent: Option<String> = row.get(1)?;
        Ok(ImageRow {
            id: parse_id(&id)?,
            parent: parent.as_deref().map(parse_id).transpose()?,
            size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            added_ns: row.get(3)?,
            tagged_ns: row.get(4)?,
        })
    }
}

impl Store {
    /// Finds an image by name (the tag `latest` if none is given), name with digest, ID, or a prefix of the
    /// ID that no other image has.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] with the name completed by its tag; [`Error::AmbiguousImage`]; a
    /// wrong reference in Docker's words.
    pub fn image(&self, name: &str) -> Result<ImageRecord> {
        let id = self.resolve(name)?;
        self.image_by_id(&id)
    }

    /// The image with this ID.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Damaged`] if its configuration is missing or changed.
    pub fn image_by_id(&self, id: &ImageId) -> Result<ImageRecord> {
        let row = self
            .database
            .connection()
            .prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE id = ?1"))?
            .query_row([id.to_string()], ImageRow::from_row)
            .optional()?
            .ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        self.record(row)
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// As [`Store::image_by_id`].
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let mut statement = self
            .database
            .connection()
            .prepare_cached(&format!("SELECT {COLUMNS} FROM images ORDER BY created DESC, id"))?;
        let rows =
            statement.query_map([], ImageRow::from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        rows.into_iter().map(|row| self.record(row)).collect()
    }

    fn record(&self, row: ImageRow) -> Result<ImageRecord> {
        let mut references = Vec::new();
        let mut digests = Vec::new();
        for reference in references_of(self.database.connection(), &row.id)? {
            if reference.digest().is_some() { &mut digests } else { &mut references }
                .push(reference);
        }
        let path = self.blob_path(&row.id.digest());
        let config_raw = files::read_small(&path, limits::MAX_JSON).map_err(|error| {
            Error::Damaged(format!(
                "the configuration of image {} is missing ({error}): remove the image with `rmi -f` \
                 and load it again",
                row.id
            ))
        })?;
        let config = ImageConfig::parse(&config_raw)?;
        Ok(ImageRecord {
            id: row.id,
            references,
            digests,
            parent: row.parent,
            size: row.size,
            added_ns: row.added_ns,
            tagged_ns: row.tagged_ns,
            layers: config.rootfs.diff_ids.clone(),
            config,
            config_raw,
        })
    }

    /// The ID for a name or an ID or a prefix of one, as [`Store::image`] finds it.
    pub(crate) fn resolve(&self, name: &str) -> Result<ImageId> {
        let connection = self.database.connection();
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let hexadecimal = !digits.is_empty()
            && digits.len() <= 64
            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let explicit = name.starts_with("sha256:") || digits.len() == 64;
        // A name wins over a short ID: `cafe` is first of all a repository.
        if !(hexadecimal && explicit) {
            let reference = Reference::parse(name)?.or_latest();
            if let Some(id) = find_reference(connection, &reference)? {
                return Ok(id);
            }
            if !hexadecimal {
                return Err(Error::NoSuchImage(reference.familiar()));
            }
        }
        let mut statement = connection
            .prepare_cached("SELECT id FROM images WHERE id >= ?1 AND id < ?2 LIMIT 20")?;
        let first = format!("sha256:{digits}");
        // `g` follows the last hexadecimal digit.
        let ids = statement
            .query_map([&first, &format!("{first}g")], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        match ids.as_slice() {
            [id] => Ok(parse_id(id)?),
            [] if explicit => Err(Error::NoSuchImage(name.to_owned())),
            [] => Err(Error::NoSuchImage(format!("{name}:latest"))),
            many => Err(Error::AmbiguousImage(name.to_owned(), many.len())),
        }
    }

    /// Gives an image another name. A name that another image had moves.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Invalid`] for a target with a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<ImageId> {
        self.writable_store()?;
        if target.digest().is_some() {
            return Err(Error::Invalid(
                "refusing to create a tag with a digest reference".to_owned(),
            ));
        }
        let id = self.resolve(source)?;
        let target = target.clone().or_latest();
        let known = Reference::parse(source).ok().map(Reference::or_latest);
        self.database.transaction(|tx| {
            set_reference(tx, &target, &id)?;
            if let Some(known) = &known {
                crate::index::copy_index(tx, known, &target)?;
            }
            Ok::<_, Error>(())
        })?;
        Ok(id)
    }

    /// Notes that something is made of an image now; to the hour, so that a start writes nothing more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_use(tx: &Transaction<'_>, image: &str) -> rusqlite::Result<()> {
        const HOUR: i64 = 3_600 * 1_000_000_000;
        let now = files::now_ns();
        tx.prepare_cached(
            "UPDATE images SET used_ns = ?2 WHERE id = ?1 AND coalesce(used_ns, 0) < ?3",
        )?
        .execute(params![image, now, now.saturating_sub(HOUR)])?;
        Ok(())
    }

    /// When something was last made of an image, in nanoseconds since the epoch; when it came, if
    /// nothing was yet.
    ///
    /// # Errors
    /// Those of the database.
    pub fn last_use(&self, image: &ImageId) -> Result<i64> {
        Ok(self
            .database
            .connection()
            .prepare_cached(
                "SELECT max(coalesce(used_ns, 0), added_ns, coalesce(tagged_ns, 0)) FROM images \
                 WHERE id = ?1",
            )?
            .query_row([image.to_string()], |row| row.get(0))
            .optional()?
            .unwrap_or(0))
    }

    /// The steps in which an image came to be, the last first.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let image = self.image(name)?;
        let mut layers = image.layers.iter();
        let mut out = Vec::new();
        for history in &image.config.history {
            let size = if history.empty_layer {
                0
            } else {
                layers.next().and_then(|id| self.layer_info(id)).map_or(0, |info| info.size)
            };
            let history = history.clone();
            out.push(HistoryEntry { id: None, history, size, references: Vec::new() });
        }
        // Images whose history does not tell of all layers.
        for layer in layers {
            let size = self.layer_info(layer).map_or(0, |info| info.size);
            let history = History::default();
            out.push(HistoryEntry { id: None, history, size, references: Vec::new() });
        }
        out.reverse();
        if let Some(first) = out.first_mut() {
            first.id = Some(image.id);
            first.references = image.references;
        }
        Ok(out)
    }

    /// Makes an image visible. Its layers are published and synced; the caller holds the lease.
    pub(crate) fn add_image(&self, new: &NewImage<'_>) -> Result<ImageRecord> {
        let id = ImageConfig::id(new.config_raw);
        self.write_blob(new.config_raw)?;
        self.database.transaction(|tx| {
            for (diff_id, info) in new.layers {
                insert_layer(tx, diff_id, *info)?;
            }
            insert_image(tx, &id, new)
        })?;
        self.database.checkpoint_if_large()?;
        self.image_by_id(&id)
    }
}

pub(crate) fn insert_image(tx: &Transaction<'_>, id: &ImageId, new: &NewImage<'_>) -> Result<()> {
    let text = id.to_string();
    let config = new.config;
    let mut size: i64 = 0;
    for diff_id in &config.rootfs.diff_ids {
        let layer: Option<i64> = tx
            .prepare_cached("SELECT size FROM layers WHERE diff_id = ?1")?
            .query_row([diff_id.to_string()], |row| row.get(0))
            .optional()?;
        let Some(layer) = layer else {
            return Err(Error::Damaged(format!("the layer {diff_id} is missing")));
        };
        size = size.saturating_add(layer);
    }
    let known =
        tx.prepare_cached(
            "INSERT INTO images(id, parent, os, architecture, variant, created, size, added_ns) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT(id) DO NOTHING",
        )?
        .execute(params![
            text,
            new.parent.map(|parent| parent.to_string()),
            config.os,
            config.architecture,
            config.variant,
            config.created,
            size,
            files::now_ns()
        ])? == 0;
    if !known {
        for (position, diff_id) in (0_i64..).zip(&config.rootfs.diff_ids) {
            tx.prepare_cached(
                "INSERT INTO image_layers(image_id, position, diff_id) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![text, position, diff_id.to_string()])?;
        }
    }
    for reference in new.references {
        set_reference(tx, reference, id)?;
    }
    Ok(())
}

pub(crate) fn set_reference(tx: &Connection, reference: &Reference, id: &ImageId) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO image_tags(reference, image_id) VALUES (?1, ?2) \
         ON CONFLICT(reference) DO UPDATE SET image_id = excluded.image_id",
    )?
    .execute(params![reference.to_string(), id.to_string()])?;
    tx.prepare_cached("UPDATE images SET tagged_ns = ?2 WHERE id = ?1")?
        .execute(params![id.to_string(), files::now_ns()])?;
    Ok(())
}

fn find_reference(connection: &Connection, reference: &Reference) -> Result<Option<ImageId>> {
    // With a tag and a digest the digest decides.
    let key = match reference.digest() {
        Some(digest) => reference.with_digest(digest),
        None => reference.clone(),
    };
    let id: Option<String> = connection
        .prepare_cached("SELECT image_id FROM image_tags WHERE reference = ?1")?
        .query_row([key.to_string()], |row| row.get(0))
        .optional()?;
    Ok(id.as_deref().map(parse_id).transpose()?)
}

pub(crate) fn references_of(connection: &Connection, id: &ImageId) -> Result<Vec<Reference>> {
    let mut statement = connection.prepare_cached(
        "SELECT reference FROM image_tags WHERE image_id = ?1 ORDER BY reference",
    )?;
    let texts = statement
        .query_map([id.to_string()], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(texts.iter().filter_map(|text| Reference::parse(text).ok()).collect())
}

/// Diff IDs that an image in the database is made of.
pub(crate) fn referenced_layers(connection: &Connection) -> Result<HashSet<String>> {
    let mut statement = connection.prepare("SELECT DISTINCT diff_id FROM image_layers")?;
    let ids = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

/// Hexadecimal chain IDs of the images in the database.
pub(crate) fn referenced_chains(connection: &Connection) -> Result<HashSet<String>> {
    let mut statement = connection
        .prepare("SELECT image_id, diff_id FROM image_layers ORDER BY image_id, position")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut chains = HashSet::new();
    for image in rows.chunk_by(|(a, _), (b, _)| a == b) {
        let layers: Vec<DiffId> =
            image.iter().map(|(_, id)| id.parse()).collect::<oci::Result<_>>()?;
        chains.extend(ChainId::of(&layers).map(|id| id.hex()));
    }
    Ok(chains)
}
