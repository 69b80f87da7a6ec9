//! `serve`: the Docker Engine API on a socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registries;
use crate::registry::Verb;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen, as unix:///PATH; may be repeated. Default: the socket a service manager
    /// hands over, else wherry.sock in the run root
    #[arg(short = 'H', long = "host", value_name = "list")]
    host: Vec<String>,
    /// Who may use the socket besides root; default: docker, else wherry, else nobody
    #[arg(short = 'G', long, value_name = "string")]
    group: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["serve"]], "[OPTIONS]", "Answer the Docker Engine API on a socket")
            .long(
                "For clients that speak Docker's HTTP API: docker itself, Compose, libraries. Point them at \
                 the socket with DOCKER_HOST=unix:///PATH. The server keeps nothing: it may be ended, \
                 started again or run twice, and containers do not notice. Who may use the socket is root \
                 on this host in all but name.",
            )
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let options = context.engine_options()?;
        // A data root that can't be used is told before anybody connects.
        engine::Engine::open(options.clone())?;
        let group = self.group.as_deref();
        let mut listeners = handed_over()?;
        if listeners.is_empty() || !self.host.is_empty() {
            let default = format!("unix://{}", options.run_root.join("wherry.sock").display());
            let hosts = if self.host.is_empty() { vec![default] } else { self.host };
            for host in hosts {
                let path = socket_path(&host)?;
                listeners.push(listen(&path, group)?);
                context::note(&format!("listening on unix://{}", path.display()));
            }
        }
        let settings = options.settings.clone();
        let client = move |credentials: Option<Box<dyn ::registry::Credentials>>| {
            let credentials = credentials.unwrap_or_else(|| Box::new(::registry::Fixed::default()));
            registries::client_of(&settings, false, credentials).map_err(|e| {
                e.downcast::<engine::Error>()
                    .unwrap_or_else(|e| engine::Error::invalid(format!("{e:#}")))
            })
        };
        api::serve(api::Options { engine: options, listeners, client: Box::new(client) })
            .context("serve")?;
        Ok(0)
    }
}

/// The path in `unix:///PATH`.
fn socket_path(host: &str) -> anyhow::Result<PathBuf> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err(Failure::new(
            1,
            format!(
                "--host {host}: known are sockets with an absolute path, as unix:///run/docker.sock"
            ),
        )
        .into()),
    }
}

/// Sockets that a service manager opened for this process (`LISTEN_FDS`).
fn handed_over() -> anyhow::Result<Vec<UnixListener>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0);
    (3..count.saturating_add(3))
        .map(|fd| {
            let fd = sys::fds::adopt(fd)
                .with_context(|| format!("LISTEN_FDS names descriptor {fd}, which is not open"))?;
            Ok(UnixListener::from(fd))
        })
        .collect()
}

/// Listens, in the place of a server that is gone.
fn listen(path: &Path, group: Option<&str>) -> anyhow::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(Failure::new(
            1,
            format!("{}: another server listens there; end it first", path.display()),
        )
        .into());
    }
    let is_socket = std::fs::symlink_metadata(path)
        .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
    if is_socket {
        std::fs::remove_file(path).with_context(|| format!("{}", path.display()))?;
    }
    // Nobody else gets in before owner and mode are right.
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(old);
    let listener = listener.with_context(|| format!("listen on {}", path.display()))?;
    let gid = match group {
        Some(name) => Some(group_id(name).with_context(|| {
            format!("--group {name}: no such group on this host; make it with groupadd {name}")
        })?),
        None => group_id("docker").or_else(|| group_id("wherry")),
    };
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))
            .with_context(|| format!("{}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(listener)
}

/// The number of a group of this host, given by name or number.
fn group_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_groups() {
        assert_eq!(socket_path("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        for wrong in ["unix://x", "tcp://127.0.0.1:1", "/run/x", ""] {
            assert!(socket_path(wrong).is_err(), "{wrong}");
        }
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("12"), Some(12));
        assert_eq!(group_id("no such group"), None);
    }
}
