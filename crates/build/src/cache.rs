//! The build cache as a whole: what is in it, and its bound.

use engine::Engine;
use store::CachedStep;

use crate::error::{Result, io};

/// Bytes of layers that only the cache keeps, unless told otherwise.
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

/// The directory of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCache {
    /// Name of its directory.
    pub name: String,
    /// As the build file calls it.
    pub id: String,
    /// Bytes of its files.
    pub size: u64,
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
        list.push(MountCache { name, id, size: bytes_below(&path, 0) });
    }
    list.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.name.cmp(&b.name)));
    Ok(list)
}

fn bytes_below(path: &std::path::Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let mut sum = 0u64;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let more = match metadata.is_dir() {
            true if depth < 1000 => bytes_below(&entry.path(), depth.saturating_add(1)),
            true => 0,
            false => metadata.len(),
        };
        sum = sum.saturating_add(more);
    }
    sum
}

/// Removes the directories of cache mounts that no step uses now; the bytes of their files.
///
/// # Errors
/// Those of removing.
pub fn remove_mounts(engine: &Engine) -> Result<u64> {
    let parent = mounts_directory(engine);
    let mut freed = 0u64;
    for mount in mounts(engine)? {
        let path = parent.join(&mount.name);
        let Ok(lock) = std::fs::File::open(path.join("lock")) else { continue };
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        std::fs::remove_dir_all(&path).map_err(io(|| format!("removing {}", path.display())))?;
        freed = freed.saturating_add(mount.size);
    }
    Ok(freed)
}
