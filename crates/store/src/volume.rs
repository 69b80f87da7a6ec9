//! Volumes: directories that outlive containers.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, params};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::io;
use crate::{Error, Result, Store, files, tree};

/// How to make a volume.
#[derive(Clone, Debug, Default)]
pub struct VolumeOptions {
    /// `local`, or nothing for that.
    pub driver: String,
    /// Options of the driver. Of `local`: `type`, `o` and `device`, as for mount(8).
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// Made without a name: a container's removal may take it along.
    pub anonymous: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Where its files are, unless options say that they come from elsewhere.
    pub mountpoint: PathBuf,
}

const DATA: &str = "_data";
/// There while a volume is being filled from an image: what it then has is worth nothing.
const SEEDING: &str = "seeding";
const COLUMNS: &str = "name, driver, anonymous, options, labels, created_ns";

fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.len() < 2 {
        return Err(Error::Invalid(
            "volume name is too short, names should be at least two alphanumeric characters"
                .to_owned(),
        ));
    }
    if !first || !name.bytes().all(good) || name.len() > 255 {
        return Err(Error::Invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
             absolute path"
        )));
    }
    Ok(())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for key in options.keys() {
        match key.as_str() {
            "type" | "o" | "device" => {}
            "size" => {
                return Err(Error::Invalid(
                    "the option size needs a file system with project quotas, which is not supported: \
                     use type=tmpfs with o=size=…"
                        .to_owned(),
                ));
            }
            other => return Err(Error::Invalid(format!("invalid option: {other:?}"))),
        }
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    if !options.is_empty() && !given("device") {
        return Err(Error::Invalid("missing device in volume options".to_owned()));
    }
    Ok(())
}

fn json(map: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(map).map_err(|error| Error::Invalid(error.to_string()))
}

impl Store {
    fn volume_path(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    fn volume_from_row(&self, row: &Row<'_>) -> rusqlite::Result<Volume> {
        let name: String = row.get(0)?;
        let map = |index: usize| -> rusqlite::Result<BTreeMap<String, String>> {
            let text: String = row.get(index)?;
            serde_json::from_str(&text).map_err(|error| {
                let kind = rusqlite::types::Type::Text;
                rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
            })
        };
        Ok(Volume {
            mountpoint: self.volume_path(&name).join(DATA),
            driver: row.get(1)?,
            anonymous: row.get(2)?,
            options: map(3)?,
            labels: map(4)?,
            created_ns: row.get(5)?,
            name,
        })
    }

    /// Makes a volume; without a name an anonymous one. One that exists already with the same driver
    /// and options is returned as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name, driver or option that cannot be; [`Error::VolumeConflict`].
    pub fn volume_create(&self, name: Option<&str>, options: &VolumeOptions) -> Result<Volume> {
        self.writable_store()?;
        if !matches!(options.driver.as_str(), "" | "local") {
            let driver = &options.driver;
            return Err(Error::Invalid(format!(
                "error looking up volume plugin {driver}: plugin {driver:?} not found: only the driver \
                 local exists"
            )));
        }
        check_options(&options.options)?;
        let anonymous = name.is_none();
        let name = match name {
            Some(name) => {
                check_name(name)?;
                name.to_owned()
            }
            None => files::random_hex(32)?,
        };
        if let Some(volume) = self.find_volume(&name)? {
            let same = options.options.is_empty() || options.options == volume.options;
            return if same { Ok(volume) } else { Err(Error::VolumeConflict(name)) };
        }
        let path = self.volume_path(&name);
        let what = || format!("creating the volume {}", path.display());
        for (path, mode) in [(path.clone(), 0o700), (path.join(DATA), 0o755)] {
            match rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(mode)) {
                Ok(()) => {
                    rustix::fs::chmodat(
                        CWD,
                        &path,
                        Mode::from_raw_mode(mode),
                        rustix::fs::AtFlags::empty(),
                    )
                    .map_err(io(what))?;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(io(what)(error)),
            }
        }
        let (options_text, labels) = (json(&options.options)?, json(&options.labels)?);
        self.database.transaction(|tx| {
            // Somebody else may have made it meanwhile; then it is theirs.
            tx.prepare_cached(
                "INSERT INTO volumes(name, driver, anonymous, options, labels, created_ns) \
                 VALUES (?1, 'local', ?2, ?3, ?4, ?5) ON CONFLICT(name) DO NOTHING",
            )?
            .execute(params![
                name,
                anonymous,
                options_text,
                labels,
                files::now_ns()
            ])?;
            Ok::<_, Error>(())
        })?;
        self.volume(&name)
    }

    fn find_volume(&self, name: &str) -> Result<Option<Volume>> {
        Ok(self
            .database
            .connection()
            .prepare_cached(&format!("SELECT {COLUMNS} FROM volumes WHERE name = ?1"))?
            .query_row([name], |row| self.volume_from_row(row))
            .optional()?)
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`].
    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.find_volume(name)?.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut statement = self
            .database
            .connection()
            .prepare_cached(&format!("SELECT {COLUMNS} FROM volumes ORDER BY name"))?;
        let volumes = statement
            .query_map([], |row| self.volume_from_row(row))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(volumes)
    }

    /// IDs of the containers that use a volume, running or not.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>> {
        users(self.database.connection(), name)
    }

    /// Removes a volume with all its files. With `force` one that does not exist is fine; one that is in
    /// use is never removed.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`]; [`Error::NoSuchVolume`].
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        self.writable_store()?;
        match self.find_volume(name)? {
            Some(_) => {}
            None if force => return Ok(()),
            None => return Err(Error::NoSuchVolume(name.to_owned())),
        }
        self.database.transaction(|tx| {
            let users = users(tx, name)?;
            if !users.is_empty() {
                let (name, users) = (name.to_owned(), users.join(", "));
                return Err(Error::VolumeInUse { name, users });
            }
            tx.prepare_cached("DELETE FROM volumes WHERE name = ?1")?.execute([name])?;
            // While nobody can make one of the same name, which would then get these files.
            self.discard(&self.volume_path(name))
        })?;
        self.empty_trash()
    }

    /// Bytes that a volume's own files take on disk.
    ///
    /// # Errors
    /// Those of reading.
    pub fn volume_size(&self, name: &str) -> Result<u64> {
        let path = self.volume_path(name);
        let fd = files::open_path(&path)?;
        files::disk_bytes(fd.as_fd()).map_err(io(|| format!("reading {}", path.display())))
    }

    /// A detached mount of a volume: its directory, or what its options say. Each call makes a mount of
    /// its own, so a volume of type tmpfs is not shared between containers.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; [`Error::Mount`] with the options and what the kernel says.
    pub fn volume_mount(&self, name: &str) -> Result<OwnedFd> {
        let volume = self.volume(name)?;
        let fail = |what: &str| {
            let what = format!("volume {name} ({what})");
            move |source: Errno| Error::Mount { what, source: source.into(), log: String::new() }
        };
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let option = |key: &str| volume.options.get(key).map_or("", String::as_str);
        if volume.options.is_empty() {
            return match open_tree(CWD, &volume.mountpoint, clone) {
                // Its record is there, its files are not: killed while it was removed or made.
                Err(Errno::NOENT) => {
                    std::fs::create_dir_all(&volume.mountpoint)
                        .map_err(io(|| format!("creating {}", volume.mountpoint.display())))?;
                    open_tree(CWD, &volume.mountpoint, clone)
                }
                other => other,
            }
            .map_err(fail(&volume.mountpoint.display().to_string()));
        }
        let device = option("device");
        let mut attributes = MountAttrFlags::empty();
        let mut rest = Vec::new();
        let (mut bind, mut recursive) = (false, false);
        for word in option("o").split(',').filter(|word| !word.is_empty()) {
            match word {
                "bind" => bind = true,
                "rbind" => (bind, recursive) = (true, true),
                "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
                "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
                "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
                "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
                "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
                "nodiratime" => attributes |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
                "rw" | "suid" | "dev" | "exec" | "relatime" | "atime" | "defaults" => {}
                other => rest.push(other),
            }
        }
        if bind || option("type") == "none" {
            if attributes != MountAttrFlags::empty() || !rest.is_empty() {
                return Err(Error::Invalid(format!(
                    "volume {name}: only bind and rbind are supported among the options of a bind mount, \
                     not {:?}: make the mount in the container read-only instead",
                    option("o")
                )));
            }
            let mut flags = clone;
            if recursive {
                flags |= OpenTreeFlags::AT_RECURSIVE;
            }
            return open_tree(CWD, device, flags).map_err(fail(device));
        }
        let kind = option("type");
        let make = || {
            let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", device)?;
            for word in &rest {
                match word.split_once('=') {
                    Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                    None => fsconfig_set_flag(&context, *word)?,
                }
            }
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        make().map_err(fail(&format!("type={kind}, device={device}, o={}", option("o"))))
    }

    /// Copies what an image has at `path` into a volume, if the volume is empty: with owners, times,
    /// attributes and hard links; the volume's own directory gets those of `path`. Returns whether
    /// anything was copied. One that was interrupted is done again.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; those of copying.
    pub fn volume_seed(&self, name: &str, rootfs: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
        let volume = self.volume(name)?;
        if !volume.options.is_empty() {
            return Ok(false);
        }
        let what = || format!("filling the volume {name}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = match files::open_in_root(rootfs, path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(error) => return Err(io(what)(error)),
        };
        let _lock = self.named_lock(&format!("volume-{name}"))?;
        let directory = files::open_path(&self.volume_path(name))?;
        let data = files::open_dir(&directory, c"_data").map_err(io(what))?;
        let mark =
            |flags| rustix::fs::openat(&directory, SEEDING, flags, Mode::from_raw_mode(0o600));
        if mark(OFlags::RDONLY | OFlags::CLOEXEC).is_ok() {
            for name in files::names(&data).map_err(io(what))? {
                files::remove_tree(data.as_fd(), &name).map_err(io(what))?;
            }
        } else if !files::names(&data).map_err(io(what))?.is_empty() {
            return Ok(false);
        }
        mark(OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC).map_err(io(what))?;
        tree::copy_tree(source, data.as_fd())?;
        rustix::fs::unlinkat(&directory, SEEDING, rustix::fs::AtFlags::empty())
            .map_err(io(what))?;
        Ok(true)
    }
}

fn users(connection: &Connection, name: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT container_id FROM container_volumes WHERE volume = ?1 ORDER BY container_id",
    )?;
    let ids = statement.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}
