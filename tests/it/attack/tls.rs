//! https by the server itself: versions, kinds of keys, errors about certificate files, and slow clients.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::attack::assert_nothing_broke;
use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::tls::make_certificates;
use crate::support::{Browser, Cluster, Connection, Login, Store, TestServer, expect, run};

/// An authority, and certificates for localhost that it has signed, made with openssl.
pub struct Files(TempDir);

impl Files {
    /// Makes the authority only.
    pub fn new() -> Files {
        let files = Files(tempfile::tempdir().expect("a temporary folder"));
        files.make("self_signed ca authority $key");
        files
    }

    /// Makes a key of this kind, and a chain of its certificate and the authority's.
    pub fn certificate(&self, name: &str, kind: &str) {
        self.make(&format!(
            "signed {name} localhost ca DNS:localhost {kind}; cat ca.crt >>{name}.crt"
        ));
    }

    fn make(&self, script: &str) {
        make_certificates(self.0.path(), script);
    }

    /// The path of this file.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// The text of this file.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("openssl wrote it")
    }

    /// A server with this certificate and key.
    pub fn setup(&self, certificate: &str, key: &str) -> ServerSetup {
        self.on(TestServer::setup(Store::Embedded), certificate, key)
    }

    fn on(&self, setup: ServerSetup, certificate: &str, key: &str) -> ServerSetup {
        setup
            .var("TLS_CERT_FILE", &self.path(certificate))
            .var("TLS_KEY_FILE", &self.path(key))
    }

    /// Connects as a client that trusts the authority.
    pub fn connect(&self, server: &TestServer) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("ca.crt"));
        roots
            .add(authority.expect("a certificate"))
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports these versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(server.address).expect("it listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket");
        StreamOwned::new(client, socket)
    }
}

/// The usual kind of key.
pub const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "-newkey rsa:2048";

/// Sends a request with curl, which verifies chain and name. Returns the answer with its head.
fn curl(files: &Files, server: &TestServer, options: &[&str]) -> Result<String, String> {
    let (authority, port) = (files.path("ca.crt"), server.address.port());
    let resolve = format!("localhost:{port}:127.0.0.1");
    let mut command = Command::new("curl");
    command.args(["-si", "-S", "--http1.1", "--max-time", "15", "--cacert"]);
    command.args([&authority, "--resolve", &resolve]);
    command
        .args(options)
        .arg(format!("https://localhost:{port}/health"));
    let output = run(&mut command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn tls_supports_both_versions_and_every_kind_of_key() {
    let files = Files::new();
    files.certificate("ec", EC);
    files.certificate("rsa", RSA);
    files.make("openssl ec -in ec.key -out ec.sec1");
    files.make("openssl rsa -in rsa.key -traditional -out rsa.pkcs1");
    files.make("openssl ecparam -name prime256v1 -out parameters");
    // As `openssl ecparam -genkey` writes it.
    let both = files.read("parameters") + &files.read("ec.sec1");
    std::fs::write(files.path("ec.both"), both).expect("the test may write the file");
    for (certificate, key, begin) in [
        ("ec.crt", "ec.key", "BEGIN PRIVATE KEY"),
        ("ec.crt", "ec.sec1", "BEGIN EC PRIVATE KEY"),
        ("ec.crt", "ec.both", "BEGIN EC PARAMETERS"),
        ("rsa.crt", "rsa.key", "BEGIN PRIVATE KEY"),
        ("rsa.crt", "rsa.pkcs1", "BEGIN RSA PRIVATE KEY"),
    ] {
        assert!(files.read(key).contains(begin), "{key}");
        let server = files.setup(certificate, key).start();
        for version in [
            ["--tlsv1.2", "--tls-max", "1.2"],
            ["--tlsv1.3", "--tls-max", "1.3"],
        ] {
            let answer = curl(&files, &server, &version);
            let answer = answer.unwrap_or_else(|why| panic!("{key} {version:?}: {why}"));
            assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
        }
        assert_nothing_broke(&server);
    }
}

/// Some editors put a byte order mark before the first line, and CR at the end of each line.
#[test]
fn files_with_bom_and_crlf_are_read() {
    let files = Files::new();
    files.certificate("ec", EC);
    for name in ["ec.crt", "ec.key"] {
        let text = files.read(name).replace('\n', "\r\n");
        std::fs::write(files.path(name), format!("\u{feff}  {text}\r\n"))
            .expect("the test may write the file");
    }
    let server = files.setup("ec.crt", "ec.key").start();
    let answer = curl(&files, &server, &[]).expect("an answer");
    assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
}

#[test]
fn mismatched_files_are_reported() {
    let files = Files::new();
    files.certificate("ec", EC);
    files.certificate("other", EC);
    std::fs::write(files.path("empty"), "").expect("the test may write the file");
    for (certificate, key, words) in [
        (
            "ec.crt",
            "other.key",
            ["TLS_KEY_FILE", "is not the key of the certificate"],
        ),
        ("ec.crt", "ec.crt", ["TLS_KEY_FILE", "holds no private key"]),
        ("ec.crt", "empty", ["TLS_KEY_FILE", "holds no private key"]),
        (
            "ec.key",
            "ec.key",
            ["TLS_CERT_FILE", "holds no certificate"],
        ),
        ("nowhere", "ec.key", ["TLS_CERT_FILE", "nowhere"]),
        ("ec.crt", "nowhere", ["TLS_KEY_FILE", "nowhere"]),
    ] {
        let setup = files.setup(certificate, key);
        for arguments in [&[][..], &["--check"]] {
            let output = setup.run(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(
                words.iter().all(|word| stderr.contains(word)),
                "{words:?}: {stderr}"
            );
            assert!(
                !stderr.contains("PRIVATE") && !stderr.contains("panic"),
                "{stderr}"
            );
        }
    }
}

#[test]
fn https_sends_hsts() {
    let files = Files::new();
    files.certificate("ec", EC);
    let setup = files.setup("ec.crt", "ec.key");
    let server = setup
        .clone()
        .var("SERVER_URL", "https://auth.example")
        .start();
    let hsts = "strict-transport-security: max-age=31536000";
    let answer = curl(&files, &server, &[]).expect("an answer");
    assert!(answer.to_lowercase().contains(hsts), "{answer}");
    // A proxy terminates TLS, or there is none.
    for (server_url, expected) in [("https://auth.example", 1), ("http://auth.example", 0)] {
        let server = TestServer::setup(Store::Embedded)
            .var("SERVER_URL", server_url)
            .start();
        let answer = server.page("/device/verify");
        let found = answer.headers_named("strict-transport-security");
        assert_eq!(found.len(), expected, "{server_url}");
    }
}

/// A slow handshake, one that never begins, and plain HTTP: each connection is closed after the timeout of a request.
#[test]
fn slow_handshake_times_out() {
    let files = Files::new();
    files.certificate("ec", EC);
    let setup = files.setup("ec.crt", "ec.key");
    let server = setup
        .time(|times| times.request = Duration::from_secs(2))
        .start();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let sent_slowly = [hello.as_slice(), &[0; 20]].concat();
    thread::scope(|scope| {
        for bytes in [&b""[..], b"\x16", &sent_slowly] {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Connection::open(server.address);
                let begun = Instant::now();
                for byte in bytes {
                    connection.try_send([*byte]);
                    // The pause between bytes.
                    thread::sleep(Duration::from_millis(100));
                }
                // Any end of the connection is fine.
                let ended = connection.rest();
                let took = begun.elapsed().as_secs_f32();
                assert!(!ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
                assert!((1.5..10.0).contains(&took), "{took} s");
            });
        }
    });
    let mut plain = Connection::open(server.address);
    plain.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        plain.try_answer(true).is_err(),
        "plain http is not answered"
    );
    curl(&files, &server, &[]).expect("others are served");
    assert_nothing_broke(&server);
}

/// The browser uses http and the client https, on one database. The token is delivered once, to a client that is still
/// connected, and the connection ends with a TLS close_notify.
#[test]
fn token_is_delivered_over_tls() {
    let files = Files::new();
    files.certificate("ec", EC);
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&Cluster::shared().database());
    let plain = setup.start_for(&postiz);
    let server = files.on(setup, "ec.crt", "ec.key").start();
    let login = Login::start(&plain);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    let poll = login.poll_bytes();

    // A client that sends its poll and disconnects at once, with a close_notify.
    let mut gone = files.connect(&server);
    gone.write_all(&poll).expect("it is sent");
    gone.conn.send_close_notify();
    gone.flush().expect("it is sent");
    drop(gone);
    let answer = crate::support::eventually_some("one poll gets the token", || {
        let mut stream = files.connect(&server);
        stream.write_all(&poll).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a proper end");
        (!answer.contains("authorization_pending")).then_some(answer)
    });
    assert!(answer.contains("pos_"), "{answer}");
    expect::error(&login.poll(&plain), 400, "invalid_device_code");
    assert_nothing_broke(&server);
}
