//! The verbs about a container's files: `cp`, `diff`, `export`, `commit`.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use store::copy::{self, UntarOptions};

use crate::clock;
use crate::engine::{CommitOptions, Engine, PathStat};
use crate::error::{Error, ErrorKind, Result};
use crate::events;
use crate::offline::Root;
use crate::peer::clone_mount_of;
use crate::record::{Record, State};
use crate::types::DiffEntry;

impl Engine {
    /// The root of a container's files: of its processes if it runs, so that its mounts
    /// are seen too; else put together for us, and gone with the descriptors.
    fn root_of(&self, record: &Record) -> Result<Root> {
        if !record.state.is_live() {
            return self.offline_root(record);
        }
        let pidfd = record.identity().open()?;
        let path = format!("/proc/{}/root", record.pid);
        let root = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::system(format!("cannot open {path}"), std::io::Error::from(e)))?;
        drop(pidfd);
        Ok(root.into())
    }

    fn no_path(name: &str, path: &str) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("Could not find the file {path} in container {name}"),
        )
    }

    /// What is at a path of a container; a symbolic link is not followed.
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let record = self.current(name)?;
        let root = self.root_of(&record)?;
        stat(&root, path)?.ok_or_else(|| Self::no_path(name, path))
    }

    /// Writes a tar of a path of a container; its first entry is the path's last name.
    pub fn copy_from(&self, name: &str, path: &str, out: &mut dyn Write) -> Result<PathStat> {
        let record = self.current(name)?;
        let root = self.root_of(&record)?;
        let found = stat(&root, path)?.ok_or_else(|| Self::no_path(name, path))?;
        let top = match found.name.as_str() {
            "/" => ".",
            name if path.ends_with("/.") || path == "." => {
                let _ = name;
                "."
            }
            name => name,
        };
        copy::tar_from(root.as_fd(), path.as_bytes(), top.as_bytes(), false, out)?;
        Ok(found)
    }

    /// Unpacks a tar below `path`, which must be a directory of the container. Without
    /// `copy_uid_gid` everything gets the owner of the container's user.
    pub fn copy_to(
        &self,
        name: &str,
        path: &str,
        tar: &mut dyn Read,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()> {
        let record = self.current(name)?;
        if record.definition.host.readonly_rootfs && !self.is_in_mount(&record, path) {
            return Err(Error::new(ErrorKind::Forbidden, "container rootfs is marked read-only"));
        }
        let root = self.root_of(&record)?;
        match copy::stat_in_root(root.as_fd(), path.as_bytes(), true)? {
            None => return Err(Self::no_path(name, path)),
            Some(s) if !s.is_directory() => {
                return Err(Error::invalid("extraction point is not a directory"));
            }
            Some(_) => {}
        }
        let owner = if copy_uid_gid {
            let user = &record.definition.config.user;
            let who = crate::user::identify(root.as_fd(), user, &[])?;
            Some((who.uid, who.gid))
        } else {
            None
        };
        let options = UntarOptions {
            owner,
            no_overwrite_dir_nondir: no_overwrite_dir_non_dir,
            ..UntarOptions::default()
        };
        copy::untar_into(root.as_fd(), path.as_bytes(), tar, options)?;
        Ok(())
    }

    fn is_in_mount(&self, record: &Record, path: &str) -> bool {
        let path = crate::mounts::clean(path);
        record.definition.mounts.iter().any(|m| {
            let kept = matches!(m.mount.r#type.as_str(), "bind" | "volume");
            !m.mount.read_only
                && (kept || record.state.is_live())
                && path.starts_with(&m.mount.target)
        })
    }

    /// What a container has changed.
    pub fn diff(&self, name: &str) -> Result<Vec<DiffEntry>> {
        let record = self.current(name)?;
        if record.definition.rootfs.as_ref().is_some_and(|r| r.writable) {
            return Err(Error::invalid(
                "a container with --rootfs-rw has no layer of its own to compare",
            ));
        }
        let changes = self.store().writable(&record.id)?.diff()?;
        // What the engine itself has put there is no change of the container's.
        let mut ours: Vec<&str> = vec![
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/dev",
            "/proc",
            "/sys",
            "/sbin/docker-init",
            "/dev/shm",
            "/dev/console",
        ];
        ours.extend(record.definition.mounts.iter().map(|m| m.mount.target.as_str()));
        let changes = changes.into_iter().map(|c| DiffEntry {
            path: String::from_utf8_lossy(&c.path).into_owned(),
            kind: c.kind.number(),
        });
        Ok(without(changes.collect(), &ours))
    }

    /// Writes all files of a container as a tar.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let record = self.current(name)?;
        // Mounts are not part of it, so the layer is mounted once more, without them.
        let root = match record.state.is_live() {
            false => self.mount_rootfs(&record)?,
            true => self.rootfs_of_process(&record)?,
        };
        self.store().export_tar(root.as_fd(), out)?;
        self.store()
            .db()
            .transaction(|tx| events::note_container(tx, clock::now(), "export", &record, &[]))
    }

    /// A copy of a running container's root mount, without what is mounted below it.
    fn rootfs_of_process(&self, record: &Record) -> Result<OwnedFd> {
        clone_mount_of(record.identity().open()?, c"/")
    }

    /// Makes an image of what a container has changed; the image's id.
    pub fn commit(&self, name: &str, options: CommitOptions) -> Result<String> {
        let record = self.current(name)?;
        let reference =
            options.reference.as_deref().map(str::parse::<oci::Reference>).transpose()?;
        let parent = match record.image_id.as_deref() {
            Some(id) => Some(self.store().image_by_id(&id.parse()?)?),
            None => None,
        };
        if record.definition.rootfs.is_some() {
            return Err(Error::invalid(
                "a container with --rootfs has no image below it: use export and import",
            ));
        }
        let config = self.commit_config(&record, parent.as_ref(), &options)?;
        let frozen = options.pause && record.state == State::Running;
        // One that ends meanwhile needs no pause, and has no cgroup any more.
        let unless_ended = |result: Result<()>| match result {
            Err(_) if !record.identity().alive() => Ok(()),
            other => other,
        };
        let cgroup = frozen.then(|| record.open_cgroup()).transpose();
        let cgroup = if record.identity().alive() { cgroup? } else { None };
        if let Some(cgroup) = &cgroup {
            unless_ended(cgroup.freeze().map_err(Error::from))?;
        }
        let layer = self.store().writable(&record.id)?;
        let image =
            self.store().commit(&layer, parent.as_ref(), config, reference.as_ref(), &mut ());
        if let Some(cgroup) = &cgroup {
            unless_ended(cgroup.thaw().map_err(Error::from))?;
        }
        let image = image?;
        let id = image.id.to_string();
        self.store().db().transaction(|tx| -> Result<()> {
            let more = [
                ("imageID", id.clone()),
                ("imageRef", options.reference.clone().unwrap_or_default()),
            ];
            events::note_container(tx, clock::now(), "commit", &record, &more)
        })?;
        self.store().db().checkpoint_if_large()?;
        Ok(id)
    }

    fn commit_config(
        &self,
        record: &Record,
        parent: Option<&store::ImageRecord>,
        options: &CommitOptions,
    ) -> Result<oci::config::ImageConfig> {
        let mut image = parent.map(|p| p.config.clone()).unwrap_or_default();
        let mut from = record.definition.config.clone();
        if let Some(given) = &options.config {
            let base = oci::config::ImageConfig { config: convert(&from)?, ..Default::default() };
            from = given.clone();
            crate::create::merge(&mut from, &base);
        }
        // The container's configuration is the image's with what was given on top.
        let mut config = convert(&from)?;
        config.forget_container();
        for change in &options.changes {
            oci::instruction::apply(&mut config, change)?;
        }
        image.config = config;
        let now = clock::rfc3339(clock::now());
        image.created = Some(now.clone());
        image.author.clone_from(&options.author);
        image.history.push(oci::config::History {
            created: Some(now),
            created_by: record.definition.argv.join(" "),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: false,
        });
        Ok(image)
    }
}

/// A container's configuration as an image has it.
fn convert(config: &crate::types::Config) -> Result<oci::config::ContainerConfig> {
    let value = serde_json::to_value(config).map_err(|e| Error::system("configuration", e))?;
    serde_json::from_value(value).map_err(|e| Error::system("configuration", e))
}

fn stat(root: &Root, path: &str) -> Result<Option<PathStat>> {
    // A path that ends in a slash means the directory a link points to.
    let follow = path.ends_with('/') || path.ends_with("/.");
    let Some(found) = copy::stat_in_root(root.as_fd(), path.as_bytes(), follow)? else {
        return Ok(None);
    };
    let (seconds, nanoseconds) = found.mtime;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(PathStat {
        name: text(&found.name),
        size: found.size,
        mode: found.mode,
        mtime: seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into()),
        link_target: text(&found.link_target),
    }))
}

/// Leaves out what was added at these paths, and the directories above that changed by it alone.
fn without(changes: Vec<DiffEntry>, ours: &[&str]) -> Vec<DiffEntry> {
    let is_ours = |d: &DiffEntry| d.kind == 1 && ours.contains(&d.path.as_str());
    let (hidden, kept): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_ours);
    let within = |d: &DiffEntry, top: &str| {
        d.path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut visible = Vec::with_capacity(kept.len());
    // Backwards, for what is in a directory comes after it.
    for entry in kept.into_iter().rev() {
        let by_us = entry.kind == 0 && hidden.iter().any(|h| within(h, &entry.path));
        if !by_us || visible.last().is_some_and(|v| within(v, &entry.path)) {
            visible.push(entry);
        }
    }
    visible.reverse();
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_added_is_no_change() {
        let entry = |text: &str| {
            let (kind, path) = text.split_once(' ').unwrap();
            DiffEntry { path: path.into(), kind: if kind == "C" { 0 } else { 1 } }
        };
        let diff = |all: &[&str]| -> Vec<String> {
            let left = without(all.iter().map(|t| entry(t)).collect(), &["/etc/hosts", "/a/b/c"]);
            left.into_iter().map(|d| d.path).collect()
        };
        assert_eq!(diff(&["C /etc", "A /etc/hosts"]), [""; 0]);
        assert_eq!(diff(&["C /etc", "A /etc/hosts", "A /etc/x"]), ["/etc", "/etc/x"]);
        assert_eq!(diff(&["C /a", "C /a/b", "A /a/b/c", "C /etc", "A /etc/y"]), ["/etc", "/etc/y"]);
        assert_eq!(diff(&["C /etc", "C /etc/hosts"]), ["/etc", "/etc/hosts"]);
        assert_eq!(diff(&["C /tmp"]), ["/tmp"]);
    }
}
