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
    let arch = Arch::host();
    std::fs::create_dir_all(cache)
        .map_err(|e| Error::system(format!("cannot make {}", cache.display()), e))?;
    let filter = match profile {
        None => seccomp::default_cached(cache, capabilities, arch)?,
        Some(json) => seccomp::compile_cached(cache, json.as_bytes(), capabilities, arch)
            .map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}")))?,
    };
    Ok(Some(filter))
}
