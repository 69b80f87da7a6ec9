//! `import`: an image of one layer from the archive of a root filesystem.

use std::fs::File;
use std::io::Read;

use oci::Reference;
use oci::config::{History, ImageConfig, RootFs};
use oci::instruction;
use oci::manifest::Platform;

use crate::image::NewImage;
use crate::incoming::{Incoming, Part};
use crate::{ImageRecord, Progress, Result, Store, files};

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the new image.
    pub reference: Option<Reference>,
    /// Comment in its history.
    pub message: String,
    /// What it runs on; this machine if not given.
    pub platform: Option<Platform>,
    /// Dockerfile instructions that change its configuration, in order.
    pub changes: Vec<String>,
    /// Most bytes the archive may have when uncompressed.
    pub limit: Option<u64>,
}

impl Store {
    /// Makes an image of a root filesystem's archive, compressed or not. The stream is read once, to its
    /// end, and need not be seekable.
    ///
    /// # Errors
    /// A wrong instruction in `changes`; an archive that is damaged, refused, or too large; a full disk. Nothing is
    /// left behind then.
    pub fn import(
        &self,
        archive: &mut dyn Read,
        options: &ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<ImageRecord> {
        self.import_from(Incoming::Stream(archive), options, progress)
    }

    /// As [`Store::import`], for an archive that is a file; it is read from its beginning. If it is not compressed
    /// and the file system can, the layer shares its bytes.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub fn import_file(
        &self,
        archive: &File,
        options: &ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<ImageRecord> {
        let mut stream = archive;
        let incoming = match Part::whole(archive) {
            Some(part) => Incoming::Part(part),
            None => Incoming::Stream(&mut stream),
        };
        self.import_from(incoming, options, progress)
    }

    fn import_from(
        &self,
        archive: Incoming<'_>,
        options: &ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<ImageRecord> {
        self.writable_store()?;
        // Before the archive is read, so that a typing error is reported at once.
        let mut config = ImageConfig::default();
        for change in &options.changes {
            instruction::apply(&mut config.config, change)?;
        }
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        self.remove_stale_temporaries();

        let lease = self.lease()?;
        let layer = self.stage_layer(archive, "archive", options.limit, progress)?;
        let now = files::now_rfc3339();
        config.created = Some(now.clone());
        config.os = platform.os;
        config.architecture = platform.architecture;
        config.variant = platform.variant.unwrap_or_default();
        config.rootfs = RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() };
        config.history = vec![History {
            created: Some(now),
            comment: options.message.clone(),
            ..History::default()
        }];
        let config_raw = config.to_bytes()?;
        self.publish_layers(&[&layer], &config.rootfs.diff_ids)?;
        let references: Vec<_> =
            options.reference.iter().map(|reference| reference.clone().or_latest()).collect();
        let added = self.add_image(&NewImage {
            config: &config,
            config_raw: &config_raw,
            parent: None,
            references: &references,
            layers: &[(layer.diff_id, layer.info)],
        });
        drop(lease);
        self.finish_adding(added)
    }
}
