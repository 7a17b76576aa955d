//! `GET /device/callback`, to which Postiz redirects the browser. Failures of Postiz itself are in `upstream.rs`.

use serde_json::json;

use crate::fake_postiz::{CLIENT_ID, CLIENT_SECRET, Delivery, FakePostiz, Fault, Gate, Response};
use crate::support::browser::field_of;
use crate::support::server::ServerSetup;
use crate::support::{
    Answer, Browser, Cluster, Database, Login, Page, Store, TestServer, VerifyForm, at_once,
    eventually, expect,
};

/// Sends a callback with this query and the cookies of `browser`.
fn call_back(server: &TestServer, query: &str, browser: &Browser) -> Answer {
    let url = format!("{}/device/callback?{query}", server.public_url);
    let cookies = browser.cookies_for(&url);
    let headers = [("Cookie", cookies.as_str())];
    let headers = if cookies.is_empty() {
        &[][..]
    } else {
        &headers
    };
    server.send("GET", &format!("/device/callback?{query}"), headers, b"")
}

/// A login whose user has consented, and the redirect to the callback, not followed yet.
type Returning = (FakePostiz, TestServer, Login, Browser, Page);

fn returning(store: Store) -> Returning {
    returning_from(&TestServer::setup(store))
}

/// The same on a database that the test can change.
fn returning_on(database: &Database) -> Returning {
    returning_from(&TestServer::setup(Store::Embedded).database(database))
}

fn returning_from(setup: &ServerSetup) -> Returning {
    let postiz = FakePostiz::start();
    let server = setup.start_for(&postiz);
    let (login, mut browser) = (Login::start(&server), Browser::new());
    let redirect = login.consent(&mut browser, "ada");
    (postiz, server, login, browser, redirect)
}

fn query_of(redirect: &Page) -> String {
    let location = redirect.location();
    location.split_once('?').expect("a query").1.to_owned()
}

fn state_of(redirect: &Page) -> String {
    field_of(&redirect.location(), "state")
}

fn exchanges(postiz: &FakePostiz) -> usize {
    postiz.requests_to("/oauth/token").len()
}

on_each_store!(
    callback_exchanges_the_code,
    twenty_callbacks_at_once_exchange_once,
    refresh_shows_the_same_page_again,
    denial_at_postiz_reaches_the_next_poll,
    other_errors_of_postiz_leave_the_login_open,
    callback_rejects_foreign_state,
    state_belongs_to_its_browser,
    five_refused_codes_end_a_login,
);

fn callback_exchanges_the_code(store: Store) {
    let (postiz, server, login, mut browser, redirect) = returning(store);
    let page = browser.follow(&redirect);
    expect::page(&page.answer, 200);
    assert!(
        page.html().contains("signed in") && page.html().contains("terminal"),
        "{}",
        page.html()
    );

    let requests = postiz.requests_to("/oauth/token");
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    let query = query_of(&redirect);
    let code = query
        .strip_prefix("code=")
        .and_then(|q| q.split('&').next());
    let body = json!({
        "grant_type": "authorization_code", "code": code.expect("a code"),
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    });
    assert_eq!(
        (request.method.as_str(), request.text()),
        ("POST", body.to_string())
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    expect::json(&login.poll(&server), 200);
}

#[test]
fn path_of_the_postiz_url_is_kept() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let server = setup
        .var("POSTIZ_API_URL", &format!("{}/api/", postiz.url()))
        .start_for(&postiz);
    let login = Login::start(&server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    assert_eq!(postiz.requests_to("/api/oauth/token").len(), 1);
    assert_eq!(
        login.poll(&server).json()["api_url"],
        format!("{}/api", postiz.url())
    );
}

/// Of many callbacks one exchanges the code; the others get the page that reloads itself. Postiz answers slowly, so that all
/// of them arrive during the exchange.
fn twenty_callbacks_at_once_exchange_once(store: Store) {
    let (postiz, server, login, browser, redirect) = returning(store);
    let gate = Gate::default();
    postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
    let answers = std::thread::scope(|scope| {
        let callbacks =
            scope.spawn(|| at_once(20, |_| call_back(&server, &query_of(&redirect), &browser)));
        eventually("the exchange is under way", || exchanges(&postiz) > 0);
        // The user has consented, but the token has not arrived.
        expect::error(&login.poll(&server), 400, "authorization_pending");
        gate.open();
        callbacks.join().expect("no callback panics")
    });
    let (mut signed_in, mut finishing) = (0, 0);
    for answer in answers {
        expect::page(&answer, 200);
        match answer.text().contains("signed in") {
            true => signed_in += 1,
            false => finishing += usize::from(answer.text().contains(expect::RELOAD)),
        }
    }
    assert!(
        signed_in >= 1 && signed_in + finishing == 20,
        "{signed_in} {finishing}"
    );
    // The other pages show this after their reload.
    let reloaded = call_back(&server, &query_of(&redirect), &browser);
    assert!(reloaded.text().contains("signed in"), "{}", reloaded.text());
    assert_eq!(exchanges(&postiz), 1);
    expect::json(&login.poll(&server), 200);
}

fn refresh_shows_the_same_page_again(store: Store) {
    let (postiz, server, login, mut browser, redirect) = returning(store);
    let first = browser.follow(&redirect);
    let second = browser.follow(&redirect);
    expect::page(&second.answer, 200);
    assert_eq!(second.html(), first.html());
    expect::json(&login.poll(&server), 200);
    // Also after the client has got its token.
    let third = browser.follow(&redirect);
    expect::page(&third.answer, 200);
    assert_eq!(third.html(), first.html());
    assert_eq!(exchanges(&postiz), 1);
}

fn denial_at_postiz_reaches_the_next_poll(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let page = login.reach_consent(&mut browser, "ada");
    let redirect = browser.press(&page, "action", "deny");
    let page = browser.follow(&redirect);
    expect::page(&page.answer, 400);
    assert!(page.html().contains("refused"), "{}", page.html());
    expect::error(&login.poll(&server), 400, "access_denied");
    expect::error(&login.poll_form(&server), 400, "access_denied");
    // A reload changes nothing, and the login cannot be continued.
    let page = browser.follow(&redirect);
    expect::page(&page.answer, 400);
    let state = state_of(&redirect);
    expect::page(
        &call_back(&server, &format!("code=x&state={state}"), &browser),
        400,
    );
    assert_eq!(exchanges(&postiz), 0);
}

/// The page describes any other error in the server's own words, and the login stays open.
fn other_errors_of_postiz_leave_the_login_open(store: Store) {
    let (_postiz, server, login, mut browser, redirect) = returning(store);
    let state = state_of(&redirect);
    for error in [
        "server_error",
        "temporarily_unavailable",
        "call+%2B1-900-EVIL%0Ainfo+faked",
    ] {
        let query = format!("error={error}&error_description=call+%2B1-900-EVIL&state={state}");
        let answer = call_back(&server, &query, &browser);
        expect::page(&answer, 502);
        let html = answer.text();
        assert!(
            !html.contains("EVIL") && !html.contains("server_error"),
            "{html}"
        );
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    eventually("Postiz' answer is in the log", || {
        let log = server.log();
        log.contains("EVIL") && log.contains("temporarily_unavailable")
    });
    let log = server.log();
    assert!(
        log.lines().all(|line| !line.starts_with("info faked")),
        "one line an event: {log}"
    );
    let retried = login.approve(&mut browser, "ada");
    expect::page(&retried.answer, 200);
    expect::json(&login.poll(&server), 200);
}

/// A state is valid only in the browser that confirmed the login, and an invented one is not valid at all.
fn callback_rejects_foreign_state(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let (mut ours, mut other) = (Browser::new(), Browser::new());
    let redirect = login.consent(&mut ours, "ada");
    Login::start(&server).confirm(&mut other);
    let (state, new_browser) = (state_of(&redirect), Browser::new());
    let good = query_of(&redirect);
    let unknown = "0".repeat(64);
    for (query, browser) in [
        (good.clone(), &new_browser),
        (good.clone(), &other),
        (format!("error=access_denied&state={state}"), &new_browser),
        (format!("error=access_denied&state={state}"), &other),
        (String::new(), &ours),
        ("code=x".to_owned(), &ours),
        ("code=x&state=".to_owned(), &ours),
        ("code=x&state=".to_owned(), &new_browser),
        (format!("code=x&state={unknown}"), &ours),
        ("code=x&state=%00".to_owned(), &ours),
        ("code=x&state=%ff".to_owned(), &ours),
        (format!("code=x&state={}", login.device_code()), &ours),
        (format!("state={state}"), &ours),
        (format!("code=&state={state}"), &ours),
        (format!("code=x&state={state}&state={unknown}"), &ours),
        ("error=access_denied".to_owned(), &ours),
        ("error=call+1-900-EVIL".to_owned(), &new_browser),
        (format!("error=access_denied&state={unknown}"), &ours),
    ] {
        let answer = call_back(&server, &query, browser);
        expect::page(&answer, 400);
        assert!(!answer.text().contains("EVIL"));
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    assert_eq!(exchanges(&postiz), 0);
    expect::page(&call_back(&server, &good, &ours), 200);
    expect::json(&login.poll(&server), 200);
}

/// An empty cookie must not equal a missing one.
#[test]
fn callback_rejects_malformed_cookies() {
    let (_postiz, server, _, browser, redirect) = returning(Store::Embedded);
    let query = query_of(&redirect);
    let good = browser.cookies_for(&format!("{}/device/callback", server.public_url));
    let (name, value) = good.split_once('=').expect("a cookie");
    for cookie in [
        format!("{name}="),
        name.to_owned(),
        format!("{name}={}", &value[1..]),
        format!("{name}={value}x"),
        format!("x{name}={value}"),
        format!("other={value}"),
        "=; ;;".to_owned(),
    ] {
        let headers = [("Cookie", cookie.as_str())];
        let answer = server.send("GET", &format!("/device/callback?{query}"), &headers, b"");
        expect::page(&answer, 400);
    }
    // Cookies of other programs on the same host are ignored.
    let cookie = format!("a=b; {good}; c=\"d\"");
    let headers = [("Cookie", cookie.as_str())];
    expect::page(
        &server.send("GET", &format!("/device/callback?{query}"), &headers, b""),
        200,
    );
}

/// Confirming again in the same browser (a second click, another tab) gives the same state. Confirming in another browser
/// replaces the state.
fn state_belongs_to_its_browser(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let (mut first, mut second) = (Browser::new(), Browser::new());
    let older = login.consent(&mut first, "ada");
    let again = login.consent(&mut first, "ada");
    assert_eq!(state_of(&older), state_of(&again));
    let newer = login.consent(&mut second, "ada");
    expect::page(&call_back(&server, &query_of(&again), &first), 400);
    assert_eq!(exchanges(&postiz), 0);
    expect::page(&call_back(&server, &query_of(&newer), &second), 200);
}

/// Five refused codes end a login. The same code counts once, and an outage does not count.
fn five_refused_codes_end_a_login(store: Store) {
    let (postiz, server, login, browser, redirect) = returning(store);
    let state = state_of(&redirect);
    let junk = |n: usize| call_back(&server, &format!("code=junk-{n}&state={state}"), &browser);
    for n in 0..4 {
        for _ in 0..3 {
            expect::page(&junk(n), 502);
        }
        postiz.misbehave(
            "/oauth/token",
            Fault::Answer(Response::json(500, &json!({}))),
        );
        expect::page(&junk(100 + n), 502);
        postiz.behave();
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    assert_eq!(exchanges(&postiz), 8, "four codes and four outages");
    expect::page(&junk(4), 400);
    expect::error(&login.poll(&server), 400, "access_denied");
    expect::page(&junk(5), 400);
    assert_eq!(exchanges(&postiz), 9);
}

/// The previous version's cookie is valid only for logins that the previous version confirmed, since a sibling domain could set
/// it.
#[test]
fn old_cookie_is_valid_for_old_logins_only() {
    let database = Cluster::shared().database();
    let (postiz, server, login, browser, redirect) = returning_on(&database);
    let query = query_of(&redirect);
    let cookie = browser.cookies_for(&format!("{}/device/callback", server.public_url));
    let (_, key) = cookie.split_once('=').expect("a cookie");
    let old_cookie = format!("postiz_login={key}");
    let call = |query: &str| {
        let headers = [("Cookie", old_cookie.as_str())];
        server.send("GET", &format!("/device/callback?{query}"), &headers, b"")
    };
    expect::page(&call(&query), 400);
    assert_eq!(exchanges(&postiz), 0);
    // As the previous version stored it: with a random state.
    let (state, drawn) = (state_of(&redirect), "a".repeat(64));
    database.run(&format!(
        "UPDATE device_requests SET state = encode(sha256('{drawn}'), 'hex') \
         WHERE state = encode(sha256('{state}'), 'hex')"
    ));
    // It is also valid beside the new cookie, which a page of a new instance may have set meanwhile.
    let other = VerifyForm::open(&server).cookie;
    let both = format!("{other}; {old_cookie}");
    let query = query.replace(&state, &drawn);
    let headers = [("Cookie", both.as_str())];
    let answer = server.send("GET", &format!("/device/callback?{query}"), &headers, b"");
    expect::page(&answer, 200);
    expect::page(&call(&query), 200);
    expect::json(&login.poll(&server), 200);
}

#[test]
fn callbacks_are_rate_limited() {
    let postiz = FakePostiz::start();
    let server = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("LIMIT_CALLBACKS_PER_MINUTE", "3")
        .start();
    let cookie = VerifyForm::open(&server).cookie;
    let target = format!("/device/callback?code=x&state={}", "0".repeat(64));
    let from = |address| {
        let headers = [("Cookie", cookie.as_str()), ("X-Forwarded-For", address)];
        server.send("GET", &target, &headers, b"")
    };
    for _ in 0..3 {
        expect::page(&from("203.0.113.7"), 400);
    }
    let answer = from("203.0.113.7");
    expect::page(&answer, 429);
    expect::retry_after(&answer);
    expect::page(&from("198.51.100.7"), 400);
    // A callback without a cookie sends no request to Postiz.
    expect::page(&server.get(&target), 400);
}

#[test]
fn expired_login_cannot_be_completed() {
    let database = Cluster::shared().database();
    let (postiz, server, login, mut browser, redirect) = returning_on(&database);
    database.run("UPDATE device_requests SET expires_at = now() - interval '1 second'");
    expect::page(&browser.follow(&redirect).answer, 400);
    assert_eq!(exchanges(&postiz), 0);
    expect::error(&login.poll(&server), 400, "expired_token");
}

/// The login expired during the exchange. The person has consented, so the token is kept.
#[test]
fn token_received_just_after_the_expiry_is_kept() {
    let database = Cluster::shared().database();
    let (postiz, server, login, mut browser, redirect) = returning_on(&database);
    let gate = Gate::default();
    postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
    let page = std::thread::scope(|scope| {
        let callback = scope.spawn(|| browser.follow(&redirect));
        eventually("the exchange is under way", || exchanges(&postiz) == 1);
        database.run("UPDATE device_requests SET expires_at = now() - interval '1 second'");
        gate.open();
        callback.join().expect("the browser does not panic")
    });
    // Page and poll must agree.
    match page.status() {
        200 => expect::json(&login.poll(&server), 200),
        _ => expect::error(&login.poll(&server), 400, "expired_token"),
    }
}

/// No query parameter changes where the browser is redirected.
#[test]
fn query_parameters_change_no_redirect() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let login = Login::start(&server);
    for tail in [
        "redirect_uri=https://evil.example",
        "returnUrl=https://evil.example",
        "next=//evil.example",
        "user_code=//evil.example",
        "state=//evil.example&code=x",
        "x=%0d%0aLocation:%20https://evil.example",
    ] {
        for path in ["/", "/device/verify", "/device/callback"] {
            let answer = server.get(&format!("{path}?{tail}"));
            assert!(
                !format!("{:?}", answer.headers).contains("evil"),
                "{answer:?}"
            );
        }
        let code = login.user_code().to_lowercase();
        let form = format!("action=continue&user_code={code}&{tail}");
        let answer = VerifyForm::open(&server).send(&server, &form, &[]);
        let location = answer
            .header("location")
            .unwrap_or(&postiz.url())
            .to_owned();
        assert!(
            location.starts_with(&postiz.url()) && !location.contains("evil"),
            "{location}"
        );
    }
}

/// Any status 2xx of Postiz is a success.
#[test]
fn exchange_succeeds_on_any_2xx() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    for status in [200, 202] {
        let token = format!("pos_status_{status}");
        let answer = Response::json(
            status,
            &json!({"id": "o", "access_token": token, "token_type": "Bearer", "x": [1]}),
        );
        postiz.behave();
        postiz.misbehave("/oauth/token", Fault::Answer(answer));
        let login = Login::start(&server);
        expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
        assert_eq!(login.poll(&server).json()["access_token"], token);
    }
}
