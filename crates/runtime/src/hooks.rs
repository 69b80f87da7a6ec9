//! OCI hooks: programs run at points of a container's life with its state on standard input.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::State;

/// A hook as data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Arguments, the program's own name included.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u64>,
}

impl Hook {
    /// Converts a list of the specification; `kind` names the list in errors.
    pub fn list(list: &Option<Vec<oci_spec::runtime::Hook>>, kind: &str) -> Result<Vec<Hook>> {
        let mut result = Vec::new();
        for hook in list.iter().flatten() {
            let what = || format!("hooks.{kind} ({})", hook.path().display());
            if !hook.path().is_absolute() {
                return Err(Error::spec(what(), "the path must be absolute"));
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds) => match u64::try_from(seconds) {
                    Ok(seconds) if seconds > 0 => Some(seconds),
                    _ => return Err(Error::spec(what(), "the timeout must be greater than zero")),
                },
            };
            result.push(Hook {
                path: hook.path().clone(),
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone().unwrap_or_default(),
                timeout,
            });
        }
        Ok(result)
    }
}

/// Runs hooks one after the other; stops at the first that fails.
pub fn run(kind: &str, hooks: &[Hook], state: &State) -> Result<()> {
    for hook in hooks {
        run_one(hook, state).map_err(|problem| Error::Hook {
            kind: kind.to_owned(),
            path: hook.path.display().to_string(),
            problem,
        })?;
    }
    Ok(())
}

/// Runs all hooks, failing ones too, and returns the errors; for `poststop`.
pub fn run_all(kind: &str, hooks: &[Hook], state: &State) -> Vec<Error> {
    hooks.iter().filter_map(|hook| run(kind, std::slice::from_ref(hook), state).err()).collect()
}

fn run_one(hook: &Hook, state: &State) -> std::result::Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let input = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for item in &hook.env {
        if let Some((name, value)) = item.split_once('=')
            && !name.is_empty()
        {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    if std::path::Path::new(&state.bundle).is_dir() {
        command.current_dir(&state.bundle);
    }
    let mut child = command.spawn().map_err(text)?;
    // A hook may not read its input; what it says counts, not whether it listened. The state is
    // smaller than a pipe, so this cannot block for long.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&input);
    }
    let deadline =
        hook.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let mut late = false;
    if let Some(stderr) = stderr.as_mut() {
        // Standard error is closed when the hook ends (or passes it on to a daemon, which must
        // not hold us up: the pidfd is watched as well).
        let pidfd = sys::clone::pidfd_open(i32::try_from(child.id()).unwrap_or(0));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                late = true;
                let _ = child.kill();
                break;
            }
            let timeout = left.and_then(|left| rustix::event::Timespec::try_from(left).ok());
            use rustix::event::{PollFd, PollFlags};
            let mut fds = vec![PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN)];
            if let Ok(pidfd) = &pidfd {
                fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
            }
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(sys::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            let readable = fds.first().is_some_and(|fd| !fd.revents().is_empty());
            let ended = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            if readable {
                let mut buffer = [0; 1024];
                match stderr.read(&mut buffer) {
                    Ok(0) | Err(_) if ended || pidfd.is_err() => break,
                    Ok(0) | Err(_) => {
                        // Closed, but still running: wait for its end alone.
                        if wait_end(&pidfd, deadline) {
                            late = true;
                            let _ = child.kill();
                        }
                        break;
                    }
                    Ok(count) if said.len() < 4096 => {
                        said.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    }
                    Ok(_) => {}
                }
            } else if ended {
                break;
            }
        }
    }
    let status = child.wait().map_err(text)?;
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    if late {
        return Err(format!("did not end within {} s", hook.timeout.unwrap_or_default()));
    }
    if status.success() {
        return Ok(());
    }
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

/// Waits until the process has ended; true when the deadline came first.
fn wait_end(pidfd: &sys::Result<std::os::fd::OwnedFd>, deadline: Option<Instant>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(pidfd) = pidfd else { return false };
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return true;
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(sys::Errno::INTR) => {}
            _ => return false,
        }
    }
}
