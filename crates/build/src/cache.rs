//! The build cache as a whole: what is in it, and its bound.

use std::collections::BTreeSet;

use engine::Engine;
use store::CachedStep;

use crate::error::{Result, io};

/// Bytes of layers that only the cache keeps, unless told otherwise; and of directories of cache mounts.
pub const BOUND: u64 = 20 << 30;

/// Forgets the results that were unused for the longest time until the rest fits into so many bytes. Layers that
/// images have, too, count nothing.
///
/// # Errors
/// Those of the store.
pub fn trim(engine: &Engine, bound: u64) -> Result<Vec<CachedStep>> {
    let steps = engine.cached_steps()?;
    let own = |step: &CachedStep| if step.shared { 0 } else { step.size };
    let total: u64 = steps.iter().map(own).fold(0, u64::saturating_add);
    /// Rows cost little, but not nothing.
    const MOST: usize = 20_000;
    if total <= bound && steps.len() <= MOST {
        return Ok(Vec::new());
    }
    // The one used last comes first.
    let mut kept = 0u64;
    let mut count = 0usize;
    let mut keep = |step: &CachedStep| {
        kept = kept.saturating_add(own(step));
        count = count.saturating_add(1);
        kept <= bound && count <= MOST
    };
    Ok(engine.forget_steps(&mut keep)?)
}

/// Forgets results: all of them, or those that no image shares.
///
/// # Errors
/// Those of the store.
pub fn prune(
    engine: &Engine,
    all: bool,
    keep: &dyn Fn(&CachedStep) -> bool,
) -> Result<Vec<CachedStep>> {
    engine.sweep_steps()?;
    Ok(engine.forget_steps(&mut |step| keep(step) || (step.shared && !all))?)
}

/// Forgets results and directories of cache mounts, those that were unused for the longest time, until the rest
/// fits into so many bytes together. Also the bytes that the directories gave back.
///
/// # Errors
/// Those of the store, and of removing.
pub fn trim_all(engine: &Engine, bound: u64) -> Result<(Vec<CachedStep>, u64)> {
    engine.sweep_steps()?;
    let steps = engine.cached_steps()?;
    let mounts = mounts(engine)?;
    let mut all: Vec<(i64, u64, &str)> = steps
        .iter()
        .map(|step| (step.used_ns, if step.shared { 0 } else { step.size }, step.key.as_str()))
        .chain(mounts.iter().map(|mount| (mount.used_ns, mount.size, mount.name.as_str())))
        .collect();
    all.sort_by(|a, b| b.cmp(a));
    let mut sum = 0u64;
    let kept: BTreeSet<&str> = all
        .into_iter()
        .take_while(|(_, size, _)| {
            sum = sum.saturating_add(*size);
            sum <= bound
        })
        .map(|(_, _, name)| name)
        .collect();
    let gone = engine.forget_steps(&mut |step| kept.contains(step.key.as_str()))?;
    let freed = remove_mounts(engine, &|mount| kept.contains(mount.name.as_str()))?;
    Ok((gone, freed))
}

/// Removes the directories of cache mounts that were unused for the longest time until the rest fits into so many bytes.
///
/// # Errors
/// Those of removing.
pub fn trim_mounts(engine: &Engine, bound: u64) -> Result<u64> {
    let mut list = mounts(engine)?;
    list.sort_by_key(|mount| std::cmp::Reverse(mount.used_ns));
    let mut sum = 0u64;
    list.retain(|mount| {
        sum = sum.saturating_add(mount.size);
        sum <= bound
    });
    remove_mounts(engine, &|mount| list.iter().any(|kept| kept.name == mount.name))
}

/// The directory of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCache {
    /// Name of its directory.
    pub name: String,
    /// As the build file calls it.
    pub id: String,
    /// Bytes that its files take.
    pub size: u64,
    /// When it was last used, in nanoseconds since the epoch.
    pub used_ns: i64,
}

/// Where the directories of cache mounts are.
pub(crate) fn mounts_directory(engine: &Engine) -> std::path::PathBuf {
    engine.data_root().join("cache/mounts")
}

/// The directories of cache mounts.
///
/// # Errors
/// Those of reading.
pub fn mounts(engine: &Engine) -> Result<Vec<MountCache>> {
    let parent = mounts_directory(engine);
    let mut list = Vec::new();
    let Ok(entries) = std::fs::read_dir(&parent) else { return Ok(list) };
    for entry in entries.flatten() {
        let path = entry.path();
        let id = std::fs::read_to_string(path.join("id")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        let used = std::fs::metadata(path.join("lock")).and_then(|lock| lock.modified()).ok();
        let used = used.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let used_ns = used.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        list.push(MountCache { name, id, size: bytes_below(&path, 0), used_ns });
    }
    list.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.name.cmp(&b.name)));
    Ok(list)
}

fn bytes_below(path: &std::path::Path, depth: usize) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let mut sum = 0u64;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && depth < 1000 {
            sum = sum.saturating_add(bytes_below(&entry.path(), depth.saturating_add(1)));
        }
        sum = sum.saturating_add(metadata.blocks().saturating_mul(512));
    }
    sum
}

/// Removes the directories of cache mounts for which `keep` says no and that no step uses now; the bytes of their files.
///
/// # Errors
/// Those of removing.
pub fn remove_mounts(engine: &Engine, keep: &dyn Fn(&MountCache) -> bool) -> Result<u64> {
    let parent = mounts_directory(engine);
    let mut freed = 0u64;
    for mount in mounts(engine)? {
        if keep(&mount) {
            continue;
        }
        let path = parent.join(&mount.name);
        if let Ok(lock) = std::fs::File::open(path.join("lock"))
            && rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                .is_err()
        {
            continue;
        }
        std::fs::remove_dir_all(&path).map_err(io(|| format!("removing {}", path.display())))?;
        freed = freed.saturating_add(mount.size);
    }
    Ok(freed)
}
