//! Where an engine is: what `--host` and `DOCKER_HOST` say.

use std::path::PathBuf;

use engine::{Error, Result};

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix:///PATH`
    Unix(PathBuf),
    /// `tcp://NAME:PORT`
    Tcp {
        /// A name or an address, without brackets.
        name: String,
        /// The port; by default 2376 with TLS and 2375 without.
        port: Option<u16>,
    },
    /// `ssh://[USER@]NAME[:PORT]`
    Ssh {
        /// Who to be there.
        user: Option<String>,
        /// The other host.
        name: String,
        /// The port of its ssh.
        port: Option<u16>,
    },
}

/// Certificates for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates that sign the server's; the name in the server's must fit the host.
    pub ca: Option<Vec<u8>>,
    /// PEM certificate of this client and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Take any certificate of the server.
    pub any_server: bool,
}

fn name_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let plain = !name.is_empty() && !name.starts_with('-') && !name.contains(['/', '@', ' ']);
    plain.then(|| (name.to_owned(), port))
}

impl Host {
    /// Reads an address.
    ///
    /// # Errors
    /// Says which forms are known.
    pub fn parse(text: &str) -> Result<Self> {
        let known = || {
            Error::invalid(format!(
                "unable to parse docker host `{text}`: known are unix:///PATH, tcp://NAME:PORT and \
                 ssh://[USER@]NAME[:PORT]"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(known)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "tcp" | "http" | "https" => {
                let (name, port) = name_and_port(rest.trim_end_matches('/')).ok_or_else(known)?;
                Ok(Self::Tcp { name, port })
            }
            "ssh" => {
                let rest = rest.trim_end_matches('/');
                let (user, place) = match rest.rsplit_once('@') {
                    Some((user, place)) => (Some(user), place),
                    None => (None, rest),
                };
                // Both become words of ssh's command line.
                if user.is_some_and(|u| u.is_empty() || u.starts_with('-') || u.contains(':')) {
                    return Err(known());
                }
                let (name, port) = name_and_port(place).ok_or_else(known)?;
                Ok(Self::Ssh { user: user.map(str::to_owned), name, port })
            }
            _ => Err(known()),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = |f: &mut std::fmt::Formatter<'_>, name: &str, port: &Option<u16>| {
            match name.contains(':') {
                true => write!(f, "[{name}]")?,
                false => f.write_str(name)?,
            }
            port.map_or(Ok(()), |port| write!(f, ":{port}"))
        };
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { name, port } => {
                f.write_str("tcp://")?;
                place(f, name, port)
            }
            Self::Ssh { user, name, port } => {
                f.write_str("ssh://")?;
                user.as_ref().map_or(Ok(()), |user| write!(f, "{user}@"))?;
                place(f, name, port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in [
            "unix:///var/run/docker.sock",
            "tcp://10.0.0.1:2376",
            "tcp://host",
            "tcp://[::1]:1",
            "ssh://host",
            "ssh://me@host:22",
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "host",
            "unix://x",
            "tcp://",
            "tcp://h:x",
            "ssh://-oProxyCommand=x",
            "ssh://@h",
            "npipe://x",
        ] {
            assert!(Host::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text: String) {
            let _ = Host::parse(&text);
            let _ = Host::parse(&format!("ssh://{text}"));
            let _ = Host::parse(&format!("tcp://{text}"));
        }
    }
}
