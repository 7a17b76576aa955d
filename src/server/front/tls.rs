//! A certificate chain and its key, from PEM files, as a TLS configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ServerConfig};

use crate::server::file_rights;
use crate::server::x509::X509Certificate;
use crate::shared::pem;

/// How long before its end a certificate is reported as expiring soon.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The PEM files of a certificate chain and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`.
    pub certificate: PathBuf,
    /// `TLS_KEY_FILE`.
    pub key: PathBuf,
}

/// A certificate chain and its key.
pub(crate) struct ChainAndKey {
    /// Compared to notice a change of the files.
    pub(super) contents: Contents,
    pub(super) server_config: Arc<ServerConfig>,
    /// The server's own certificate.
    leaf: CertificateDer<'static>,
    /// The host names and addresses that the certificate is for.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl ChainAndKey {
    /// Reads both files: PKCS#8, SEC1 or PKCS#1 for the key. The error says which one is wrong, and how.
    pub(crate) fn read(files: &TlsFiles) -> Result<ChainAndKey, String> {
        ChainAndKey::new(files, Contents::read(files)?)
    }

    pub(super) fn new(files: &TlsFiles, contents: Contents) -> Result<ChainAndKey, String> {
        let bad_chain = |reason: &str| unusable(CERTIFICATE, &files.certificate, &reason);
        let bad_key = |reason: &str| unusable(KEY, &files.key, &reason);
        let chain = CertificateDer::pem_slice_iter(&contents.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad_chain(&pem::explain(&error)))?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(bad_chain("holds no certificate in PEM form"));
        };
        let Some(parsed) = X509Certificate::parse(&leaf) else {
            let garbage = "holds something that is not an X.509 certificate";
            return Err(bad_chain(garbage));
        };
        let [not_before, not_after] = [parsed.not_before, parsed.not_after]
            .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| match error {
            PemError::NoItemsFound => bad_key("holds no private key in PEM form"),
            other => bad_key(&pem::explain(&other)),
        })?;
        Ok(ChainAndKey {
            contents,
            server_config: server_config(files, chain, key)?,
            names: names(&leaf),
            leaf,
            not_before,
            not_after,
        })
    }

    pub(crate) fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            Validity::NotYetValid
        } else if now > self.not_after {
            Validity::Expired
        } else if now + EXPIRES_SOON > self.not_after {
            Validity::ExpiresSoon
        } else {
            Validity::Valid
        }
    }

    /// Whether the certificate is for this host name or address.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let parsed = ParsedCertificate::try_from(&self.leaf);
        match (parsed, ServerName::try_from(host)) {
            (Ok(certificate), Ok(name)) => verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }
}

/// Whether a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Valid,
    /// Valid, for less than [`EXPIRES_SOON`].
    ExpiresSoon,
    Expired,
    NotYetValid,
}

impl Validity {
    /// Why clients reject it, if they do.
    pub(crate) fn problem(self) -> Option<&'static str> {
        match self {
            Validity::Valid | Validity::ExpiresSoon => None,
            Validity::Expired => Some("it has expired"),
            Validity::NotYetValid => Some("it is not valid yet (or this machine's clock is wrong)"),
        }
    }
}

#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Contents, String> {
        let read = |name, path: &Path| {
            pem::read(path).map_err(|error| match error {
                PemError::Io(error) => unusable(name, path, &file_rights::explain(path, &error)),
                other => unusable(name, path, &pem::explain(&other)),
            })
        };
        Ok(Contents {
            certificate: read(CERTIFICATE, &files.certificate)?,
            key: read(KEY, &files.key)?,
        })
    }
}

const CERTIFICATE: &str = "TLS_CERT_FILE";
const KEY: &str = "TLS_KEY_FILE";

fn unusable(name: &str, path: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("{name} {}: {reason}", path.display())
}

/// TLS 1.2 and 1.3 with this chain and key.
fn server_config(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let certificate = files.certificate.display();
                let other =
                    format!("is not the key of the certificate in TLS_CERT_FILE {certificate}");
                unusable(KEY, &files.key, &other)
            }
            other => unusable(CERTIFICATE, &files.certificate, &other),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The names in a certificate. rustls lists them in the error about a name that is not among them.
fn names(leaf: &CertificateDer) -> Vec<String> {
    let other = ServerName::try_from("no-such-host.invalid").expect("it is a host name");
    let result = ParsedCertificate::try_from(leaf)
        .and_then(|certificate| verify_server_name(&certificate, &other));
    let Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        presented,
        ..
    })) = result
    else {
        return Vec::new();
    };
    // `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
    let bare = |name: &String| {
        let (_, name) = name.split_once('(')?;
        let name = name.trim_end_matches(')').trim_matches('"');
        // rustls writes `::1` as `0::1`.
        let address = name.parse::<IpAddr>().map(|address| address.to_string());
        Some(address.unwrap_or_else(|_| name.to_owned()))
    };
    presented.iter().filter_map(bare).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// From 2026-01-01 until 2026-03-01.
    pub(crate) const OLD: [&str; 2] = [
        include_str!("../../../tests/certificates/old.crt"),
        include_str!("../../../tests/certificates/old.key"),
    ];
    /// From 2026-02-15 until 2026-05-01.
    pub(crate) const NEW: [&str; 2] = [
        include_str!("../../../tests/certificates/new.crt"),
        include_str!("../../../tests/certificates/new.key"),
    ];

    /// Certificate files in a temporary folder.
    pub(crate) struct TempFiles(tempfile::TempDir);

    impl TempFiles {
        pub(crate) fn new(pair: [&str; 2]) -> TempFiles {
            let files = TempFiles(tempfile::tempdir().unwrap());
            files.write(pair);
            files
        }

        pub(crate) fn paths(&self) -> TlsFiles {
            TlsFiles {
                certificate: self.0.path().join("crt"),
                key: self.0.path().join("key"),
            }
        }

        pub(crate) fn write(&self, [certificate, key]: [&str; 2]) {
            std::fs::write(self.paths().certificate, certificate).unwrap();
            std::fs::write(self.paths().key, key).unwrap();
        }
    }

    /// Midnight.
    pub(crate) fn day(days_of_2026: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((20_454 + days_of_2026) * 24 * 60 * 60)
    }

    #[test]
    fn certificate_dates_and_names_are_read() {
        let files = TempFiles::new(OLD);
        let pair = ChainAndKey::read(&files.paths()).unwrap();
        assert_eq!(
            pair.names,
            ["localhost", "auth.example", "127.0.0.1", "::1"]
        );
        for (host, fits) in [
            ("auth.example", true),
            ("::1", true),
            ("127.0.0.1", true),
            ("a.auth.example", false),
            ("127.0.0.2", false),
            ("", false),
        ] {
            assert_eq!(pair.is_for(host), fits, "{host}");
        }
        let minute = Duration::from_secs(60);
        for (now, validity) in [
            (day(0) - minute, Validity::NotYetValid),
            (day(0), Validity::Valid),
            (day(45) - minute, Validity::Valid),
            (day(45) + minute, Validity::ExpiresSoon),
            (day(59), Validity::ExpiresSoon),
            (day(59) + minute, Validity::Expired),
        ] {
            assert_eq!(pair.validity(now), validity, "{now:?}");
        }
        files.write(NEW);
        assert!(
            ChainAndKey::read(&files.paths())
                .unwrap()
                .is_for("a.auth.example")
        );
    }
}
