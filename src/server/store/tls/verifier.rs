//! Verifies the certificate and the key of a PostgreSQL server, as `sslmode` requires.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use crate::server::x509::{self, X509Certificate};

/// The certificates of a set of roots. A server's certificate is trusted if it is one of them, or signed by one.
#[derive(Debug)]
pub(super) struct TrustedCertificates {
    authority: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl TrustedCertificates {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<TrustedCertificates, String> {
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if roots.is_empty() {
            return Err(format!("none of its {ignored} certificates can be read"));
        }
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let authority = builder.build().map_err(|error| error.to_string())?;
        Ok(TrustedCertificates {
            authority,
            certificates,
        })
    }
}

/// Verifies a server's certificate and key as far as one `sslmode` requires.
#[derive(Debug)]
pub(super) struct SslmodeVerifier {
    /// `None`: any certificate is accepted.
    pub(super) trusted: Option<Arc<TrustedCertificates>>,
    pub(super) checks_name: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Set when the server has proved that it has its certificate's key.
    pub(super) is_key_proved: Arc<AtomicBool>,
}

impl SslmodeVerifier {
    /// Verifies a signature of the handshake by the certificate's key.
    ///
    /// If the key's algorithm is not supported, the signature is accepted only where certificates are not verified, since an
    /// attacker could present a certificate of his own there anyway. Such a connection has no channel binding, since an attacker
    /// could present the server's certificate as well.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate =
            X509Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
        match certificate.verify(&self.algorithms, message, signed) {
            Ok(true) => self.is_key_proved.store(true, Ordering::Release),
            Ok(false) => return Err(CertificateError::BadSignature.into()),
            Err(why) if self.trusted.is_some() => {
                return Err(Error::General(format!("its certificate has {why}")));
            }
            Err(_) => {}
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for SslmodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        intermediates: &[CertificateDer],
        name: &ServerName,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        // A certificate that is itself among the roots needs no authority. It may be of any version, or an authority's own.
        if trusted.certificates.contains(certificate) {
            let parsed =
                X509Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
            if now.as_secs() > parsed.not_after {
                return Err(CertificateError::Expired.into());
            }
            if now.as_secs() < parsed.not_before {
                return Err(CertificateError::NotValidYet.into());
            }
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = trusted.authority.verify_server_cert(
            certificate,
            intermediates,
            name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is checked last, so everything else is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // These are offered for TLS 1.2 only (RFC 8446 §4.2.3).
        if let SignatureScheme::RSA_PKCS1_SHA256
        | SignatureScheme::RSA_PKCS1_SHA384
        | SignatureScheme::RSA_PKCS1_SHA512 = signed.scheme
        {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify_signature(message, certificate, signed)
    }

    /// Offers also schemes that cannot be verified: otherwise the handshake would fail without naming the cause.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.extend([
            x509::RSA_PSS_PSS_SHA256,
            x509::RSA_PSS_PSS_SHA384,
            x509::RSA_PSS_PSS_SHA512,
            SignatureScheme::ECDSA_NISTP521_SHA512,
        ]);
        schemes
    }
}
