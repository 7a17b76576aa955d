//! Health, readiness, metadata, the root, HEAD, OPTIONS, 405, 404, and a SERVER_URL with a path.

use serde_json::json;

use crate::fake_postiz::FakePostiz;
use crate::support::{Browser, Connection, Login, Store, TestServer, expect};

on_each_store!(health_and_readiness,);

fn health_and_readiness(store: Store) {
    let server = TestServer::setup(store).start();
    let health = server.get("/health");
    expect::json(&health, 200);
    assert_eq!(health.text(), r#"{"status":"ok"}"#);
    let ready = server.get("/ready");
    expect::json(&ready, 200);
    assert_eq!(ready.text(), r#"{"status":"ready"}"#);
}

#[test]
fn metadata_names_the_endpoints() {
    let server = TestServer::setup(Store::Embedded).start();
    let answer = server.get("/.well-known/oauth-authorization-server");
    expect::json(&answer, 200);
    let url = &server.public_url;
    let expected = json!({
        "issuer": url,
        "device_authorization_endpoint": format!("{url}/device/code"),
        "token_endpoint": format!("{url}/device/token"),
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:device_code"],
        "token_endpoint_auth_methods_supported": ["none"],
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn metadata_includes_the_path_of_server_url() {
    let setup = TestServer::setup(Store::Embedded);
    let server = setup
        .var("SERVER_URL", "https://example.com:8443/cli-auth/")
        .start();
    for target in [
        "/.well-known/oauth-authorization-server/cli-auth",
        "/.well-known/oauth-authorization-server",
        "/cli-auth/.well-known/oauth-authorization-server",
    ] {
        let answer = server.get(target);
        expect::json(&answer, 200);
        let metadata = answer.json();
        assert_eq!(
            metadata["issuer"], "https://example.com:8443/cli-auth",
            "{target}"
        );
        assert_eq!(
            metadata["token_endpoint"],
            "https://example.com:8443/cli-auth/device/token"
        );
    }
    let answer = server.get("/.well-known/oauth-authorization-server/other");
    expect::json(&answer, 404);
}

#[test]
fn root_redirects_to_the_form() {
    for (server_url, location) in [
        ("", "/device/verify"),
        ("http://a.example/cli-auth", "/cli-auth/device/verify"),
    ] {
        let server = TestServer::setup(Store::Embedded)
            .var("SERVER_URL", server_url)
            .start();
        let answer = server.get("/");
        assert_eq!(answer.status, 302);
        let found = answer.header("location").unwrap_or_default();
        let base = if server_url.is_empty() {
            &server.public_url
        } else {
            "http://a.example"
        };
        assert_eq!(
            found.trim_start_matches(base),
            location,
            "relative or absolute: {found}"
        );
    }
}

/// The same head without a body, and the connection stays open.
#[test]
fn head_is_get_without_the_body() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let confirm = format!("/device/verify?user_code={}", login.user_code());
    let mut connection = Connection::open(server.address);
    for target in [
        "/health",
        "/ready",
        "/.well-known/oauth-authorization-server",
        "/device/verify",
        confirm.as_str(),
        "/device/callback",
        "/",
    ] {
        let ask = |method| format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.send(ask("GET"));
        let get = connection.answer();
        connection.send(ask("HEAD"));
        let head = connection.answer_to_head();
        assert_eq!(head.status, get.status, "{target}");
        let without_date = |answer: &crate::support::Answer| {
            let mut headers = answer.headers.clone();
            // These two are another request's.
            let is_own = |name: &str| ["date", "x-request-id"].contains(&&*name.to_lowercase());
            headers.retain(|(name, _)| !is_own(name));
            // Each answer sets a new cookie, and its token has the same length.
            for (name, value) in &mut headers {
                if name.eq_ignore_ascii_case("set-cookie") {
                    value.truncate("postiz_login".len());
                }
            }
            headers
        };
        assert_eq!(without_date(&head), without_date(&get), "{target}");
    }
}

#[test]
fn other_methods_on_known_paths_get_405() {
    let server = TestServer::setup(Store::Embedded).start();
    let reading = ["GET", "HEAD"];
    for (path, allowed) in [
        ("/device/code", &["POST"][..]),
        ("/device/token", &["POST"]),
        ("/device/verify", &["GET", "HEAD", "POST"]),
        ("/device/callback", &reading),
        ("/health", &reading),
        ("/ready", &reading),
        ("/.well-known/oauth-authorization-server", &reading),
        ("/", &reading),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
            if allowed.contains(&method) {
                continue;
            }
            let answer = server.send(method, path, &[], b"");
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            expect::json(&answer, 405);
            assert_eq!(answer.error(), "method_not_allowed");
            let allow = answer.header("allow").unwrap_or_default();
            let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
            methods.sort_unstable();
            assert_eq!(methods, allowed, "{method} {path}");
        }
    }
}

#[test]
fn unknown_paths_get_404() {
    let server = TestServer::setup(Store::Embedded).start();
    for path in [
        "/nothing",
        "/device",
        "/device/",
        "/device/codex",
        "/HEALTH",
        "/device/verify/../../health",
        "/%2e%2e/health",
        "/favicon.ico",
        "/robots.txt",
        "/device/verify%00",
        "/.well-known/openid-configuration",
    ] {
        for method in ["GET", "POST"] {
            let answer = server.send(method, path, &[], b"");
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
            expect::json(&answer, 404);
            assert_eq!(answer.error(), "not_found");
        }
    }
}

/// A whole login works whether or not the proxy strips the path, and every link has the path.
#[test]
fn login_works_under_a_path() {
    for prefix in ["", "/cli-auth"] {
        let postiz = FakePostiz::start();
        let server = TestServer::setup(Store::Embedded)
            .postiz(&postiz)
            .var("SERVER_URL", "http://auth.example/cli-auth")
            .start();
        postiz.set_callback_url("http://auth.example/cli-auth/device/callback");
        let codes = server
            .post_json(&format!("{prefix}/device/code"), &json!({}))
            .json();
        let login = Login { start: codes };
        let mut browser = Browser::new();
        browser.route("auth.example", server.address);
        if prefix.is_empty() {
            browser.strip("/cli-auth");
        }
        let end = login.approve(&mut browser, "ada");
        expect::page(&end.answer, 200);
        assert!(
            end.url
                .starts_with("http://auth.example/cli-auth/device/callback?")
        );
        let body = login.poll_body();
        expect::json(
            &server.post_json(&format!("{prefix}/device/token"), &body),
            200,
        );
        for path in ["/health", "/ready"] {
            expect::json(&server.get(&format!("{prefix}{path}")), 200);
        }
        // Another prefix is not stripped.
        expect::json(&server.get("/other/health"), 404);
        expect::json(&server.get("/cli-authhealth"), 404);
    }
}

/// Load balancers send OPTIONS.
#[test]
fn options_on_known_paths_get_204_and_allow() {
    let server = TestServer::setup(Store::Embedded).start();
    for (path, allowed) in [
        ("/device/code", "POST"),
        ("/device/verify", "GET, HEAD, POST"),
        ("/health", "GET, HEAD"),
        ("/", "GET, HEAD"),
    ] {
        let answer = server.send("OPTIONS", path, &[], b"");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some(allowed)),
            "{path}"
        );
        assert!(answer.header("content-length").is_none() && answer.body.is_empty());
    }
    expect::json(&server.send("OPTIONS", "/nothing", &[], b""), 404);
}

#[test]
fn surplus_slashes_redirect_to_the_path_without_them() {
    for (server_url, base) in [("", ""), ("http://a.example/cli-auth", "/cli-auth")] {
        let server = TestServer::setup(Store::Embedded)
            .var("SERVER_URL", server_url)
            .start();
        for (path, known) in [
            ("/health/", "/health"),
            ("//health", "/health"),
            ("/device//verify", "/device/verify"),
            ("/device/verify///?code=x&y", "/device/verify?code=x&y"),
            ("/device/code/", "/device/code"),
            ("//", "/"),
            (&*format!("{base}//ready"), "/ready"),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = http_head(&server, method, path);
                assert_eq!(answer.status, 308, "{method} {path}");
                let location = format!("{base}{known}");
                assert_eq!(
                    answer.header("location"),
                    Some(&*location),
                    "{method} {path}"
                );
            }
            expect::json(&server.send("POST", path, &[], b""), 404);
        }
    }
}

fn http_head(server: &TestServer, method: &str, path: &str) -> crate::support::Answer {
    let mut connection = Connection::open(server.address);
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ));
    connection.answer_to_head()
}
