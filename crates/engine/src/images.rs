//! The verbs about images.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use oci::Reference;
use store::{ImageRecord, Removed};

use crate::clock::{self, rfc3339};
use crate::engine::{ArchiveFormat, Engine, Filters, ImportOptions, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::list::{check_filters, has_label, parse_time, prune_matches};
use crate::types::{
    Config, GraphDriver, HistoryEntry, ImageDelete, ImageInspect, ImageMetadata, ImageSummary,
    ImagesPruned, RootFs,
};

/// Names of filters that `images` knows.
pub(crate) const FILTERS: [&str; 6] =
    ["before", "dangling", "label", "reference", "since", "until"];

/// Passes the store's reports on.
pub(crate) struct Bridge<'a>(pub(crate) &'a mut dyn Progress);

impl store::Progress for Bridge<'_> {
    fn update(&mut self, what: &str, done: u64, total: Option<u64>) {
        self.0.step(what, done, total);
    }
}

fn seconds(time: Option<&str>) -> i64 {
    time.and_then(|t| t.parse::<jiff::Timestamp>().ok()).map_or(0, jiff::Timestamp::as_second)
}

fn tags(image: &ImageRecord) -> Vec<String> {
    image.references.iter().map(Reference::familiar).collect()
}

fn digests(image: &ImageRecord) -> Vec<String> {
    image.digests.iter().map(Reference::familiar).collect()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Matches a name against a pattern with `*`, `?` and `[…]`, as path names match.
fn glob(pattern: &str, name: &str) -> bool {
    fn matches(p: &[char], n: &[char]) -> bool {
        match p {
            [] => n.is_empty(),
            ['*', rest @ ..] => (0..=n.len())
                .take_while(|i| !n.get(..*i).unwrap_or_default().contains(&'/'))
                .any(|i| matches(rest, n.get(i..).unwrap_or_default())),
            ['?', rest @ ..] => match n {
                [c, after @ ..] if *c != '/' => matches(rest, after),
                _ => false,
            },
            ['[', rest @ ..] => {
                let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
                let (set, after) =
                    (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
                match n {
                    [c, tail @ ..] if set.contains(c) => matches(after, tail),
                    _ => false,
                }
            }
            [c, rest @ ..] => n.first() == Some(c) && matches(rest, n.get(1..).unwrap_or_default()),
        }
    }
    // Patterns of people are short; a long one is refused rather than tried for ever.
    let p: Vec<char> = pattern.chars().collect();
    let n: Vec<char> = name.chars().collect();
    p.iter().filter(|c| **c == '*').count() <= 8 && matches(&p, &n)
}

/// Whether a reference fits a pattern, which may leave out the tag or the registry.
fn reference_matches(reference: &Reference, pattern: &str) -> bool {
    let familiar = reference.familiar();
    let name = reference.familiar_name();
    glob(pattern, &familiar) || glob(pattern, &name)
}

impl Engine {
    /// Rows of `images`, the youngest first. `all` shows also images that are only
    /// steps on the way to others.
    pub fn images(&self, all: bool, filters: &Filters) -> Result<Vec<ImageSummary>> {
        check_filters(filters, &FILTERS)?;
        let bound = |name: &str| -> Result<Option<i64>> {
            let Some(name) = filters.get(name).and_then(|v| v.first()) else { return Ok(None) };
            Ok(Some(seconds(self.store().image(name)?.config.created.as_deref())))
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let images = self.store().images()?;
        let parents: Vec<_> = images.iter().filter_map(|i| i.parent).collect();
        let mut rows = Vec::new();
        for image in &images {
            let created = seconds(image.config.created.as_deref());
            let nameless = image.references.is_empty() && image.digests.is_empty();
            if nameless && !all && parents.contains(&image.id) {
                continue;
            }
            let mut fits = before.is_none_or(|b| created < b) && since.is_none_or(|s| created > s);
            for (name, values) in filters {
                fits &= match name.as_str() {
                    "dangling" => {
                        let wanted = match values.first().map(String::as_str) {
                            Some("true" | "1") => true,
                            Some("false" | "0") => false,
                            other => {
                                return Err(Error::invalid(format!(
                                    "invalid filter 'dangling={}'",
                                    other.unwrap_or("")
                                )));
                            }
                        };
                        image.references.is_empty() == wanted
                    }
                    "label" => values.iter().all(|v| has_label(&image.config.config.labels, v)),
                    "reference" => values.iter().any(|pattern| {
                        image
                            .references
                            .iter()
                            .chain(&image.digests)
                            .any(|r| reference_matches(r, pattern))
                    }),
                    "until" => {
                        let mut older = true;
                        for value in values {
                            older &= created.saturating_mul(1_000_000_000) < parse_time(value)?;
                        }
                        older
                    }
                    _ => true,
                };
            }
            if !fits {
                continue;
            }
            let mut row = ImageSummary {
                containers: -1,
                created,
                id: image.id.to_string(),
                labels: Some(image.config.config.labels.clone()),
                parent_id: image.parent.map(|p| p.to_string()).unwrap_or_default(),
                repo_digests: digests(image),
                repo_tags: tags(image),
                shared_size: -1,
                size: signed(image.size),
            };
            if let Some(patterns) = filters.get("reference") {
                let shown = |r: &Reference| patterns.iter().any(|p| reference_matches(r, p));
                row.repo_tags =
                    image.references.iter().filter(|r| shown(r)).map(Reference::familiar).collect();
            }
            rows.push(row);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.created));
        Ok(rows)
    }

    /// Everything about an image.
    pub fn inspect_image(&self, name: &str) -> Result<ImageInspect> {
        let image = self.store().image(name)?;
        let mut data = BTreeMap::new();
        data.insert(
            "LowerDir".to_owned(),
            self.data_root().join("layers").to_string_lossy().into_owned(),
        );
        Self::inspect_record(&image, Some(data))
    }

    /// What a record says, of an image here or elsewhere.
    pub(crate) fn inspect_record(
        image: &ImageRecord,
        data: Option<BTreeMap<String, String>>,
    ) -> Result<ImageInspect> {
        let config = &image.config;
        let value = serde_json::to_value(&config.config)
            .map_err(|e| Error::system("the image's configuration", e))?;
        let container: Config = serde_json::from_value(value)
            .map_err(|e| Error::system("the image's configuration", e))?;
        Ok(ImageInspect {
            id: image.id.to_string(),
            repo_tags: tags(image),
            repo_digests: digests(image),
            parent: image.parent.map(|p| p.to_string()).unwrap_or_default(),
            comment: config.history.last().map(|h| h.comment.clone()).unwrap_or_default(),
            created: config.created.clone(),
            docker_version: config
                .other
                .get("docker_version")
                .and_then(|v| v.as_str())
                .unwrap_or_default()
                .to_owned(),
            author: config.author.clone(),
            config: Some(container),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            size: signed(image.size),
            graph_driver: GraphDriver { data, name: "overlay".into() },
            root_fs: RootFs {
                r#type: "layers".into(),
                layers: image.layers.iter().map(ToString::to_string).collect(),
            },
            metadata: ImageMetadata { last_tag_time: rfc3339(image.tagged_ns.unwrap_or(0)) },
        })
    }

    /// How an image came to be, the last step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        Ok(self
            .store()
            .history(name)?
            .into_iter()
            .map(|step| HistoryEntry {
                id: step.id.map_or_else(|| "<missing>".into(), |id| id.to_string()),
                created: seconds(step.history.created.as_deref()),
                created_by: step.history.created_by,
                tags: Some(step.references.iter().map(Reference::familiar).collect::<Vec<_>>())
                    .filter(|t| !t.is_empty()),
                size: signed(step.size),
                comment: step.history.comment,
            })
            .collect())
    }

    /// Makes an image of the archive of a root filesystem; its id.
    pub fn import(
        &self,
        tar: &mut dyn Read,
        options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        self.import_by(options, |options| self.store().import(tar, options, &mut Bridge(progress)))
    }

    /// As [`Engine::import`], from a file: where the file system can, its bytes are shared, not copied.
    pub fn import_file(
        &self,
        tar: &std::fs::File,
        options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        self.import_by(options, |options| {
            self.store().import_file(tar, options, &mut Bridge(progress))
        })
    }

    fn import_by(
        &self,
        options: ImportOptions,
        import: impl FnOnce(&store::ImportOptions) -> store::Result<store::ImageRecord>,
    ) -> Result<String> {
        let reference = options.reference.as_deref().map(named).transpose()?;
        let platform =
            options.platform.as_deref().map(oci::manifest::Platform::parse).transpose()?;
        let image = import(&store::ImportOptions {
            reference,
            // Docker's words, where nobody has any: for files, too, its client sends the content.
            message: if options.message.is_empty() {
                "Imported from -".into()
            } else {
                options.message
            },
            platform,
            changes: options.changes,
            limit: None,
        })?;
        self.note_image(
            "import",
            &image.id.to_string(),
            options.reference.as_deref().unwrap_or(""),
        )?;
        self.store().db().checkpoint_if_large()?;
        Ok(image.id.to_string())
    }

    /// Adds the images of an archive; id and names of each.
    pub fn load(
        &self,
        archive: &mut dyn Read,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(String, Vec<String>)>> {
        let options = store::LoadOptions::default();
        self.note_loaded(self.store().load(archive, &options, &mut Bridge(progress))?)
    }

    /// As [`Engine::load`], from a file: faster, as its layers are read at the same time.
    pub fn load_file(
        &self,
        archive: &std::fs::File,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(String, Vec<String>)>> {
        let options = store::LoadOptions::default();
        self.note_loaded(self.store().load_file(archive, &options, &mut Bridge(progress))?)
    }

    fn note_loaded(&self, loaded: Vec<store::Loaded>) -> Result<Vec<(String, Vec<String>)>> {
        let mut result = Vec::new();
        for image in loaded {
            let names: Vec<_> = image.references.iter().map(Reference::familiar).collect();
            self.note_image(
                "load",
                &image.id.to_string(),
                names.first().map_or("", String::as_str),
            )?;
            result.push((image.id.to_string(), names));
        }
        self.store().db().checkpoint_if_large()?;
        Ok(result)
    }

    /// Writes images to an archive.
    pub fn save(&self, names: &[String], format: ArchiveFormat, out: &mut dyn Write) -> Result<()> {
        let format = match format {
            ArchiveFormat::Docker => store::ArchiveFormat::Docker,
            ArchiveFormat::OciLayout => store::ArchiveFormat::OciLayout,
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.store().save(&names, format, oci::compression::Compression::None, out)?;
        for name in names {
            if let Ok(image) = self.store().image(name) {
                self.note_image("save", &image.id.to_string(), name)?;
            }
        }
        Ok(())
    }

    /// Gives an image a further name.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let id = self.store().tag(source, &named(target)?)?;
        self.note_image("tag", &id.to_string(), target)
    }

    /// Removes a name of an image, and with its last one the image.
    pub fn remove_image(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDelete>> {
        self.reconcile()?;
        let removed = self.store().remove_image(name, force, no_prune)?;
        let removed = self.note_removed(removed)?;
        self.store().db().checkpoint_if_large()?;
        Ok(removed)
    }

    /// The images that have to go for the layers to fit into so many bytes.
    fn over_budget(&self, budget: u64) -> Result<BTreeSet<oci::ImageId>> {
        let usage = self.store().disk_usage()?;
        let mut users: BTreeMap<oci::DiffId, u64> = BTreeMap::new();
        let mut total = 0u64;
        for (id, layer) in &usage.layers {
            users.insert(*id, layer.images.saturating_add(layer.writable_layers));
            total = total.saturating_add(layer.unpacked).saturating_add(layer.tar);
        }
        let mut images = Vec::new();
        for image in self.store().images()? {
            images.push((self.store().last_use(&image.id)?, image));
        }
        images.sort_by_key(|(used, image)| (*used, image.id));
        let mut going = BTreeSet::new();
        for (_, image) in images {
            if total <= budget {
                break;
            }
            if self.is_used(&image.id.to_string())? {
                continue;
            }
            going.insert(image.id);
            let unique: BTreeSet<_> = image.layers.iter().collect();
            for layer in unique {
                let Some(count) = users.get_mut(layer) else { continue };
                *count = count.saturating_sub(1);
                if *count == 0
                    && let Some(usage) = usage.layers.get(layer)
                {
                    total = total.saturating_sub(usage.unpacked.saturating_add(usage.tar));
                }
            }
        }
        Ok(going)
    }

    /// A container is made of the image.
    fn is_used(&self, image: &str) -> Result<bool> {
        Ok(self
            .db()
            .prepare_cached("SELECT 1 FROM containers WHERE image_id = ?1")?
            .exists([image])?)
    }

    fn note_removed(&self, removed: Vec<Removed>) -> Result<Vec<ImageDelete>> {
        let mut list = Vec::new();
        for step in removed {
            list.push(match step {
                Removed::Untagged(name, id) => {
                    self.note_image("untag", &id.to_string(), &name)?;
                    ImageDelete::Untagged(name)
                }
                Removed::Image(id) => {
                    let id = id.to_string();
                    self.note_image("delete", &id, &id)?;
                    ImageDelete::Deleted(id)
                }
                Removed::Layers(id) => ImageDelete::Deleted(id.to_string()),
            });
        }
        Ok(list)
    }

    /// Removes images that no container uses: those without a name, or `all`. With `keep_storage` only
    /// as many as it takes for the layers to fit into so many bytes, those first that were unused for the
    /// longest time.
    pub fn prune_images(
        &self,
        all: bool,
        filters: &Filters,
        keep_storage: Option<u64>,
    ) -> Result<ImagesPruned> {
        check_filters(filters, &["dangling", "until", "label", "label!", "unused-for"])?;
        let now = clock::now();
        let unused: Vec<i64> = filters
            .get("unused-for")
            .into_iter()
            .flatten()
            .map(|text| Ok(now.saturating_sub(span(text)?)))
            .collect::<Result<_>>()?;
        let over = match keep_storage {
            Some(budget) => Some(self.over_budget(budget)?),
            None => None,
        };
        // What interrupted pulls have left is nobody's any more.
        self.store().forget_interrupted()?;
        let all = match filters.get("dangling").and_then(|v| v.first()).map(String::as_str) {
            Some("false" | "0") => true,
            Some("true" | "1") => false,
            Some(other) => {
                return Err(Error::invalid(format!("invalid filter 'dangling={other}'")));
            }
            None => all,
        };
        let mut failed = None;
        let (removed, space_reclaimed) = self.store().prune_images(all, &mut |image| {
            let created = seconds(image.config.created.as_deref()).saturating_mul(1_000_000_000);
            let used = self.store().last_use(&image.id).unwrap_or(i64::MAX);
            if unused.iter().any(|bound| used >= *bound)
                || over.as_ref().is_some_and(|over| !over.contains(&image.id))
            {
                return true;
            }
            match prune_matches(filters, created, &image.config.config.labels) {
                Ok(fits) => !fits,
                Err(e) => {
                    failed = Some(e);
                    true
                }
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        let deleted = self.note_removed(removed)?;
        let left = self.store().gc()?;
        let space_reclaimed = space_reclaimed.saturating_add(left.reclaimed);
        if !deleted.is_empty() {
            self.note_prune("image", space_reclaimed)?;
        }
        self.store().db().checkpoint_if_large()?;
        Ok(ImagesPruned { deleted, space_reclaimed })
    }

    pub(crate) fn note_image(&self, action: &str, id: &str, name: &str) -> Result<()> {
        let attributes = [("name".to_owned(), name.to_owned())].into();
        self.store()
            .db()
            .transaction(|tx| events::note(tx, clock::now(), "image", action, id, &attributes))
    }
}

/// A time that has passed: `90m`, `720h`, `30d`, `2w`; in nanoseconds.
fn span(text: &str) -> Result<i64> {
    const DAY: i64 = 86_400 * 1_000_000_000;
    let days = |number: &str, each: i64| {
        number.parse::<i64>().ok().filter(|n| *n >= 0).and_then(|n| n.checked_mul(each))
    };
    let found = if let Some(number) = text.strip_suffix('d') {
        days(number, DAY)
    } else if let Some(number) = text.strip_suffix('w') {
        days(number, 7 * DAY)
    } else {
        oci::instruction::duration(text).ok()
    };
    found.ok_or_else(|| {
        Error::invalid(format!("invalid filter 'unused-for={text}': write 720h, 30d or 2w"))
    })
}

/// Reads the name an image is to have.
fn named(name: &str) -> Result<Reference> {
    let reference = Reference::parse(name).map_err(|e| {
        Error::new(ErrorKind::Invalid, format!("\"{name}\" is not a valid repository/tag: {e}"))
    })?;
    if reference.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    Ok(reference.or_latest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span("2d").unwrap(), 172_800_000_000_000);
        assert_eq!(span("90m").unwrap(), 5_400_000_000_000);
        for bad in ["", "d", "-1d", "x", "99999999999999999w"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("debian*", "debian:12", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("d?bian", "debian", true),
            ("[ab]x", "bx", true),
            ("[ab", "a", false),
        ] {
            assert_eq!(glob(pattern, name), want, "{pattern} {name}");
        }
    }
}
