//! TLS for the server: it shows its certificate and wants one of every client.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// What can't be used of the files that were named.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    path: String,
    reason: String,
}

fn failed(path: &Path, reason: impl ToString) -> TlsError {
    TlsError { path: path.display().to_string(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(path, e))?;
    if found.is_empty() {
        return Err(failed(path, "there is no certificate in it"));
    }
    Ok(found)
}

/// Server side settings: clients need a certificate that `ca` has signed.
///
/// # Errors
/// Names the file that can't be read or does not fit.
pub fn server_config(ca: &Path, cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| failed(ca, e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|e| failed(ca, e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(cert, e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(cert)?, private)
        .map_err(|e| failed(cert, e))?;
    Ok(Arc::new(config))
}
