//! Removing images: `rmi` and `image prune`.

use std::collections::BTreeSet;

use oci::{ChainId, DiffId, ImageId, Reference};
use rusqlite::Transaction;

use crate::image::references_of;
use crate::{Error, ImageRecord, Removed, Result, Store};

/// A container that uses an image.
struct User {
    id: String,
    running: bool,
}

fn users(tx: &Transaction<'_>, image: &ImageId) -> Result<Vec<User>> {
    let mut statement =
        tx.prepare_cached("SELECT id, state FROM containers WHERE image_id = ?1 ORDER BY id")?;
    let rows = statement.query_map([image.to_string()], |row| {
        let state: String = row.get(1)?;
        let running = matches!(state.as_str(), "running" | "paused" | "restarting" | "removing");
        Ok(User { id: row.get(0)?, running })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Store {
    /// Removes a name, and the image when that was its last one; or, given an ID, the image with all its
    /// names. The rules and messages are Docker's. `force` removes an image that stopped
    /// containers use, or that has several names; nothing removes one that a running container uses.
    /// With `no_prune` parents without a name are kept.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::ImageConflict`].
    pub fn remove_image(&self, name: &str, force: bool, no_prune: bool) -> Result<Vec<Removed>> {
        self.writable_store()?;
        let mut removed = Vec::new();
        let mut chains = Vec::new();
        self.database.transaction(|tx| {
            let id = self.resolve(name)?;
            let all = references_of(tx, &id)?;
            let named = Reference::parse(name)
                .ok()
                .map(Reference::or_latest)
                .map(|named| match named.digest() {
                    Some(digest) => named.with_digest(digest),
                    None => named,
                })
                .filter(|named| all.contains(named));
            let going: Vec<Reference> = match &named {
                Some(named) => {
                    let repository = named.repository();
                    let others_of_repository = all.iter().any(|other| {
                        other != named && other.tag().is_some() && other.repository() == repository
                    });
                    // Digests of a repository go with its last tag.
                    all.iter()
                        .filter(|other| {
                            *other == named
                                || !others_of_repository
                                    && other.digest().is_some()
                                    && other.repository() == repository
                        })
                        .cloned()
                        .collect()
                }
                None => {
                    let repositories: BTreeSet<String> =
                        all.iter().map(Reference::repository).collect();
                    if repositories.len() > 1 && !force {
                        return Err(Error::ImageConflict {
                            action: "delete",
                            image: id.short(),
                            rule: "must be forced",
                            reason: "image is referenced in multiple repositories".to_owned(),
                        });
                    }
                    all.clone()
                }
            };
            let last = going.len() == all.len();
            if last {
                for user in users(tx, &id)? {
                    let user_id = short(&user.id);
                    let (rule, reason) = match (&named, user.running) {
                        (_, true) => (
                            "cannot be forced",
                            format!("image is being used by running container {user_id}"),
                        ),
                        _ if force => continue,
                        (Some(_), false) => (
                            "must force",
                            format!(
                                "container {user_id} is using its referenced image {}",
                                id.short()
                            ),
                        ),
                        (None, false) => (
                            "must be forced",
                            format!("image is being used by stopped container {user_id}"),
                        ),
                    };
                    let (action, image) = match &named {
                        Some(_) => ("remove repository reference", format!("{name:?}")),
                        None => ("delete", id.short()),
                    };
                    return Err(Error::ImageConflict { action, image, rule, reason });
                }
                let child = tx
                    .prepare_cached("SELECT 1 FROM images WHERE parent = ?1")?
                    .exists([id.to_string()])?;
                // By name it only loses the name then; its children keep it.
                if child && named.is_none() {
                    return Err(Error::ImageConflict {
                        action: "delete",
                        image: id.short(),
                        rule: "cannot be forced",
                        reason: "image has dependent child images".to_owned(),
                    });
                }
                for reference in &going {
                    untag(tx, reference)?;
                    removed.push(Removed::Untagged(reference.familiar(), id));
                }
                if !child {
                    delete(tx, &id, no_prune, &mut removed, &mut chains)?;
                }
            } else {
                for reference in &going {
                    untag(tx, reference)?;
                    removed.push(Removed::Untagged(reference.familiar(), id));
                }
            }
            Ok(())
        })?;
        self.finish_removal(chains, &mut removed)?;
        Ok(removed)
    }

    /// Removes images that no container uses: those without a name, or with `all` any. `keep` has the
    /// last word (filters on labels and age). Returns what was removed and the bytes given back.
    ///
    /// # Errors
    /// Those of the database and of removing.
    pub fn prune_images(
        &self,
        all: bool,
        keep: &mut dyn FnMut(&ImageRecord) -> bool,
    ) -> Result<(Vec<Removed>, u64)> {
        self.writable_store()?;
        let mut removed = Vec::new();
        let mut chains = Vec::new();
        // Children before parents, so that a whole chain goes in one run.
        loop {
            let mut progress = false;
            for image in self.images()? {
                // As in Docker a name with a digest alone does not keep an image.
                let dangling = image.references.is_empty();
                if !(dangling || all) || keep(&image) {
                    continue;
                }
                self.database.transaction(|tx| {
                    let child = tx
                        .prepare_cached("SELECT 1 FROM images WHERE parent = ?1")?
                        .exists([image.id.to_string()])?;
                    // Images for other platforms stay with the name they were pulled under.
                    let indexed = tx
                        .prepare_cached(
                            "SELECT 1 FROM index_images WHERE image_id = ?1 AND NOT EXISTS (SELECT 1 \
                             FROM image_tags t WHERE t.image_id = ?1 AND t.reference = \
                             index_images.reference)",
                        )?
                        .exists([image.id.to_string()])?;
                    if child || indexed || !users(tx, &image.id)?.is_empty() {
                        return Ok(());
                    }
                    for reference in references_of(tx, &image.id)? {
                        untag(tx, &reference)?;
                        removed.push(Removed::Untagged(reference.familiar(), image.id));
                    }
                    progress = true;
                    delete(tx, &image.id, true, &mut removed, &mut chains)
                })?;
            }
            if !progress {
                break;
            }
        }
        // A layer costs its archive, and its files if it is unpacked; known only while it is there.
        let mut costs = std::collections::BTreeMap::new();
        for diff_id in chains.iter().flatten() {
            if let Some(info) = self.layer_info(diff_id) {
                let unpacked = self.layer_path(diff_id).join(crate::layer::DIFF).is_dir();
                let unpacked = if unpacked { info.size } else { 0 };
                costs.insert(*diff_id, info.tar_size.saturating_add(unpacked));
            }
        }
        let collected = self.finish_removal(chains, &mut removed)?;
        let bytes = collected.iter().filter_map(|diff_id| costs.get(diff_id)).sum();
        Ok((removed, bytes))
    }

    /// Removes layers that are no longer needed, and reports those of the images that went.
    fn finish_removal(
        &self,
        chains: Vec<Vec<DiffId>>,
        removed: &mut Vec<Removed>,
    ) -> Result<Vec<DiffId>> {
        if chains.is_empty() {
            return Ok(Vec::new());
        }
        self.database.sync()?;
        let collected = self.collect_layers()?;
        let mut reported = BTreeSet::new();
        for chain in chains {
            for length in (1..=chain.len()).rev() {
                let layers = chain.get(..length).unwrap_or_default();
                let gone = layers.last().is_some_and(|top| collected.contains(top));
                if let (true, Some(id)) = (gone, ChainId::of(layers))
                    && reported.insert(id)
                {
                    removed.push(Removed::Layers(id));
                }
            }
        }
        self.database.checkpoint_if_large()?;
        Ok(collected)
    }
}

fn untag(tx: &Transaction<'_>, reference: &Reference) -> Result<usize> {
    Ok(tx
        .prepare_cached("DELETE FROM image_tags WHERE reference = ?1")?
        .execute([reference.to_string()])?)
}

fn delete(
    tx: &Transaction<'_>,
    id: &ImageId,
    no_prune: bool,
    removed: &mut Vec<Removed>,
    chains: &mut Vec<Vec<DiffId>>,
) -> Result<()> {
    let mut next = Some(*id);
    while let Some(id) = next.take() {
        let text = id.to_string();
        let parent: Option<String> = tx
            .prepare_cached("SELECT parent FROM images WHERE id = ?1")?
            .query_row([&text], |row| row.get(0))?;
        let layers = tx
            .prepare_cached(
                "SELECT diff_id FROM image_layers WHERE image_id = ?1 ORDER BY position",
            )?
            .query_map([&text], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        chains.push(layers.iter().map(|id| id.parse()).collect::<oci::Result<_>>()?);
        tx.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([&text])?;
        removed.push(Removed::Image(id));
        if no_prune {
            break;
        }
        // A parent that only its child kept.
        let Some(parent) = parent.and_then(|parent| parent.parse::<ImageId>().ok()) else { break };
        let text = parent.to_string();
        let exists = tx.prepare_cached("SELECT 1 FROM images WHERE id = ?1")?.exists([&text])?;
        let child = tx.prepare_cached("SELECT 1 FROM images WHERE parent = ?1")?.exists([&text])?;
        if exists
            && !child
            && references_of(tx, &parent)?.is_empty()
            && users(tx, &parent)?.is_empty()
        {
            next = Some(parent);
        }
    }
    Ok(())
}
