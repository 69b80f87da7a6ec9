//! The time of real-time processes on version 1 (`cpu.rt_runtime_us` in `cpu.rt_period_us`).
//!
//! A group's children never have more of it together than the group itself, and a new group has none.
//! So what a container wants must be there in every group above it first; nothing gives it to them, as
//! Docker does only when its daemon was started with `--cpu-rt-runtime`. Here the groups above are
//! raised to what their children need, and never lowered: what they hold and nobody uses costs nobody
//! anything but another group's claim.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Group;
use crate::error::{Error, Result};

const PERIOD: &str = "cpu.rt_period_us";
const RUNTIME: &str = "cpu.rt_runtime_us";
/// How long a group that was removed may still count: the kernel lets go of it after a grace period of
/// RCU and on a queue of work.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time in microseconds per period in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    runtime: u64,
    period: u64,
}

impl Share {
    fn of(directory: &Path) -> Option<Share> {
        let number =
            |file| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<i64>().ok();
        let period = u64::try_from(number(PERIOD)?).ok()?;
        // -1 is no limit: all of the period.
        let runtime = number(RUNTIME)?.try_into().unwrap_or(period);
        (period > 0).then_some(Share { runtime, period })
    }

    /// The same share of another period, rounded up.
    fn in_period(self, period: u64) -> u64 {
        let product = u128::from(self.runtime) * u128::from(period);
        product.div_ceil(u128::from(self.period)).try_into().unwrap_or(u64::MAX)
    }
}

/// Gives a group its share. What is `None` stays as it is.
///
/// # Errors
///
/// [`Error::Spec`] when the groups above can't have that much.
pub(super) fn apply(
    path: &str,
    group: &Group,
    period: Option<u64>,
    runtime: Option<i64>,
) -> Result<()> {
    if period.is_none() && runtime.is_none() {
        return Ok(());
    }
    let field = "linux.resources.cpu.realtimeRuntime";
    if !group.exists(RUNTIME) {
        return Err(Error::spec(
            field,
            "this kernel has no budgets for real-time processes (CONFIG_RT_GROUP_SCHED); leave it out",
        ));
    }
    let directory = group.mount_point.join(path);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(now) = Share::of(&directory) else {
            return write(path, group, period, runtime);
        };
        let period_wanted = period.unwrap_or(now.period);
        let wanted = Share {
            runtime: runtime.map_or(now.runtime, |value| value.try_into().unwrap_or(period_wanted)),
            period: period_wanted,
        };
        if wanted.runtime > wanted.period {
            return Err(Error::spec(
                field,
                format!("{} is more than the period of {}", wanted.runtime, wanted.period),
            ));
        }
        let missing = reserve(&group.mount_point, path, wanted);
        match write(path, group, period, runtime) {
            Err(Error::System { errno, .. })
                if errno.0 == Errno::INVAL.raw_os_error() && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Error::System { errno, .. }) if errno.0 == Errno::INVAL.raw_os_error() => {
                let (above, share) = missing.unwrap_or((Path::new("/").into(), now));
                return Err(Error::spec(
                    field,
                    format!(
                        "{} of {} \u{b5}s is more than is left of what the cgroup {} has for all \
                         below it, {} of {} \u{b5}s; ask for less, stop another container that has \
                         some, or give {} more",
                        wanted.runtime,
                        wanted.period,
                        above.display(),
                        share.runtime,
                        share.period,
                        above.join(RUNTIME).display(),
                    ),
                ));
            }
            result => return result,
        }
    }
}

/// In the order that the kernel takes: with a shorter period the old time may be too much, and with a
/// longer one the new time may be.
fn write(path: &str, group: &Group, period: Option<u64>, runtime: Option<i64>) -> Result<()> {
    let set_period = || match period {
        Some(period) => group.write(path, PERIOD, &period.to_string()),
        None => Ok(()),
    };
    let set_runtime = || match runtime {
        Some(runtime) => group.write(path, RUNTIME, &runtime.to_string()),
        None => Ok(()),
    };
    if set_period().is_ok() {
        return set_runtime();
    }
    set_runtime()?;
    set_period()
}

/// Raises the groups above to what their children need with `wanted` in the group at `path`; returns
/// the one that can't have that much, and what it has.
fn reserve(mount_point: &Path, path: &str, wanted: Share) -> Option<(Box<Path>, Share)> {
    let mut raises = Vec::new();
    let (mut child, mut needed) = (mount_point.join(path), wanted);
    while let Some(above) = child.parent().filter(|above| above.starts_with(mount_point)) {
        let has = Share::of(above)?;
        let others: u64 = fs::read_dir(above)
            .ok()?
            .flatten()
            .filter(|entry| entry.path() != child)
            .filter_map(|entry| Share::of(&entry.path()))
            .map(|share| share.in_period(has.period))
            .sum();
        let sum = others.saturating_add(needed.in_period(has.period));
        if sum <= has.runtime {
            break;
        }
        // The topmost group's budget is the administrator's.
        if above == mount_point {
            return Some((above.into(), has));
        }
        needed = Share { runtime: sum, period: has.period };
        raises.push((above.to_owned(), sum));
        child = above.to_owned();
    }
    // From the top. What fails shows where the child's own budget is refused.
    for (above, runtime) in raises.iter().rev() {
        if fs::write(above.join(RUNTIME), runtime.to_string()).is_err() {
            return Share::of(above).map(|has| (above.as_path().into(), has));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        let share = Share { runtime: 1, period: 3 };
        assert_eq!(share.in_period(1_000_000), 333_334);
        assert_eq!(Share { runtime: u64::MAX, period: 1 }.in_period(u64::MAX), u64::MAX);
    }
}
