//! `pull`: images from registries.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use oci::config::ImageConfig;
use oci::limits::MAX_JSON;
use oci::manifest::{Descriptor, Index, Manifest, Platform, media_type};
use oci::{Digest, ImageId, Reference};
use registry::{Access, Client, Document, Repository};
use store::{
    BlobSource, IncomingLayer, IngestError, IngestProgress, KnownManifest, PulledImage, Store,
};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Message, Meter, Metered, Transfer, from_io, parallel};

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Name of the image, with a tag or a digest.
    pub reference: String,
    /// All tags of the repository.
    pub all_tags: bool,
    /// `os[/arch[/variant]]`; this host's if absent.
    pub platform: Option<String>,
    /// The images of all platforms, kept together.
    pub all_platforms: bool,
}

/// What a pull gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The whole name.
    pub reference: Reference,
    /// The image's id.
    pub id: String,
    /// It was not here before.
    pub newer: bool,
}

/// Media types of configurations that make an image.
const CONFIG_TYPES: [&str; 3] =
    [media_type::CONFIG, "application/vnd.docker.container.image.v1+json", ""];

impl Engine {
    /// Whether an image is here, for this platform if one is given.
    ///
    /// # Errors
    /// A name that is none; those of the store.
    pub fn has_image(&self, name: &str, platform: Option<&str>) -> Result<bool> {
        match self.store().image(name) {
            Ok(image) => Ok(platform
                .is_none_or(|p| crate::create::check_platform(name, &image.config, p).is_ok())),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches an image, or all of a repository's.
    ///
    /// # Errors
    /// A name that is none or that the registry does not have; an image for other platforms; those of the
    /// connection, after which what has come is kept for another try.
    pub fn pull(
        &self,
        client: &Client,
        options: &PullOptions,
        progress: &mut dyn Transfer,
    ) -> Result<Vec<Pulled>> {
        let reference = Reference::parse(&options.reference)?;
        let platform = options.platform.as_deref().map(Platform::parse).transpose()?;
        if options.all_platforms && platform.is_some() {
            return Err(Error::invalid("--platform and --all-platforms exclude each other"));
        }
        if !options.all_tags {
            let reference = reference.or_latest();
            let pulled = self.pull_one(client, &reference, platform, options, progress);
            return Ok(vec![pulled.map_err(|e| explain(&reference, e))?]);
        }
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        let repository = client.repository(&reference, Access::Pull)?;
        let tags = repository.tags().map_err(|e| explain(&reference, e.into()))?;
        let mut pulled = Vec::new();
        for tag in tags {
            let tagged = reference.with_tag(&tag)?;
            let one = self.pull_one(client, &tagged, platform.clone(), options, progress);
            pulled.push(one.map_err(|e| explain(&tagged, e))?);
        }
        Ok(pulled)
    }

    fn pull_one(
        &self,
        client: &Client,
        reference: &Reference,
        platform: Option<Platform>,
        options: &PullOptions,
        progress: &mut dyn Transfer,
    ) -> Result<Pulled> {
        let label = match reference.digest() {
            Some(_) => reference.to_string(),
            None => reference.tag().unwrap_or_default().to_owned(),
        };
        let repository = client.repository(reference, Access::Pull)?;
        let before = self.store().image(&reference.to_string()).ok();
        let top = repository.document()?;
        progress.report(Message::of(label, format!("Pulling from {}", reference.path())));
        let hold = self.store().hold()?;
        let wanted = platform.clone().unwrap_or_else(Platform::host);
        let mut names = vec![reference.with_digest(top.digest)];
        if reference.digest().is_none() {
            names.insert(0, reference.clone());
        }
        let id = if !is_index(&top) {
            let image = Image::fetch(&repository, top.clone())?;
            image.check_platform(reference, platform.as_ref())?;
            self.pull_image(client, &repository, &image, &names, progress)?
        } else {
            let index = Index::parse(&top.raw)?;
            let chosen = choose(&index, &wanted, platform.is_some())
                .ok_or_else(|| no_match(&index, &wanted))?
                .clone();
            let image = Image::of(&repository, &chosen)?;
            if options.all_platforms {
                let mut images = Vec::new();
                for other in index.manifests.iter().filter(|m| **m != chosen && is_image(m)) {
                    let other = Image::of(&repository, other)?;
                    let names = [reference.with_digest(other.document.digest)];
                    images.push(self.pull_image(client, &repository, &other, &names, progress)?);
                }
                let id = self.pull_image(client, &repository, &image, &names, progress)?;
                images.push(id);
                if reference.digest().is_none() {
                    self.store().add_index(reference, &known(&top), &images)?;
                }
                id
            } else {
                self.pull_image(client, &repository, &image, &names, progress)?
            }
        };
        drop(hold);
        progress.report(Message::line(format!("Digest: {}", top.digest)));
        let newer = before.is_none_or(|before| before.id != id);
        let status = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        progress.report(Message::line(format!("Status: {status} {}", reference.familiar())));
        self.note_image("pull", &reference.familiar(), &reference.familiar_name())?;
        self.store().db().checkpoint_if_large()?;
        Ok(Pulled { reference: reference.clone(), id: id.to_string(), newer })
    }

    /// Fetches the layers that are not here and makes the image visible.
    fn pull_image(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        image: &Image,
        names: &[Reference],
        progress: &mut dyn Transfer,
    ) -> Result<ImageId> {
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for layer in &image.layers {
            let id = layer.blob.short();
            if !seen.insert(layer.diff_id) {
                continue;
            }
            if self.store().has_layer(&layer.diff_id) {
                progress.report(Message::of(id, "Already exists"));
            } else {
                progress.report(Message::of(id, "Pulling fs layer"));
                missing.push(layer.clone());
            }
        }
        let opener = self.store().opener();
        let verified: Mutex<Vec<Digest>> = Mutex::default();
        parallel(
            &missing,
            client.options().config.max_downloads,
            progress,
            || Ok(opener.open()?),
            |store: &mut Store, layer, send, stop| {
                if fetch(store, repository, layer, send, stop)? {
                    match verified.lock() {
                        Ok(mut verified) => verified.push(layer.blob),
                        Err(poisoned) => poisoned.into_inner().push(layer.blob),
                    }
                }
                Ok(())
            },
        )?;
        let verified = verified.into_inner().unwrap_or_default();
        let record = self.store().add_pulled(&PulledImage {
            config_raw: &image.config_raw,
            references: names,
            manifest: &known(&image.document),
            layers: &image.layers,
            verified: &verified,
            repository: &repository.reference().repository(),
        })?;
        Ok(record.id)
    }
}

/// An image as a registry describes it.
pub(crate) struct Image {
    pub(crate) document: Document,
    pub(crate) manifest: Manifest,
    pub(crate) config_raw: Vec<u8>,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<IncomingLayer>,
}

impl Image {
    /// By an entry of an index.
    pub(crate) fn of(repository: &Repository<'_>, entry: &Descriptor) -> Result<Self> {
        let document = repository.document_by_digest(&entry.digest)?;
        if is_index(&document) {
            return Err(Error::invalid(format!(
                "{}: an index in an index, which has no platform of its own",
                entry.digest
            )));
        }
        Self::fetch(repository, document)
    }

    pub(crate) fn fetch(repository: &Repository<'_>, document: Document) -> Result<Self> {
        let manifest = Manifest::parse(&document.raw)?;
        if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
            return Err(Error::invalid(format!(
                "{} is no image of a container: its configuration has the media type {:?}",
                repository.reference().familiar(),
                manifest.config.media_type
            )));
        }
        let config_raw = repository.blob_bytes(&manifest.config, MAX_JSON)?;
        let config = ImageConfig::parse(&config_raw)?;
        let layers = layers_of(&manifest, &config)?;
        Ok(Self { document, manifest, config_raw, config, layers })
    }

    /// An image without an index may still be for another platform than was asked for.
    fn check_platform(&self, reference: &Reference, wanted: Option<&Platform>) -> Result<()> {
        let Some(wanted) = wanted else { return Ok(()) };
        let variant = Some(self.config.variant.clone()).filter(|v| !v.is_empty());
        let actual = Platform {
            os: self.config.os.clone(),
            architecture: self.config.architecture.clone(),
            variant,
            os_version: None,
        };
        if actual.satisfies(wanted) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "image with reference {} was found but does not match the specified platform: wanted {wanted}, actual: {actual}",
                reference.familiar()
            ),
        ))
    }
}

/// Puts the two lists of layers side by side.
pub(crate) fn layers_of(manifest: &Manifest, config: &ImageConfig) -> Result<Vec<IncomingLayer>> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid(format!(
            "the manifest names {} layers and the configuration {}: the image is broken",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    Ok(manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(blob, diff_id)| IncomingLayer {
            diff_id: *diff_id,
            blob: blob.digest,
            size: blob.size,
            media_type: blob.media_type.clone(),
        })
        .collect())
}

pub(crate) fn known(document: &Document) -> KnownManifest {
    KnownManifest {
        digest: document.digest,
        media_type: document.media_type.clone(),
        raw: document.raw.clone(),
    }
}

pub(crate) fn is_index(document: &Document) -> bool {
    matches!(document.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX)
}

/// Attestations stand in indexes for the platform `unknown`.
pub(crate) fn is_image(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture != "unknown")
        && !entry.is_index()
}

/// The best entry for a platform: the variant asked for, else the highest below it, as processors run
/// what was made for older ones.
pub(crate) fn choose<'i>(
    index: &'i Index,
    wanted: &Platform,
    explicit: bool,
) -> Option<&'i Descriptor> {
    let number = |variant: &Option<String>, architecture: &str| -> Option<u32> {
        let default = match architecture {
            "arm" => "v7",
            "arm64" => "v8",
            _ => "v1",
        };
        variant.as_deref().unwrap_or(default).strip_prefix('v')?.parse().ok()
    };
    let limit = number(&wanted.variant, &wanted.architecture)?;
    let fits = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|p| {
            p.os == wanted.os
                && p.architecture == wanted.architecture
                && number(&p.variant, &p.architecture).is_some_and(|have| have <= limit)
        }) && !entry.is_index()
    };
    let rank = |entry: &&Descriptor| {
        entry.platform.as_ref().and_then(|p| number(&p.variant, &p.architecture)).unwrap_or(0)
    };
    // Of equal ones the first counts, as in containerd.
    let mut best: Option<&Descriptor> = None;
    for entry in index.manifests.iter().filter(fits) {
        if best.is_none_or(|best| rank(&entry) > rank(&best)) {
            best = Some(entry);
        }
    }
    // An index with one entry that says nothing of platforms is that image.
    best.or_else(|| match index.manifests.as_slice() {
        [only] if only.platform.is_none() && !only.is_index() && !explicit => Some(only),
        _ => None,
    })
}

fn no_match(index: &Index, wanted: &Platform) -> Error {
    let mut have: Vec<String> = index
        .manifests
        .iter()
        .filter(|m| is_image(m))
        .filter_map(|m| m.platform.as_ref().map(ToString::to_string))
        .collect();
    have.dedup();
    let list =
        if have.is_empty() { String::new() } else { format!(" (it has {})", have.join(", ")) };
    Error::new(
        ErrorKind::NotFound,
        format!("no matching manifest for {wanted} in the manifest list entries{list}"),
    )
}

/// Docker's words for what a registry does not have or does not give.
pub(crate) fn explain(reference: &Reference, error: Error) -> Error {
    let Some(source) = error.source.as_deref().and_then(|s| s.downcast_ref::<registry::Error>())
    else {
        return error;
    };
    let message = match source {
        registry::Error::NotFound { what, message } if what.starts_with("manifest for") => {
            // A repository that does not exist looks the same, except at registries that say so.
            if message.starts_with("name unknown") {
                format!("repository {} not found: {message}", reference.familiar_name())
            } else {
                format!("manifest for {} not found: {message}", reference.familiar())
            }
        }
        registry::Error::Unauthorized { message, .. } | registry::Error::Denied { message, .. } => {
            format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': {message}",
                reference.familiar_name()
            )
        }
        _ => return error,
    };
    Error { message, ..error }
}

/// Fetches one layer; false if it had come meanwhile.
fn fetch(
    store: &Store,
    repository: &Repository<'_>,
    layer: &IncomingLayer,
    send: &Sender<Message>,
    stop: &AtomicBool,
) -> Result<bool> {
    let id = layer.blob.short();
    let descriptor = Descriptor::new(&layer.media_type, layer.blob, layer.size);
    let meter =
        |status| Meter { send, stop, id: &id, status, total: layer.size, done: 0, told: None };
    let mut source = Source { repository, descriptor, meter: meter("Downloading") };
    let mut heard = Heard { meter: meter("Downloading") };
    let fetched = store.ingest_layer(layer, &mut source, &mut heard).map_err(|e| match e {
        IngestError::Store(error) => Error::from(error),
        IngestError::Source(error) => from_io(&format!("layer {id}"), error),
    })?;
    let _ = send.send(Message::of(&*id, if fetched { "Pull complete" } else { "Already exists" }));
    Ok(fetched)
}

struct Source<'a> {
    repository: &'a Repository<'a>,
    descriptor: Descriptor,
    meter: Meter<'a>,
}

impl BlobSource for Source<'_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let inner = self.repository.blob(&self.descriptor, offset).map_err(io::Error::other)?;
        self.meter.done = offset;
        Ok(Box::new(Metered { inner, meter: &mut self.meter }))
    }
}

struct Heard<'a> {
    meter: Meter<'a>,
}

impl IngestProgress for Heard<'_> {
    fn waiting(&mut self) {
        self.meter.say("Waiting");
    }
    fn resumed(&mut self, bytes: u64) {
        if bytes > 0 {
            self.meter.say(&format!("Resuming at byte {bytes}"));
        }
    }
    fn received(&mut self) {
        self.meter.say("Download complete");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().map(|text| {
            let mut entry = Descriptor::new(media_type::MANIFEST, Digest::sha256(text), 1);
            let mut parts = text.split('/').map(str::to_owned);
            entry.platform = Some(Platform {
                os: parts.next().unwrap(),
                architecture: parts.next().unwrap(),
                variant: parts.next(),
                os_version: None,
            });
            entry
        });
        Index {
            schema_version: 2,
            media_type: None,
            manifests: manifests.collect(),
            annotations: None,
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let all = index(&[
            "linux/amd64",
            "linux/amd64/v3",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm64",
            "windows/amd64",
            "unknown/unknown",
        ]);
        let find = |wanted: &str| {
            choose(&all, &Platform::parse(wanted).unwrap(), true)
                .and_then(|d| d.platform.as_ref().map(ToString::to_string))
        };
        assert_eq!(find("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(find("linux/amd64/v3").as_deref(), Some("linux/amd64/v3"));
        assert_eq!(find("linux/amd64/v2").as_deref(), Some("linux/amd64"));
        assert_eq!(find("linux/arm/v7").as_deref(), Some("linux/arm/v6"));
        assert_eq!(find("linux/arm/v5").as_deref(), Some("linux/arm/v5"));
        assert_eq!(find("linux/arm64/v8").as_deref(), Some("linux/arm64"));
        assert_eq!(find("linux/s390x"), None);
        let wanted = Platform::parse("linux/s390x").unwrap();
        assert!(
            no_match(&all, &wanted).message.starts_with("no matching manifest for linux/s390x")
        );
    }
}
