//! People who log in: the legitimate users beside whatever a test does to the server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Answer};
use super::{Browser, Login, TestServer, at_once, eventually_some, expect};
use crate::fake_postiz::FakePostiz;

/// A name that no other person of this run has: Postiz gives each person one token.
pub fn name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("somebody-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One whole login, from its code to a token that Postiz takes.
#[track_caller]
pub fn log_in(server: &TestServer, postiz: &FakePostiz) {
    let login = Login::start(server);
    let page = login.approve(&mut Browser::new(), &name());
    expect::page(&page.answer, 200);
    assert_token(&login.outcome(server), postiz);
}

/// So many at the same moment, all of which end well.
pub fn log_in_at_once(server: &TestServer, postiz: &FakePostiz, count: usize) {
    at_once(count, |_| log_in(server, postiz));
}

/// An answer with a token that Postiz takes.
#[track_caller]
pub fn assert_token(answer: &Answer, postiz: &FakePostiz) {
    expect::json(answer, 200);
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    let token = token.expect("a token");
    assert!(postiz.accepts(&token), "Postiz does not know {token}");
}

/// One whole login by way of a proxy at `address`, each request on a connection of its own. Every answer must be the right
/// one at once: a proxy's 502 is as bad as the server's.
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
