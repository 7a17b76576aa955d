//! Proxies and certificates, as the environment names them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::harness::{Home, Reply, Server, postiz};

/// A proxy that refuses, and so shows that it was asked.
fn refusing_proxy() -> Server {
    Server::new(|_, _| Reply::json(403, "{}"))
}

#[test]
fn requests_go_through_the_proxy_but_for_exceptions() {
    let (proxy, api) = (refusing_proxy(), Server::always(200, "[]"));
    let host = api.url().replace("http://", "");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let cli = postiz("api POST /x").key_for(&api).var(name, proxy.url());
        cli.run()
            .code(1)
            .stdout("")
            .stderr_has("the proxy refused")
            .stderr_has("NO_PROXY");
    }
    assert_eq!(proxy.lines(), vec![format!("CONNECT {host}"); 3]);
    let cli = postiz("integrations:list")
        .key_for(&api)
        .var("ALL_PROXY", proxy.url());
    cli.var("NO_PROXY", "127.0.0.1").run().code(0).stderr("");
    assert_eq!((proxy.asked().len(), api.asked().len()), (3, 1));
}

#[test]
fn a_proxy_that_cannot_be_used_is_told_and_its_password_is_not() {
    let api = Server::always(200, "[]");
    for value in ["socks5://me:secret@127.0.0.1:1", "http://[bad:secret"] {
        let cli = postiz("integrations:list")
            .key_for(&api)
            .var("ALL_PROXY", value);
        cli.run()
            .code(0)
            .stdout("[]\n")
            .stderr_has("ALL_PROXY is not the URL of an HTTP proxy")
            .hides("secret");
    }
    let cli = postiz("api POST /x")
        .key_for(&api)
        .var("HTTP_PROXY", "http://127.0.0.1:1");
    cli.run()
        .code(1)
        .stderr_has("connection refused")
        .stderr_has("requests go through a proxy");
}

/// An authority of its own, and a certificate of it for 127.0.0.1.
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

/// OpenSSL's own server, with one file to give.
struct TlsServer {
    child: Child,
    url: String,
}

impl TlsServer {
    fn start(authority: &Authority) -> TlsServer {
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

/// R05, R64: an authority is trusted by whichever variable names it; without one, nothing is sent.
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
    let done = list().run().code(1).stdout("");
    done.stderr_has("its certificate is not trusted")
        .stderr_has("SSL_CERT_FILE or NODE_EXTRA_CA_CERTS");
    let nowhere = list()
        .var("NODE_EXTRA_CA_CERTS", "/nowhere.crt")
        .run()
        .code(1);
    nowhere.stderr_has("warning: NODE_EXTRA_CA_CERTS /nowhere.crt: ");
    // For another name than the certificate's.
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
