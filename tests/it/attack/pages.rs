//! Protection of the pages: a strict Content-Security-Policy, no frames, no open redirect, no other host.

use ring::digest::{SHA256, digest};

use crate::attack::server_with;
use crate::fake_postiz::FakePostiz;
use crate::support::{Answer, Browser, Login, TestServer, VerifyForm, expect};

/// Every page of a server without faults; its status is checked.
fn pages(server: &TestServer) -> Vec<Answer> {
    let login = Login::start(server);
    let form = |fields: &str| VerifyForm::open(server).send(server, fields, &[]);
    let cross_site = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Sec-Fetch-Site", "cross-site"),
    ];
    let code = format!("user_code={}", login.user_code());
    vec![
        server.page("/device/verify"),
        server.page(&format!("/device/verify?{code}")),
        server.page("/device/verify?user_code=WDJB-MJHT"),
        form(""),
        form("user_code=WDJB-MJHT"),
        server.send("POST", "/device/verify", &cross_site, code.as_bytes()),
        server.get("/device/callback"),
        server.get("/device/callback?error=access_denied&state=x"),
        server.send("GET", "/nothing", &[("Accept", "text/html")], b""),
        login.approve(&mut Browser::new(), "ada").answer,
        form(&format!(
            "user_code={}&action=deny",
            Login::start(server).user_code()
        )),
    ]
}

/// The policy allows the one style sheet by its hash and nothing else: no frame, no other base.
#[test]
fn every_page_has_the_content_security_policy() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    for page in pages(&server) {
        let html = page.text();
        let policies = page.headers_named("content-security-policy");
        assert_eq!(policies.len(), 1, "{html}");
        let policy = policies[0];
        for directive in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.split("; ").any(|d| d == directive), "{policy}");
        }
        for hole in ["unsafe", "*", "http:", "https:", "script-src"] {
            assert!(!policy.contains(hole), "{policy}");
        }
        assert_eq!(page.headers_named("x-frame-options"), ["DENY"]);
        assert_eq!(page.headers_named("x-content-type-options"), ["nosniff"]);

        let (_, rest) = html.split_once("<style>").expect("a style sheet");
        let (style, rest) = rest.split_once("</style>").expect("its end");
        assert!(
            !rest.contains("<style") && !html.contains("style="),
            "{html}"
        );
        let hash = base64(digest(&SHA256, style.as_bytes()).as_ref());
        assert!(
            policy.contains(&format!("style-src 'sha256-{hash}'")),
            "{policy}"
        );
        assert!(
            !html.contains("<script") && !html.contains("onclick"),
            "{html}"
        );
    }
}

/// By openssl, which is independent of the server's code.
fn base64(bytes: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let mut openssl = Command::new("openssl")
        .args(["base64", "-A"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is there");
    let mut stdin = openssl.stdin.take().expect("the stream is piped");
    stdin.write_all(bytes).expect("openssl reads");
    drop(stdin);
    let output = openssl.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("base64 is ASCII")
}

/// Only SERVER_URL and POSTIZ_FRONTEND_URL determine where redirects lead, never the request.
#[test]
fn redirects_ignore_what_requests_say() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let evil = "https://evil.example/";
    let headers = [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "host=evil.example"),
        ("X-Original-URL", evil),
        ("Referer", evil),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let code = Login::start(&server).user_code().to_owned();
    let form = format!("user_code={code}&returnUrl={evil}&redirect_uri={evil}&next={evil}");
    for (method, target, body) in [
        ("GET", "/", ""),
        ("GET", "//evil.example/", ""),
        ("GET", "/\\evil.example/", ""),
        ("GET", "https://evil.example/", ""),
        ("GET", "/?returnUrl=https://evil.example/", ""),
        (
            "GET",
            "/device/verify?returnUrl=https://evil.example/&next=//evil.example",
            "",
        ),
        (
            "GET",
            "/device/callback?returnUrl=https://evil.example/",
            "",
        ),
        ("GET", "/.well-known/oauth-authorization-server", ""),
        ("POST", "/device/code", ""),
        ("POST", "/device/verify", form.as_str()),
    ] {
        let answer = server.send(method, target, &headers, body.as_bytes());
        let everything = format!("{:?} {}", answer.headers, answer.text());
        assert!(
            !everything.contains("evil.example"),
            "{method} {target}: {everything}"
        );
    }
    let form = format!("action=continue&{form}");
    let answer = VerifyForm::open(&server).send(&server, &form, &[]);
    let location = answer.header("location").expect("a redirect to Postiz");
    assert!(location.starts_with(&postiz.url()), "{location}");
    assert!(!location.contains("evil"), "{location}");
    expect::json(&server.get("/health"), 200);
}
