//! Which certificates are trusted: the roots of the environment or the system, and the check against them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, crypto,
};

use super::{Lookup, VariableProblem, environment};
use crate::shared::{pem, small_file};

/// The roots to trust, and what is wrong with the files that the environment names. `SSL_CERT_FILE` and `SSL_CERT_DIR` replace
/// the system's store; `NODE_EXTRA_CA_CERTS` (for people who come from npm) adds to it.
pub(super) fn roots(vars: Lookup) -> (Vec<CertificateDer<'static>>, Vec<VariableProblem>) {
    let named = Named::read(vars);
    let mut roots = named.certificates.unwrap_or_else(unnamed_roots);
    roots.extend(named.extra);
    (roots, named.problems)
}

/// The roots that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; else the system's; else the built-in Mozilla ones.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    let named = Named::read(&environment);
    named.certificates.unwrap_or_else(unnamed_roots)
}

fn unnamed_roots() -> Vec<CertificateDer<'static>> {
    // A store that is partly unreadable is used all the same; a missing root shows as an untrusted certificate.
    let system = rustls_native_certs::load_native_certs().certs;
    let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    if system.is_empty() {
        built_in.to_vec()
    } else {
        system
    }
}

/// Checks a server's certificate as webpki does, and also trusts one that equals one of `roots`, as OpenSSL does for the usual
/// self-signed server (webpki refuses it: `CaUsedAsEndEntity`, or `UnknownIssuer` where it is not self-signed). Its name and
/// dates must be right, and the server must hold its key.
pub(super) fn verifier(roots: Vec<CertificateDer<'static>>) -> Arc<dyn ServerCertVerifier> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    Arc::new(Verifier {
        // This fails when there is no root. Then nothing is trusted.
        webpki: WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .ok(),
        roots,
        algorithms,
    })
}

/// Why a certificate is not trusted, in words that go after "its certificate is not trusted: ".
pub fn distrust(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "no authority known here has signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        // rustls would only say that it is valid for no name, while its owner sees one in the CN.
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it names no host in subjectAltName; the common name (CN) alone does not count (RFC 9525 §2)"
                .to_owned()
        }
        // This names the wanted host, and those in the certificate.
        CertificateError::NotValidForNameContext { .. } => reason.to_string(),
        CertificateError::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => {
            "it is of X.509 version 1, which has no room for host names; make one of version 3".to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// The certificates that the environment names.
#[derive(Default)]
pub(super) struct Named {
    /// These replace the system's own store, if any are named.
    certificates: Option<Vec<CertificateDer<'static>>>,
    extra: Vec<CertificateDer<'static>>,
    pub(super) problems: Vec<VariableProblem>,
}

impl Named {
    pub(super) fn read(vars: Lookup) -> Named {
        let mut named = Named::default();
        let set = |name| vars(name).filter(|value| !value.is_empty());
        if let Some(file) = set(FILE_VARIABLE) {
            let read = certificates_in(Path::new(&file));
            named.certificates = Some(named.or_problem(FILE_VARIABLE, &file, read));
        }
        if let Some(folders) = set(FOLDER_VARIABLE) {
            let read = certificates_in_folders(&folders);
            let found = named.or_problem(FOLDER_VARIABLE, &folders, read);
            named.certificates.get_or_insert_default().extend(found);
        }
        if let Some(file) = set(EXTRA_VARIABLE) {
            let read = certificates_in(Path::new(&file));
            named.extra = named.or_problem(EXTRA_VARIABLE, &file, read);
        }
        named
    }

    fn or_problem(
        &mut self,
        name: &'static str,
        path: &OsString,
        read: io::Result<Vec<CertificateDer<'static>>>,
    ) -> Vec<CertificateDer<'static>> {
        let why = match read {
            Ok(certificates) if certificates.is_empty() => "holds no certificate in PEM".to_owned(),
            Ok(certificates) => return certificates,
            Err(error) => format!("cannot be read: {error}"),
        };
        let text = format!("{} {why}", Path::new(path).display());
        self.problems.push(VariableProblem { name, text });
        Vec::new()
    }
}

/// The certificates in a file. Other items are skipped: bundles hold comments and keys.
fn certificates_in(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = small_file::read_up_to(path, FILE_BYTES_MAX)?;
    Ok(CertificateDer::pem_slice_iter(pem::bare(&bytes))
        .filter_map(Result::ok)
        .collect())
}

/// The certificates in `folders`, which may be several as in OpenSSL. Files without a certificate are skipped.
fn certificates_in_folders(folders: &OsString) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    for folder in std::env::split_paths(folders).filter(|folder| !folder.as_os_str().is_empty()) {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                certificates.extend(certificates_in(&path).unwrap_or_default());
            }
        }
    }
    // `openssl rehash` puts each certificate into its folder twice.
    certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
    certificates.dedup();
    Ok(certificates)
}

#[derive(Debug)]
struct Verifier {
    webpki: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    algorithms: crypto::WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer,
        intermediates: &[CertificateDer],
        server_name: &ServerName,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let is_root = self.roots.iter().any(|root| root == end_entity);
        // A certificate that is trusted by itself needs no intermediates.
        let intermediates = if is_root { &[] } else { intermediates };
        let verified =
            webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // webpki checks the dates first, so that they are right here. A test makes sure of that.
            Err(Error::InvalidCertificate(reason)) if is_root && is_about_issuer(&reason) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(Error::InvalidCertificate(reason)) if is_authority(&reason) => {
                Err(CertificateError::UnknownIssuer.into())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Is the objection only to who signed the certificate, or how?
fn is_about_issuer(reason: &CertificateError) -> bool {
    is_authority(reason)
        || matches!(
            reason,
            CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
}

/// Is the objection that the certificate is an authority's? `openssl req -x509` makes such ones.
fn is_authority(reason: &CertificateError) -> bool {
    // rustls passes webpki's own error on. Its type is not public, and its Display is its name.
    matches!(reason, CertificateError::Other(other) if other.0.to_string() == "CaUsedAsEndEntity")
}

const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const FOLDER_VARIABLE: &str = "SSL_CERT_DIR";
const EXTRA_VARIABLE: &str = "NODE_EXTRA_CA_CERTS";

/// Largest file that is read: far more than all roots, with their descriptions as text.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
