//! `pull`: images from registries.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use oci::config::ImageConfig;
use oci::limits::MAX_JSON;
use oci::manifest::{Descriptor, Manifest, Platform, media_type};
use oci::{Digest, ImageId, Reference};
use registry::{Access, Client, Document, Repository};
use store::{
    BlobSource, IncomingLayer, IngestError, IngestProgress, KnownManifest, PulledImage, Store,
};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::platforms::{Tree, choose, is_index, no_match};
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
            let only = (!options.all_platforms).then_some(&wanted);
            let tree = Tree::read(&top, only, &mut |entry| {
                Ok(repository.document_by_digest(&entry.digest)?)
            })?;
            let chosen = choose(&tree.entries, &wanted, platform.is_some())
                .ok_or_else(|| no_match(&tree.entries, &wanted))?
                .clone();
            let image = Image::of(&repository, &chosen)?;
            if options.all_platforms {
                self.pull_whole(client, &repository, &top, &tree, &image, &names, progress)?
            } else {
                self.pull_image(client, &repository, &image, &names, progress)?
            }
        };
        // The same image may be of another index now, of which the rest is not here.
        let index = if options.all_platforms { None } else { self.store().index_of(reference)? };
        if index.is_some_and(|(index, _)| index.digest != top.digest) {
            self.store().forget_index(reference)?;
        }
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
    pub(crate) fn pull_image(
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
                "{} is an index, which the index that names it calls something else",
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

/// A blob of a registry, that says how it comes along.
pub(crate) struct Source<'a> {
    pub(crate) repository: &'a Repository<'a>,
    pub(crate) descriptor: Descriptor,
    pub(crate) meter: Meter<'a>,
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
