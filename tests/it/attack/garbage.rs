//! Random bytes and senseless requests: none causes a 5xx, a panic or a line of error in the log.

use crate::attack::{assert_logs_in, assert_nothing_broke, server_with};
use crate::fake_postiz::FakePostiz;
use crate::support::{Connection, TestServer, at_once};

/// A seeded generator (SplitMix64), so that failures are reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// A valid request with some bytes changed, removed or doubled.
    fn damaged(&mut self, good: &str) -> Vec<u8> {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(3) {
                0 => bytes[at] = self.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        bytes
    }
}

const GOOD: &str = "POST /device/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
    Cookie: postiz_login=x\r\nX-Forwarded-For: 198.51.100.1\r\nContent-Length: 22\r\n\r\n{\"device_code\":\"none\"}";

/// Sends these bytes, closes the sending side, and reads all answers until the end.
#[track_caller]
fn assert_survives(server: &TestServer, bytes: &[u8]) {
    let mut connection = Connection::open(server.address);
    connection.try_send(bytes);
    // The server may have closed the connection already.
    connection.try_shut_down(std::net::Shutdown::Write);
    let answered = connection.rest().unwrap_or_default();
    let is_ours = answered.windows(10).any(|w| w.starts_with(b"HTTP/1.1 5"));
    assert!(
        !is_ours,
        "{} to {}",
        answered.escape_ascii(),
        bytes.escape_ascii()
    );
}

#[test]
fn random_bytes_cause_no_error() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    at_once(20, |round| {
        let mut random = Random(round as u64);
        for _ in 0..25 {
            let length = 1 + random.below(4_000);
            assert_survives(&server, &random.bytes(length));
            assert_survives(&server, &random.damaged(GOOD));
        }
    });
    assert_nothing_broke(&server);
    assert_logs_in(&server);
}

/// Methods, targets and bodies in every combination.
#[test]
fn methods_paths_and_bodies_of_every_kind_cause_no_error() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
    ];
    let targets = [
        "/",
        "//",
        "//a:99999/",
        "/\\",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/device/code",
        "/device/token",
        "/device/token/",
        "/DEVICE/TOKEN",
        "/device/verify?user_code=%00&user_code=x",
        "/device/callback?code=%FF&state=%00",
        "/device/callback?state=&error=%0d%0aX:y",
        "/health?%",
        "/ready",
        "/.well-known/oauth-authorization-server",
        "/%",
    ];
    let bodies = [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"{\"device_code\":1}",
        b"{\"device_code\":\"\\u0000\"}",
        b"{\"device_code\":\"\xff\"}",
        b"{\"device_code\":\"a\",\"device_code\":\"b\"}",
        b"device_code=%00&device_code=%FF",
        b"user_code=%00&action=%FF",
        b"user_code=a&user_code=b",
        b"\0\0\0\0",
    ];
    at_once(methods.len(), |i| {
        let mut connection = Connection::open(server.address);
        for (target, body) in targets.iter().flat_map(|t| bodies.map(|b| (t, b))) {
            let head = format!(
                "{} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                methods[i],
                body.len()
            );
            connection.send([head.as_bytes(), body].concat());
            // All of them are well-formed HTTP: each is answered, and the connection stays open.
            let answer = connection.try_answer(methods[i] != "HEAD");
            let answer = answer.unwrap_or_else(|e| panic!("{e}: {head}"));
            assert!(answer.status < 500, "{} to {head}", answer.status);
        }
    });
    assert_nothing_broke(&server);
    assert_logs_in(&server);
}

/// Nested arrays, as deep as fits into 8 KiB.
#[test]
fn deeply_nested_json_causes_no_error() {
    let postiz = FakePostiz::start();
    let server = server_with(&postiz, &[]);
    let deep = format!("{{\"x\":{}", "[".repeat(8_000));
    for path in ["/device/code", "/device/token"] {
        let headers = [("Content-Type", "application/json")];
        let answer = server.send("POST", path, &headers, deep.as_bytes());
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert_logs_in(&server);
}
