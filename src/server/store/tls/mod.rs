//! TLS to PostgreSQL as libpq's `sslmode` defines it, by rustls: the settings, and the files they name. The handshake is
//! connection.rs. This is a connector of our own because tokio-postgres-rustls 0.14 has no channel binding for RSA-PSS and for
//! ECDSA with SHA-512, and leaves the verification of certificates to its user anyway.

mod connection;
mod explain;
mod verifier;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::server::store::tls::verifier::{SslmodeVerifier, TrustedCertificates};
use crate::server::x509::X509Certificate;
use crate::shared::http_client;
use crate::shared::pem;

/// The part of libpq's `sslmode` that concerns the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// `disable`, `prefer`, and `require` without `sslrootcert`: any certificate is accepted.
    Nothing,
    /// `verify-ca`, and `require` with `sslrootcert`: a trusted authority must have signed it; its name does not matter.
    Authority(Roots),
    /// `verify-full`: a trusted authority must have signed it, and it must name the host.
    AuthorityAndName(Roots),
}

/// The trusted authorities: `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Not given, or `system`: the system's certificate store, or the built-in roots if there is none.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// The PEM files by which the client authenticates: `sslcert` and `sslkey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The TLS settings of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) verify: Verify,
    pub(crate) client: Option<ClientCertificate>,
    /// `sslnegotiation=direct`: TLS from the first byte on, with ALPN.
    pub(crate) is_direct: bool,
}

/// Makes TLS connections. The files are read again for each, since certificates are renewed.
#[derive(Clone)]
pub(crate) struct Tls {
    settings: Arc<TlsSettings>,
    provider: Arc<CryptoProvider>,
    /// The system's certificates, if they are the trusted ones. There are many, so they are read once.
    system: Option<Arc<TrustedCertificates>>,
}

impl Tls {
    /// Reads all files once. The error says which one is wrong, and why.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let system = match &settings.verify {
            Verify::Authority(Roots::System) | Verify::AuthorityAndName(Roots::System) => {
                Some(Arc::new(TrustedCertificates::new(
                    http_client::system_roots(),
                    &provider,
                )?))
            }
            _ => None,
        };
        let settings = Arc::new(settings.clone());
        let tls = Tls {
            settings,
            provider,
            system,
        };
        tls.client_config()?;
        Ok(tls)
    }

    /// The configuration of one connection, and a flag that is set when the server proves that it has its certificate's key.
    fn client_config(&self) -> Result<(ClientConfig, Arc<AtomicBool>), String> {
        let is_key_proved = Arc::new(AtomicBool::new(false));
        let trusted = match &self.settings.verify {
            Verify::Nothing => None,
            Verify::Authority(roots) | Verify::AuthorityAndName(roots) => {
                Some(self.trusted(roots)?)
            }
        };
        let verifier = SslmodeVerifier {
            trusted,
            checks_name: matches!(self.settings.verify, Verify::AuthorityAndName(_)),
            algorithms: self.provider.signature_verification_algorithms,
            is_key_proved: Arc::clone(&is_key_proved),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.settings.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = certified_key(client, &self.provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        // A resumed session has no signature, and so no proof of the key.
        config.resumption = Resumption::disabled();
        if self.settings.is_direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok((config, is_key_proved))
    }

    fn trusted(&self, roots: &Roots) -> Result<Arc<TrustedCertificates>, String> {
        let Roots::File(path) = roots else {
            return self.system.clone().ok_or_else(|| "no roots".to_owned());
        };
        let problem = |reason: String| format!("sslrootcert {}: {reason}", path.display());
        let certificates = certificates(path).map_err(problem)?;
        TrustedCertificates::new(certificates, &self.provider)
            .map(Arc::new)
            .map_err(problem)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = pem::read(path)
        .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>());
    match read {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(pem::explain(&error)),
    }
}

/// Reads the client's certificate chain and key.
fn certified_key(
    client: &ClientCertificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let problem = |reason: String| format!("sslcert {}: {reason}", client.certificate.display());
    let chain = certificates(&client.certificate).map_err(problem)?;
    let problem = |reason: &str| format!("sslkey {}: {reason}", client.key.display());
    let metadata = client
        .key
        .metadata()
        .map_err(|error| problem(&error.to_string()))?;
    // libpq's rule: only its owner may have rights to it; if root owns it, the group may read it.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(problem(
            "others may read it: chmod 600 (or 640 if root owns it), as libpq requires",
        ));
    }
    let key = pem::read(&client.key).and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    let key = match key {
        Ok(key) => key,
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            return Err(problem(
                "holds no private key, or an encrypted one, which is not supported",
            ));
        }
        Err(error) => return Err(problem(&pem::explain(&error))),
    };
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        problem(
            "is of a kind that is not supported: use RSA of 2048, 3072 or 4096 bits, P-256, P-384 or Ed25519",
        )
    })?;
    let certificate = X509Certificate::parse(&chain[0]);
    if let (Some(certificate), Some(public)) = (certificate, key.public_key())
        && certificate.key_info != public.as_ref()
    {
        return Err(problem("is not the key of sslcert"));
    }
    Ok(CertifiedKey::new(chain, key))
}
