//! TLS to PostgreSQL as libpq's `sslmode` means it, by rustls.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::shared::http_client;

/// libpq's `sslmode`, as far as it concerns the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// `disable`, `prefer` and `require` without `sslrootcert`: encrypted, if at all, to whoever answers.
    Nothing,
    /// `verify-ca`, and `require` with `sslrootcert`: its authority is trusted, its name does not matter.
    Authority(Roots),
    /// `verify-full`: its authority is trusted, and it is the host's own.
    AuthorityAndName(Roots),
}

/// Whom to trust: `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Not given, or `system`: the system's store, else the built-in roots.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// The connector for `verify`; the error says which file is wrong and why.
pub(crate) fn connector(verify: &Verify) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let authority = match verify {
        Verify::AuthorityAndName(roots) => {
            let config = builder.with_root_certificates(root_store(roots)?);
            return Ok(MakeRustlsConnect::new(config.with_no_client_auth()));
        }
        Verify::Authority(roots) => Some(authority(root_store(roots)?, Arc::clone(&provider))?),
        Verify::Nothing => None,
    };
    let verifier = Arc::new(AnyName {
        authority,
        algorithms: provider.signature_verification_algorithms,
    });
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn root_store(roots: &Roots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            store.add_parsable_certificates(http_client::system_roots());
        }
        Roots::File(path) => {
            let problem = |reason: &str| format!("sslrootcert {}: {reason}", path.display());
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| problem(&error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| problem(&error.to_string()))?;
                store
                    .add(certificate)
                    .map_err(|error| problem(&error.to_string()))?;
            }
            if store.is_empty() {
                return Err(problem("holds no certificate"));
            }
        }
    }
    Ok(store)
}

fn authority(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}

/// Lets a certificate of any name pass, that of any authority too where none is named. The peer must hold its key.
#[derive(Debug)]
struct AnyName {
    authority: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer,
        intermediates: &[CertificateDer],
        server_name: &ServerName,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        match authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            // The name is looked at last, so all else was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
