//! Company networks: certificates of a private authority, and a proxy as the only way out.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::fake_postiz::{API_KEY, FakePostiz};
use crate::support::server::ServerSetup;
use crate::support::tls::{Authority, ConnectProxy, put_tls_before, take_tls_off};
use crate::support::{Browser, Login, Store, TestServer, eventually, expect, program, run};

/// A Postiz that only https reaches.
struct Site {
    authority: Authority,
    postiz: FakePostiz,
    https: SocketAddr,
}

impl Site {
    fn new() -> Site {
        let (authority, postiz) = (Authority::new(), FakePostiz::start());
        let plain = postiz.url().replace("http://", "").parse().unwrap();
        let https = put_tls_before(plain, &authority);
        Site {
            authority,
            postiz,
            https,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    fn path(&self, name: &str) -> String {
        self.authority.file(name).display().to_string()
    }

    /// Runs `integrations:list` with the API at `url`. Returns its exit code and stderr.
    fn ask(&self, url: &str, vars: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(program("postiz"));
        command.arg("integrations:list").env_clear();
        command
            .env("POSTIZ_API_KEY", API_KEY)
            .env("POSTIZ_API_URL", url);
        let output = run(command.envs(vars.iter().copied()));
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// A server that exchanges codes at `url` and does not trust the authority.
    fn server(&self, url: &str) -> ServerSetup {
        TestServer::setup(Store::Embedded)
            .postiz(&self.postiz)
            .var("POSTIZ_API_URL", url)
    }

    /// A person logs in at `server`, which speaks plain HTTP. Returns the status of the last page.
    fn log_in(&self, server: &TestServer) -> u16 {
        server.register_at(&self.postiz);
        Login::start(server)
            .approve(&mut Browser::new(), "ada")
            .status()
    }
}

fn succeeded() -> (Option<i32>, String) {
    (Some(0), String::new())
}

#[test]
fn cli_trusts_a_configured_authority() {
    let site = Site::new();
    for (name, file) in [
        ("SSL_CERT_FILE", "ca.crt"),
        ("SSL_CERT_DIR", "store"),
        ("NODE_EXTRA_CA_CERTS", "ca.crt"),
    ] {
        let vars = [(name, &*site.path(file))];
        assert_eq!(site.ask(&site.url(), &vars), succeeded(), "{name}");
    }
}

#[test]
fn cli_reports_an_untrusted_certificate_with_a_remedy() {
    let site = Site::new();
    let (code, stderr) = site.ask(&site.url(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    for part in [
        &*site.url(),
        "no authority known here",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
    ] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    // The same for the auth server.
    let mut command = Command::new(program("postiz"));
    command.args(["auth:login", "--no-browser", "--auth-server", &site.url()]);
    let output = run(command.env_clear().env("HOME", "/nowhere"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    for part in [
        &*site.url(),
        "no authority known here",
        "NODE_EXTRA_CA_CERTS",
    ] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    // The certificate has another name. Trusting its authority would not help, so the message does not suggest it.
    let by_address = site.url().replace("localhost", "127.0.0.1");
    let (_, stderr) = site.ask(&by_address, &[("SSL_CERT_FILE", &site.path("ca.crt"))]);
    assert!(
        stderr.contains("127.0.0.1") && stderr.contains("only valid for"),
        "{stderr}"
    );
    assert!(!stderr.contains("NODE_EXTRA_CA_CERTS"), "{stderr}");
}

#[test]
fn cli_uses_the_proxy_except_for_no_proxy() {
    let site = Site::new();
    let proxy = ConnectProxy::start(&[("postiz.test:443", site.https)]);
    let (trust, by_proxy) = (site.path("ca.crt"), proxy.url());
    let vars = [("SSL_CERT_FILE", &*trust), ("HTTPS_PROXY", &*by_proxy)];
    // A name that only the proxy can resolve.
    assert_eq!(site.ask("https://postiz.test", &vars), succeeded());
    assert_eq!(proxy.asked(), ["postiz.test:443"]);

    let (code, stderr) = site.ask("https://elsewhere.test", &vars);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("elsewhere.test") && stderr.contains("refused to connect"),
        "{stderr}"
    );
    assert!(stderr.contains("NO_PROXY"), "{stderr}");

    let asked = proxy.asked();
    let vars = [vars[0], vars[1], ("NO_PROXY", "other.test,localhost")];
    assert_eq!(site.ask(&site.url(), &vars), succeeded());
    assert_eq!(proxy.asked(), asked, "localhost is in NO_PROXY");
}

#[test]
fn server_trusts_a_configured_authority() {
    let site = Site::new();
    for (name, file) in [("SSL_CERT_FILE", "ca.crt"), ("SSL_CERT_DIR", "store")] {
        let server = site.server(&site.url()).var(name, &site.path(file)).start();
        assert_eq!(site.log_in(&server), 200, "{name}");
    }
}

#[test]
fn server_reports_an_untrusted_certificate_with_a_remedy() {
    let site = Site::new();
    let server = site.server(&site.url()).start();
    assert!(site.log_in(&server) >= 500);
    eventually("the error is in the log", || {
        let parts = [&*site.url(), "no authority known here", "SSL_CERT_FILE"];
        parts.iter().all(|part| server.log().contains(part))
    });
}

#[test]
fn server_uses_the_proxy_except_for_no_proxy() {
    let site = Site::new();
    let proxy = ConnectProxy::start(&[("postiz.test:443", site.https)]);
    let setup = |url: &str| {
        let setup = site.server(url).var("HTTPS_PROXY", &proxy.url());
        setup.var("SSL_CERT_FILE", &site.path("ca.crt"))
    };
    assert_eq!(site.log_in(&setup("https://postiz.test").start()), 200);
    assert_eq!(proxy.asked(), ["postiz.test:443"]);
    let setup = setup(&site.url()).var("NO_PROXY", "localhost");
    assert_eq!(site.log_in(&setup.start()), 200);
    assert_eq!(proxy.asked().len(), 1, "localhost is in NO_PROXY");
}

/// Auth server and Postiz use https with certificates of one private authority.
#[test]
fn login_succeeds_with_https_everywhere() {
    let site = Site::new();
    let trust = site.path("ca.crt");
    let setup = site.server(&site.url()).https(&site.authority);
    let server = setup.var("SSL_CERT_FILE", &trust).start_for(&site.postiz);

    let home = tempfile::tempdir().unwrap();
    let cli = |arguments: &str| {
        let mut command = Command::new(program("postiz"));
        command
            .args(arguments.split(' '))
            .env_clear()
            .env("HOME", home.path());
        command.env("SSL_CERT_FILE", &trust);
        run(&mut command)
    };
    let start = cli(&format!(
        "auth:login --start --auth-server {}",
        server.public_url
    ));
    assert!(start.status.success(), "{start:?}");
    let codes: Value = serde_json::from_slice(&start.stdout).unwrap();
    let login = Login { start: codes };

    // The tests' browser speaks plain HTTP.
    let mut browser = Browser::new();
    let authority = server.public_url.replace("https://", "");
    browser.route(&authority, take_tls_off(server.address, &site.authority));
    expect::page(&login.approve(&mut browser, "ada").answer, 200);

    let done = cli("auth:login --finish");
    assert!(done.status.success(), "{done:?}");
    let file = std::fs::read(home.path().join(".postiz/credentials.json")).unwrap();
    let stored: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(stored["apiUrl"], json!(site.url()));
    assert!(cli("integrations:list").status.success());
}
