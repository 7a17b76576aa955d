//! https at the front: a certificate chain and its key, from PEM files that are read again while the server runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ServerConfig};

use crate::server::file_rights;
use crate::server::log::Log;
use crate::server::x509::X509Certificate;
use crate::shared::{pem, utc};

/// A certificate that ends sooner than this should have been renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The PEM files of a certificate chain and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`.
    pub certificate: PathBuf,
    /// `TLS_KEY_FILE`.
    pub key: PathBuf,
}

/// The certificate of a running server. Connections that are open keep the one that they began with.
pub(crate) struct Certificate {
    files: TlsFiles,
    in_use: RwLock<Arc<Pair>>,
    /// What the log's last line about it said; `None`: nothing yet.
    logged: Mutex<Option<Found>>,
    log: Arc<Log>,
}

/// What a look at the files found.
struct Found {
    in_use: Arc<Pair>,
    validity: Validity,
    /// Why the files cannot be used.
    rejected: Option<String>,
}

impl Certificate {
    /// Reads the files. The error says which one is wrong, and how.
    pub(crate) fn open(files: &TlsFiles, log: Arc<Log>) -> Result<Certificate, String> {
        let certificate = Certificate {
            files: files.clone(),
            in_use: RwLock::new(Arc::new(Pair::read(files)?)),
            logged: Mutex::new(None),
            log,
        };
        certificate.reload(SystemTime::now());
        Ok(certificate)
    }

    /// What a new connection is served with.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_use().server_config)
    }

    /// When the certificate in use expires.
    pub(crate) fn expires_at(&self) -> SystemTime {
        self.in_use().not_after
    }

    /// Reads the files again, and logs what came of it in any case.
    pub(crate) fn reload(&self, now: SystemTime) {
        *self.logged.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.reload_if_changed(now);
    }

    /// Reads the files again, takes what they hold if it can be used, and logs what is new.
    pub(crate) fn reload_if_changed(&self, now: SystemTime) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let rejected = self.renew(now).err();
        let in_use = self.in_use();
        let found = Found {
            validity: in_use.validity(now),
            in_use,
            rejected,
        };
        self.log_difference(logged.as_ref(), &found);
        *logged = Some(found);
    }

    fn in_use(&self) -> Arc<Pair> {
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&in_use)
    }

    /// Takes what the files hold, unless it is in use already. The error says why it is not taken.
    fn renew(&self, now: SystemTime) -> Result<(), String> {
        let (old, contents) = (self.in_use(), Contents::read(&self.files)?);
        if contents == old.contents {
            return Ok(());
        }
        let new = Pair::new(&self.files, contents)?;
        // A certificate that clients refuse must not replace one that they accept.
        if let (Some(problem), None) = (new.validity(now).problem(), old.validity(now).problem()) {
            let (path, at) = (self.files.certificate.display(), new.dates());
            return Err(format!("TLS_CERT_FILE {path}: {problem} ({at})"));
        }
        *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    fn log_difference(&self, before: Option<&Found>, now: &Found) {
        let not_after = utc::iso8601(now.in_use.not_after);
        match (before, &now.rejected) {
            (Some(before), Some(_)) if before.rejected == now.rejected => {}
            (_, Some(error)) => {
                let fields = [("error", &**error), ("in_use_until", &not_after)];
                self.log.error("certificate_rejected", &fields);
            }
            (Some(before), None)
                if before.rejected.is_none() && Arc::ptr_eq(&before.in_use, &now.in_use) => {}
            (_, None) => {
                let names = now.in_use.names.join(" ");
                let fields = [("names", &*names), ("not_after", &not_after)];
                self.log.info("certificate_loaded", &fields);
            }
        }
        if before.is_some_and(|before| before.validity == now.validity) {
            return;
        }
        let fields = [("not_after", &*not_after)];
        match now.validity {
            Validity::Good => {}
            Validity::EndsSoon => self.log.warn("certificate_expires_soon", &fields),
            Validity::Expired => self.log.error("certificate_expired", &fields),
            Validity::TooNew => {
                let not_before = utc::iso8601(now.in_use.not_before);
                let fields = [("not_before", &*not_before)];
                self.log.error("certificate_not_yet_valid", &fields);
            }
        }
    }
}

/// A certificate chain and its key.
pub(crate) struct Pair {
    /// By which a change is told.
    contents: Contents,
    server_config: Arc<ServerConfig>,
    /// The server's own certificate.
    leaf: CertificateDer<'static>,
    /// The host names and addresses that it is for.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Pair {
    /// Reads both files: PKCS#8, SEC1 or PKCS#1 for the key. The error says which one is wrong, and how.
    pub(crate) fn read(files: &TlsFiles) -> Result<Pair, String> {
        Pair::new(files, Contents::read(files)?)
    }

    fn new(files: &TlsFiles, contents: Contents) -> Result<Pair, String> {
        let chain = CertificateDer::pem_slice_iter(&contents.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(CERTIFICATE, &files.certificate, &error))?;
        let Some(leaf) = chain.first().cloned() else {
            let nothing = "holds no certificate in PEM form";
            return Err(unusable(CERTIFICATE, &files.certificate, &nothing));
        };
        let parsed = X509Certificate::parse(&leaf);
        let Some((not_before, not_after)) = parsed.map(|leaf| leaf.validity()) else {
            let garbage = "holds something that is no X.509 certificate";
            return Err(unusable(CERTIFICATE, &files.certificate, &garbage));
        };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| match error {
            PemError::NoItemsFound => {
                unusable(KEY, &files.key, &"holds no private key in PEM form")
            }
            other => unusable(KEY, &files.key, &other),
        })?;
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Pair {
            contents,
            server_config: server_config(files, chain, key)?,
            names: names(&leaf),
            leaf,
            not_before: at(not_before),
            not_after: at(not_after),
        })
    }

    /// How the certificate stands at `now`.
    pub(crate) fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            Validity::TooNew
        } else if now > self.not_after {
            Validity::Expired
        } else if now + RENEWED_BEFORE > self.not_after {
            Validity::EndsSoon
        } else {
            Validity::Good
        }
    }

    /// Is it for this host, a name or an address?
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let parsed = ParsedCertificate::try_from(&self.leaf);
        match (parsed, ServerName::try_from(host)) {
            (Ok(certificate), Ok(name)) => verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }

    fn dates(&self) -> String {
        let [from, until] = [self.not_before, self.not_after].map(utc::iso8601);
        format!("from {from} until {until}")
    }
}

/// Is a certificate valid?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Good,
    /// Yes, for less than [`RENEWED_BEFORE`].
    EndsSoon,
    Expired,
    /// Not yet.
    TooNew,
}

impl Validity {
    /// Why clients refuse it, if they do.
    pub(crate) fn problem(self) -> Option<&'static str> {
        match self {
            Validity::Good | Validity::EndsSoon => None,
            Validity::Expired => Some("it has expired"),
            Validity::TooNew => Some("it is not valid yet (or this machine's clock is wrong)"),
        }
    }
}

/// Both files as they are.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Contents, String> {
        let read = |name, path: &Path| {
            pem::read(path).map_err(|error| match error {
                PemError::Io(error) => unusable(name, path, &file_rights::explain(path, &error)),
                other => unusable(name, path, &other),
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
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    let mut config = builder
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

/// The names in a certificate, as rustls lists them to whoever asks for another one.
fn names(leaf: &CertificateDer) -> Vec<String> {
    let other = ServerName::try_from("no-such-host.invalid").expect("it is a host name");
    let asked = ParsedCertificate::try_from(leaf)
        .and_then(|certificate| verify_server_name(&certificate, &other));
    let Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        presented,
        ..
    })) = asked
    else {
        return Vec::new();
    };
    // `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
    let bare = |name: &String| {
        let (_, name) = name.split_once('(')?;
        let name = name.trim_end_matches(')').trim_matches('"');
        // It writes `::1` as `0::1`.
        let address = name.parse::<IpAddr>().map(|address| address.to_string());
        Some(address.unwrap_or_else(|_| name.to_owned()))
    };
    presented.iter().filter_map(bare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::log::{Format, Level};

    /// From 2026-01-01 until 2026-03-01.
    const OLD: [&str; 2] = [
        include_str!("../../../tests/certificates/old.crt"),
        include_str!("../../../tests/certificates/old.key"),
    ];
    /// From 2026-02-15 until 2026-05-01.
    const NEW: [&str; 2] = [
        include_str!("../../../tests/certificates/new.crt"),
        include_str!("../../../tests/certificates/new.key"),
    ];

    /// The files, and the lines that were logged.
    struct Scene {
        folder: tempfile::TempDir,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Scene {
        fn new(pair: [&str; 2]) -> Scene {
            let scene = Scene {
                folder: tempfile::tempdir().unwrap(),
                lines: Arc::default(),
            };
            scene.write(pair);
            scene
        }

        fn files(&self) -> TlsFiles {
            TlsFiles {
                certificate: self.folder.path().join("crt"),
                key: self.folder.path().join("key"),
            }
        }

        fn write(&self, [certificate, key]: [&str; 2]) {
            std::fs::write(self.files().certificate, certificate).unwrap();
            std::fs::write(self.files().key, key).unwrap();
        }

        fn open(&self) -> Certificate {
            let lines = Arc::clone(&self.lines);
            let log = Log::to(Format::Text, Level::Info, move |line| {
                let line = String::from_utf8_lossy(line);
                lines.lock().unwrap().push(line.trim_end().to_owned());
            });
            Certificate::open(&self.files(), Arc::new(log)).unwrap()
        }

        /// Those since the last call, without their times.
        fn logged(&self) -> Vec<String> {
            let lines = self.lines.lock().unwrap().split_off(0);
            let bare = |line: &String| line.split_once(' ').unwrap().1.to_owned();
            lines.iter().map(bare).collect()
        }
    }

    /// Midnight.
    fn day(days_of_2026: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((20_454 + days_of_2026) * 24 * 60 * 60)
    }

    fn starts(lines: &[String], expected: &[&str]) {
        let fits = |(line, start): (&String, &&str)| line.starts_with(start);
        let all = lines.len() == expected.len() && lines.iter().zip(expected).all(fits);
        assert!(all, "{lines:?}");
    }

    #[test]
    fn dates_and_names_are_read() {
        let scene = Scene::new(OLD);
        let pair = Pair::read(&scene.files()).unwrap();
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
            (day(0) - minute, Validity::TooNew),
            (day(0), Validity::Good),
            (day(45) - minute, Validity::Good),
            (day(45) + minute, Validity::EndsSoon),
            (day(59), Validity::EndsSoon),
            (day(59) + minute, Validity::Expired),
        ] {
            assert_eq!(pair.validity(now), validity, "{now:?}");
        }
        scene.write(NEW);
        assert!(Pair::read(&scene.files()).unwrap().is_for("a.auth.example"));
    }

    #[test]
    fn what_stays_the_same_is_logged_once() {
        let scene = Scene::new(OLD);
        let certificate = scene.open();
        let reload_twice = |day| {
            certificate.reload_if_changed(day);
            certificate.reload_if_changed(day);
            scene.logged()
        };
        certificate.reload(day(10));
        scene.logged();
        assert!(reload_twice(day(10)).is_empty());
        starts(
            &reload_twice(day(50)),
            &["warn certificate expires soon not_after=2026-03-01"],
        );
        scene.write([NEW[0], OLD[1]]);
        starts(
            &reload_twice(day(50)),
            &["error certificate rejected error=\"TLS_KEY_FILE "],
        );
        scene.write(["", OLD[1]]);
        starts(
            &reload_twice(day(51)),
            &["error certificate rejected error=\"TLS_CERT_FILE "],
        );
        assert_eq!(certificate.expires_at(), day(59));
        scene.write(OLD);
        starts(
            &reload_twice(day(51)),
            &["info certificate loaded names=\"localhost auth.example"],
        );
        starts(&reload_twice(day(60)), &["error certificate expired"]);
        scene.write(NEW);
        let names =
            "info certificate loaded names=*.auth.example not_after=2026-05-01T00:00:00.000Z";
        starts(&reload_twice(day(60)), &[names]);
        assert_eq!(certificate.expires_at(), day(120));
        certificate.reload(day(60));
        starts(&scene.logged(), &[names]);
    }

    #[test]
    fn certificates_that_clients_refuse_replace_none_that_they_accept() {
        let scene = Scene::new(OLD);
        let certificate = scene.open();
        certificate.reload(day(10));
        scene.logged();
        scene.write(NEW);
        certificate.reload_if_changed(day(10));
        let lines = scene.logged();
        starts(&lines, &["error certificate rejected"]);
        assert!(lines[0].contains("not valid yet"), "{lines:?}");
        // Its day comes without another change of the files.
        certificate.reload_if_changed(day(46));
        starts(
            &scene.logged(),
            &["info certificate loaded names=*.auth.example"],
        );
        scene.write(OLD);
        certificate.reload_if_changed(day(70));
        assert!(scene.logged()[0].contains("has expired"));
        assert_eq!(certificate.expires_at(), day(120));
        // Both are refused: then the files count.
        certificate.reload_if_changed(day(130));
        starts(
            &scene.logged(),
            &["info certificate loaded", "error certificate expired"],
        );
    }
}
