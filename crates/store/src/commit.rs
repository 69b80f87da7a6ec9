//! `commit`: an image from a writable layer, in one pass over its upper directory.

use oci::config::{ImageConfig, RootFs};
use oci::{ImageId, Reference};

use crate::error::io;
use crate::image::NewImage;
use crate::incoming::Incoming;
use crate::tree::{TreeOptions, finish_stream, tree_stream};
use crate::{ImageRecord, Progress, Result, Store, WritableLayer};

impl Store {
    /// Makes an image of what a writable layer changed, on top of `parent` (none if the layer lies on a
    /// plain directory: the image then has only what changed).
    ///
    /// `config` is the new image's configuration, with its history; its `rootfs` is set here: the
    /// layers of the parent and the new one.
    ///
    /// # Errors
    /// A full disk; a file that cannot be read. Nothing is left behind then.
    pub fn commit(
        &self,
        layer: &WritableLayer,
        parent: Option<&ImageRecord>,
        mut config: ImageConfig,
        reference: Option<&Reference>,
        progress: &mut dyn Progress,
    ) -> Result<ImageRecord> {
        self.writable_store()?;
        let lease = self.lease()?;
        let upper = layer
            .upper()
            .try_clone_to_owned()
            .map_err(io(|| "duplicating a descriptor".to_owned()))?;
        let options = TreeOptions { overlay: true, root: true, latest: None };
        let (mut reader, writer) = tree_stream(upper, options);
        let staged = self.stage_layer(
            Incoming::Stream(&mut reader),
            "the container's changes",
            None,
            progress,
        );
        finish_stream(reader, writer)?;
        let staged = staged?;

        let parent_layers = parent.map(|parent| parent.layers.clone()).unwrap_or_default();
        let mut layers = Vec::new();
        for diff_id in &parent_layers {
            if let Some(info) = self.layer_info(diff_id) {
                layers.push((*diff_id, info));
            }
        }
        layers.push((staged.diff_id, staged.info));
        let mut diff_ids = parent_layers;
        diff_ids.push(staged.diff_id);
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        let config_raw = config.to_bytes()?;
        // The bounds of every image hold for this one too.
        let config = ImageConfig::parse(&config_raw)?;
        self.publish_layers(&[&staged], &config.rootfs.diff_ids)?;
        let references: Vec<_> = reference.iter().map(|r| (*r).clone().or_latest()).collect();
        let added = self.add_image(&NewImage {
            config: &config,
            config_raw: &config_raw,
            parent: parent.map(|parent| parent.id),
            references: &references,
            layers: &layers,
        });
        drop(lease);
        self.finish_adding(added)
    }

    /// Makes an image with the layers of another and a changed configuration; what a build does for
    /// instructions that touch no files. `config.rootfs` is set here.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn reconfigure(
        &self,
        parent: Option<&ImageRecord>,
        mut config: ImageConfig,
        references: &[Reference],
    ) -> Result<ImageRecord> {
        self.writable_store()?;
        let lease = self.lease()?;
        let diff_ids = parent.map(|parent| parent.layers.clone()).unwrap_or_default();
        let layers: Vec<_> =
            diff_ids.iter().filter_map(|id| Some((*id, self.layer_info(id)?))).collect();
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        let config_raw = config.to_bytes()?;
        let config = ImageConfig::parse(&config_raw)?;
        self.publish_layers(&[], &config.rootfs.diff_ids)?;
        let parent: Option<ImageId> = parent.map(|parent| parent.id);
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
