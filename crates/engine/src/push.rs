//! `push`: images to registries.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;

use oci::compression::Compression;
use oci::manifest::{Descriptor, Manifest, media_type};
use oci::{DiffId, Digest, Reference};
use registry::{Access, Client, Document, Repository, Uploaded};
use store::{ImageRecord, IncomingLayer, KnownBlob, KnownManifest, PackedLayer, Store};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Message, Meter, Metered, Transfer, parallel};

/// What to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Name of the image, with a tag.
    pub reference: String,
    /// All tags of the repository.
    pub all_tags: bool,
    /// Only the image for this platform, of an index that was pulled whole.
    pub platform: Option<String>,
}

/// What a layer is to be in the registry.
#[derive(Debug, Clone)]
struct Wanted {
    diff_id: DiffId,
    /// The blob that a known manifest names.
    known: Option<KnownBlob>,
}

/// A blob that could not be had with the digest it should have.
#[derive(Debug)]
struct Unknown;

impl Engine {
    /// Sends an image, or all of a repository's.
    ///
    /// # Errors
    /// A name that no image has; a registry that refuses; those of the connection.
    pub fn push(
        &self,
        client: &Client,
        options: &PushOptions,
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        let reference = Reference::parse(&options.reference)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let mut tags: Vec<Reference> = Vec::new();
        if options.all_tags {
            if reference.tag().is_some() {
                return Err(Error::invalid("tag can't be used with --all-tags/-a"));
            }
            tags.extend(self.store().tags_in(&reference)?.into_iter().map(|(tag, _)| tag));
        } else {
            let tagged = reference.clone().or_latest();
            if self.store().image(&tagged.to_string()).is_ok_and(|i| i.references.contains(&tagged))
            {
                tags.push(tagged);
            }
        }
        if tags.is_empty() {
            let name = reference.familiar_name();
            let message = match (&reference.tag(), options.all_tags) {
                (Some(tag), _) => format!("tag does not exist: {name}:{tag}"),
                (None, false) => format!("tag does not exist: {name}:latest"),
                (None, true) => format!("An image does not exist locally with the tag: {name}"),
            };
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        progress.report(Message::line(format!(
            "The push refers to repository [{}]",
            reference.repository()
        )));
        for tag in tags {
            self.push_one(client, &tag, options, progress).map_err(|e| explain(&tag, e))?;
        }
        Ok(())
    }

    fn push_one(
        &self,
        client: &Client,
        name: &Reference,
        options: &PushOptions,
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        let repository = client.repository(name, Access::Push)?;
        let tag = name.tag().unwrap_or_default().to_owned();
        let _hold = self.store().hold()?;
        let index = self.store().index_of(name)?;
        let document = match (index, options.platform.as_deref()) {
            (Some((index, images)), None) => {
                let document = self.push_index(client, &repository, &index, &images, progress)?;
                repository.put_document(&tag, &document).map_err(|e| {
                    let e = Error::from(e);
                    let message = format!("{}: the index names something that was not pulled with it; push one image by --platform", e.message);
                    Error { message, ..e }
                })?;
                document
            }
            (index, platform) => {
                let image = match (index, platform) {
                    (index, Some(platform)) => {
                        let ids = index.map(|(_, ids)| ids).unwrap_or_default();
                        self.for_platform(name, &ids, platform)?
                    }
                    (_, None) => self.store().image(&name.to_string())?,
                };
                let document = self.push_image(client, &repository, &image, None, progress)?;
                repository.put_document(&tag, &document)?;
                document
            }
        };
        let (digest, size) = (document.digest, document.raw.len());
        progress.report(Message::line(format!("{tag}: digest: {digest} size: {size}")));
        self.note_image("push", &name.familiar(), &name.familiar_name())
    }

    fn for_platform(
        &self,
        name: &Reference,
        ids: &[oci::ImageId],
        platform: &str,
    ) -> Result<ImageRecord> {
        let wanted = oci::manifest::Platform::parse(platform)?;
        let own = self.store().image(&name.to_string())?;
        let mut all = vec![own];
        for id in ids {
            all.push(self.store().image_by_id(id)?);
        }
        let fits = |image: &ImageRecord| {
            let c = &image.config;
            c.os == wanted.os
                && c.architecture == wanted.architecture
                && (c.variant.is_empty() || wanted.variant.as_ref().is_none_or(|v| *v == c.variant))
        };
        all.into_iter().find(fits).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("image {} is not here for the platform {wanted}", name.familiar()),
            )
        })
    }

    /// Sees to it that the registry has all an image consists of; its manifest, which the caller
    /// writes. If `only` is given, that is to be the manifest, if it can be.
    pub(crate) fn push_image(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        image: &ImageRecord,
        only: Option<&Digest>,
        progress: &mut dyn Transfer,
    ) -> Result<Document> {
        for manifest in self.store().manifests_of(&image.id)? {
            if only.is_some_and(|only| *only != manifest.digest) {
                continue;
            }
            let Some(blobs) = blobs_in(&manifest, image) else { continue };
            let wanted: Vec<Wanted> = image
                .layers
                .iter()
                .zip(blobs)
                .map(|(diff_id, blob)| Wanted { diff_id: *diff_id, known: Some(blob) })
                .collect();
            // If not, somebody else compressed it in a way of his own, and the registry has not that blob.
            if let Ok(layers) = self.push_layers(client, repository, &wanted, progress)? {
                return self.finish(repository, image, manifest, &layers);
            }
        }
        let wanted: Vec<Wanted> =
            image.layers.iter().map(|diff_id| Wanted { diff_id: *diff_id, known: None }).collect();
        let Ok(layers) = self.push_layers(client, repository, &wanted, progress)? else {
            return Err(Error::invalid("a layer was compressed to other bytes than it should be"));
        };
        let config_type = "application/vnd.docker.container.image.v1+json";
        let config = Descriptor::new(config_type, image.id.digest(), image.config_raw.len() as u64);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::DOCKER_MANIFEST.to_owned()),
            config,
            layers: layers
                .iter()
                .map(|(l, _)| Descriptor::new(&l.media_type, l.blob, l.size))
                .collect(),
            annotations: None,
        };
        let raw = serde_json::to_vec(&manifest).map_err(|e| Error::system("manifest", e))?;
        let manifest = KnownManifest {
            digest: Digest::sha256(&raw),
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            raw,
        };
        self.finish(repository, image, manifest, &layers)
    }

    /// Sends the configuration, and remembers what is there now.
    fn finish(
        &self,
        repository: &Repository<'_>,
        image: &ImageRecord,
        manifest: KnownManifest,
        layers: &[(IncomingLayer, bool)],
    ) -> Result<Document> {
        let parsed = Manifest::parse(&manifest.raw)?;
        let mounts = self.mounts(repository.reference(), &parsed.config.digest)?;
        repository.upload(&parsed.config, &mounts, &mut image.config_raw.as_slice())?;
        self.store().note_pushed(&image.id, repository.reference(), &manifest, layers)?;
        Ok(document(manifest))
    }

    /// Repositories of the same registry in which a blob was seen.
    fn mounts(&self, target: &Reference, blob: &Digest) -> Result<Vec<String>> {
        mounts(self.store(), target, blob)
    }

    fn push_layers(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        wanted: &[Wanted],
        progress: &mut dyn Transfer,
    ) -> Result<Result<Vec<(IncomingLayer, bool)>, Unknown>> {
        let done: Mutex<BTreeMap<DiffId, Option<(KnownBlob, bool)>>> = Mutex::default();
        let lock = || match done.lock() {
            Ok(done) => done,
            Err(poisoned) => poisoned.into_inner(),
        };
        let mut unique: Vec<Wanted> = Vec::new();
        for layer in wanted {
            if !unique.iter().any(|other| other.diff_id == layer.diff_id) {
                progress.report(Message::of(layer.diff_id.short(), "Preparing"));
                unique.push(layer.clone());
            }
        }
        let opener = self.store().opener();
        parallel(
            &unique,
            client.options().config.max_uploads,
            progress,
            || Ok(opener.open()?),
            |store: &mut Store, layer, send, stop| {
                let id = layer.diff_id.short();
                let total = store.layer_size(&layer.diff_id).unwrap_or(0);
                let mut meter = Meter {
                    send,
                    stop,
                    id: &id,
                    status: "Compressing",
                    total,
                    done: 0,
                    told: None,
                };
                // One that cannot be had in the right form makes the others pointless.
                if lock().values().any(Option::is_none) {
                    return Ok(());
                }
                let sent = send_layer(store, repository, layer, &mut meter)?;
                if sent.is_none() {
                    meter.say("Other form");
                }
                lock().insert(layer.diff_id, sent);
                Ok(())
            },
        )?;
        let done = lock();
        let mut layers = Vec::new();
        for layer in wanted {
            let Some(Some((blob, made))) = done.get(&layer.diff_id) else {
                return Ok(Err(Unknown));
            };
            let blob = IncomingLayer {
                diff_id: layer.diff_id,
                blob: blob.blob,
                size: blob.size,
                media_type: blob.media_type.clone(),
            };
            layers.push((blob, *made));
        }
        Ok(Ok(layers))
    }
}

fn mounts(store: &Store, target: &Reference, blob: &Digest) -> Result<Vec<String>> {
    let domain = target.domain();
    let known = store.repositories_of(blob)?;
    let same = known.iter().filter_map(|name| name.strip_prefix(domain)?.strip_prefix('/'));
    // A registry is asked for each; so a few must do.
    Ok(same.filter(|path| *path != target.path()).take(3).map(str::to_owned).collect())
}

pub(crate) fn document(manifest: KnownManifest) -> Document {
    Document { media_type: manifest.media_type, digest: manifest.digest, raw: manifest.raw }
}

/// The layers of a manifest, if it is one of this image.
fn blobs_in(manifest: &KnownManifest, image: &ImageRecord) -> Option<Vec<KnownBlob>> {
    let parsed = Manifest::parse(&manifest.raw).ok()?;
    if parsed.config.digest != image.id.digest() || parsed.layers.len() != image.layers.len() {
        return None;
    }
    let blob = |layer: Descriptor| KnownBlob {
        blob: layer.digest,
        size: layer.size,
        media_type: layer.media_type,
    };
    Some(parsed.layers.into_iter().map(blob).collect())
}

/// Sends one layer, in the form that is wanted or in our own; with whether the blob was made here. None if
/// it cannot be had in that form.
fn send_layer(
    store: &Store,
    repository: &Repository<'_>,
    layer: &Wanted,
    meter: &mut Meter<'_>,
) -> Result<Option<(KnownBlob, bool)>> {
    let target = repository.reference();
    // What the registry has in this form or could take from a repository of its own.
    let candidates = match &layer.known {
        Some(known) => vec![known.clone()],
        None => store
            .blobs_of(&layer.diff_id)?
            .into_iter()
            .filter(|blob| blob.media_type.ends_with("gzip"))
            .map(|blob| KnownBlob { media_type: DOCKER_LAYER.to_owned(), ..blob })
            .collect(),
    };
    for blob in &candidates {
        let mounts = mounts(store, target, &blob.blob)?;
        let descriptor = Descriptor::new(&blob.media_type, blob.blob, blob.size);
        match repository.provide(&descriptor, &mounts)? {
            Some(Uploaded::Mounted(from)) => meter.say(&format!("Mounted from {from}")),
            Some(_) => meter.say("Layer already exists"),
            None => continue,
        }
        return Ok(Some((blob.clone(), false)));
    }
    let kind = layer.known.as_ref().map_or(DOCKER_LAYER, |known| known.media_type.as_str());
    let compression = match kind {
        kind if kind.ends_with("zstd") => Compression::Zstd,
        kind if kind.ends_with("gzip") => Compression::Gzip,
        _ => Compression::None,
    };
    let packed = store.pack_layer(&layer.diff_id, compression, true, &mut |done| meter.at(done))?;
    let blob = match &layer.known {
        Some(known) if known.blob != packed.blob.blob => return Ok(None),
        Some(known) => known.clone(),
        None => packed.blob.clone(),
    };
    let descriptor = Descriptor::new(&blob.media_type, blob.blob, blob.size);
    (meter.status, meter.total, meter.done) = ("Pushing", blob.size, 0);
    let mut source = Packed { packed: &packed, meter };
    let uploaded = repository.upload(&descriptor, &[], &mut source)?;
    meter.say(if uploaded == Uploaded::Existed { "Layer already exists" } else { "Pushed" });
    Ok(Some((blob, true)))
}

const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

struct Packed<'p, 'm, 'a> {
    packed: &'p PackedLayer,
    meter: &'m mut Meter<'a>,
}

impl registry::Source for Packed<'_, '_, '_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let inner = self.packed.open(offset)?;
        self.meter.done = offset;
        Ok(Box::new(Metered { inner, meter: self.meter }))
    }
}

/// Docker's words for a registry that refuses.
fn explain(reference: &Reference, error: Error) -> Error {
    let source = error.source.as_deref().and_then(|s| s.downcast_ref::<registry::Error>());
    let message = match source {
        Some(registry::Error::Denied { message, .. }) => message.clone(),
        Some(registry::Error::Unauthorized { message, .. }) => {
            // The answer to a question without a body says nothing.
            let message = match message.as_str() {
                "unauthorized" => "denied: requested access to the resource is denied",
                other => other,
            };
            format!("{message}; log in to {} first", reference.domain())
        }
        _ => return error,
    };
    Error { message, ..error }
}
