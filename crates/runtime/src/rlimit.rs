//! Resource limits by name.

use crate::error::{Doing, Error, Result};
use crate::plan::Rlimit;

const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The kernel's number of `RLIMIT_NOFILE`, `nofile` and so on.
pub fn number(name: &str) -> Result<u32> {
    let upper = name.to_ascii_uppercase();
    let base = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == base)
        .and_then(|index| u32::try_from(index).ok())
        .ok_or_else(|| {
            Error::spec(
                format!("resource limit \"{name}\""),
                format!("not known; known are {}", NAMES.join(", ").to_lowercase()),
            )
        })
}

/// Sets a limit of this process. A limit that is not required and forbidden stays as it was; the
/// answer is then a note that says so.
pub(crate) fn apply(limit: &Rlimit) -> Result<Option<String>> {
    match sys::privilege::set_rlimit(0, number(&limit.name)?, limit.soft, limit.hard) {
        Ok(()) => Ok(None),
        Err(sys::Errno::PERM) if !limit.required => Ok(Some(format!(
            "{} stays as inherited: raising it to {}:{} needs CAP_SYS_RESOURCE",
            limit.name, limit.soft, limit.hard
        ))),
        Err(errno) => Err(errno).doing(|| {
            let hint = if errno == sys::Errno::PERM {
                " (raising a limit needs CAP_SYS_RESOURCE on the host)"
            } else {
                ""
            };
            format!("set {} to {}:{}{hint}", limit.name, limit.soft, limit.hard)
        }),
    }
}
