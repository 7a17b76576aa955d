//! Framing of requests and answers (RFC 9112): chunked bodies, HTTP/1.0, persistent connections.

use std::time::{Duration, Instant};

use crate::support::{Connection, Login, Store, TestServer, expect};

/// A request with these header lines, followed by `rest`.
fn post(path: &str, headers: &str, rest: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{rest}"
    )
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Tunnels and proxies that do not buffer requests send chunked bodies.
#[test]
fn chunked_bodies_are_decoded() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let body = login.poll_body().to_string();
    let (left, right) = body.split_at(20);
    let mut connection = Connection::open(server.address);
    for chunks in [
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        format!(
            "14;name=\"value\"\r\n{left}\r\n{:X}\r\n{right}\r\n000\r\nTrailer: x\r\n\r\n",
            right.len()
        ),
    ] {
        connection.send(post("/device/token", CHUNKED, &chunks));
        expect::error(&connection.answer(), 400, "authorization_pending");
    }
    // Byte by byte, and two requests at once.
    let whole = post("/device/token", CHUNKED, &format!("14\r\n{left}\r\n"));
    for byte in whole.as_bytes() {
        connection.send([*byte]);
    }
    let rest = format!("{:x}\r\n{right}\r\n0\r\n\r\n", right.len());
    connection.send(rest + &post("/device/code", CHUNKED, "0\r\n\r\n"));
    expect::error(&connection.answer(), 400, "authorization_pending");
    expect::json(&connection.answer(), 200);
}

#[test]
fn malformed_or_endless_chunks_end_the_connection() {
    let server = TestServer::setup(Store::Embedded).start();
    let long = "x".repeat(1_100);
    for (chunks, status) in [
        ("x\r\n", 400),
        ("\r\n", 400),
        ("5\nhello\n0\n\n", 400),
        ("5\r\nhelloworld\r\n", 400),
        ("5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
        (&*format!("1;{long}"), 400),
        (&format!("0\r\nTrailer: {long}"), 400),
        ("2001\r\n", 413),
        ("ffffffffffffffff\r\n", 413),
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(post("/device/code", CHUNKED, chunks));
        let answer = connection.answer();
        assert_eq!(answer.status, status, "{chunks:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(
            connection.rest().is_ok_and(|rest| rest.is_empty()),
            "{chunks:?}"
        );
    }
    // HTTP/1.0 has no transfer encodings.
    let mut connection = Connection::open(server.address);
    connection.send("POST /device/code HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(connection.answer().status, 400);
}

#[test]
fn http_1_0_connections_are_kept_alive_on_request() {
    let server = TestServer::setup(Store::Embedded).start();
    let mut connection = Connection::open(server.address);
    for _ in 0..3 {
        connection.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = connection.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    connection.send("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(connection.answer().header("connection"), Some("close"));
    assert!(connection.rest().is_ok_and(|rest| rest.is_empty()));
    // In HTTP/1.1 it is the default and needs no header.
    let mut connection = Connection::open(server.address);
    connection.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.answer().header("connection"), None);
}

/// A load balancer that keeps connections for longer would get resets.
#[test]
fn idle_connections_are_closed_after_idle_timeout() {
    let server = TestServer::setup(Store::Embedded)
        .var("IDLE_TIMEOUT", "1")
        .start();
    let mut connection = Connection::open(server.address);
    connection.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.answer().status, 200);
    let start = Instant::now();
    assert!(connection.rest().is_ok_and(|rest| rest.is_empty()));
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(10),
        "{took:?}"
    );
}
