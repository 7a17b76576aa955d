//! Whole logins of legitimate users, while a test attacks the server or breaks its database.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Answer};
use super::{Browser, Login, TestServer, at_once, eventually_some, expect};
use crate::fake_postiz::FakePostiz;

/// A name that is unique in this run, since Postiz gives each person one token.
pub fn name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("somebody-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One whole login, from its code to a token that Postiz accepts.
#[track_caller]
pub fn log_in(server: &TestServer, postiz: &FakePostiz) {
    let login = Login::start(server);
    let page = login.approve(&mut Browser::new(), &name());
    expect::page(&page.answer, 200);
    assert_token(&login.outcome(server), postiz);
}

/// `count` logins at the same moment, all of which must succeed.
pub fn log_in_at_once(server: &TestServer, postiz: &FakePostiz, count: usize) {
    at_once(count, |_| log_in(server, postiz));
}

/// The answer must hold a token that Postiz accepts.
#[track_caller]
pub fn assert_token(answer: &Answer, postiz: &FakePostiz) {
    expect::json(answer, 200);
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    let token = token.expect("a token");
    assert!(postiz.accepts(&token), "Postiz does not know {token}");
}

/// One whole login through a proxy at `address`, with a connection for each request. Each request must succeed at the first
/// try: a 502 of the proxy is a failure, too.
pub fn log_in_through(address: SocketAddr, postiz: &FakePostiz) {
    let post = |target: &str, body: &Value| {
        let headers = [("Content-Type", "application/json")];
        let request = http::request("POST", target, &headers, body.to_string().as_bytes());
        http::exchange(address, request)
    };
    let started = post("/device/code", &json!({}));
    expect::json(&started, 200);
    let login = Login::of(&started);
    let poll = || post("/device/token", &login.poll_body());
    expect::error(&poll(), 400, "authorization_pending");
    let page = login.approve(&mut Browser::new(), &name());
    expect::page(&page.answer, 200);
    let outcome = eventually_some("the login ends", || {
        let answer = poll();
        if answer.error() == "authorization_pending" {
            // As polls do.
            thread::sleep(Duration::from_millis(10));
            return None;
        }
        Some(answer)
    });
    assert_token(&outcome, postiz);
}
