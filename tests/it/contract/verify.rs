//! `GET /device/verify`, the page on which the user enters or compares the code.

use serde_json::json;

use crate::fake_postiz::FakePostiz;
use crate::support::{Browser, Login, Store, TestServer, expect};

fn value_of_code_field(page: &crate::support::Page) -> String {
    let form = page.form();
    let field = form.fields.iter().find(|(name, _)| name == "user_code");
    field
        .unwrap_or_else(|| panic!("no field: {form:?}"))
        .1
        .clone()
}

/// The link without a code shows the empty form.
#[test]
fn new_browser_gets_an_empty_form() {
    let server = TestServer::setup(Store::Embedded).start();
    let mut browser = Browser::new();
    let page = browser.open(&format!("{}/device/verify", server.public_url));
    expect::page(&page.answer, 200);
    assert_eq!(value_of_code_field(&page), "");
    assert_eq!(page.answer.headers_named("set-cookie").len(), 1);
}

on_each_store!(live_code_is_shown_with_who_asked,);

/// With the code in the link, the page shows the code and its client, and has a button to refuse. Opening it changes nothing.
fn live_code_is_shown_with_who_asked(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let agent = "postiz-rust/9.8.7 (linux x86_64)";
    let headers = [("User-Agent", agent), ("X-Forwarded-For", "198.51.100.23")];
    let codes = server.send("POST", "/device/code", &headers, b"").json();
    let login = Login { start: codes };
    let code = login.user_code();
    let mut browser = Browser::new();
    for parameter in ["user_code", "code"] {
        let url = format!("{}/device/verify?{parameter}={code}", server.public_url);
        let page = browser.open(&url);
        expect::page(&page.answer, 200);
        let html = page.html();
        assert_eq!(value_of_code_field(&page), code);
        assert!(
            html.contains("calls itself postiz-rust/9.8.7 (linux x86_64)"),
            "{html}"
        );
        assert!(html.contains("198.51.100.23"), "{html}");
        let host = postiz.url().replace("http://", "");
        assert!(html.contains(&host), "names Postiz' host: {html}");
        assert!(
            html.contains("localhost"),
            "names this server's host: {html}"
        );
        assert!(html.contains("terminal"), "{html}");
        let buttons = page.form().buttons;
        assert!(
            buttons.contains(&("action".to_owned(), "deny".to_owned())),
            "{buttons:?}"
        );
        assert_eq!(buttons.len(), 2, "go on and refuse: {buttons:?}");
    }
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

/// A client that is no trusted proxy cannot set the address that is shown.
#[test]
fn forwarded_addresses_count_only_from_trusted_proxies() {
    for (trusted, shown) in [
        ("none", "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1"),
        ("127.0.0.0/8", "198.51.100.23"),
    ] {
        let server = TestServer::setup(Store::Embedded)
            .var("TRUSTED_PROXIES", trusted)
            .start();
        let headers = [("X-Forwarded-For", "203.0.113.5, 198.51.100.23")];
        let codes = server.send("POST", "/device/code", &headers, b"").json();
        let url = codes["verification_uri_complete"]
            .as_str()
            .expect("an address");
        let html = Browser::new().open(url).html();
        assert!(html.contains(shown), "{trusted}: {html}");
        assert!(!html.contains("203.0.113.5"), "{trusted}: {html}");
        assert_eq!(
            html.contains("198.51.100.23"),
            shown == "198.51.100.23",
            "{trusted}: {html}"
        );
    }
}

#[test]
fn code_in_the_link_is_normalized() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let code = login.user_code();
    let bare = code.replace('-', "").to_lowercase();
    for typed in [
        bare.clone(),
        code.replace('-', "%20"),
        code.replace('-', "%E2%80%93"),
        format!("+{bare}+"),
    ] {
        let page = Browser::new().open(&format!(
            "{}/device/verify?user_code={typed}",
            server.public_url
        ));
        expect::page(&page.answer, 200);
        assert_eq!(value_of_code_field(&page), code, "{typed}");
        assert_eq!(page.form().buttons.len(), 2, "{typed} names a live login");
    }
}

#[test]
fn code_without_a_pending_login_only_fills_the_field() {
    let server = TestServer::setup(Store::Embedded).start();
    let url = format!("{}/device/verify", server.public_url);
    let page = Browser::new().open(&format!("{url}?user_code=wdjbmjht"));
    expect::page(&page.answer, 200);
    assert_eq!(value_of_code_field(&page), "WDJB-MJHT");
    assert_eq!(page.form().buttons.len(), 1);
}

#[test]
fn hostile_values_are_escaped() {
    let server = TestServer::setup(Store::Embedded).start();
    for value in [
        "%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "'%20onfocus=alert(1)%20x='",
        "%00",
        "%ff",
        "%ZZ",
        "%",
        "%E2%80%AE",
        "{typed}",
        "a%0d%0aSet-Cookie:%20x=y",
    ] {
        for parameter in ["user_code", "code"] {
            let answer = server.page(&format!("/device/verify?{parameter}={value}"));
            expect::page(&answer, 200);
            let html = answer.text().to_lowercase();
            assert!(
                !html.contains("<script") && !html.contains("\u{0}"),
                "{html}"
            );
            assert!(
                !html.contains("\"'") || !html.contains(" onfocus=alert"),
                "{html}"
            );
            let cookies = answer.headers_named("set-cookie");
            assert!(
                cookies.len() == 1 && !cookies[0].contains("x=y"),
                "{cookies:?}"
            );
        }
    }
    let long = "B".repeat(7_000);
    let answer = server.page(&format!("/device/verify?user_code={long}"));
    expect::page(&answer, 200);
    assert!(
        !answer.text().contains(&long[..100]),
        "the page repeats the long value"
    );
}

/// The form's POST needs its `Origin`, which `no-referrer` would turn into `null`. The other pages send no referrer.
#[test]
fn pages_set_their_referrer_policy() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let form = browser.open(&format!("{}/device/verify", server.public_url));
    let live = browser.open(login.link());
    let wrong = browser.submit(&form, &[("user_code", "WDJB-MJHT")]);
    let unknown = browser.open(&format!("{}/device/callback", server.public_url));
    let signed_in = login.approve(&mut browser, "ada");
    let root = browser.open(&server.public_url);
    for (page, policy) in [
        (form, "same-origin"),
        (live, "same-origin"),
        (wrong, "same-origin"),
        (unknown, "no-referrer"),
        (signed_in, "no-referrer"),
        (root, "no-referrer"),
    ] {
        assert_eq!(
            page.answer.headers_named("referrer-policy"),
            [policy],
            "{page:?}"
        );
    }
}

/// The page works without scripts and without other files.
#[test]
fn pages_load_nothing() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    for target in [
        "/device/verify".to_owned(),
        format!("/device/verify?user_code={}", login.user_code()),
    ] {
        let html = server.get(&target).text();
        for loader in [
            "src=\"http",
            "<iframe",
            "<object",
            "@import",
            "url(http",
            "src=\"//",
        ] {
            assert!(!html.contains(loader), "{loader}: {html}");
        }
        assert!(
            html.contains("lang=") && html.contains("viewport") && html.contains("<title>"),
            "{html}"
        );
    }
}

#[test]
fn device_code_is_on_no_page() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let secret = login.device_code().to_owned();
    let page = browser.open(login.link());
    let redirect = login.consent(&mut browser, "ada");
    let end = browser.follow(&redirect);
    for page in [page, redirect, end] {
        assert!(!format!("{page:?}{}", page.html()).contains(&secret));
    }
    assert!(
        postiz
            .requests()
            .iter()
            .all(|r| !format!("{r:?}{}", r.text()).contains(&secret))
    );
    let answer = server.post_json("/device/token", &json!({"device_code": secret}));
    expect::json(&answer, 200);
}

/// Any client chooses its user agent, which could be a message to the user.
#[test]
fn free_text_in_the_user_agent_is_not_shown() {
    let server = TestServer::setup(Store::Embedded).start();
    for agent in [
        "Your account is locked. Call 555-0100 now",
        "postiz/1.0 (open evil.example and enter the code there)",
        "<b>x</b>/1",
    ] {
        let codes = server.send("POST", "/device/code", &[("User-Agent", agent)], b"");
        let link = codes.json()["verification_uri_complete"]
            .as_str()
            .expect("a link")
            .to_owned();
        let html = Browser::new().open(&link).html();
        assert!(html.contains("127.0.0.1"), "the rest is shown: {html}");
        for word in ["locked", "evil", "calls itself"] {
            assert!(!html.contains(word), "{agent}: {html}");
        }
    }
    // The field is filled only with what can be a code.
    let page = Browser::new().open(&format!(
        "{}/device/verify?user_code=call+555-0100",
        server.public_url
    ));
    assert_eq!(value_of_code_field(&page), "");
}

/// A request for an image or by a script of another page does not look up the code.
#[test]
fn only_navigation_looks_a_code_up() {
    let server = TestServer::setup(Store::Embedded).start();
    let login = Login::start(&server);
    let target = format!("/device/verify?user_code={}", login.user_code());
    for (headers, shown) in [
        (
            &[("Sec-Fetch-Dest", "document"), ("Accept", "*/*")][..],
            true,
        ),
        (&[("Accept", "text/html,*/*;q=0.8")], true),
        (
            &[("Sec-Fetch-Dest", "image"), ("Accept", "text/html")],
            false,
        ),
        (&[("Sec-Fetch-Dest", "empty")], false),
        (&[("Sec-Fetch-Dest", "iframe")], false),
        (&[("Accept", "image/avif,image/webp,*/*;q=0.8")], false),
        (&[("Accept", "*/*")], false),
    ] {
        let answer = server.send("GET", &target, headers, b"");
        expect::page(&answer, 200);
        assert_eq!(
            answer.text().contains("value=\"deny\""),
            shown,
            "{headers:?}"
        );
    }
}
