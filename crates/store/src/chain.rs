//! Chains: the merged index of an image's layers, in `chains/<chain ID>/`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use erofs::{Indexed, Visitor};
use oci::tar::TarReader;
use oci::{ChainId, DiffId};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::io;
use crate::image_mount;
use crate::layer::{SPARSE, StagedLayer, TAR};
use crate::temporary::Temporary;
use crate::{Error, Form, Lower, Result, Store, files};

/// The index: an EROFS image of metadata.
const INDEX: &str = "index.erofs";
/// What the index refers to.
const INFO: &str = "chain.json";

/// `chain.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainInfo {
    /// The layers, lowest first.
    pub(crate) layers: Vec<DiffId>,
    /// The files the index takes data from, in the order of its device table.
    pub(crate) devices: Vec<DeviceInfo>,
    /// Attributes of the root directory.
    pub(crate) root: RootInfo,
}

/// One file that holds data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceInfo {
    layer: DiffId,
    /// Its name in the layer's directory.
    file: String,
}

/// What the upper directory of an overlay must have, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootInfo {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
}

/// A chain that is complete but not visible yet.
#[derive(Debug)]
pub(crate) struct StagedChain {
    id: ChainId,
    /// None if it was in the store already.
    directory: Option<Temporary>,
}

/// The open files of an image, ready to be mounted. They stay what they are even if the store drops
/// them meanwhile.
#[derive(Debug)]
pub(crate) struct ImageFiles {
    from: image_mount::From,
    pub(crate) path: PathBuf,
    index: OwnedFd,
    devices: Vec<OwnedFd>,
    pub(crate) root: RootInfo,
}

impl ImageFiles {
    pub(crate) fn mount(&self) -> Result<Lower> {
        let mount = image_mount::mount(self.from, &self.index, &self.devices)?;
        Lower::of_mount(mount, self.path.clone())
    }
}

/// Layers whose files were just read, so that they need not be read again.
pub(crate) type Known<'a> = HashMap<DiffId, &'a Indexed>;

impl Store {
    pub(crate) fn chain_path(&self, id: &ChainId) -> PathBuf {
        self.root.join("chains").join(id.hex())
    }

    /// Where the index of these layers is.
    pub(crate) fn index_path(&self, layers: &[DiffId]) -> Result<PathBuf> {
        let id = ChainId::of(layers).ok_or_else(|| Error::Invalid("no layers".to_owned()))?;
        Ok(self.chain_path(&id).join(INDEX))
    }

    /// What is known of the chain of these layers; None if it is not in the store.
    pub(crate) fn chain_info(&self, layers: &[DiffId]) -> Option<ChainInfo> {
        let id = ChainId::of(layers)?;
        let raw =
            files::read_small(&self.chain_path(&id).join(INFO), oci::limits::MAX_JSON).ok()?;
        let info: ChainInfo = serde_json::from_slice(&raw).ok()?;
        (info.layers == layers).then_some(info)
    }

    /// The chain of these layers, made if it is missing.
    pub(crate) fn chain(&self, layers: &[DiffId]) -> Result<ChainInfo> {
        if let Some(info) = self.chain_info(layers) {
            return Ok(info);
        }
        self.writable_store()?;
        let staged = self.stage_chain(layers, &Known::new())?;
        self.sync_chain(&staged)?;
        self.publish_chain(&staged)?;
        let missing = || Error::Damaged("an index that was just made is missing".to_owned());
        self.chain_info(layers).ok_or_else(missing)
    }

    /// Opens the files of an image of these layers.
    pub(crate) fn image_files(&self, form: Form, layers: &[DiffId]) -> Result<ImageFiles> {
        // Once more if a conversion or a clean-up came between reading and opening.
        match self.try_image_files(form, layers) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.try_image_files(form, layers)
            }
            other => other,
        }
    }

    fn try_image_files(&self, form: Form, layers: &[DiffId]) -> Result<ImageFiles> {
        let Some(from) = form.from() else {
            return Err(Error::Invalid("directories are not an image filesystem".to_owned()));
        };
        let info = self.chain(layers)?;
        let path = self.index_path(layers)?;
        let index = open(&path)?;
        let devices = info
            .devices
            .iter()
            .map(|device| open(&self.layer_path(&device.layer).join(&device.file)))
            .collect::<Result<_>>()?;
        Ok(ImageFiles { from, path, index, devices, root: info.root })
    }

    /// Writes the index of a chain into a temporary directory.
    pub(crate) fn stage_chain(&self, layers: &[DiffId], known: &Known<'_>) -> Result<StagedChain> {
        let id = ChainId::of(layers).ok_or_else(|| Error::Invalid("no layers".to_owned()))?;
        if self.chain_info(layers).is_some() {
            return Ok(StagedChain { id, directory: None });
        }
        let (info, index) = self.make_index(layers, known)?;
        let temporary = self.temporary()?;
        let path = temporary.path().join(INDEX);
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).map_err(io(|| format!("writing {}", path.display())))
        };
        write(&path, &index)?;
        let raw = serde_json::to_vec(&info).unwrap_or_default();
        write(&temporary.path().join(INFO), &raw)?;
        Ok(StagedChain { id, directory: Some(temporary) })
    }

    /// The bytes of a chain's index.
    pub(crate) fn make_index(
        &self,
        layers: &[DiffId],
        known: &Known<'_>,
    ) -> Result<(ChainInfo, Vec<u8>)> {
        let mut read: HashMap<DiffId, Indexed> = HashMap::new();
        for diff_id in layers {
            if !known.contains_key(diff_id) && !read.contains_key(diff_id) {
                read.insert(*diff_id, self.read_layer(diff_id)?);
            }
        }
        let mut parts = Vec::new();
        for diff_id in layers {
            let known = known.get(diff_id).copied().or_else(|| read.get(diff_id));
            let Some(indexed) = known else { continue };
            let (archive, side) = (indexed.archive, indexed.side.size());
            parts.push(erofs::Layer { diff_id: *diff_id, tree: &indexed.tree, archive, side });
        }
        let tree = erofs::merge(&parts)?;
        let devices = tree
            .devices()
            .iter()
            .map(|device| DeviceInfo {
                layer: device.diff_id,
                file: if device.side { SPARSE } else { TAR }.to_owned(),
            })
            .collect();
        let root = tree.root();
        let root = RootInfo {
            mode: root.mode,
            uid: root.uid,
            gid: root.gid,
            mtime: (root.mtime.seconds, root.mtime.nanoseconds),
        };
        let id = ChainId::of(layers).ok_or_else(|| Error::Invalid("no layers".to_owned()))?;
        let index = tree.write(uuid(&id))?;
        Ok((ChainInfo { layers: layers.to_vec(), devices, root }, index))
    }

    /// Puts staged layers and the index over them in their places, synced, so that an image of
    /// `layers` can be added.
    pub(crate) fn publish_layers(&self, staged: &[&StagedLayer], layers: &[DiffId]) -> Result<()> {
        let known = staged.iter().filter_map(|s| Some((s.diff_id, s.indexed.as_ref()?))).collect();
        let chain = match self.form()?.is_erofs() && !layers.is_empty() {
            true => Some(self.stage_chain(layers, &known)?),
            false => None,
        };
        for layer in staged {
            self.sync_layer(layer)?;
            self.publish_layer(layer)?;
        }
        if let Some(chain) = chain {
            self.sync_chain(&chain)?;
            self.publish_chain(&chain)?;
        }
        Ok(())
    }

    pub(crate) fn sync_chain(&self, chain: &StagedChain) -> Result<()> {
        match &chain.directory {
            Some(directory) if self.durable() => sync_directory(directory.path()),
            _ => Ok(()),
        }
    }

    /// Puts a synced chain in its place. Somebody else having done so is fine.
    pub(crate) fn publish_chain(&self, chain: &StagedChain) -> Result<()> {
        let Some(directory) = &chain.directory else { return Ok(()) };
        let to = self.chain_path(&chain.id);
        let what = || format!("publishing the index {}", to.display());
        let rename =
            || rustix::fs::renameat_with(CWD, directory.path(), CWD, &to, RenameFlags::NOREPLACE);
        match rename() {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                // Ours was made because that one was missing or damaged.
                if files::read_small(&to.join(INFO), oci::limits::MAX_JSON).is_err() {
                    self.discard(&to)?;
                    rename().map_err(io(what))?;
                }
            }
            Err(error) => return Err(io(what)(error)),
        }
        self.sync_parent(&to)
    }

    /// A layer's files, read from its archive without its data. Its side file is made if it needs
    /// one and has none.
    pub(crate) fn read_layer(&self, diff_id: &DiffId) -> Result<Indexed> {
        let directory = self.layer_path(diff_id);
        let path = directory.join(TAR);
        let missing = |error| Error::Damaged(format!("the layer {diff_id} is missing: {error}"));
        let file = File::open(&path).map_err(missing)?;
        let size = file.metadata().map_err(missing)?.len();
        let sparse = directory.join(SPARSE);
        let mut side = match sparse.exists() {
            true => Side::There,
            false if self.options.read_only => Side::There,
            false => Side::Wanted(self, None),
        };
        let mut tar = TarReader::new(Seeking::new(file));
        let mut indexed = Indexed::read(&mut tar, &mut side)?;
        indexed.archive = size;
        if let Side::Wanted(_, Some((file, temporary))) = side {
            let what = || format!("writing {}", sparse.display());
            file.set_len(indexed.side.size()).map_err(io(what))?;
            if self.durable() {
                file.sync_all().map_err(io(what))?;
            }
            let from = temporary.path().join(SPARSE);
            match rustix::fs::renameat_with(CWD, &from, CWD, &sparse, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(io(what)(error)),
            }
            self.sync_parent(&sparse)?;
        }
        Ok(indexed)
    }

    /// Makes a name survive a loss of power.
    pub(crate) fn sync_parent(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if self.durable() => {
                let fd = files::open_path(parent)?;
                rustix::fs::fsync(&fd).map_err(io(|| format!("syncing {}", parent.display())))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the files of a flat directory survive a loss of power. Only them: what others are writing
/// to the same disk does not hold it up.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let what = || format!("syncing {}", path.display());
    let fd = files::open_path(path)?;
    for name in files::names(&fd).map_err(io(what))? {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&fd, &name, flags, Mode::empty()).map_err(io(what))?;
        rustix::fs::fsync(&file).map_err(io(what))?;
    }
    rustix::fs::fsync(&fd).map_err(io(what))
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(io(|| format!("opening {}", path.display())))
}

/// The first half of the chain ID's bytes.
fn uuid(id: &ChainId) -> [u8; 16] {
    let hex = id.hex();
    let mut out = [0; 16];
    for (to, digits) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *to = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    out
}

/// What becomes of the data of sparse files.
enum Side<'a> {
    /// The side file is there.
    There,
    /// It is made when the first data comes.
    Wanted(&'a Store, Option<(File, Temporary)>),
}

impl Visitor<Seeking> for Side<'_> {
    type Error = Error;

    fn side(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let Side::Wanted(store, open) = self else { return Ok(()) };
        let (file, temporary) = match open {
            Some(open) => open,
            None => {
                let temporary = store.temporary()?;
                let path = temporary.path().join(SPARSE);
                let what = || format!("creating {}", path.display());
                let file = File::create_new(&path).map_err(io(what))?;
                open.insert((file, temporary))
            }
        };
        let what = || format!("writing {}", temporary.path().display());
        file.write_all_at(data, offset).map_err(io(what))
    }

    fn entry(&mut self, tar: &mut TarReader<Seeking>, _: u64) -> Result<()> {
        Ok(tar.skip_data(Seeking::skip)?)
    }
}

/// Reads a file piece by piece and passes over what nobody wants.
pub(crate) struct Seeking {
    file: File,
    /// Offset of what follows the buffer.
    position: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Seeking {
    pub(crate) fn new(file: File) -> Seeking {
        Seeking { file, position: 0, buffer: vec![0; 4096], start: 0, end: 0 }
    }

    pub(crate) fn skip(&mut self, n: u64) -> io::Result<()> {
        let have = (self.end - self.start) as u64;
        if n <= have {
            self.start += usize::try_from(n).unwrap_or(0);
        } else {
            self.start = 0;
            self.end = 0;
            self.position = self.position.saturating_add(n - have);
        }
        Ok(())
    }
}

impl BufRead for Seeking {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start >= self.end {
            self.start = 0;
            self.end = self.file.read_at(&mut self.buffer, self.position)?;
            self.position = self.position.saturating_add(self.end as u64);
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
    }
}

impl Read for Seeking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), available.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}

impl AsFd for Seeking {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
