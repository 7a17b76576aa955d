//! Failures of Postiz: the page describes them in the server's own words, no token is stored, the login stays open, and no other
//! request is delayed.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use postiz::server::times::Times;
use serde_json::{Value, json};

use crate::fake_postiz::http::HttpServer;
use crate::fake_postiz::{CLIENT_SECRET, Delivery, FakePostiz, Fault, Request, Response};
use crate::support::server::ServerSetup;
use crate::support::{Browser, Login, Page, Store, TestServer, eventually, expect};

/// Words in every wrong answer. They must be in the log, and on no page.
const WORDS: &str = "UPSTREAM-SAID-THIS";

fn json(status: u16, body: Value) -> Fault {
    Fault::Answer(Response::json(status, &body))
}

fn token(value: Value) -> Fault {
    json(
        201,
        json!({"id": "org", "access_token": value, "token_type": "bearer", "note": WORDS}),
    )
}

/// The callback shows an error page, and the login can be completed once Postiz answers correctly.
#[track_caller]
fn assert_survives(server: &TestServer, postiz: &FakePostiz, what: &str, fault: Fault) -> Page {
    postiz.misbehave("/oauth/token", fault);
    let login = Login::start(server);
    let mut browser = Browser::new();
    let page = login.approve(&mut browser, "ada");
    assert!(
        [502, 504].contains(&page.status()),
        "{what}: {} {}",
        page.status(),
        page.html()
    );
    expect::page(&page.answer, page.status());
    let html = page.html();
    for word in [WORDS, CLIENT_SECRET, "expected value", "os error"] {
        assert!(!html.contains(word), "{what}: the page says {word}: {html}");
    }
    expect::error(&login.poll(server), 400, "authorization_pending");
    postiz.behave();
    let is_for_operator = html.contains("This server is not set up correctly");
    assert!(
        html.contains("/device/verify") != is_for_operator,
        "{what}: a link to try again, unless only the operator can help: {html}"
    );
    expect::page(&login.approve(&mut browser, "ada").answer, 200);
    expect::json(&login.poll(server), 200);
    page
}

on_each_store!(wrong_answers_leave_the_login_open,);

fn wrong_answers_leave_the_login_open(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let html = |status, body: &str| Fault::Answer(Response::html(status, body));
    let long = "a".repeat(4_097);
    for (what, fault) in [
        (
            "500",
            json(500, json!({"statusCode": 500, "message": WORDS})),
        ),
        ("502 with a page", html(502, &format!("<h1>{WORDS}</h1>"))),
        ("503 without a body", html(503, "")),
        (
            "400 of validation",
            json(
                400,
                json!({"statusCode": 400, "message": [WORDS], "error": "Bad Request"}),
            ),
        ),
        (
            "400 unsupported_grant_type",
            json(400, json!({"error": "unsupported_grant_type"})),
        ),
        ("403", json(403, json!({"error": WORDS}))),
        (
            "404 with a token",
            json(404, json!({"access_token": "pos_x"})),
        ),
        ("a page as success", html(200, &format!("<h1>{WORDS}</h1>"))),
        ("nothing as success", html(200, "")),
        ("204", Fault::Answer(Response::new(204, "text/plain", ""))),
        ("an empty object", json(201, json!({}))),
        ("a list", json(201, json!([]))),
        ("null", json(201, Value::Null)),
        (
            "no token",
            json(201, json!({"id": "org", "token_type": "bearer"})),
        ),
        ("a null token", token(Value::Null)),
        ("an empty token", token(json!(""))),
        ("a number for a token", token(json!(12345))),
        ("an object for a token", token(json!({"a": 1}))),
        ("a NUL in the token", token(json!("pos_\u{0}x"))),
        ("a newline in the token", token(json!("pos_x\ny"))),
        ("a blank in the token", token(json!("pos_x y"))),
        ("a letter beyond ASCII", token(json!("pos_ü"))),
        ("a token of 4,097 characters", token(json!(long))),
        (
            "not UTF-8",
            Fault::Answer(Response::new(
                201,
                "application/json",
                b"{\"access_token\":\"\xff\"}".to_vec(),
            )),
        ),
        (
            "over 64 KiB",
            json(
                201,
                json!({"access_token": "pos_x", "padding": "x".repeat(65 * 1024)}),
            ),
        ),
        ("without an end", Fault::Deliver(Delivery::Endless)),
        ("a closed connection", Fault::Deliver(Delivery::Cut)),
        ("half an answer", Fault::Deliver(Delivery::CutShort)),
    ] {
        assert_survives(&server, &postiz, what, fault);
    }
    eventually("Postiz' answer is in the log", || {
        server.log().contains(WORDS)
    });
    assert!(!server.log().contains(CLIENT_SECRET));
}

#[test]
fn longest_token_is_accepted() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Postgres, &postiz);
    let long = format!("pos_{}", "~".repeat(4_092));
    postiz.misbehave("/oauth/token", token(json!(long)));
    let login = Login::start(&server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    assert_eq!(login.poll(&server).json()["access_token"], long);
}

/// After `invalid_grant` the user can retry; `invalid_client` is an error of the configuration.
#[test]
fn errors_of_postiz_are_distinguished() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let spent = json(
        400,
        json!({"error": "invalid_grant", "error_description": WORDS}),
    );
    assert_eq!(
        assert_survives(&server, &postiz, "invalid_grant", spent).status(),
        502
    );

    postiz.misbehave(
        "/oauth/token",
        json(401, json!({"error": "invalid_client"})),
    );
    let login = Login::start(&server);
    let page = login.approve(&mut Browser::new(), "ada");
    expect::page(&page.answer, 502);
    let html = page.html().to_lowercase();
    assert!(
        html.contains("client id") && html.contains("secret"),
        "{html}"
    );
    eventually("the log has an error", || server.log().contains(" error "));
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

#[test]
fn unreachable_postiz_is_reported() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let gone = HttpServer::start(0, |_: &Request| Response::html(200, ""))
        .expect("a free port")
        .url();
    let server = setup.var("POSTIZ_API_URL", &gone).start_for(&postiz);
    let login = Login::start(&server);
    let page = login.approve(&mut Browser::new(), "ada");
    assert!([502, 504].contains(&page.status()), "{}", page.status());
    assert!(
        !page.html().contains(gone.trim_start_matches("http://")),
        "{}",
        page.html()
    );
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

/// The request's body has the secret, so it must be sent to no other host.
#[test]
fn redirects_are_not_followed() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let log = Arc::clone(&seen);
    let elsewhere = HttpServer::start(0, move |request: &Request| {
        log.lock().expect("no handler panics").push(request.clone());
        Response::json(201, &json!({"access_token": "pos_stolen"}))
    })
    .expect("a free port");
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/oauth/token", elsewhere.url());
        let fault = Fault::Answer(Response::redirect(status, &target));
        assert_survives(&server, &postiz, &status.to_string(), fault);
        let own = Fault::Answer(Response::redirect(
            status,
            &format!("{}/elsewhere", postiz.url()),
        ));
        assert_survives(&server, &postiz, &format!("{status} to itself"), own);
    }
    assert!(seen.lock().expect("no handler panics").is_empty());
    assert!(postiz.requests_to("/elsewhere").is_empty());
}

/// The timeout is for the whole answer, also while bytes still arrive.
fn assert_timed_out(what: &str, delivery: Delivery) {
    let postiz = FakePostiz::start();
    let server = server_with_timeout(Duration::from_secs(1)).start_for(&postiz);
    let start = Instant::now();
    let page = assert_survives(&server, &postiz, what, Fault::Deliver(delivery));
    assert_eq!(page.status(), 504, "{what}");
    let took = start.elapsed();
    assert!((1..7).contains(&took.as_secs()), "{what} took {took:?}");
}

#[test]
fn silent_postiz_times_out() {
    assert_timed_out("silence", Delivery::Hang);
}

#[test]
fn slow_answer_of_postiz_times_out() {
    assert_timed_out("a trickle", Delivery::Trickle);
}

/// A server with this timeout for answers of Postiz.
fn server_with_timeout(postiz: Duration) -> ServerSetup {
    TestServer::setup(Store::Postgres).times(&Times {
        postiz,
        ..Times::DEFAULT
    })
}

/// Many hanging exchanges do not delay other requests.
#[test]
fn hanging_exchanges_do_not_delay_polls() {
    let postiz = FakePostiz::start();
    let server = server_with_timeout(Duration::from_secs(5)).start_for(&postiz);
    let trips: Vec<_> = (0..30)
        .map(|i| {
            let (login, mut browser) = (Login::start(&server), Browser::new());
            let redirect = login.consent(&mut browser, &format!("person-{i}"));
            (login, browser, redirect)
        })
        .collect();
    postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Hang));
    thread::scope(|scope| {
        let callbacks: Vec<_> = trips
            .iter()
            .map(|(_, browser, redirect)| {
                let mut browser = browser.clone();
                scope.spawn(move || browser.follow(redirect).status())
            })
            .collect();
        eventually("exchanges hang", || {
            postiz.requests_to("/oauth/token").len() >= 8
        });
        let mut slowest = Duration::ZERO;
        for (login, _, _) in &trips {
            let start = Instant::now();
            expect::error(&login.poll(&server), 400, "authorization_pending");
            assert_eq!(server.get("/health").status, 200);
            Login::start(&server);
            slowest = slowest.max(start.elapsed());
        }
        assert!(
            slowest < Duration::from_secs(2),
            "three requests took {slowest:?} beside hanging exchanges"
        );
        assert!(
            callbacks.iter().any(|c| !c.is_finished()),
            "the exchanges were still hanging"
        );
        for callback in callbacks {
            let status = callback.join().expect("the browser does not panic");
            assert!([502, 503, 504].contains(&status), "{status}");
        }
    });
}
