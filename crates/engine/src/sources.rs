//! The sources of a container's mounts: volumes, parts of them, directories of the host.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;

use crate::engine::Engine;
use crate::error::{Error, Result, errno};
use crate::record::{PlannedMount, Record};

impl Engine {
    /// A volume whose driver options make it something else than a directory, or of which only a part is
    /// wanted, mounted. Links in that part's path lead nowhere out of the volume: containers make them.
    pub(crate) fn special_volume(&self, planned: &PlannedMount) -> Result<Option<OwnedFd>> {
        let name = &planned.mount.source;
        let volume = self.store().volume(name)?;
        let part = planned.mount.volume_options.as_ref().map_or("", |v| v.subpath.as_str());
        let failed = |e| errno(format!("cannot access {part:?} in the volume {name}"), e);
        let fd = match (volume.options.is_empty(), part.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(&volume.mountpoint, flags, Mode::empty()).map_err(failed)?
            }
            (false, _) => self.store().volume_mount(name)?,
        };
        let fd = if part.is_empty() {
            fd
        } else {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let found = rustix::fs::openat2(&fd, part, flags, Mode::empty(), ResolveFlags::IN_ROOT)
                .map_err(failed)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            rustix::mount::open_tree(&found, "", flags).map_err(failed)?
        };
        if planned.mount.read_only {
            let change = sys::mount::Change { set: sys::mount::RDONLY, ..Default::default() };
            sys::mount::setattr(fd.as_fd(), change, true)
                .map_err(|e| errno(format!("cannot make the volume {name} read-only"), e))?;
        }
        Ok(Some(fd))
    }

    /// Makes what bind mounts need and finds the volumes.
    pub(crate) fn prepare_sources(&self, record: &Record) -> Result<BTreeMap<String, PathBuf>> {
        let mut volumes = BTreeMap::new();
        for planned in &record.definition.mounts {
            let source = &planned.mount.source;
            match planned.mount.r#type.as_str() {
                "volume" => {
                    volumes.insert(source.clone(), self.store().volume(source)?.mountpoint);
                }
                "bind" => {
                    let create =
                        planned.mount.bind_options.as_ref().is_some_and(|b| b.create_mountpoint);
                    if std::fs::symlink_metadata(source).is_err() {
                        if !create {
                            return Err(Error::invalid(format!(
                                "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                            )));
                        }
                        std::fs::create_dir_all(source).map_err(|e| {
                            Error::system(
                                format!("error while creating mount source path '{source}'"),
                                e,
                            )
                        })?;
                    }
                }
                _ => {}
            }
        }
        Ok(volumes)
    }
}
