//! What carries requests: a socket, TLS over one, or a process (`ssh`).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use engine::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::host::{Host, Tls};

/// How long a host may take to be reached.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to an engine.
#[derive(Debug)]
pub enum Stream {
    /// A Unix socket; the process at its other end, if it is one of ours.
    Unix(UnixStream, Option<Process>),
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<rustls::StreamOwned<ClientConnection, TcpStream>>),
}

/// A process that ends with its connection.
#[derive(Debug)]
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Its connection is gone, so it has nothing to do any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes whatever certificate there is, as it was asked for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn config(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let wrong = |what: &str, e: &dyn std::fmt::Display| {
        Error::invalid(format!("the {what} for TLS can't be used: {e}"))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("protocol", &e))?;
    let builder = if tls.any_server {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &tls.ca else {
            return Err(Error::invalid(
                "no certificate of the authority that signs the engine's: give --tlscacert, or ca.pem in \
                 DOCKER_CERT_PATH",
            ));
        };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| wrong("authority's certificate", &e))?;
            roots.add(certificate).map_err(|e| wrong("authority's certificate", &e))?;
        }
        builder.with_root_certificates(roots)
    };
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_slice_iter(cert)
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|e| wrong("client's certificate", &e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong("client's key", &e))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| wrong("client's certificate", &e))?
        }
    };
    Ok(Arc::new(config))
}

/// In Docker's words, which people and scripts know.
fn unreachable(host: &Host, error: &io::Error) -> Error {
    let text = error.to_string();
    let why = text.split(" (os error").next().unwrap_or_default();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::new(
            engine::ErrorKind::Forbidden,
            format!(
                "permission denied while trying to connect to the engine at {host}: its socket is root's and \
                 its group's"
            ),
        );
    }
    Error::new(
        engine::ErrorKind::System,
        format!(
            "Cannot connect to the Docker daemon at {host}. Is the docker daemon running? ({why})"
        ),
    )
}

fn dial_tcp(name: &str, port: u16) -> io::Result<TcpStream> {
    use std::net::ToSocketAddrs;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// What is run on the other host, whatever shell its user has. Docker's name comes first, for that is what the address
/// says; but where its client alone is there, beside Wherry and without an engine, Wherry is meant.
const DIAL: &str = "sh -c 'if command -v docker >/dev/null 2>&1 && { \
                    ! command -v wherry >/dev/null 2>&1 || [ -n \"$DOCKER_HOST\" ] || \
                    [ -S /var/run/docker.sock ] || [ -S \"$XDG_RUNTIME_DIR/docker.sock\" ]; }; \
                    then exec docker system dial-stdio; else exec wherry system dial-stdio; fi'";

fn dial_ssh(user: Option<&str>, name: &str, port: Option<u16>) -> io::Result<Stream> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    let child = command
        .args(["--", name, DIAL])
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs))
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("ssh can't be run: {e}")))?;
    Ok(Stream::Unix(ours, Some(Process(child))))
}

impl Stream {
    /// Connects.
    pub(crate) fn dial(host: &Host, tls: Option<&Tls>) -> Result<Self> {
        let failed = |e: io::Error| unreachable(host, &e);
        match host {
            Host::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).map_err(failed)?, None)),
            Host::Ssh { user, name, port } => {
                dial_ssh(user.as_deref(), name, *port).map_err(failed)
            }
            Host::Tcp { name, port } => {
                let port = port.unwrap_or(if tls.is_some() { 2376 } else { 2375 });
                let stream = dial_tcp(name, port).map_err(failed)?;
                let Some(tls) = tls else { return Ok(Self::Tcp(stream)) };
                let server = ServerName::try_from(name.clone())
                    .map_err(|e| Error::invalid(format!("{host}: {e}")))?;
                let connection = ClientConnection::new(config(tls)?, server)
                    .map_err(|e| Error::system(format!("{host}: TLS"), e))?;
                Ok(Self::Tls(Box::new(rustls::StreamOwned::new(connection, stream))))
            }
        }
    }

    /// Makes reading, and writing, fail with `WouldBlock` instead of waiting.
    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Unix(stream, _) => stream.set_nonblocking(on),
            Self::Tcp(stream) => stream.set_nonblocking(on),
            Self::Tls(stream) => stream.sock.set_nonblocking(on),
        }
    }

    /// The other side reads no more from us.
    pub(crate) fn close_write(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream, _) => stream.shutdown(std::net::Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                match stream.flush() {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                    other => other,
                }
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream, _) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream, _) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
            // A server that is killed says no goodbye.
            Self::Tls(stream) => match stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream, _) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream, _) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
