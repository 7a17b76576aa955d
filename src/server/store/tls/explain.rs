//! Says in words why TLS to PostgreSQL failed.

use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

use crate::server::store::tls::{Roots, Tls, Verify};
use crate::shared::http_client;

impl Tls {
    /// What went wrong, to be put after the host's name.
    pub(crate) fn explain(&self, error: &Error) -> String {
        let roots = match &self.settings.verify {
            Verify::Authority(Roots::File(path)) | Verify::AuthorityAndName(Roots::File(path)) => {
                format!("sslrootcert {}", path.display())
            }
            _ => "the system's roots".to_owned(),
        };
        let distrusted = |why: &str| format!("its certificate is not trusted: {why}");
        match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                distrusted(&format!("no authority of {roots} has signed it"))
            }
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
                let expected = expected.to_str();
                distrusted(&match &presented[..] {
                    [] => format!(
                        "it is not for {expected}: it names no host in subjectAltName (a common name, CN, is not \
                         used; sslmode=verify-ca needs no name)"
                    ),
                    names => format!("it is not for {expected}, but for {}", names.join(", ")),
                })
            }
            Error::InvalidCertificate(CertificateError::Other(other)) => match format!("{other:?}") {
                text if text.contains("UnsupportedCertVersion") => distrusted(
                    "it is of X.509 version 1, which sslmode=verify-ca and verify-full do not support: make one of version 3, \
                     or set sslrootcert to this certificate itself with verify-ca",
                ),
                text if text.contains("CaUsedAsEndEntity") => distrusted(&format!(
                    "it is an authority's own certificate (CA:TRUE), and not one of {roots}"
                )),
                text => distrusted(&text),
            },
            Error::InvalidCertificate(
                CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
            ) => distrusted("it is signed by an algorithm that is not supported (P-521, or an uncommon one)"),
            Error::InvalidCertificate(reason) => distrusted(&http_client::distrust(reason)),
            Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion) => {
                "it has no TLS version (1.2 or 1.3), cipher or kind of key in common with this server".to_owned()
            }
            Error::AlertReceived(alert) => match self.settings.client {
                Some(_) => format!("it rejects TLS or the client certificate (sslcert): {alert:?}"),
                None => format!("it rejects TLS: {alert:?}"),
            },
            Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => {
                "its certificate's key is for PSS alone, which needs TLS 1.3, and the server uses TLS 1.2"
                    .to_owned()
            }
            // The texts of this folder.
            Error::General(text) => text.clone(),
            other => format!("TLS failed: {other}"),
        }
    }
}
