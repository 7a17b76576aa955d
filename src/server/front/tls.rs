//! https at the front: a certificate chain and its key, from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::config::TlsFiles;
use crate::shared::pem;

/// TLS 1.2 and 1.3 with the chain and the key (PKCS#8, SEC1 or PKCS#1) of `files`. The error says which file is wrong, and
/// how.
pub(crate) fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let chain = read_chain(&files.certificate)?;
    let key = pem::read(&files.key).and_then(|pem| PrivateKeyDer::from_pem_slice(&pem));
    let key = key.map_err(|error| match error {
        PemError::NoItemsFound => format!(
            "TLS_KEY_FILE {}: holds no private key in PEM form",
            files.key.display()
        ),
        other => format!("TLS_KEY_FILE {}: {other}", files.key.display()),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "TLS_KEY_FILE {}: is not the key of the certificate in TLS_CERT_FILE {}",
                files.key.display(),
                files.certificate.display()
            ),
            other => format!("TLS_CERT_FILE {}: {other}", files.certificate.display()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificates of a PEM file, the server's own first.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem =
        |reason: &dyn std::fmt::Display| format!("TLS_CERT_FILE {}: {reason}", path.display());
    let pem = pem::read(path).map_err(|error| problem(&error))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| problem(&error))?;
    if chain.is_empty() {
        Err(problem(&"holds no certificate in PEM form"))
    } else {
        Ok(chain)
    }
}
