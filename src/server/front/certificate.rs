//! The certificate of a running server, whose files are read again while it runs.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use crate::server::config::TlsFiles;
use crate::server::front::tls::{ChainAndKey, Contents, Validity};
use crate::server::log::Log;
use crate::shared::utc;

/// The certificate of a running server. Open connections keep the one that they began with.
pub(crate) struct Certificate {
    files: TlsFiles,
    in_use: RwLock<Arc<ChainAndKey>>,
    /// The result that was logged last; `None`: nothing yet.
    logged: Mutex<Option<ReloadResult>>,
    log: Arc<Log>,
}

/// The result of reading the files again.
struct ReloadResult {
    in_use: Arc<ChainAndKey>,
    validity: Validity,
    /// Why the files cannot be used.
    rejected: Option<String>,
}

impl Certificate {
    /// Reads the files. The error says which one is wrong, and how.
    pub(crate) fn open(files: &TlsFiles, log: Arc<Log>) -> Result<Certificate, String> {
        let certificate = Certificate {
            files: files.clone(),
            in_use: RwLock::new(Arc::new(ChainAndKey::read(files)?)),
            logged: Mutex::new(None),
            log,
        };
        certificate.reload(SystemTime::now());
        Ok(certificate)
    }

    /// The TLS configuration for a new connection.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_use().server_config)
    }

    /// When the certificate in use expires.
    pub(crate) fn expires_at(&self) -> SystemTime {
        self.in_use().not_after
    }

    /// Reads the files again, and logs the result even if it is the same as before.
    pub(crate) fn reload(&self, now: SystemTime) {
        *self.logged.lock() = None;
        self.reload_if_changed(now);
    }

    /// Reads the files again, uses them if they are valid, and logs the result if it is new.
    pub(crate) fn reload_if_changed(&self, now: SystemTime) {
        let mut logged = self.logged.lock();
        let rejected = self.renew(now).err();
        let in_use = self.in_use();
        let found = ReloadResult {
            validity: in_use.validity(now),
            in_use,
            rejected,
        };
        self.log_difference(logged.as_ref(), &found);
        *logged = Some(found);
    }

    fn in_use(&self) -> Arc<ChainAndKey> {
        Arc::clone(&self.in_use.read())
    }

    /// Uses what the files hold. The error says why it cannot be used.
    fn renew(&self, now: SystemTime) -> Result<(), String> {
        let (old, contents) = (self.in_use(), Contents::read(&self.files)?);
        if contents == old.contents {
            return Ok(());
        }
        let new = ChainAndKey::new(&self.files, contents)?;
        // A certificate that clients reject must not replace one that they accept.
        if let (Some(problem), None) = (new.validity(now).problem(), old.validity(now).problem()) {
            let path = self.files.certificate.display();
            let [from, until] = [new.not_before, new.not_after].map(utc::iso8601);
            return Err(format!(
                "TLS_CERT_FILE {path}: {problem} (from {from} until {until})"
            ));
        }
        *self.in_use.write() = Arc::new(new);
        Ok(())
    }

    fn log_difference(&self, before: Option<&ReloadResult>, now: &ReloadResult) {
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
            Validity::Valid => {}
            Validity::ExpiresSoon => self.log.warn("certificate_expires_soon", &fields),
            Validity::Expired => self.log.error("certificate_expired", &fields),
            Validity::NotYetValid => {
                let not_before = utc::iso8601(now.in_use.not_before);
                let fields = [("not_before", &*not_before)];
                self.log.error("certificate_not_yet_valid", &fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::front::tls::tests::{NEW, OLD, TempFiles, day};
    use crate::server::log::{Format, Level};

    /// Files, and the lines that were logged.
    struct Fixture {
        files: TempFiles,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Fixture {
        fn new(pair: [&str; 2]) -> Fixture {
            Fixture {
                files: TempFiles::new(pair),
                lines: Arc::default(),
            }
        }

        fn open(&self) -> Certificate {
            let lines = Arc::clone(&self.lines);
            let log = Log::to(Format::Text, Level::Info, move |line| {
                let line = String::from_utf8_lossy(line);
                lines.lock().push(line.trim_end().to_owned());
            });
            Certificate::open(&self.files.paths(), Arc::new(log)).unwrap()
        }

        /// Those since the last call, without their times.
        fn logged(&self) -> Vec<String> {
            let lines = self.lines.lock().split_off(0);
            let bare = |line: &String| line.split_once(' ').unwrap().1.to_owned();
            lines.iter().map(bare).collect()
        }
    }

    fn assert_lines_start(lines: &[String], expected: &[&str]) {
        let fits = |(line, start): (&String, &&str)| line.starts_with(start);
        let all = lines.len() == expected.len() && lines.iter().zip(expected).all(fits);
        assert!(all, "{lines:?}");
    }

    #[test]
    fn unchanged_result_is_logged_once() {
        let fixture = Fixture::new(OLD);
        let certificate = fixture.open();
        let reload_twice = |day| {
            certificate.reload_if_changed(day);
            certificate.reload_if_changed(day);
            fixture.logged()
        };
        certificate.reload(day(10));
        fixture.logged();
        assert!(reload_twice(day(10)).is_empty());
        assert_lines_start(
            &reload_twice(day(50)),
            &["warn certificate expires soon not_after=2026-03-01"],
        );
        fixture.files.write([NEW[0], OLD[1]]);
        assert_lines_start(
            &reload_twice(day(50)),
            &["error certificate rejected error=\"TLS_KEY_FILE "],
        );
        fixture.files.write(["", OLD[1]]);
        assert_lines_start(
            &reload_twice(day(51)),
            &["error certificate rejected error=\"TLS_CERT_FILE "],
        );
        assert_eq!(certificate.expires_at(), day(59));
        fixture.files.write(OLD);
        assert_lines_start(
            &reload_twice(day(51)),
            &["info certificate loaded names=\"localhost auth.example"],
        );
        assert_lines_start(&reload_twice(day(60)), &["error certificate expired"]);
        fixture.files.write(NEW);
        let names =
            "info certificate loaded names=*.auth.example not_after=2026-05-01T00:00:00.000Z";
        assert_lines_start(&reload_twice(day(60)), &[names]);
        assert_eq!(certificate.expires_at(), day(120));
        certificate.reload(day(60));
        assert_lines_start(&fixture.logged(), &[names]);
    }

    #[test]
    fn invalid_certificate_does_not_replace_a_valid_one() {
        let fixture = Fixture::new(OLD);
        let certificate = fixture.open();
        certificate.reload(day(10));
        fixture.logged();
        fixture.files.write(NEW);
        certificate.reload_if_changed(day(10));
        let lines = fixture.logged();
        assert_lines_start(&lines, &["error certificate rejected"]);
        assert!(lines[0].contains("not valid yet"), "{lines:?}");
        // The same files become valid.
        certificate.reload_if_changed(day(46));
        assert_lines_start(
            &fixture.logged(),
            &["info certificate loaded names=*.auth.example"],
        );
        fixture.files.write(OLD);
        certificate.reload_if_changed(day(70));
        assert!(fixture.logged()[0].contains("has expired"));
        assert_eq!(certificate.expires_at(), day(120));
        // Neither is valid: the one in the files is used.
        certificate.reload_if_changed(day(130));
        assert_lines_start(
            &fixture.logged(),
            &["info certificate loaded", "error certificate expired"],
        );
    }
}
