//! The one HTTP client: which roots it trusts, its proxy, its time limits. What is asked and answered is elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

/// What one client may do.
pub struct ClientSettings<'a> {
    /// The `User-Agent` header.
    pub user_agent: &'a str,
    /// Longest wait for a connection, names looked up and TLS agreed on.
    pub connect_timeout: Duration,
    /// Longest time for a request and its whole answer; none for uploads.
    pub total_timeout: Option<Duration>,
    /// A file of further certificates to trust (`NODE_EXTRA_CA_CERTS`, for people who come from npm).
    pub extra_roots: Option<&'a Path>,
    /// Is any request going to use TLS? Reading the system's roots takes longer than all the rest of a start-up.
    pub uses_tls: bool,
}

/// A blocking client that answers with any status (none is an error), follows no redirect, and asks
/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` about its way.
pub fn agent(settings: &ClientSettings) -> Agent {
    let roots = if settings.uses_tls {
        roots(settings.extra_roots)
    } else {
        Vec::new()
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(settings.user_agent)
        .timeout_connect(Some(settings.connect_timeout))
        .timeout_global(settings.total_timeout)
        .proxy(Proxy::try_from_env())
        .tls_config(tls)
        .build()
        .into()
}

/// The system's roots (or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name), else the built-in Mozilla ones.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    // A store that is partly unreadable still serves; what is missing shows as a certificate that is not trusted.
    let system = rustls_native_certs::load_native_certs().certs;
    let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    if system.is_empty() {
        built_in.to_vec()
    } else {
        system
    }
}

fn roots(extra: Option<&Path>) -> Vec<Certificate<'static>> {
    let extra = extra.map(certificates_in).unwrap_or_default();
    system_roots().iter().chain(&extra).map(owned).collect()
}

/// What TLS has against the other side, if that is what failed.
pub fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Why a certificate is not trusted, to be put after "its certificate is not trusted: ".
pub fn distrust(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "no authority known here has signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        // The name that was asked for, and those that the certificate has.
        CertificateError::NotValidForNameContext { .. } => reason.to_string(),
        other => format!("{other:?}"),
    }
}

fn certificates_in(path: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(certificates) = CertificateDer::pem_file_iter(path) else {
        return Vec::new();
    };
    certificates.filter_map(Result::ok).collect()
}

fn owned(der: &CertificateDer) -> Certificate<'static> {
    Certificate::from_der(der.as_ref()).to_owned()
}
