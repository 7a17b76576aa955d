//! Request smuggling: a request that two servers in a row could parse differently is refused and ends the connection. Unusual
//! but valid forms are parsed as the RFC says.

use crate::support::{Connection, Store, TestServer, eventually, expect, run};

const INNER: &str = "GET /health?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a head, followed by what could be its body or the next request. There must be one answer 4xx, then the end.
#[track_caller]
fn assert_is_refused(server: &TestServer, head: &str) {
    let mut connection = Connection::open(server.address);
    connection.send(format!("{head}\r\n\r\n0\r\n\r\n{INNER}"));
    let status = connection.answer().status;
    assert!((400..500).contains(&status), "{status} to {head:?}");
    assert!(
        connection.try_answer(true).is_err(),
        "a second answer to {head:?}"
    );
}

#[test]
fn request_with_two_lengths_is_refused() {
    let server = TestServer::setup(Store::Embedded).start();
    for headers in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5, 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\n\rTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5e0",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Content-Length : 5",
        "Content_Length\0: 5",
    ] {
        assert_is_refused(
            &server,
            &format!("POST /device/token HTTP/1.1\r\nHost: a\r\n{headers}"),
        );
    }
    assert!(!server.log().contains("smuggled"), "{}", server.log());
}

#[test]
fn request_lines_and_hosts_have_one_meaning() {
    let server = TestServer::setup(Store::Embedded).start();
    for head in [
        "GET /health HTTP/1.1",
        "GET /health HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET /health HTTP/1.1\nHost: a",
        "GET /health HTTP/1.1\r\nHost: a\r\nX: \0",
        "GET /health HTTP/1.1\r\nHost: a\r\n folded: yes",
        "GET /health  HTTP/1.1\r\nHost: a",
        "GET  /health HTTP/1.1\r\nHost: a",
        "GET /he alth HTTP/1.1\r\nHost: a",
        "GET\t/health HTTP/1.1\r\nHost: a",
        "GET /health HTTP/1.2.3\r\nHost: a",
        "GET /health HTTP/2.0\r\nHost: a",
        "GET /health http/1.1\r\nHost: a",
        "GET /health",
        "G\u{e9}T /health HTTP/1.1\r\nHost: a",
        // Authority-form, and absolute-form without a host or of another scheme.
        "CONNECT a:443 HTTP/1.1\r\nHost: a",
        "GET a:443 HTTP/1.1\r\nHost: a",
        "GET http:///health HTTP/1.1\r\nHost: a",
        "GET ftp://a/health HTTP/1.1\r\nHost: a",
        "GET * HTTP/1.1\r\nHost: a",
    ] {
        assert_is_refused(&server, head);
    }
}

/// A server must accept absolute-form (RFC 9112 §3.2.2). The host in it is ignored.
#[test]
fn absolute_targets_are_paths() {
    let server = TestServer::setup(Store::Embedded).start();
    for (target, status) in [
        ("http://auth.example/health", 200),
        ("HTTPS://auth.example:8443/health?x", 200),
        ("http://auth.example/nothing", 404),
        ("http://auth.example", 302),
    ] {
        let answer = server.get(target);
        assert_eq!(answer.status, status, "{target}");
        let location = answer.header("location").unwrap_or_default();
        assert!(!location.contains("auth.example"), "{location}");
    }
}

/// Many requests in one packet: some are refused by their handlers, one has a body, and one closes the connection.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::setup(Store::Embedded).start();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = r#"{"device_code":"none"}"#;
    let poll = format!(
        "POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let round = [
        get("/health"),
        get("/nothing"),
        poll,
        get("/device/callback"),
        "\r\n".to_owned() + &get("/"),
    ];
    let mut connection = Connection::open(server.address);
    connection.send(round.concat().repeat(20));
    connection.send("GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.send(get("/health"));
    for _ in 0..20 {
        let statuses = [(); 5].map(|()| connection.answer().status);
        assert_eq!(statuses, [200, 404, 400, 400, 302]);
    }
    let last = connection.answer();
    assert_eq!(
        (last.text().as_str(), last.header("connection")),
        (r#"{"status":"ready"}"#, Some("close"))
    );
    assert!(connection.try_answer(true).is_err(), "after the last one");
}

/// curl sends `Expect: 100-continue`, and sends the body only after the answer 100.
#[test]
fn curl_receives_100_continue() {
    let server = TestServer::setup(Store::Embedded).start();
    let url = format!("http://{}/device/token", server.address);
    let output = run(std::process::Command::new("curl").args([
        "-sv",
        "--max-time",
        "15",
        "--expect100-timeout",
        "12",
        "-H",
        "Expect: 100-continue",
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"device_code":"none"}"#,
        &url,
    ]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("HTTP/1.1 100 Continue"), "{stderr}");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("invalid_device_code"), "{answer}{stderr}");
}

#[test]
fn expectations_are_met_or_refused() {
    let server = TestServer::setup(Store::Embedded).start();
    let post = |version: &str, expect: &str, length: usize| {
        format!(
            "POST /device/token HTTP/{version}\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // Too long a body is refused without the answer 100.
    let mut connection = Connection::open(server.address);
    connection.send(post("1.1", "100-continue", 1_000_000));
    let first = connection.rest().expect("the connection is closed");
    assert!(first.starts_with(b"HTTP/1.1 413 "), "{first:?}");
    // HTTP/1.0 has no 100 (RFC 9110 §10.1.1).
    let mut connection = Connection::open(server.address);
    connection.send(post("1.0", "100-continue", 2) + "{}");
    let first = connection.rest().expect("the connection is closed");
    assert!(first.starts_with(b"HTTP/1.1 400 "), "{first:?}");
    let mut connection = Connection::open(server.address);
    connection.send(post("1.1", "a-miracle", 2) + "{}");
    expect::json(&connection.answer(), 417);
    eventually("all three are over", || server.get("/health").status == 200);
}
