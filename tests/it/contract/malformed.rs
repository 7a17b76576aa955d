//! No malformed request may cause a 5xx, a panic, a hang or the end of the process.

use std::time::Duration;

use crate::fake_postiz::FakePostiz;
use crate::support::{Connection, Login, Store, TestServer, expect};

/// Sends these bytes. Returns the status, or `None` if the server only closed the connection.
fn poke(server: &TestServer, bytes: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(server.address);
    connection.send(bytes);
    connection.try_answer(true).ok().map(|answer| answer.status)
}

/// Any answer but a 5xx is fine, and the server must keep running.
#[track_caller]
fn assert_survives(server: &TestServer, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    match poke(server, bytes) {
        None => {}
        Some(status) => assert!(status < 500, "{status} to {shown:?}"),
    }
    assert_eq!(server.get("/health").status, 200, "after {shown:?}");
}

/// The first one ended the process of the original Node.js auth server.
#[test]
fn malformed_targets_cause_no_5xx() {
    let server = TestServer::setup(Store::Embedded).start();
    for target in [
        "//",
        "///",
        "//[",
        "//:",
        "//a:99999/",
        "//%",
        "/\\",
        "http://",
        "http://[",
        "http://a:b/",
        "*",
        "/%",
        "/%zz",
        "/%00",
        "/device/../..",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "?",
        "/;a=b",
        "device/code",
    ] {
        for method in ["GET", "POST"] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            assert_survives(&server, request.as_bytes());
        }
    }
}

#[test]
fn malformed_request_lines_and_heads_cause_no_5xx() {
    // Some of them are incomplete, and the server waits for the rest.
    let setup = TestServer::setup(Store::Embedded);
    let server = setup
        .time(|times| times.request = Duration::from_secs(1))
        .start();
    for request in [
        &b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"[..],
        b"GET /nothing\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHo st: a\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\n: a\r\n\r\n",
        b"POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n",
        b"POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
    ] {
        assert_survives(&server, request);
    }
}

/// NUL, invalid UTF-8, wrong types and hostile text in every field that a client can send.
#[test]
fn hostile_values_cause_no_5xx() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Postgres, &postiz);
    let long = "A".repeat(4_000);
    let values = [
        "%00",
        "%FF",
        "%C0%80",
        "%ED%A0%80",
        "%",
        "%Z",
        "%2525",
        "'",
        "%22",
        "%3Cscript%3E",
        "..%2F",
        "%0d%0a",
        "%F0%9F%92%A9",
        "+",
        long.as_str(),
    ];
    for value in values {
        for request in [
            format!("GET /device/verify?user_code={value}&code={value}"),
            format!("GET /device/callback?code={value}&state={value}"),
            format!("GET /device/callback?error={value}&state={value}&error_description={value}"),
            format!("GET /?{value}={value}"),
            format!("GET /health?{value}"),
        ] {
            let request =
                format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let status = poke(&server, request.as_bytes())
                .unwrap_or_else(|| panic!("no answer to {request}"));
            assert!(status < 500, "{status} to {request}");
        }
        for (path, form) in [
            ("/device/code", format!("client_id={value}&scope={value}")),
            (
                "/device/verify",
                format!("user_code={value}&action={value}"),
            ),
            (
                "/device/token",
                format!("grant_type={value}&device_code={value}&client_id={value}"),
            ),
            ("/device/token", format!("{value}={value}")),
        ] {
            let status = server.post_form(path, &form).status;
            assert!(status < 500, "{status} to {path} {form}");
        }
        for name in [
            "Cookie",
            "User-Agent",
            "X-Forwarded-For",
            "Origin",
            "Sec-Fetch-Site",
            "Accept-Language",
        ] {
            let headers = [
                (name, value),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ];
            for target in ["/device/code", "/device/verify", "/device/token"] {
                let status = server.send("POST", target, &headers, b"user_code=x").status;
                assert!(status < 500, "{status} to {target} with {name}: {value}");
            }
        }
    }
    // Header bytes that are not text.
    let request = b"POST /device/code HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a\xff\xfeb\r\nX-Forwarded-For: \xff\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let status = poke(&server, request);
    assert!(status.is_some_and(|s| s < 500), "{status:?}");
    let log = server.log();
    assert!(
        !log.contains("panicked") && !log.to_lowercase().contains(" error "),
        "{log}"
    );
}

/// A body of a type that the endpoint does not accept.
#[test]
fn unsupported_content_types_cause_no_5xx() {
    let server = TestServer::setup(Store::Embedded).start();
    let code = Login::start(&server).device_code().to_owned();
    let json = format!("{{\"device_code\":\"{code}\"}}");
    for content_type in [
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "x",
        "/",
        ";;;",
        "application/json;charset",
    ] {
        for path in ["/device/code", "/device/token", "/device/verify"] {
            let headers = [("Content-Type", content_type)];
            let status = server.send("POST", path, &headers, json.as_bytes()).status;
            assert!(status < 500, "{status} to {path} as {content_type}");
        }
    }
}

/// Bytes after a request are the next request. Half a request is not answered.
#[test]
fn pipelined_and_truncated_requests_cause_no_5xx() {
    let server = TestServer::setup(Store::Embedded).start();
    let mut connection = Connection::open(server.address);
    let one = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let other = "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send(format!("{one}{other}{one}"));
    let statuses = [
        connection.answer().status,
        connection.answer().status,
        connection.answer().status,
    ];
    assert_eq!(statuses, [200, 404, 200], "in order");
    for cut in [
        &b"GET /he"[..],
        b"POST /device/code HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(cut);
        drop(connection);
        expect::json(&server.get("/health"), 200);
    }
}

/// A request that a proxy and a server could parse differently is refused or parsed as one request, never as two.
#[test]
fn ambiguous_requests_get_one_answer() {
    let server = TestServer::setup(Store::Embedded).start();
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 5, 5",
    ] {
        let smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Smuggled: yes\r\n\r\n";
        let request = format!(
            "POST /device/token HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let mut connection = Connection::open(server.address);
        connection.send(request);
        let first = connection.try_answer(true).ok().map(|a| a.status);
        assert!(
            first.is_none_or(|s| (400..500).contains(&s)),
            "{first:?} to {head}"
        );
        if first.is_some() {
            let second = connection.try_answer(true).ok().map(|a| a.status);
            assert_eq!(second, None, "a second answer to {head}");
        }
    }
}
