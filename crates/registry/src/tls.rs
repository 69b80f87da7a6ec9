//! Certificates: the system's roots, and per registry the directories of the form
//! `certs.d/HOST[:PORT]/{*.crt,*.cert,*.key}` that Docker has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::{Error, Result, handshake};

/// Where the certificates are that everybody is trusted by.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// One file of certificates (`SSL_CERT_FILE`). The system's usual places when absent.
    pub file: Option<PathBuf>,
    /// A directory of such files (`SSL_CERT_DIR`), in addition.
    pub directory: Option<PathBuf>,
}

/// Where distributions keep their bundle.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Largest file of certificates, in bytes.
const MOST: u64 = 16 << 20;

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("reading {}", path.display());
    let mut raw = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_end(&mut raw))
        .map_err(|e| Error::io(what(), e))?;
    Ok(raw)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let raw = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&raw) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(e) => {
                return Err(Error::Config {
                    path: path.to_owned(),
                    reason: format!("not a file of PEM certificates: {e}"),
                });
            }
        }
    }
    Ok(found)
}

impl Roots {
    /// The certificates. A system without any has none, and then only `certs.d` counts.
    fn load(&self) -> Result<Vec<Certificate<'static>>> {
        let mut all = match &self.file {
            Some(file) => certificates(file)?,
            None if self.directory.is_some() => Vec::new(),
            None => match BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
                // One unreadable certificate in a bundle of hundreds does not count.
                Some(bundle) => parse_pem(&read(bundle)?)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect(),
                None => Vec::new(),
            },
        };
        if let Some(directory) = &self.directory {
            for path in files(directory)? {
                all.extend(certificates(&path).unwrap_or_default());
            }
        }
        Ok(all)
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("reading {}", directory.display()), e)),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    Ok(paths)
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// The TLS settings for one host: for the HTTP library, and for our own handshake, which is used where
/// `verify` is true; otherwise any certificate is taken.
pub(crate) fn config(
    roots: &Roots,
    directories: &[PathBuf],
    host: &str,
    verify: bool,
) -> Result<(TlsConfig, Option<Arc<rustls::ClientConfig>>)> {
    let mut trusted = roots.load()?;
    let mut client = None;
    for directory in directories {
        // `host` comes from a reference or a configuration, and has no slash.
        for path in files(&directory.join(host))? {
            match extension(&path) {
                "crt" => trusted.extend(certificates(&path)?),
                "cert" if client.is_none() => client = Some(client_certificate(&path)?),
                _ => {}
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = if verify {
        let settings = handshake::settings(&trusted, client.as_ref(), Arc::clone(&provider));
        Some(Arc::new(settings.map_err(|e| Error::Config {
            path: directories.first().map(|d| d.join(host)).unwrap_or_default(),
            reason: e.to_string(),
        })?))
    } else {
        None
    };
    let library = TlsConfig::builder()
        .root_certs(RootCerts::from(trusted))
        .client_cert(client)
        .disable_verification(!verify)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Ok((library, own))
}

/// A client certificate `x.cert` with its key `x.key`.
fn client_certificate(path: &Path) -> Result<ClientCert> {
    let bad = |reason: String| Error::Config { path: path.to_owned(), reason };
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    if !key_path.is_file() {
        return Err(bad(format!(
            "missing key {} for client certificate",
            key_path.file_name().unwrap_or_default().to_string_lossy()
        )));
    }
    let key = PrivateKey::from_pem(&read(&key_path)?)
        .map_err(|e| Error::Config { path: key_path, reason: format!("not a private key: {e}") })?;
    if chain.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// How rustls begins to say that the other side has ended the handshake.
pub(crate) const ALERT: &str = "received fatal alert";

/// What to do about a failed handshake; `directory` is where the host's certificates would be.
pub(crate) fn advice(reason: &str, directory: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature"]) {
        Some(format!(
            "its certificate is signed by an unknown authority: put the authority's certificate into {directory}/ca.crt"
        ))
    } else if has(&["not valid for name", "NotValidForName"]) {
        Some("use a name that is in its certificate, or have one issued for this name".to_owned())
    } else if has(&["Expired", "expired"]) {
        Some("the registry's certificate must be renewed".to_owned())
    } else if has(&["NotValidYet", "not valid yet"]) {
        Some("check this machine's clock".to_owned())
    } else if reason.contains(ALERT)
        && has(&[
            "CertificateRequired",
            "BadCertificate",
            "UnknownCA",
            "HandshakeFailure",
            "AccessDenied",
        ])
    {
        Some(format!(
            "the registry wants a certificate of ours that it knows: put it into {directory}/client.cert and its key into {directory}/client.key"
        ))
    } else {
        None
    }
}
