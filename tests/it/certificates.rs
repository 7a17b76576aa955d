//! Renewing a certificate while the server runs: on SIGHUP, or when its files change.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use postiz::server::times::Times;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConnection, StreamOwned};

use crate::attack::tls::{EC, Files};
use crate::fake_postiz::FakePostiz;
use crate::support::{Store, TestServer, eventually};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A server that uses a copy of one of several certificates.
struct Fixture {
    files: Files,
    server: TestServer,
}

impl Fixture {
    fn start() -> Fixture {
        Fixture::start_with(&Times::DEFAULT)
    }

    fn start_with(times: &Times) -> Fixture {
        let files = Files::new();
        files.certificate("old", EC);
        files.certificate("new", EC);
        fs::write(files.path("empty"), "").unwrap();
        copy(&files, "old.crt", "live.crt");
        copy(&files, "old.key", "live.key");
        let server = files.setup("live.crt", "live.key").times(times).start();
        Fixture { files, server }
    }

    /// Replaces the files in use by copies of these, by renaming, as renewal tools do.
    fn replace(&self, certificate: &str, key: &str) {
        copy(&self.files, certificate, "live.crt");
        copy(&self.files, key, "live.key");
    }

    /// Does a new connection get the certificate of this file?
    fn serves(&self, name: &str) -> bool {
        let mut client = self.files.connect(&self.server);
        assert!(ask(&mut client).ends_with(r#"{"status":"ok"}"#));
        // The first certificate of the chain.
        let expected = CertificateDer::from_pem_file(self.files.path(&format!("{name}.crt")));
        client.conn.peer_certificates().expect("it has shown one")[0] == expected.unwrap()
    }

    fn count(&self, words: &str) -> usize {
        self.server.log().matches(words).count()
    }

    /// Sends SIGHUP, and waits for a new log line with all of these words. (The janitor may add lines of its own.)
    fn reload(&self, words: &[&str]) {
        let before = self.server.log().lines().count();
        self.server.signal("HUP");
        eventually(&words.join(" … "), || {
            let log = self.server.log();
            let mut new = log.lines().skip(before);
            new.any(|line| words.iter().all(|word| line.contains(word)))
        });
    }
}

fn copy(files: &Files, from: &str, to: &str) {
    fs::copy(files.path(from), files.path("copy")).unwrap();
    fs::rename(files.path("copy"), files.path(to)).unwrap();
}

/// Sends one request on a connection that stays open.
fn ask(client: &mut Client) -> String {
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(br#"{"status":"ok"}"#) {
        let mut bytes = [0; 1024];
        let count = client.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&bytes[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn renewed_certificate_is_loaded_on_sighup() {
    let fixture = Fixture::start();
    assert!(fixture.serves("old"));
    assert_eq!(
        fixture.count("certificate loaded names=localhost not_after=20"),
        1
    );
    // The certificate is valid for two days, and the warning begins at fourteen.
    assert_eq!(fixture.count("warn certificate expires soon"), 1);
    let mut kept = fixture.files.connect(&fixture.server);
    ask(&mut kept);
    fixture.replace("new.crt", "new.key");
    fixture.reload(&["certificate loaded"]);
    assert!(fixture.serves("new"));
    ask(&mut kept);
    // SIGHUP without a change is logged, too.
    fixture.reload(&["certificate loaded"]);
    ask(&mut kept);
}

#[test]
fn broken_pairs_leave_the_old_certificate_in_use() {
    let fixture = Fixture::start();
    let half = fixture.files.read("new.crt").split_at(300).0.to_owned();
    fs::write(fixture.files.path("half"), half).unwrap();
    for (certificate, key, name, words) in [
        (
            "new.crt",
            "old.key",
            "TLS_KEY_FILE",
            "is not the key of the certificate",
        ),
        ("old.crt", "empty", "TLS_KEY_FILE", "holds no private key"),
        ("empty", "old.key", "TLS_CERT_FILE", "holds no certificate"),
        (
            "old.key",
            "old.key",
            "TLS_CERT_FILE",
            "holds no certificate",
        ),
        ("half", "new.key", "TLS_CERT_FILE", "live.crt"),
    ] {
        fixture.replace(certificate, key);
        let event = "error certificate rejected";
        fixture.reload(&[event, name, words, "in_use_until=20"]);
        assert!(fixture.serves("old"), "{certificate} {key}");
    }
    fs::remove_file(fixture.files.path("live.key")).unwrap();
    fixture.reload(&["No such file"]);
    assert!(fixture.serves("old"));
    fixture.replace("new.crt", "new.key");
    fixture.reload(&["certificate loaded"]);
    assert!(fixture.serves("new"));
    assert!(!fixture.server.log().contains("PRIVATE"));
}

/// The janitor checks the files.
#[test]
fn changed_files_are_found_without_a_signal() {
    let fixture = Fixture::start_with(&Times {
        purge_period: Duration::from_millis(100),
        ..Times::DEFAULT
    });
    fixture.replace("new.crt", "new.key");
    eventually("the certificate is loaded", || {
        fixture.count("certificate loaded") >= 2
    });
    assert!(fixture.serves("new"));
    fixture.replace("empty", "new.key");
    eventually("the certificate is rejected", || {
        fixture.count("holds no certificate") == 1
    });
    assert!(fixture.serves("new"));
    fixture.replace("old.crt", "old.key");
    eventually("the certificate is loaded", || fixture.serves("old"));
    // A problem that lasts over many rounds is logged once.
    assert_eq!(fixture.count("holds no certificate"), 1);
}

/// The log has an error, and it is the clients that refuse the certificate.
#[test]
fn expired_certificate_is_served_and_logged() {
    let file = |name: &str| format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("TLS_CERT_FILE", &file("old.crt"))
        .var("TLS_KEY_FILE", &file("old.key"));
    let log = setup.start().log();
    let line = "error certificate expired not_after=2026-03-01T00:00:00.000Z";
    assert!(log.contains(line), "{log}");
    let checked = setup.run(&["--check"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("it has expired"));
}

#[test]
fn sighup_ends_no_server() {
    let mut server = TestServer::setup(Store::Embedded).start();
    for times in 1..4 {
        server.signal("HUP");
        let is_logged = |log: &str| log.matches("info nothing to reload").count() == times;
        eventually("the signal is logged", || is_logged(&server.log()));
        assert_eq!(server.get("/health").status, 200);
    }
    // Neither does SIGHUP end a server that is stopping.
    let kept = crate::support::Connection::open(server.address);
    server.signal("TERM");
    eventually("it stops", || server.log().contains("info stopping"));
    server.signal("HUP");
    drop(kept);
    assert_eq!(server.wait().code(), Some(0));
    eventually("the stop is logged", || {
        server.log().contains("info stopped")
    });
}
