//! `serve`: the Docker Engine API on a socket.

mod install;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
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
    /// Where to listen: unix:///PATH, tcp://ADDRESS:PORT (with TLS only) or fd:// for the sockets a
    /// service manager hands over; may be repeated. Default: those, else wherry.sock in the run root
    #[arg(short = 'H', long = "host", value_name = "list")]
    host: Vec<String>,
    /// Who may use the socket besides root; default: docker, else wherry, else nobody
    #[arg(short = 'G', long, value_name = "string")]
    group: Option<String>,
    /// As --tlsverify: no client is answered over TCP without a certificate
    #[arg(long)]
    tls: bool,
    /// Answer clients over TCP that show a certificate
    #[arg(long)]
    tlsverify: bool,
    /// Certificates that sign clients' (default "~/.docker/ca.pem")
    #[arg(long, value_name = "string")]
    tlscacert: Option<PathBuf>,
    /// Certificate of this server (default "~/.docker/cert.pem")
    #[arg(long, value_name = "string")]
    tlscert: Option<PathBuf>,
    /// Key of that certificate (default "~/.docker/key.pem")
    #[arg(long, value_name = "string")]
    tlskey: Option<PathBuf>,
    /// Write systemd's units for the socket, the server and the start of containers at boot
    #[arg(long)]
    install: bool,
    /// Take those units back
    #[arg(long)]
    uninstall: bool,
    /// End when no client has been here for so many seconds
    #[arg(long, value_name = "seconds")]
    idle: Option<u64>,
    /// Where units are written to
    #[arg(long, value_name = "dir", default_value = "/etc/systemd/system")]
    units: PathBuf,
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
        if self.install || self.uninstall {
            return self.write_units(context);
        }
        let options = context.engine_options()?;
        // A data root that can't be used is told before anybody connects.
        engine::Engine::open(options.clone())?;
        let mut listeners = Vec::new();
        let given = handed_over()?;
        let default = match given.is_empty() {
            true => format!("unix://{}", options.run_root.join("wherry.sock").display()),
            false => "fd://".to_owned(),
        };
        let hosts = if self.host.is_empty() { vec![default] } else { self.host.clone() };
        let mut given = Some(given);
        for host in hosts {
            match Address::parse(&host)? {
                Address::Unix(path) => {
                    let listener = listen(&path, self.group.as_deref())?;
                    listeners.push(api::Listener::Unix(listener));
                    context::note(&format!("listening on unix://{}", path.display()));
                }
                Address::Tcp(address) => {
                    let config = self.tls(&host)?;
                    let listener = TcpListener::bind(&address)
                        .with_context(|| format!("listen on tcp://{address}"))?;
                    let at = listener.local_addr()?;
                    listeners.push(api::Listener::Tls(listener, config));
                    context::note(&format!("listening on tcp://{at} with TLS"));
                }
                Address::HandedOver => {
                    let given = given.take().filter(|given| !given.is_empty());
                    let given = given.ok_or_else(|| {
                        Failure::new(
                            1,
                            "--host fd://: no service manager handed a socket over (LISTEN_FDS is not set)",
                        )
                    })?;
                    for fd in given {
                        listeners.push(self.of_descriptor(fd)?);
                    }
                }
            }
        }
        let idle = self.idle.map(std::time::Duration::from_secs);
        api::serve(api::Options { listeners, idle, ..self::options(context)? }).context("serve")?;
        Ok(0)
    }
}

/// What a server is told, but for where it listens.
pub(super) fn options(context: &Context) -> anyhow::Result<api::Options> {
    let engine = context.engine_options()?;
    let settings = engine.settings.clone();
    let client = move |credentials: Option<Box<dyn ::registry::Credentials>>| {
        let credentials = credentials.unwrap_or_else(|| Box::new(::registry::Fixed::default()));
        registries::client_of(&settings, false, credentials).map_err(|e| {
            e.downcast::<engine::Error>()
                .unwrap_or_else(|e| engine::Error::invalid(format!("{e:#}")))
        })
    };
    Ok(api::Options { engine, listeners: Vec::new(), client: Box::new(client), idle: None })
}

impl Args {
    /// The certificates, which a port must have.
    fn tls(&self, host: &str) -> anyhow::Result<std::sync::Arc<api::ServerConfig>> {
        if !(self.tlsverify || self.tls) {
            return Err(Failure::new(
                1,
                format!(
                    "--host {host}: whoever reaches this port would be root on this host; TCP is served \
                     only to clients with a certificate: add --tlsverify --tlscacert --tlscert --tlskey"
                ),
            )
            .into());
        }
        let [ca, cert, key] = self.certificates();
        Ok(api::server_config(&ca, &cert, &key)?)
    }

    /// Those that sign clients', this server's, and its key.
    fn certificates(&self) -> [PathBuf; 3] {
        let directory = crate::registries::docker_config_path().unwrap_or_default();
        let directory = directory.parent().unwrap_or(Path::new("/"));
        [(&self.tlscacert, "ca.pem"), (&self.tlscert, "cert.pem"), (&self.tlskey, "key.pem")]
            .map(|(given, name)| given.clone().unwrap_or_else(|| directory.join(name)))
    }

    /// A socket that was handed over, of either kind.
    fn of_descriptor(&self, fd: OwnedFd) -> anyhow::Result<api::Listener> {
        use rustix::net::AddressFamily;
        let address = rustix::net::getsockname(&fd).context("a socket that was handed over")?;
        match address.address_family() {
            AddressFamily::UNIX => Ok(api::Listener::Unix(UnixListener::from(fd))),
            AddressFamily::INET | AddressFamily::INET6 => {
                let listener = TcpListener::from(fd);
                let host = format!("fd:// ({})", listener.local_addr()?);
                Ok(api::Listener::Tls(listener, self.tls(&host)?))
            }
            _ => Err(Failure::new(1, "a socket that was handed over is of no known kind").into()),
        }
    }
}

/// Where to listen.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    /// Address and port.
    Tcp(String),
    HandedOver,
}

impl Address {
    fn parse(host: &str) -> anyhow::Result<Self> {
        if host.starts_with("fd://") {
            return Ok(Self::HandedOver);
        }
        if let Some(path) = host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(rest) = host.strip_prefix("tcp://") {
            let rest = rest.trim_end_matches('/');
            let (name, port) = match rest.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name, port),
                _ => (rest, "2376"),
            };
            let name = if name.is_empty() { "127.0.0.1" } else { name };
            if port.parse::<u16>().is_ok() {
                return Ok(Self::Tcp(format!("{name}:{port}")));
            }
        }
        Err(Failure::new(
            1,
            format!(
                "--host {host}: known are unix:///PATH with an absolute path, tcp://ADDRESS:PORT and fd://"
            ),
        )
        .into())
    }
}

/// Sockets that a service manager opened for this process (`LISTEN_FDS`).
fn handed_over() -> anyhow::Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0);
    (3..count.saturating_add(3))
        .map(|fd| {
            sys::fds::adopt(fd)
                .with_context(|| format!("LISTEN_FDS names descriptor {fd}, which is not open"))
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
        Some(name) => Some(known_group(name)?),
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

/// The number of the group that was asked for.
fn known_group(name: &str) -> anyhow::Result<u32> {
    group_id(name).with_context(|| {
        format!("--group {name}: no such group on this host; make it with groupadd {name}")
    })
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
        let parse = |host| Address::parse(host).unwrap();
        assert_eq!(parse("unix:///run/x.sock"), Address::Unix("/run/x.sock".into()));
        assert_eq!(parse("tcp://127.0.0.1:1"), Address::Tcp("127.0.0.1:1".into()));
        assert_eq!(parse("tcp://[::1]"), Address::Tcp("[::1]:2376".into()));
        assert_eq!(parse("tcp://:7"), Address::Tcp("127.0.0.1:7".into()));
        assert_eq!(parse("fd://"), Address::HandedOver);
        for wrong in ["unix://x", "tcp://127.0.0.1:x", "http://x", "/run/x", ""] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("12"), Some(12));
        assert_eq!(group_id("no such group"), None);
    }
}
