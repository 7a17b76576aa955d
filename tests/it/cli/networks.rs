//! Certificates that the environment names.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::harness::{Cli, Home, postiz};

/// A new authority, and its certificate for 127.0.0.1.
struct Authority {
    home: Home,
}

impl Authority {
    fn new() -> Authority {
        let home = Home::new();
        home.write("names", "subjectAltName=IP:127.0.0.1");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let script = format!(
            "openssl req -x509 {key} -days 2 -subj /CN=Test -keyout ca.key -out ca.crt
             openssl req {key} -subj /CN=server -keyout server.key -out server.csr
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt"
        );
        let mut openssl = Command::new("sh");
        let output = openssl
            .args(["-ec", &script])
            .current_dir(home.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
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
            "holds no certificate",
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
    let script = format!(
        "new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key'
         signed=\"openssl req -x509 $new -days 2 -out server.crt\"
         name='-addext subjectAltName=IP:127.0.0.1'
         {script}"
    );
    let mut openssl = Command::new("sh");
    let output = openssl
        .args(["-ec", &script])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
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
        // As manuals show it: the certificate is an authority's.
        "$signed -subj /CN=me $name",
        "$signed -subj /CN=me $name -addext basicConstraints=critical,CA:FALSE",
        // Of an unknown authority.
        "openssl req $new -subj /CN=me -out server.csr
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -keyout ca.key -out ca.crt
         echo subjectAltName=IP:127.0.0.1 >names
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
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
            "$signed -subj /CN=me -addext subjectAltName=DNS:other.test",
            "only valid for",
        ),
        (
            "$signed -subj /CN=127.0.0.1",
            "it names no host in subjectAltName; the common name (CN) alone does not count",
        ),
        (
            "openssl req $new -subj /CN=me -out server.csr
             printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE' >names
             openssl x509 -req -in server.csr -signkey server.key -days -1 -extfile names -out server.crt",
            "it has expired",
        ),
        (
            "openssl req $new -subj /CN=127.0.0.1 -out server.csr
             openssl x509 -req -in server.csr -signkey server.key -days 2 -out server.crt",
            "version 1",
        ),
    ] {
        let authority = served_alone(script);
        let server = TlsServer::start(&authority);
        let cli = list_from(&server).var("SSL_CERT_FILE", authority.file("server.crt"));
        let done = cli.run().code(1).stdout("");
        done.stderr_has("its certificate is not trusted").stderr_has(part);
    }
    // Another certificate with the same names is not trusted.
    let (trusted, other) = (
        served_alone("$signed -subj /CN=me $name"),
        served_alone("$signed -subj /CN=me $name"),
    );
    let server = TlsServer::start(&other);
    let cli = list_from(&server).var("SSL_CERT_FILE", trusted.file("server.crt"));
    cli.run()
        .code(1)
        .stderr_has("its certificate is not trusted");
}
