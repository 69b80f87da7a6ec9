//! Indexes as wholes: pulled for all platforms with whatever else they name, and pushed as they were.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};

use oci::manifest::{Descriptor, Manifest};
use oci::{ImageId, Reference};
use registry::{Client, Document, Repository, Uploaded};
use store::{BlobSource, IngestError, KnownManifest, Store};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::platforms::{Tree, is_image};
use crate::pull::{Image, Source, known};
use crate::transfer::{Message, Meter, Metered, Transfer, from_io, parallel};

/// Bytes that are here already.
struct Here<'a>(&'a [u8]);

impl BlobSource for Here<'_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(Box::new(self.0.get(offset..).unwrap_or_default()))
    }
}

fn kept(what: &str) -> impl FnOnce(IngestError) -> Error {
    move |error| match error {
        IngestError::Store(error) => error.into(),
        IngestError::Source(error) => from_io(what, error),
    }
}

/// What a manifest needs besides itself. Layers that may not be distributed are not in registries.
fn blobs_of(manifest: Manifest) -> impl Iterator<Item = Descriptor> {
    let bound = |kind: &str| kind.contains(".nondistributable.") || kind.contains(".foreign.");
    let layers = manifest.layers.into_iter().filter(move |layer| !bound(&layer.media_type));
    std::iter::once(manifest.config).chain(layers)
}

impl Engine {
    /// Fetches all that an index names. Images that can be unpacked here become images; attestations and
    /// images for other systems are kept as they travel. `image` is the one that the names are to mean.
    #[allow(clippy::too_many_arguments, reason = "one pull with all it carries")]
    pub(crate) fn pull_whole(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        top: &Document,
        tree: &Tree,
        image: &Image,
        names: &[Reference],
        progress: &mut dyn Transfer,
    ) -> Result<ImageId> {
        let others = tree.entries.iter().filter(|entry| entry.digest != image.document.digest);
        let (images, rest): (Vec<_>, Vec<_>) = others.partition(|entry| is_image(entry));
        let mut ids = Vec::new();
        for entry in images {
            let other = Image::of(repository, entry)?;
            let name = [repository.reference().with_digest(other.document.digest)];
            ids.push(self.pull_image(client, repository, &other, &name, progress)?);
        }
        self.pull_rest(client, repository, &rest, progress)?;
        for document in &tree.nested {
            self.keep_document(document)?;
        }
        let id = self.pull_image(client, repository, image, names, progress)?;
        ids.push(id);
        self.store().add_index(names, &known(top), &ids)?;
        Ok(id)
    }

    fn keep_document(&self, document: &Document) -> Result<()> {
        let size = document.raw.len() as u64;
        let descriptor = Descriptor::new(&document.media_type, document.digest, size);
        let what = format!("manifest {}", document.digest);
        self.store().keep_blob(&descriptor, &mut Here(&document.raw)).map_err(kept(&what))?;
        Ok(())
    }

    fn pull_rest(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        rest: &[&Descriptor],
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        let (mut seen, mut blobs) = (BTreeSet::new(), Vec::new());
        for entry in rest {
            let document = repository.document_by_digest(&entry.digest)?;
            let manifest = Manifest::parse(&document.raw)?;
            self.keep_document(&document)?;
            blobs.extend(blobs_of(manifest).filter(|blob| seen.insert(blob.digest)));
        }
        let opener = self.store().opener();
        parallel(
            &blobs,
            client.options().config.max_downloads,
            progress,
            || Ok(opener.open()?),
            |store: &mut Store, blob, send, stop| {
                let id = blob.digest.short();
                let meter = Meter {
                    send,
                    stop,
                    id: &id,
                    status: "Downloading",
                    total: blob.size,
                    done: 0,
                    told: None,
                };
                let mut source = Source { repository, descriptor: blob.clone(), meter };
                let fetched = store.keep_blob(blob, &mut source);
                let fetched = fetched.map_err(kept(&format!("blob {id}")))?;
                let status = if fetched { "Download complete" } else { "Already exists" };
                let _ = send.send(Message::of(&*id, status));
                Ok(())
            },
        )
    }

    /// Sends a whole index: its images, what else was kept of it, the indexes in it; not itself, which the
    /// caller writes. What was not pulled with it the registry has, or refuses the index.
    pub(crate) fn push_index(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        index: &KnownManifest,
        images: &[ImageId],
        progress: &mut dyn Transfer,
    ) -> Result<Document> {
        let top = crate::push::document(index.clone());
        // One that was not kept: the registry may have it.
        let mut missing = BTreeSet::new();
        let tree = Tree::read(&top, None, &mut |entry| {
            let raw = self.store().kept_document(&entry.digest)?.unwrap_or_else(|| {
                missing.insert(entry.digest);
                EMPTY.to_vec()
            });
            Ok(Document { media_type: entry.media_type.clone(), digest: entry.digest, raw })
        })?;
        let named: BTreeSet<_> = tree.entries.iter().map(|entry| entry.digest).collect();
        for id in images {
            let image = self.store().image_by_id(id)?;
            let manifests = self.store().manifests_of(id)?;
            for manifest in manifests.iter().filter(|manifest| named.contains(&manifest.digest)) {
                let only = Some(&manifest.digest);
                let document = self.push_image(client, repository, &image, only, progress)?;
                repository.put_document(&document.digest.to_string(), &document)?;
            }
        }
        for entry in tree.entries.iter().filter(|entry| !is_image(entry)) {
            let Some(raw) = self.store().kept_document(&entry.digest)? else { continue };
            let blobs: Vec<_> = blobs_of(Manifest::parse(&raw)?).collect();
            self.push_kept(client, repository, &blobs, progress)?;
            let media_type = entry.media_type.clone();
            let document = Document { media_type, digest: entry.digest, raw };
            repository.put_document(&document.digest.to_string(), &document)?;
        }
        for document in tree.nested.iter().filter(|nested| !missing.contains(&nested.digest)) {
            repository.put_document(&document.digest.to_string(), document)?;
        }
        Ok(top)
    }

    fn push_kept(
        &self,
        client: &Client,
        repository: &Repository<'_>,
        blobs: &[Descriptor],
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        let opener = self.store().opener();
        parallel(
            blobs,
            client.options().config.max_uploads,
            progress,
            || Ok(opener.open()?),
            |store: &mut Store, blob, send, stop| {
                let id = blob.digest.short();
                let mut meter = Meter {
                    send,
                    stop,
                    id: &id,
                    status: "Pushing",
                    total: blob.size,
                    done: 0,
                    told: None,
                };
                let uploaded =
                    repository.upload(blob, &[], &mut Kept { store, blob, meter: &mut meter })?;
                let existed = uploaded == Uploaded::Existed;
                meter.say(if existed { "Layer already exists" } else { "Pushed" });
                Ok(())
            },
        )
    }
}

/// Stands for an index that is not here.
const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

struct Kept<'k, 'a> {
    store: &'k Store,
    blob: &'k Descriptor,
    meter: &'k mut Meter<'a>,
}

impl registry::Source for Kept<'_, '_> {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let file = self.store.kept_blob(&self.blob.digest).map_err(io::Error::other)?;
        let mut file = file.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("the blob {} was removed: pull the image again", self.blob.digest),
            )
        })?;
        file.seek(io::SeekFrom::Start(offset))?;
        self.meter.done = offset;
        Ok(Box::new(Metered { inner: file, meter: self.meter }))
    }
}
