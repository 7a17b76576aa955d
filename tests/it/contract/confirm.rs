//! `POST /device/verify`: the user confirms the code, or refuses.

use std::collections::HashSet;

use crate::fake_postiz::{CLIENT_ID, FakePostiz};
use crate::support::browser::field_of;
use crate::support::{Answer, Browser, Cluster, Login, Store, TestServer, VerifyForm, expect};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Confirms a code with a new browser.
fn confirm(server: &TestServer, user_code: &str) -> Answer {
    VerifyForm::open(server).confirm(server, user_code)
}

on_each_store!(good_code_leads_to_postiz, refusal_ends_the_login_at_once);

/// The authorize URL is exact. The state differs for each browser, and is never the device code.
fn good_code_leads_to_postiz(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let (first, second) = (
        confirm(&server, login.user_code()),
        confirm(&server, login.user_code()),
    );
    let mut states = Vec::new();
    for answer in [&first, &second] {
        assert_eq!(answer.status, 302, "{}", answer.text());
        let location = answer.header("location").expect("a redirect");
        let state = field_of(location, "state");
        let url = format!(
            "{}/oauth/authorize?client_id={CLIENT_ID}&response_type=code&state={state}",
            postiz.url()
        );
        let (plain, return_url) = location.split_once("&returnUrl=").expect("a returnUrl");
        assert_eq!(plain, url);
        assert!(
            !return_url.contains(['&', '?', '=', ':']),
            "it is encoded: {return_url}"
        );
        let decoded = percent_encoding::percent_decode_str(return_url).decode_utf8_lossy();
        assert_eq!(decoded, url);
        assert!(
            state.len() == 64 && state.bytes().all(|b| b"0123456789abcdef".contains(&b)),
            "{state}"
        );
        assert_ne!(state, login.device_code());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        states.push(state);
    }
    assert_ne!(states[0], states[1]);
    // A second click or another tab of the same browser gets the same state.
    let form = VerifyForm::open(&server);
    let again = || {
        let answer = form.confirm(&server, login.user_code());
        field_of(answer.header("location").expect("a redirect"), "state")
    };
    assert_eq!(again(), again());
}

#[test]
fn cookie_binds_the_browser() {
    let mut names = HashSet::new();
    for (server_url, start, end) in [
        (
            "http://auth.example",
            "",
            "; HttpOnly; SameSite=Lax; Path=/; Max-Age=900",
        ),
        (
            "http://auth.example/cli-auth",
            "",
            "; HttpOnly; SameSite=Lax; Path=/; Max-Age=900",
        ),
        (
            "https://auth.example",
            "__Host-",
            "; HttpOnly; SameSite=Lax; Path=/; Max-Age=900; Secure",
        ),
    ] {
        let setup = TestServer::setup(Store::Embedded).var("SERVER_URL", server_url);
        let server = setup.start();
        let form = VerifyForm::open(&server);
        let answer = form.confirm(&server, Login::start(&server).user_code());
        let cookies = answer.headers_named("set-cookie");
        assert!(cookies[0].starts_with(&form.cookie), "renewed: {cookies:?}");
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        let (pair, _) = cookies[0].split_once(';').expect("attributes");
        let (name, value) = pair.split_once('=').expect("a value");
        assert!(value.len() >= 32, "{value}");
        assert!(name.starts_with(&format!("{start}postiz_login_")), "{name}");
        names.insert(name.to_owned());
        // The order of attributes is free.
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.split(';').map(|p| p.trim().to_owned()).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(cookies[0]), sorted(&format!("{pair}{end}")));
    }
    assert_eq!(
        names.len(),
        3,
        "two servers on a host do not meet: {names:?}"
    );
}

#[test]
fn typed_code_is_normalized() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let code = login.user_code();
    let (left, right) = code.split_once('-').expect("a dash");
    for typed in [
        code.to_owned(),
        code.to_lowercase(),
        format!("{left}{right}"),
        format!("{left}+{right}"),
        format!("+{left}+-+{right}+"),
        format!("{left}%E2%80%93{right}"), // en dash
        format!("{left}%E2%80%94{right}"), // em dash
        format!("{left}%E2%80%91{right}"), // no-break hyphen
        format!("{left}%E2%88%92{right}"), // minus sign
        format!("{left}%C2%A0{right}"),    // no-break space
        format!("%09{left}-{right}%0D%0A"),
        format!("{}-{}", left.to_lowercase(), right),
    ] {
        let answer = confirm(&server, &typed);
        assert_eq!(answer.status, 302, "{typed}: {}", answer.text());
    }
}

/// The page reports the error and shows the form again.
#[test]
fn wrong_code_may_be_tried_again() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let used = Login::start(&server);
    used.approve(&mut Browser::new(), "ada");
    for form in [
        "user_code=WDJB-MJHT".to_owned(),
        format!("user_code={}", used.user_code()),
        "user_code=".to_owned(),
        "user_code=%00".to_owned(),
        "user_code=%FF".to_owned(),
        "user_code=%ZZ".to_owned(),
        "user_code='+OR+1%3D1+--".to_owned(),
        "user_code=A&user_code=B".to_owned(),
        format!("user_code={}", "B".repeat(4_000)),
        String::new(),
        "code=WDJB-MJHT&action=continue".to_owned(),
        "user_code=WDJB-MJHT&action=deny".to_owned(),
    ] {
        let answer = server.post_form("/device/verify", &form);
        expect::page(&answer, 400);
        let html = answer.text();
        assert!(html.contains("name=\"user_code\""), "{form}: {html}");
    }
    expect::json(&used.poll(&server), 200);
}

#[test]
fn expired_code_is_reported_as_a_wrong_one() {
    let database = Cluster::shared().database();
    let server = TestServer::setup(Store::Embedded)
        .database(&database)
        .start();
    let login = Login::start(&server);
    database.run("UPDATE device_requests SET expires_at = now() - interval '1 second'");
    expect::page(&confirm(&server, login.user_code()), 400);
    let shown = server.page(&format!("/device/verify?user_code={}", login.user_code()));
    expect::page(&shown, 200);
    assert!(
        !shown.text().contains("deny"),
        "an expired login cannot be refused any more"
    );
}

fn refusal_ends_the_login_at_once(store: Store) {
    let server = TestServer::setup(store).start();
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let page = login.refuse(&mut browser);
    expect::page(&page.answer, page.status());
    assert!(page.html().contains("refused"), "{}", page.html());
    expect::error(&login.poll(&server), 400, "access_denied");
    // It stays refused in every browser.
    expect::page(&confirm(&server, login.user_code()), 400);
    expect::error(&login.poll_form(&server), 400, "access_denied");
}

#[test]
fn forms_of_other_sites_are_refused() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let fields = format!("action=continue&user_code={}", login.user_code());
    let form = VerifyForm::open(&server);
    let own = server.public_url.as_str();
    let evil = "https://evil.example";
    // The server's own page, at another of its names.
    let other_name = format!("http://{}", server.address);
    for (site, origin, status) in [
        (None, None, 302),
        (Some("same-origin"), None, 302),
        (Some("none"), None, 302),
        (Some("same-origin"), Some(own), 302),
        (None, Some(own), 302),
        (Some("same-origin"), Some(&*other_name), 400),
        (Some("same-origin"), Some("null"), 403),
        (None, Some("null"), 403),
        (Some("cross-site"), None, 403),
        (Some("same-site"), None, 403),
        (Some("cross-site"), Some(own), 403),
        (None, Some(evil), 403),
        (None, Some("http://localhost"), 400),
        (None, Some("http://localhost.evil.example"), 403),
    ] {
        let mut headers = Vec::new();
        headers.extend(site.map(|s| ("Sec-Fetch-Site", s)));
        headers.extend(origin.map(|o| ("Origin", o)));
        let answer = form.send(&server, &fields, &headers);
        assert_eq!(
            answer.status,
            status,
            "{site:?} {origin:?}: {}",
            answer.text()
        );
        if status != 302 {
            expect::page(&answer, status);
            assert!(answer.header("set-cookie").is_none());
            assert_eq!(
                status == 400,
                answer.text().contains(&format!("href=\"{own}/device"))
            );
        }
    }
    // Refusing is rejected as well: another site could end a user's login.
    let fields = format!("action=deny&user_code={}", login.user_code());
    let answer = form.send(&server, &fields, &[("Origin", evil)]);
    expect::page(&answer, 403);
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

/// Wrong codes have a limit for each address, and one for all addresses together.
#[test]
fn guesses_are_limited() {
    for (variable, spread) in [
        ("LIMIT_WRONG_CODES_PER_MINUTE", false),
        ("LIMIT_WRONG_CODES_PER_MINUTE_TOTAL", true),
    ] {
        let server = TestServer::setup(Store::Embedded)
            .var(variable, "4")
            .start();
        let guess = |i: usize| {
            let address = format!("198.51.100.{}", if spread { i } else { 1 });
            let headers = [FORM, ("X-Forwarded-For", address.as_str())];
            server.send("POST", "/device/verify", &headers, b"user_code=WDJB-MJHT")
        };
        for i in 0..4 {
            expect::page(&guess(i), 400);
        }
        let answer = guess(4);
        expect::page(&answer, 429);
        expect::retry_after(&answer);
    }
}

/// A user who mistypes or opens the page is below the limit. Codes in links count as typed ones do.
#[test]
fn guesses_by_link_are_limited() {
    let server = TestServer::setup(Store::Embedded)
        .var("LIMIT_WRONG_CODES_PER_MINUTE", "4")
        .start();
    let login = Login::start(&server);
    for _ in 0..10 {
        expect::page(
            &server.page(&format!("/device/verify?user_code={}", login.user_code())),
            200,
        );
        expect::page(&server.page("/device/verify"), 200);
    }
    let guesses = (0..5).map(|_| server.page("/device/verify?user_code=WDJB-MJHT").status);
    assert_eq!(guesses.collect::<Vec<_>>(), [200, 200, 200, 200, 429]);
}

/// Without the form's token, which is bound to the cookie, nothing changes: the page is shown again with a new token.
#[test]
fn form_without_its_token_changes_nothing() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let (form, other) = (VerifyForm::open(&server), VerifyForm::open(&server));
    let crossed = VerifyForm {
        cookie: form.cookie.clone(),
        token: other.token.clone(),
    };
    let no_token = VerifyForm {
        cookie: form.cookie.clone(),
        token: String::new(),
    };
    // Only the two buttons' actions decide.
    for action in ["", "xx", "Deny", "deny%20", "Continue"] {
        let fields = format!("action={action}&user_code={}", login.user_code());
        let answer = form.send(&server, &fields, &[]);
        expect::page(&answer, 200);
        assert!(answer.text().contains("value=\"deny\""), "{action}");
        expect::error(&login.poll(&server), 400, "authorization_pending");
    }
    for action in ["continue", "deny"] {
        let fields = format!("action={action}&user_code={}", login.user_code());
        for form in [&crossed, &no_token] {
            let answer = form.send(&server, &fields, &[]);
            expect::page(&answer, 200);
            assert!(
                answer.text().contains("value=\"deny\""),
                "{}",
                answer.text()
            );
            assert!(answer.header("set-cookie").is_some());
        }
        // A script that has not loaded the page.
        expect::page(&server.post_form("/device/verify", &fields), 200);
        // A browser without cookies gets a page that says so.
        let fields = format!("{fields}&form_token={}", form.token);
        let answer = server.post_form("/device/verify", &fields);
        expect::page(&answer, 400);
        assert!(answer.text().contains("allow cookies"), "{}", answer.text());
    }
    // Two cookies of the same name: a sibling domain has set one.
    let (name, _) = form.cookie.split_once('=').expect("a cookie");
    let planted = format!("{}; {name}={}", form.cookie, "0".repeat(64));
    let twice = VerifyForm {
        cookie: planted,
        token: form.token.clone(),
    };
    expect::page(&twice.confirm(&server, login.user_code()), 400);
    expect::error(&login.poll(&server), 400, "authorization_pending");
    assert_eq!(form.confirm(&server, login.user_code()).status, 302);
}

/// The user sees which client asks before the redirect to Postiz.
#[test]
fn typed_code_leads_to_the_confirm_page_first() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let login = Login::start(&server);
    let link = login.link();
    let mut browser = Browser::new();
    let page = browser.open(&format!("{}/device/verify", server.public_url));
    for typed in [login.user_code(), link] {
        let page = browser.submit(&page, &[("user_code", typed)]);
        expect::page(&page.answer, 200);
        assert!(page.html().contains("127.0.0.1"), "{}", page.html());
        let page = browser.submit(&page, &[]);
        assert_eq!(page.status(), 302, "{}", page.html());
    }
}
