//! `POST /device/code`, which starts a login.

use std::collections::HashSet;

use serde_json::json;

use crate::fake_postiz::FakePostiz;
use crate::support::{Login, Store, TestServer, VerifyForm, expect};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

on_each_store!(
    every_accepted_body_gets_the_same_answer,
    full_store_evicts_the_oldest_unconfirmed_login,
);

fn every_accepted_body_gets_the_same_answer(store: Store) {
    let server = TestServer::setup(store).start();
    let url = &server.public_url;
    for (content_type, body) in [
        ("", ""),
        (JSON, ""),
        (JSON, "{}"),
        (JSON, r#"{"foo":1,"client_id":"x"}"#),
        ("application/json; charset=utf-8", "{}"),
        ("", "{}"),
        (FORM, ""),
        (FORM, "client_id=postiz&scope=a%20b"),
        (FORM, "client_id=&scope="),
        (FORM, "foo=bar"),
    ] {
        let headers = [("Content-Type", content_type)];
        let headers = if content_type.is_empty() {
            &[][..]
        } else {
            &headers
        };
        let answer = server.send("POST", "/device/code", headers, body.as_bytes());
        expect::json(&answer, 200);
        let codes = answer.json();
        let user_code = codes["user_code"].as_str().expect("a user code");
        let device_code = codes["device_code"].as_str().expect("a device code");
        let link = codes["verification_uri_complete"].as_str().expect("a link");
        let (_, mac) = link.split_once("&mac=").expect("a MAC of the code");
        assert!(
            mac.len() == 16 && mac.bytes().all(|b| b.is_ascii_hexdigit()),
            "{mac}"
        );
        let expected = format!(
            "{{\"device_code\":\"{device_code}\",\"user_code\":\"{user_code}\",\
             \"verification_uri\":\"{url}/device/verify\",\
             \"verification_uri_complete\":\"{url}/device/verify?user_code={user_code}&mac={mac}\",\
             \"expires_in\":900,\"interval\":5}}"
        );
        assert_eq!(answer.text(), expected, "{content_type} {body}");
        assert_device_code(device_code);
        assert_user_code(user_code);
    }
}

#[test]
fn codes_are_unique() {
    let server = TestServer::setup(Store::Embedded).start();
    let logins: Vec<Login> = (0..200).map(|_| Login::start(&server)).collect();
    let user_codes: HashSet<&str> = logins.iter().map(Login::user_code).collect();
    let device_codes: HashSet<&str> = logins.iter().map(Login::device_code).collect();
    assert_eq!((user_codes.len(), device_codes.len()), (200, 200));
    // In 1,600 draws from 25 letters, the probability that a letter is missing is 10^-27.
    let letters: HashSet<char> = user_codes.iter().flat_map(|c| c.chars()).collect();
    assert_eq!(letters.len(), 26, "25 letters and the dash: {letters:?}");
}

#[test]
fn malformed_body_is_an_invalid_request() {
    let server = TestServer::setup(Store::Embedded).start();
    for (content_type, body) in [
        (JSON, &b"{"[..]),
        (JSON, b"[]"),
        (JSON, b"null"),
        (JSON, b"\"x\""),
        (JSON, b"{\"client_id\":\"\xff\"}"),
        (FORM, b"client_id=a&client_id=b"),
        (FORM, b"client_id=%ff"),
    ] {
        let headers = [("Content-Type", content_type)];
        let answer = server.send("POST", "/device/code", &headers, body);
        expect::error(&answer, 400, "invalid_request");
    }
}

#[test]
fn login_starts_are_limited_by_address() {
    let setup = TestServer::setup(Store::Embedded).var("LIMIT_LOGINS_PER_MINUTE", "3");
    let server = setup.start();
    for _ in 0..3 {
        Login::start(&server);
    }
    let answer = server.post_json("/device/code", &json!({}));
    expect::error(&answer, 429, "too_many_requests");
    expect::retry_after(&answer);
    // The peer is on loopback, so it is a trusted proxy: each of its clients has a limit of its own.
    let headers = [("X-Forwarded-For", "203.0.113.7")];
    assert_eq!(
        server.send("POST", "/device/code", &headers, b"").status,
        200
    );
}

/// The oldest unconfirmed login is evicted first, a confirmed one last.
fn full_store_evicts_the_oldest_unconfirmed_login(store: Store) {
    let server = TestServer::setup(store)
        .var("LIMIT_LIVE_LOGINS", "2")
        .start();
    let (confirmed, oldest) = (Login::start(&server), Login::start(&server));
    let form = VerifyForm::open(&server);
    assert_eq!(form.confirm(&server, confirmed.user_code()).status, 302);
    // The count of logins is updated with a delay.
    let newcomer = crate::support::eventually_some("the oldest makes room", || {
        let newcomer = Login::start(&server);
        (oldest.poll(&server).error() == "invalid_device_code").then_some(newcomer)
    });
    expect::error(&confirmed.poll(&server), 400, "authorization_pending");
    expect::error(&newcomer.poll(&server), 400, "authorization_pending");
}

/// Requests that a page of another site makes a browser send. Node's `fetch` sends only `Sec-Fetch-Mode`, and is accepted.
#[test]
fn cross_site_requests_are_refused_and_not_charged() {
    let setup = TestServer::setup(Store::Embedded).var("LIMIT_LOGINS_PER_MINUTE", "1");
    let server = setup.start();
    let own = server.public_url.clone();
    for path in ["/device/code", "/device/token"] {
        for (name, value) in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let answer = server.send("POST", path, &[(name, value)], b"");
            expect::json(&answer, 403);
        }
    }
    let headers = [("Sec-Fetch-Mode", "cors"), ("Origin", own.as_str())];
    assert_eq!(
        server.send("POST", "/device/code", &headers, b"").status,
        200
    );
    assert_eq!(server.post_json("/device/code", &json!({})).status, 429);
}

/// SERVER_URL has a path and a trailing slash.
#[test]
fn verification_uris_include_the_path_of_server_url() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let server = setup
        .var("SERVER_URL", "https://example.com/cli-auth/")
        .start();
    for target in ["/device/code", "/cli-auth/device/code"] {
        let codes = server.post_json(target, &json!({})).json();
        let page = "https://example.com/cli-auth/device/verify";
        assert_eq!(codes["verification_uri"], page);
        let user_code = codes["user_code"].as_str().expect("a user code");
        let link = codes["verification_uri_complete"].as_str().expect("a link");
        assert!(
            link.starts_with(&format!("{page}?user_code={user_code}&mac=")),
            "{link}"
        );
    }
}

#[track_caller]
fn assert_device_code(code: &str) {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    assert!(code.len() == 64 && code.bytes().all(hex), "{code}");
}

#[track_caller]
fn assert_user_code(code: &str) {
    let letter = |b: u8| b"BCDFGHJKLMNPQRSTVWXYZ3479".contains(&b);
    let (left, right) = code.split_once('-').unwrap_or((code, ""));
    let halves = left.len() == 4 && right.len() == 4;
    assert!(
        halves && left.bytes().chain(right.bytes()).all(letter),
        "{code}"
    );
}
