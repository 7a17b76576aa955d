//! Certificates that the environment names.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::harness::{Cli, Home, postiz};
use crate::support::tls::make_certificates;

/// A new authority, and its certificate for 127.0.0.1.
struct Authority {
    home: Home,
}

impl Authority {
    fn new() -> Authority {
        let home = Home::new();
        let script = "self_signed ca Test $key; signed server server ca IP:127.0.0.1 $key";
        make_certificates(home.path(), script);
        Authority { home }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.file(name)
    }
}

/// OpenSSL's own server, with one file.
struct TlsServer {
    child: Child,
    url: String,
}

impl TlsServer {
    fn start(authority: &Authority) -> TlsServer {
        TlsServer::start_with(authority, &[])
    }

    /// With further arguments of `openssl s_server`.
    fn start_with(authority: &Authority, arguments: &[&str]) -> TlsServer {
        authority.home.write("public/v1/integrations", "[]");
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-cert",
            "server.crt",
            "-key",
            "server.key",
            "-WWW",
        ]);
        openssl.args(arguments);
        let mut child = openssl
            .current_dir(authority.home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        TlsServer {
            child,
            url: format!("https://{}", address.unwrap()),
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Each of the variables makes an authority trusted. Without one, nothing is sent.
#[test]
fn certificates_are_trusted_as_the_environment_says() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority);
    let list = || {
        postiz("integrations:list")
            .var("POSTIZ_API_KEY", "k")
            .var("POSTIZ_API_URL", &server.url)
    };
    for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        list()
            .var(name, authority.file("ca.crt"))
            .run()
            .code(0)
            .stdout("[]\n");
    }
    // As a Windows editor saves it; and in the second of two folders.
    let text = std::fs::read_to_string(authority.file("ca.crt")).unwrap();
    let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    authority.home.write("folder/marked.crt", text);
    authority.home.write("other/README", "no certificate");
    let (marked, folder) = (
        authority.file("folder/marked.crt"),
        authority.file("folder"),
    );
    let folders = format!("{}:{}", authority.file("other").display(), folder.display());
    list().var("SSL_CERT_FILE", marked).run().code(0);
    list().var("SSL_CERT_DIR", folders).run().code(0);
    let done = list().run().code(1).stdout("");
    done.stderr_has("its certificate is not trusted")
        .stderr_has("SSL_CERT_FILE or NODE_EXTRA_CA_CERTS");
    let nowhere = list()
        .var("NODE_EXTRA_CA_CERTS", "/nowhere.crt")
        .run()
        .code(1);
    nowhere.stderr_has("error: NODE_EXTRA_CA_CERTS: /nowhere.crt cannot be read: ");
    // Another name than the certificate's.
    let other = list().var(
        "POSTIZ_API_URL",
        server.url.replace("127.0.0.1", "localhost"),
    );
    other
        .var("SSL_CERT_FILE", authority.file("ca.crt"))
        .run()
        .code(1)
        .stderr_has("its certificate is not trusted");
}

#[test]
fn unusable_file_of_certificates_is_an_error() {
    let home = Home::new();
    home.write("empty.crt", "").write(
        "key.pem",
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
    );
    home.write("folder/README", "no certificate");
    let path = |name: &str| home.file(name).display().to_string();
    for (name, value, part) in [
        ("SSL_CERT_FILE", "/nowhere.crt".to_owned(), "No such file"),
        ("SSL_CERT_FILE", path("empty.crt"), "holds no certificate"),
        ("SSL_CERT_FILE", path("folder"), "Is a directory"),
        (
            "SSL_CERT_FILE",
            "/dev/null".to_owned(),
            "it is not a regular file",
        ),
        ("SSL_CERT_DIR", path("missing"), "No such file"),
        ("SSL_CERT_DIR", path("folder"), "holds no certificate"),
        ("SSL_CERT_DIR", path("empty.crt"), "Not a directory"),
        (
            "NODE_EXTRA_CA_CERTS",
            path("key.pem"),
            "holds no certificate",
        ),
    ] {
        let cli = postiz("integrations:list").var("POSTIZ_API_KEY", "k");
        let done = cli
            .var("POSTIZ_API_URL", "https://127.0.0.1:1")
            .var(name, &value)
            .run()
            .code(1)
            .stdout("");
        done.stderr_has(&format!("error: {name}: {value} "))
            .stderr_has(part)
            .stderr_has("unset it");
    }
    // Without TLS, certificates do not matter.
    let plain = postiz("integrations:list").var("POSTIZ_API_KEY", "k");
    let plain = plain.var("POSTIZ_API_URL", "http://127.0.0.1:1");
    plain
        .var("SSL_CERT_FILE", "/nowhere.crt")
        .run()
        .code(1)
        .stderr_has("connection refused");
}

/// A self-signed certificate, or one of an unknown issuer, in the files of its server.
fn served_alone(script: &str) -> Authority {
    let home = Home::new();
    make_certificates(home.path(), script);
    Authority { home }
}

fn list_from(server: &TlsServer) -> Cli {
    postiz("integrations:list")
        .var("POSTIZ_API_KEY", "k")
        .var("POSTIZ_API_URL", &server.url)
}

#[test]
fn certificate_that_equals_a_root_is_trusted() {
    for script in [
        // What the manuals say; it calls itself an authority.
        "self_signed server me $key -addext subjectAltName=IP:127.0.0.1",
        "self_signed server me $key -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE",
        // Of an authority that nobody knows.
        "self_signed ca ca $key; signed server me ca IP:127.0.0.1 $key",
    ] {
        let authority = served_alone(script);
        for version in ["-tls1_2", "-tls1_3"] {
            let server = TlsServer::start_with(&authority, &[version]);
            for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
                let cli = list_from(&server).var(name, authority.file("server.crt"));
                cli.run().code(0).stdout("[]\n");
            }
        }
        let server = TlsServer::start(&authority);
        let unknown = list_from(&server).run().code(1);
        unknown
            .stderr_has("no authority known here has signed it")
            .stderr_has("SSL_CERT_FILE or NODE_EXTRA_CA_CERTS");
    }
}

#[test]
fn certificate_that_equals_a_root_is_checked_for_name_and_dates() {
    for (script, part) in [
        (
            "self_signed server me $key -addext subjectAltName=DNS:other.test",
            "only valid for",
        ),
        (
            "self_signed server 127.0.0.1 $key",
            "it names no host in subjectAltName; the common name (CN) alone does not count",
        ),
        (
            "request server me $key
             printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE' >names
             sign server -signkey server.key -days -1 -extfile names",
            "it has expired",
        ),
        (
            "request server 127.0.0.1 $key; sign server -signkey server.key",
            "version 1",
        ),
    ] {
        let authority = served_alone(script);
        let server = TlsServer::start(&authority);
        let cli = list_from(&server).var("SSL_CERT_FILE", authority.file("server.crt"));
        let done = cli.run().code(1).stdout("");
        done.stderr_has("its certificate is not trusted")
            .stderr_has(part);
    }
    // Another certificate with the same names is not trusted.
    let (trusted, other) = (
        served_alone("self_signed server me $key -addext subjectAltName=IP:127.0.0.1"),
        served_alone("self_signed server me $key -addext subjectAltName=IP:127.0.0.1"),
    );
    let server = TlsServer::start(&other);
    let cli = list_from(&server).var("SSL_CERT_FILE", trusted.file("server.crt"));
    cli.run()
        .code(1)
        .stderr_has("its certificate is not trusted");
}
