//! Outbound connections: proxies that forward, refuse or speak TLS, and self-signed certificates.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::fake_postiz::http::HttpServer;
use crate::fake_postiz::{API_KEY, FakePostiz, Request, Response};
use crate::support::server::ServerSetup;
use crate::support::tls::{
    Authority, ConnectProxy, impostor, put_tls_before, put_tls_before_proxy,
};
use crate::support::{Browser, Login, Store, TestServer, eventually, program, run};

/// A forward proxy that answers each request itself and records it.
struct ForwardProxy {
    server: HttpServer,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl ForwardProxy {
    fn answering(response: Response) -> ForwardProxy {
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = Arc::clone(&asked);
        let server = HttpServer::start(0, move |request: &Request| {
            log.lock().expect("no handler panics").push(request.clone());
            response.clone()
        });
        ForwardProxy {
            server: server.expect("a free port"),
            asked,
        }
    }

    fn address(&self) -> SocketAddr {
        let url = self.server.url();
        url.replace("http://", "").parse().expect("an address")
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("no handler panics").clone()
    }
}

fn setup(postiz: &FakePostiz, api_url: &str) -> ServerSetup {
    TestServer::setup(Store::Embedded)
        .postiz(postiz)
        .var("POSTIZ_API_URL", api_url)
}

/// Logs in. Returns the status of the last page.
fn log_in(server: &TestServer, postiz: &FakePostiz) -> u16 {
    server.register_at(postiz);
    Login::start(server)
        .approve(&mut Browser::new(), "ada")
        .status()
}

/// Runs `integrations:list` with the API at `url`. Returns its exit code and stderr.
fn list(url: &str, vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(program("postiz"));
    command.arg("integrations:list").env_clear();
    command
        .env("POSTIZ_API_KEY", API_KEY)
        .env("POSTIZ_API_URL", url);
    let output = run(command.envs(vars.iter().copied()));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[test]
fn server_exchanges_through_a_forward_proxy() {
    let postiz = FakePostiz::start();
    let token = json!({"id": "org", "access_token": "pos_0123456789", "token_type": "bearer"});
    let proxy = ForwardProxy::answering(Response::json(201, &token));
    let address = proxy.address();
    // As the proxy program Clash sets them.
    let server = setup(&postiz, "http://postiz.test")
        .var("http_proxy", &format!("http://me:w%40rd@{address}"))
        .var("https_proxy", "http://127.0.0.1:1")
        .var("all_proxy", "socks5://127.0.0.1:1")
        .start();
    assert_eq!(log_in(&server, &postiz), 200, "{}", server.log());
    let asked = proxy.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "http://postiz.test/oauth/token");
    assert_eq!(asked[0].header("host"), Some("postiz.test"));
    assert_eq!(
        asked[0].header("proxy-authorization"),
        Some("Basic bWU6d0ByZA==")
    );
    assert!(
        !server.log().contains("proxy_passed_over"),
        "{}",
        server.log()
    );
}

#[test]
fn server_reports_a_refusing_proxy() {
    for (status, words) in [
        (407, "does not take the user name and password"),
        (403, "or a server behind it, refused (403 Forbidden)"),
    ] {
        let postiz = FakePostiz::start();
        let proxy = ForwardProxy::answering(Response::html(status, "<p>no</p>"));
        let address = proxy.address();
        let server = setup(&postiz, "http://postiz.test")
            .var("http_proxy", &format!("http://me:hunter2@{address}"))
            .start();
        assert_eq!(log_in(&server, &postiz), 502);
        eventually("the error is in the log", || server.log().contains(words));
        let log = server.log();
        assert!(
            log.contains(&format!("the proxy http://{address}")),
            "{log}"
        );
        assert!(!log.contains("hunter2"), "{log}");
        assert_eq!(proxy.asked().len(), 1);
    }
    let postiz = FakePostiz::start();
    let proxy = ConnectProxy::start(&[]);
    let server = setup(&postiz, "https://postiz.test")
        .var("all_proxy", &proxy.url())
        .start();
    assert_eq!(log_in(&server, &postiz), 502);
    eventually("the error is in the log", || {
        let words = format!(
            "the proxy {} refused to connect to postiz.test:443",
            proxy.url()
        );
        server.log().contains(&words)
    });
}

#[test]
fn server_reports_an_ignored_socks_proxy() {
    let postiz = FakePostiz::start();
    let socks = "socks5://me:hunter2@127.0.0.1:1";
    let server = setup(&postiz, &postiz.url())
        .var("ALL_PROXY", socks)
        .start();
    assert_eq!(log_in(&server, &postiz), 200);
    let log = server.log();
    let expected =
        "ALL_PROXY is not the URL of an HTTP proxy (SOCKS is not supported), so no proxy is used";
    assert_eq!(log.matches(expected).count(), 1, "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn unusable_proxy_ends_the_start() {
    let postiz = FakePostiz::start();
    let setup = setup(&postiz, &postiz.url())
        .var("http_proxy", "http://me:hunter2@")
        .var("HTTPS_PROXY", "gopher://me:hunter2@127.0.0.1:1")
        .var("SSL_CERT_FILE", "/dev/null")
        .var("NODE_EXTRA_CA_CERTS", "/missing/ca.pem");
    for arguments in [&[][..], &["--check"]] {
        let output = setup.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for part in [
            "http_proxy: the value ",
            "HTTPS_PROXY: the value ",
            "SSL_CERT_FILE: /dev/null cannot be read: it is not a regular file",
            "NODE_EXTRA_CA_CERTS: /missing/ca.pem cannot be read",
        ] {
            assert!(stderr.contains(part), "no {part:?} in {stderr}");
        }
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn server_trusts_a_configured_self_signed_certificate() {
    let (authority, postiz) = (Authority::self_signed(), FakePostiz::start());
    let plain = postiz
        .url()
        .replace("http://", "")
        .parse()
        .expect("an address");
    let https = put_tls_before(plain, &authority);
    let url = format!("https://localhost:{}", https.port());
    let file = authority.file("ca.crt").display().to_string();
    for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        let server = setup(&postiz, &url).var(name, &file).start();
        assert_eq!(log_in(&server, &postiz), 200, "{name}: {}", server.log());
    }
    let server = setup(&postiz, &url).start();
    assert_eq!(log_in(&server, &postiz), 502);
    eventually("the error is in the log", || {
        server
            .log()
            .contains("no authority known here has signed it")
    });
}

#[test]
fn certificate_of_a_tls_proxy_is_verified() {
    let authority = Authority::new();
    let trust = authority.file("ca.crt").display().to_string();
    let (postiz, forward) = (
        FakePostiz::start(),
        ForwardProxy::answering(Response::json(200, &json!([]))),
    );
    let plain = postiz
        .url()
        .replace("http://", "")
        .parse()
        .expect("an address");
    let tunnel = ConnectProxy::start(&[("postiz.test:443", put_tls_before(plain, &authority))]);
    for (url, proxy) in [
        ("http://postiz.test", forward.address()),
        ("https://postiz.test", tunnel.address()),
    ] {
        let port = put_tls_before_proxy(proxy, &authority).port();
        let by_name = format!("https://localhost:{port}");
        let vars = [("all_proxy", &*by_name), ("SSL_CERT_FILE", &*trust)];
        assert_eq!(list(url, &vars), (Some(0), String::new()), "{url}");

        let (code, stderr) = list(url, &vars[..1]);
        assert_eq!(code, Some(1));
        let expected = format!(
            "the certificate of the proxy {by_name} is not trusted: no authority known here"
        );
        assert!(stderr.contains(&expected), "{stderr}");
        assert!(!stderr.contains("its certificate"), "{stderr}");

        let by_address = format!("https://127.0.0.1:{port}");
        let vars = [("all_proxy", &*by_address), ("SSL_CERT_FILE", &*trust)];
        let (_, stderr) = list(url, &vars);
        let expected = format!(
            "the certificate of the proxy {by_address} is not trusted: certificate not valid for name"
        );
        assert!(stderr.contains(&expected), "{stderr}");
    }
    // Without the authority, the error names the server behind a proxy that does not speak TLS.
    let (_, stderr) = list("https://postiz.test", &[("all_proxy", &tunnel.url())]);
    assert!(
        stderr.contains("its certificate is not trusted"),
        "{stderr}"
    );
    assert!(!stderr.contains("certificate of the proxy"), "{stderr}");
}

#[test]
fn root_certificate_without_its_key_is_rejected() {
    let (trusted, other) = (Authority::self_signed(), Authority::self_signed());
    let file = trusted.file("ca.crt").display().to_string();
    let vars = [("SSL_CERT_FILE", &*file)];
    let list_from = |at: SocketAddr| list(&format!("https://localhost:{}", at.port()), &vars);
    assert_eq!(list_from(impostor(&trusted, &trusted)).0, Some(0));
    let (code, stderr) = list_from(impostor(&trusted, &other));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("BadSignature"), "{stderr}");
}
