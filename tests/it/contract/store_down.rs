//! The answer of every endpoint while the store cannot be reached, and right after it is back.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use postiz::server::times::Times;
use serde_json::json;

use crate::fake_postiz::FakePostiz;
use crate::support::{Browser, Cluster, Login, Store, TestServer, eventually, expect};

#[test]
fn endpoints_answer_while_the_database_is_down() {
    let cluster = Cluster::start_new();
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&cluster.database());
    let server = setup.start_for(&postiz);
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let redirect = login.consent(&mut browser, "ada");
    cluster.control("kill");

    expect::unavailable(&login.poll(&server));
    expect::unavailable(&login.poll_form(&server));
    expect::unavailable(&server.post_json("/device/code", &json!({})));
    let ready = server.get("/ready");
    expect::json(&ready, 503);
    assert_eq!(ready.text(), r#"{"status":"unavailable"}"#);
    expect::json(&server.get("/health"), 200);
    expect::page(&server.page("/device/verify"), 200);
    let code = format!("user_code={}", login.user_code());
    for answer in [
        server.post_form("/device/verify", &code),
        server.post_form("/device/verify", &format!("{code}&action=deny")),
        browser.follow(&redirect).answer,
    ] {
        expect::page(&answer, 503);
        let html = answer.text();
        assert!(
            !html.contains("postgres") && !html.contains("os error"),
            "{html}"
        );
    }
    assert_eq!(
        postiz.requests_to("/oauth/token").len(),
        0,
        "the code is not exchanged while its token cannot be stored"
    );

    cluster.control("start");
    eventually("the server has reconnected to its database", || {
        server.get("/ready").status == 200
    });
    expect::error(&login.poll(&server), 400, "authorization_pending");
    expect::page(&browser.follow(&redirect).answer, 200);
    expect::json(&login.poll(&server), 200);
}

/// The timeouts of starts, readiness checks and other requests.
const SHORT: Times = Times {
    ping: Duration::from_millis(500),
    handler: Duration::from_secs(2),
    monitor_handler: Duration::from_secs(1),
    ..Times::DEFAULT
};

/// While the database is silent, every request is answered within its timeout.
#[track_caller]
fn assert_silence_is_timed_out(server: &TestServer) {
    let timed = |limit: u64, act: &dyn Fn()| {
        let start = Instant::now();
        act();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(limit), "it took {took:?}");
    };
    timed(3, &|| expect::json(&server.get("/ready"), 503));
    timed(4, &|| {
        expect::unavailable(&server.post_json("/device/code", &json!({})))
    });
    timed(1, &|| expect::json(&server.get("/health"), 200));
}

/// From the start, the database accepts connections and sends nothing.
#[test]
fn database_that_never_answers_is_timed_out() {
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = mute.local_addr().expect("it is bound").port();
    let url = format!("postgres://u:p@127.0.0.1:{port}/x?sslmode=disable");
    let setup = TestServer::setup(Store::Embedded)
        .var("DATABASE_URL", &url)
        .times(&SHORT);
    assert_silence_is_timed_out(&setup.start());
}

/// The database stops answering on open connections.
#[test]
fn database_that_falls_silent_is_timed_out() {
    let cluster = Cluster::start_new();
    let setup = TestServer::setup(Store::Embedded)
        .database(&cluster.database())
        .times(&SHORT);
    let server = setup.start();
    let login = Login::start(&server);
    cluster.control("freeze");
    assert_silence_is_timed_out(&server);
    expect::unavailable(&login.poll(&server));
    cluster.control("thaw");
    eventually("the server has reconnected to its database", || {
        server.get("/ready").status == 200
    });
    expect::error(&login.poll(&server), 400, "authorization_pending");
}
