//! Limits on the size of requests, on the time to send one and on the time to read an answer.

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use postiz::server::times::Times;

use crate::attack::{assert_logs_in, assert_nothing_broke, memory_kib};
use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::{Answer, Connection, Store, TestServer, eventually, expect};

/// Timeout of a request from its first byte to its last, and of writing an answer.
const SHORT: Duration = Duration::from_secs(2);
/// Delay that a busy machine may add.
const LATE: Duration = Duration::from_secs(4);

/// A server with these timeouts.
fn short_server() -> ServerSetup {
    TestServer::setup(Store::Embedded).times(&Times {
        request: SHORT,
        write: SHORT,
        ..Times::DEFAULT
    })
}

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 8 * 1024;

/// The next answer is this error, and the server then closes the connection.
#[track_caller]
fn assert_refused(connection: &mut Connection, status: u16, error: &str) {
    let answer = connection.answer();
    assert_eq!(answer.error(), error);
    expect::json(&answer, status);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(
        connection.try_answer(true).is_err(),
        "the connection is still open"
    );
}

fn post(length: usize) -> String {
    format!(
        "POST /device/token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[test]
fn head_is_limited_to_16_kib() {
    let server = TestServer::setup(Store::Embedded).start();
    let head = |bytes: usize| {
        let (start, end) = ("GET /health HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n");
        format!(
            "{start}{}{end}",
            "x".repeat(bytes - start.len() - end.len())
        )
    };
    let mut connection = Connection::open(server.address);
    connection.send(head(HEAD_BYTES_MAX));
    assert_eq!(connection.answer().status, 200);
    connection.send(head(HEAD_BYTES_MAX + 1));
    assert_refused(&mut connection, 431, "headers_too_large");

    let long_target = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
    let many_headers = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    for request in [long_target, many_headers] {
        let mut connection = Connection::open(server.address);
        connection.send(request);
        assert_refused(&mut connection, 431, "headers_too_large");
    }
}

#[test]
fn body_is_limited_to_8_kib() {
    let server = TestServer::setup(Store::Embedded).start();
    let mut connection = Connection::open(server.address);
    connection.send(post(BODY_BYTES_MAX));
    connection.send("x".repeat(BODY_BYTES_MAX));
    expect::error(&connection.answer(), 400, "invalid_request");
    // Refused by its Content-Length, before any of the body is sent.
    connection.send(post(BODY_BYTES_MAX + 1));
    assert_refused(&mut connection, 413, "body_too_large");
}

/// 100 MB to each endpoint are refused at once, and not kept in memory.
#[test]
fn body_of_100_mb_is_refused() {
    let server = TestServer::setup(Store::Embedded).start();
    let before = memory_kib(&server, "VmRSS");
    let megabyte = vec![b'x'; 1_000_000];
    for path in [
        "/device/code",
        "/device/token",
        "/device/verify",
        "/nothing",
    ] {
        let mut connection = Connection::open(server.address);
        let head = post(100_000_000).replace("/device/token", path);
        connection.send(head);
        let sent = Instant::now();
        (0..100).for_each(|_| connection.try_send(&megabyte));
        // The reset may arrive before the answer, since the client has sent more than a refused client may.
        if let Ok(answer) = connection.try_answer(true) {
            assert_eq!(answer.status, 413, "{path}");
        }
        assert!(
            sent.elapsed() < Times::DEFAULT.request,
            "{:?}",
            sent.elapsed()
        );
    }
    let grown = memory_kib(&server, "VmHWM").saturating_sub(before);
    assert!(grown < 10_000, "grew by {grown} KiB");
    assert_nothing_broke(&server);
}

/// A client that sends a moderately long body before it reads still receives the error.
#[test]
fn error_answer_reaches_a_client_that_sends_everything_first() {
    let server = TestServer::setup(Store::Embedded).start();
    let mut connection = Connection::open(server.address);
    connection.send(post(500_000));
    connection.send("x".repeat(500_000));
    assert_eq!(connection.answer().status, 413);
}

/// Endless header lines, headers and targets do not increase the server's memory.
#[test]
fn endless_heads_are_cut_off() {
    let server = TestServer::setup(Store::Embedded).start();
    let before = memory_kib(&server, "VmRSS");
    for (start, again) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "x"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", "x: y\r\n"),
        ("GET /", "x"),
        ("", "x"),
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(start);
        let chunk = again.repeat(1_000_000 / again.len());
        (0..50).for_each(|_| connection.try_send(&chunk));
        if let Ok(answer) = connection.try_answer(true) {
            assert_eq!(answer.status, 431, "{start:?}");
        }
    }
    let grown = memory_kib(&server, "VmHWM").saturating_sub(before);
    assert!(grown < 10_000, "grew by {grown} KiB");
    assert_nothing_broke(&server);
}

/// Sends byte after byte with pauses. Returns the answer and how long it took.
fn send_slowly(server: &TestServer, start: &str, rest: &str) -> (Answer, Duration) {
    let mut connection = Connection::open(server.address);
    let begun = Instant::now();
    connection.send(start);
    for byte in rest.bytes() {
        if begun.elapsed() > SHORT + LATE {
            break;
        }
        connection.try_send([byte]);
        // The pause between bytes, such that the request lasts beyond its timeout.
        thread::sleep(SHORT / 10);
    }
    (connection.answer(), begun.elapsed())
}

/// Sending byte after byte does not extend the timeout of a request.
#[test]
fn slow_request_times_out_from_its_first_byte() {
    let server = short_server().start();
    let (get, post) = ("GET /health HTTP/1.1\r\nHost: a\r\n", post(100));
    let endless = "x".repeat(14);
    let starts = [
        ("", get),
        (get, endless.as_str()),
        (post.as_str(), endless.as_str()),
        // The client sends nothing more.
        (get, ""),
        (post.as_str(), ""),
        // Blank lines are no request, and do not extend the timeout.
        (
            "",
            "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        ),
    ];
    thread::scope(|scope| {
        for (start, rest) in starts {
            let server = &server;
            scope.spawn(move || {
                let (answer, took) = send_slowly(server, start, rest);
                expect::json(&answer, 408);
                assert!(
                    took >= SHORT && took < SHORT + 2 * LATE,
                    "{took:?} for {start:?}"
                );
            });
        }
    });
    assert_nothing_broke(&server);
}

/// After half a request and the end of the client's side, the server closes the connection without an answer.
#[test]
fn half_request_before_a_close_ends_the_connection() {
    let server = TestServer::setup(Store::Embedded).start();
    for half in ["GET /hea", &post(10)] {
        let mut connection = Connection::open(server.address);
        connection.send(half);
        connection.shut_down(Shutdown::Write);
        let begun = Instant::now();
        assert!(connection.try_answer(true).is_err());
        assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
    }
}

/// A client sends requests and never reads. Once the sockets' buffers are full, the connection is closed.
#[test]
fn client_that_does_not_read_is_cut_off() {
    let postiz = FakePostiz::start();
    let server = short_server().start_for(&postiz);
    let before = memory_kib(&server, "VmRSS");
    let mut connection = Connection::open(server.address);
    // About 20 MB of answers, more than the sockets' buffers hold.
    let pages = "GET /device/verify HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4_000);
    let begun = Instant::now();
    connection.send(&pages);
    eventually("the connection is closed", || {
        thread::sleep(Duration::from_millis(100));
        connection.send_or_fail(" ").is_err()
    });
    assert!(begun.elapsed() >= SHORT);
    let grown = memory_kib(&server, "VmHWM").saturating_sub(before);
    assert!(grown < 10_000, "grew by {grown} KiB");
    assert_logs_in(&server);
    assert_nothing_broke(&server);
}
