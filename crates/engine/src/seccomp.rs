//! The system call filter of a container: compiled once, then read from a cache.

use std::path::Path;

use oci_spec::runtime::Spec;
use runtime::capabilities::{Set, Sets};
use runtime::seccomp::{self, Arch, Filter};

use crate::error::{Error, Result};

/// The filter for a profile (`None`: the built-in one) and the capabilities of `spec`.
pub(crate) fn filter(profile: Option<&str>, spec: &Spec, cache: &Path) -> Result<Option<Filter>> {
    let capabilities = spec
        .process()
        .as_ref()
        .and_then(|p| p.capabilities().as_ref())
        .map_or(Set(0), |c| Sets::from_spec(c).bounding);
    let arch = Arch::NATIVE;
    std::fs::create_dir_all(cache)
        .map_err(|e| Error::system(format!("cannot make {}", cache.display()), e))?;
    let filter = match profile {
        None => builtin(cache, capabilities, arch)?,
        Some(json) => seccomp::compile_cached(cache, json.as_bytes(), capabilities, arch)
            .map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}")))?,
    };
    Ok(Some(filter))
}

/// The profile in the form of a specification, for another runtime.
pub(crate) fn for_spec(profile: Option<&str>, bounding: &[String]) -> Result<serde_json::Value> {
    let profile = match profile {
        None => seccomp::default_profile(),
        Some(json) => seccomp::Profile::from_json(json.as_bytes())
            .map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}")))?,
    };
    let set = bounding
        .iter()
        .filter_map(|name| runtime::capabilities::number(name))
        .fold(0u64, |set, number| set | 1u64.checked_shl(number).unwrap_or(0));
    Ok(seccomp::to_oci(&profile, Set(set), Arch::NATIVE)?)
}

/// The built-in filter for processes with this bounding set of capabilities.
pub(crate) fn builtin_for(cache: &Path, bounding: Option<Set>) -> Result<Filter> {
    builtin(cache, bounding.unwrap_or(Set(0)), Arch::NATIVE)
}

/// The built-in profile's filter. Its text is not made on the path of a start: the cache
/// file is named after all that the filter depends on.
fn builtin(cache: &Path, capabilities: Set, arch: Arch) -> Result<Filter> {
    let (major, minor) = seccomp::running_kernel();
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("builtin-{version}-{arch:?}-{:x}-{major}.{minor}.bpf", capabilities.0);
    let path = cache.join(&name);
    if let Ok(bytes) = std::fs::read(&path)
        && let Some(filter) = Filter::from_bytes(&bytes)
    {
        return Ok(filter);
    }
    let filter = seccomp::compile(&seccomp::default_profile(), capabilities, arch)?;
    let temporary = cache.join(format!(".{name}.{}", std::process::id()));
    // A cache that can't be written only costs time.
    if std::fs::write(&temporary, filter.to_bytes())
        .and_then(|()| std::fs::rename(&temporary, &path))
        .is_err()
    {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(filter)
}
