//! Layers on top of each other: what an overlay of them would show, as one tree.

use std::collections::HashMap;

use oci::DiffId;
use oci::tar::Time;

use crate::node::{Data, Device, Directory, Id, Node, ROOT, What};
use crate::{BLOCK, Error, LayerTree, MAX_DEVICE, MAX_NODES, Result};

/// One layer of an image.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Its name.
    pub diff_id: DiffId,
    /// Its files.
    pub tree: &'a LayerTree,
    /// Bytes of its archive.
    pub archive: u64,
    /// Bytes of its side file; 0 if it has none.
    pub side: u64,
}

/// A file that the image takes data from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFile {
    /// The layer it belongs to.
    pub diff_id: DiffId,
    /// The side file, not the archive.
    pub side: bool,
    /// Blocks of 512 bytes, the last one perhaps incomplete.
    pub blocks: u32,
}

/// A merged tree, ready to be written.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) devices: Vec<DeviceFile>,
}

/// Attributes of the root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
}

impl Tree {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Root {
        let root = self.nodes.get(ROOT).cloned().unwrap_or_else(|| Node::implied(0));
        Root { mode: root.mode.into(), uid: root.uid, gid: root.gid, mtime: root.mtime }
    }

    /// The files the image refers to, in the order in which they must be given when it is mounted.
    #[must_use]
    pub fn devices(&self) -> &[DeviceFile] {
        &self.devices
    }
}

/// Puts layers on top of each other, the lowest first. No whiteout is left. A directory that a layer
/// has without an entry of its own keeps the attributes it had below.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn merge(layers: &[Layer<'_>]) -> Result<Tree> {
    let mut tree = Tree { nodes: vec![Node::implied(0)], devices: Vec::new() };
    for layer in layers {
        let devices = tree.devices_of(layer)?;
        Applying { to: &mut tree, from: layer.tree, devices, moved: HashMap::new() }.run()?;
    }
    Ok(tree)
}

impl Tree {
    /// Numbers of a layer's archive and side file. A layer that is there twice has them once.
    fn devices_of(&mut self, layer: &Layer<'_>) -> Result<[Device; 2]> {
        let mut numbers = [Device(0); 2];
        let sizes = [layer.archive, layer.side];
        for (number, (side, size)) in numbers.iter_mut().zip([false, true].into_iter().zip(sizes)) {
            if size == 0 {
                continue;
            }
            if size > MAX_DEVICE {
                return Err(Error::TooLarge("a layer of more than 2 TiB"));
            }
            let blocks = u32::try_from(size.div_ceil(BLOCK)).unwrap_or(u32::MAX);
            let known =
                self.devices.iter().position(|d| d.diff_id == layer.diff_id && d.side == side);
            let at = known.unwrap_or(self.devices.len());
            if known.is_none() {
                self.devices.push(DeviceFile { diff_id: layer.diff_id, side, blocks });
            }
            let at = u16::try_from(at + 1).map_err(|_| Error::TooLarge("too many layers"))?;
            *number = Device(at);
        }
        Ok(numbers)
    }

    fn directory_mut(&mut self, id: Id) -> Option<&mut Directory> {
        self.nodes.get_mut(id).and_then(Node::directory_mut)
    }
}

/// One layer on its way into the tree.
struct Applying<'a> {
    to: &'a mut Tree,
    from: &'a LayerTree,
    devices: [Device; 2],
    /// Where a file of the layer that has several names went.
    moved: HashMap<Id, Id>,
}

impl Applying<'_> {
    fn run(mut self) -> Result<()> {
        // Pairs of directories that are both there.
        let mut todo = vec![(ROOT, ROOT)];
        while let Some((below, above)) = todo.pop() {
            self.directory(below, above, &mut todo)?;
        }
        Ok(())
    }

    fn directory(&mut self, below: Id, above: Id, todo: &mut Vec<(Id, Id)>) -> Result<()> {
        let Some(node) = self.from.nodes.get(above) else { return Ok(()) };
        let Some(directory) = node.directory() else { return Ok(()) };
        if let Some(to) = self.to.nodes.get_mut(below)
            && !directory.implied
        {
            (to.mode, to.uid, to.gid, to.mtime) = (node.mode, node.uid, node.gid, node.mtime);
            to.xattrs.clone_from(&node.xattrs);
        }
        if directory.opaque
            && let Some(to) = self.to.directory_mut(below)
        {
            to.children.clear();
        }
        for (name, id) in &directory.children {
            let Some(child) = self.from.nodes.get(*id) else { continue };
            let there = self.to.nodes.get(below).and_then(Node::directory);
            let there = there.and_then(|directory| directory.children.get(name)).copied();
            match &child.what {
                What::Whiteout => {
                    if let Some(to) = self.to.directory_mut(below) {
                        to.children.remove(name);
                    }
                }
                What::Directory(inside) => {
                    let same = there.filter(|there| {
                        self.to.nodes.get(*there).is_some_and(|node| node.directory().is_some())
                    });
                    let to = match same {
                        Some(there) => there,
                        None => {
                            self.push(Node { what: empty(inside), ..child.clone_attributes() })?
                        }
                    };
                    self.insert(below, name, to);
                    todo.push((to, *id));
                }
                _ => {
                    let to = match self.moved.get(id) {
                        Some(to) => *to,
                        None => {
                            let mut node = child.clone();
                            self.number_devices(&mut node);
                            let to = self.push(node)?;
                            self.moved.insert(*id, to);
                            to
                        }
                    };
                    self.insert(below, name, to);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, node: Node) -> Result<Id> {
        if self.to.nodes.len() >= MAX_NODES {
            return Err(Error::TooLarge("too many files"));
        }
        self.to.nodes.push(node);
        Ok(self.to.nodes.len() - 1)
    }

    fn insert(&mut self, directory: Id, name: &[u8], id: Id) {
        if let Some(directory) = self.to.directory_mut(directory) {
            directory.children.insert(name.to_vec(), id);
        }
    }

    fn number_devices(&self, node: &mut Node) {
        if let What::File { data, .. } = &mut node.what
            && let Data::Blocks { device, .. } | Data::Chunks { device, .. } = data
        {
            *device = self.devices.get(usize::from(device.0)).copied().unwrap_or(*device);
        }
    }
}

fn empty(directory: &Directory) -> What {
    What::Directory(Directory { depth: directory.depth, ..Directory::default() })
}

impl Node {
    /// The same without what a directory contains.
    fn clone_attributes(&self) -> Node {
        Node {
            what: What::Fifo,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs.clone(),
        }
    }
}
