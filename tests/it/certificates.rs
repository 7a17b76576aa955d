//! A certificate is renewed while the server runs: on SIGHUP, or when its files change.

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

/// Certificates, of which a copy is in use.
struct Scene {
    files: Files,
    server: TestServer,
}

impl Scene {
    fn start() -> Scene {
        Scene::start_with(&Times::DEFAULT)
    }

    fn start_with(times: &Times) -> Scene {
        let files = Files::new();
        files.certificate("old", EC);
        files.certificate("new", EC);
        fs::write(files.path("empty"), "").unwrap();
        copy(&files, "old.crt", "live.crt");
        copy(&files, "old.key", "live.key");
        let server = files.setup("live.crt", "live.key").times(times).start();
        Scene { files, server }
    }

    /// Puts these files in the place of those in use, as tools for renewal do: by renaming.
    fn replace(&self, certificate: &str, key: &str) {
        copy(&self.files, certificate, "live.crt");
        copy(&self.files, key, "live.key");
    }

    /// Does a new connection get the certificate of this name?
    fn serves(&self, name: &str) -> bool {
        let mut client = self.files.connect(&self.server);
        assert!(ask(&mut client).ends_with(r#"{"status":"ok"}"#));
        // The first of the chain.
        let expected = CertificateDer::from_pem_file(self.files.path(&format!("{name}.crt")));
        client.conn.peer_certificates().expect("it has shown one")[0] == expected.unwrap()
    }

    fn count(&self, words: &str) -> usize {
        self.server.log().matches(words).count()
    }

    /// Sends SIGHUP, and waits for a new line with all of these words. (The janitor may add lines of its own.)
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

/// One request on a connection that is kept.
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
fn renewed_certificate_is_taken_on_sighup() {
    let scene = Scene::start();
    assert!(scene.serves("old"));
    assert_eq!(
        scene.count("certificate loaded names=localhost not_after=20"),
        1
    );
    // Two days are less than fourteen.
    assert_eq!(scene.count("warn certificate expires soon"), 1);
    let mut kept = scene.files.connect(&scene.server);
    ask(&mut kept);
    scene.replace("new.crt", "new.key");
    scene.reload(&["certificate loaded"]);
    assert!(scene.serves("new"));
    ask(&mut kept);
    // Without a change too, it is answered.
    scene.reload(&["certificate loaded"]);
    ask(&mut kept);
}

#[test]
fn broken_pairs_keep_the_certificate_that_is_in_use() {
    let scene = Scene::start();
    let half = scene.files.read("new.crt").split_at(300).0.to_owned();
    fs::write(scene.files.path("half"), half).unwrap();
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
        scene.replace(certificate, key);
        let event = "error certificate rejected";
        scene.reload(&[event, name, words, "in_use_until=20"]);
        assert!(scene.serves("old"), "{certificate} {key}");
    }
    fs::remove_file(scene.files.path("live.key")).unwrap();
    scene.reload(&["No such file"]);
    assert!(scene.serves("old"));
    scene.replace("new.crt", "new.key");
    scene.reload(&["certificate loaded"]);
    assert!(scene.serves("new"));
    assert!(!scene.server.log().contains("PRIVATE"));
}

/// The janitor looks at the files.
#[test]
fn changed_files_are_found_without_a_signal() {
    let scene = Scene::start_with(&Times {
        purge_period: Duration::from_millis(100),
        ..Times::DEFAULT
    });
    scene.replace("new.crt", "new.key");
    eventually("it is loaded", || scene.count("certificate loaded") >= 2);
    assert!(scene.serves("new"));
    scene.replace("empty", "new.key");
    eventually("it is rejected", || {
        scene.count("holds no certificate") == 1
    });
    assert!(scene.serves("new"));
    scene.replace("old.crt", "old.key");
    eventually("it is loaded", || scene.serves("old"));
    // What stayed the same over many rounds was logged once.
    assert_eq!(scene.count("holds no certificate"), 1);
}

/// Its operator is told, and its clients are the ones to refuse it.
#[test]
fn expired_certificate_is_served_and_told() {
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
        let told = |log: &str| log.matches("info nothing to reload").count() == times;
        eventually("it says so", || told(&server.log()));
        assert_eq!(server.get("/health").status, 200);
    }
    // Nor one that stops.
    let kept = crate::support::Connection::open(server.address);
    server.signal("TERM");
    eventually("it stops", || server.log().contains("info stopping"));
    server.signal("HUP");
    drop(kept);
    assert_eq!(server.wait().code(), Some(0));
    eventually("it says so", || server.log().contains("info stopped"));
}
