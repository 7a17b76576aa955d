//! A server without an OAuth app: each login registers a client of its own at Postiz when the user confirms it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_postiz::http::form_field;
use crate::fake_postiz::{
    CLIENT_ID, CLIENT_SECRET, Delivery, FakePostiz, Fault, Gate, Registration, Response,
};
use crate::support::server::ServerSetup;
use crate::support::{
    Answer, Browser, Cluster, Login, Page, Store, TestServer, VerifyForm, at_once, eventually,
    expect,
};

/// The public host of the server or its instances. Nothing listens there: browsers of the tests route it.
const HOST: &str = "localhost:7";
const SECRET: &str = "a secret that instances share";

fn setup(store: Store, postiz: &FakePostiz) -> ServerSetup {
    TestServer::setup(store)
        .postiz(postiz)
        .without("POSTIZ_OAUTH_CLIENT_ID")
        .without("POSTIZ_OAUTH_CLIENT_SECRET")
        .var("SERVER_SECRET", SECRET)
        .var("SERVER_URL", &format!("http://{HOST}"))
}

/// Starts one instance on the embedded store, or three on PostgreSQL.
fn instances(store: Store, postiz: &FakePostiz) -> Vec<TestServer> {
    let setup = setup(store, postiz);
    let count = if store == Store::Embedded { 1 } else { 3 };
    (0..count).map(|_| setup.start()).collect()
}

/// The instance that takes this step.
fn instance(servers: &[TestServer], step: usize) -> &TestServer {
    &servers[step % servers.len()]
}

fn browser_at(server: &TestServer) -> Browser {
    let mut browser = Browser::new();
    browser.route(HOST, server.address);
    browser
}

fn start_on(server: &TestServer, machine: &str) -> Login {
    let answer = server.post_json("/device/code", &json!({ "machine": machine }));
    expect::json(&answer, 200);
    Login::of(&answer)
}

/// Opens the confirm page and presses "Continue". Returns the answer.
fn try_to_confirm(browser: &mut Browser, login: &Login) -> Page {
    let page = browser.open(login.link());
    expect::page(&page.answer, 200);
    browser.submit(&page, &[])
}

fn registrations(postiz: &FakePostiz) -> Vec<Value> {
    let requests = postiz.requests_to("/oauth/register");
    requests.iter().map(|request| request.json()).collect()
}

fn query(url: &str, name: &str) -> String {
    let (_, query) = url.split_once('?').expect("a query");
    form_field(query, name).unwrap_or_default()
}

fn client_of(confirmed: &Answer) -> String {
    assert_eq!(confirmed.status, 302, "{}", confirmed.text());
    query(
        confirmed.header("location").expect("a redirect"),
        "client_id",
    )
}

/// The token that the login ends with.
#[track_caller]
fn token(login: &Login, server: &TestServer, postiz: &FakePostiz) -> String {
    let answer = login.outcome(server);
    expect::json(&answer, 200);
    let token = answer.json()["access_token"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(postiz.accepts(&token), "{token}");
    token
}

#[track_caller]
fn assert_logs_in(server: &TestServer, login: &Login, postiz: &FakePostiz) {
    expect::page(&login.approve(&mut browser_at(server), "ada").answer, 200);
    token(login, server, postiz);
}

on_each_store!(
    unreachable_postiz_is_reported,
    each_machine_has_a_client_and_a_token_of_its_own,
    client_is_registered_only_on_confirmation,
    confirming_again_uses_the_same_client,
    racing_confirmations_agree_on_one_client,
    two_approved_tabs_yield_one_valid_token,
    failed_registration_leaves_the_login_open,
    refusals_of_registration_are_explained,
    code_of_a_self_hosted_instance_is_refused,
    machine_name_is_used_only_if_it_looks_like_one,
    verifier_is_sealed,
    new_secret_registers_a_new_client,
    logins_in_flight_survive_the_setup_of_an_app,
);

/// Another instance takes each step. Two machines log in, whose tokens are valid at the same time and revoked by name.
fn each_machine_has_a_client_and_a_token_of_its_own(store: Store) {
    let postiz = FakePostiz::start();
    let servers = instances(store, &postiz);
    let mut tokens = Vec::new();
    for (step, machine) in ["ada-laptop", "ada-desk"].into_iter().enumerate() {
        let login = start_on(instance(&servers, step), machine);
        assert_eq!(
            registrations(&postiz).len(),
            step,
            "nothing is registered before a confirmation"
        );
        let mut browser = browser_at(instance(&servers, step + 1));
        let consent = login.consent(&mut browser, "ada");
        browser.route(HOST, instance(&servers, step + 2).address);
        let page = browser.follow(&consent);
        expect::page(&page.answer, 200);
        tokens.push(token(&login, instance(&servers, step), &postiz));
        expect::page(&browser.follow(&consent).answer, 200);

        let callback = format!("http://{HOST}/device/callback");
        assert_eq!(
            registrations(&postiz)[step..],
            [json!({
                "redirect_uris": [callback], "client_name": format!("Postiz CLI on {machine}"),
                "token_endpoint_auth_method": "none",
            })]
        );
        let client = &postiz.registered_clients()[step];
        let exchanges = postiz.requests_to("/oauth/token");
        let exchange = exchanges[step].json();
        let verifier = exchange["code_verifier"].as_str().expect("a verifier");
        let code = query(&consent.location(), "code");
        let body = json!({
            "grant_type": "authorization_code", "code": code, "client_id": client,
            "code_verifier": verifier, "redirect_uri": callback,
        });
        assert_eq!((exchanges.len(), exchange.clone()), (step + 1, body));
        assert!((43..=128).contains(&verifier.len()), "{verifier}");
    }
    assert!(
        tokens.iter().all(|token| postiz.accepts(token)),
        "{store:?}"
    );
    let names = ["Postiz CLI on ada-desk", "Postiz CLI on ada-laptop"];
    assert_eq!(postiz.approved_apps("ada"), names);
    let mut browser = Browser::new();
    let page = browser.open(&format!("{}/auth", postiz.url()));
    browser.submit(&page, &[("person", "ada")]);
    let apps = browser.open(&format!("{}/settings/approved-apps", postiz.url()));
    browser.press(&apps, "client_id", &postiz.registered_clients()[0]);
    assert!(!postiz.accepts(&tokens[0]) && postiz.accepts(&tokens[1]));
}

#[test]
fn authorize_url_has_the_clients_callback_and_challenge() {
    let postiz = FakePostiz::start();
    let server = setup(Store::Embedded, &postiz).start();
    let login = Login::start(&server);
    let confirmed = try_to_confirm(&mut browser_at(&server), &login);
    let url = confirmed.location();
    let (before, return_url) = url.split_once("&returnUrl=").expect("a returnUrl");
    assert_eq!(
        before,
        percent_encoding::percent_decode_str(return_url).decode_utf8_lossy()
    );
    assert!(
        before.starts_with(&format!("{}/oauth/authorize?client_id=pcd_", postiz.url())),
        "{url}"
    );
    for (name, value) in [
        ("response_type", "code"),
        ("redirect_uri", &*format!("http://{HOST}/device/callback")),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(query(before, name), value, "{url}");
    }
    assert_eq!(
        (
            query(before, "code_challenge").len(),
            query(before, "state").len()
        ),
        (43, 64)
    );
    assert_eq!(
        registrations(&postiz)[0]["client_name"],
        "Postiz CLI",
        "no machine was named"
    );
    let page = browser_at(&server).open(&format!(
        "http://{HOST}/device/verify?user_code={}",
        login.user_code()
    ));
    assert!(
        !page.html().contains("ends an earlier login"),
        "{}",
        page.html()
    );
}

/// Starting a login, opening its link, typing the code without a cookie, guessing and refusing register nothing.
fn client_is_registered_only_on_confirmation(store: Store) {
    let postiz = FakePostiz::start();
    let server = setup(store, &postiz).start();
    let login = Login::start(&server);
    let target = format!("/device/verify?user_code={}", login.user_code());
    expect::page(&server.page(&target), 200);
    let typed = format!("user_code={}&action=continue", login.user_code());
    expect::page(&server.post_form("/device/verify", &typed), 200);
    let form = VerifyForm::open(&server);
    let others = [("Origin", "https://evil.example")];
    expect::page(&form.send(&server, &typed, &others), 403);
    expect::page(&form.confirm(&server, "BCDF-GHJK"), 400);
    login.poll(&server);
    let refuse = format!("user_code={}&action=deny", login.user_code());
    expect::page(&form.send(&server, &refuse, &[]), 200);
    expect::page(&form.confirm(&server, login.user_code()), 400);
    assert!(registrations(&postiz).is_empty(), "{store:?}");
}

/// The login has one client, also after a second click, in a second tab or in another browser.
fn confirming_again_uses_the_same_client(store: Store) {
    let postiz = FakePostiz::start();
    let servers = instances(store, &postiz);
    let login = Login::start(&servers[0]);
    let form = VerifyForm::open(&servers[0]);
    let confirm = |step| {
        let answer = form.confirm(instance(&servers, step), login.user_code());
        answer.header("location").expect("a redirect").to_owned()
    };
    assert_eq!(confirm(0), confirm(1));
    assert_eq!(confirm(1), confirm(2));
    let other = VerifyForm::open(&servers[0]).confirm(&servers[0], login.user_code());
    assert_eq!(client_of(&other), query(&confirm(0), "client_id"));
    assert_eq!(postiz.registered_clients().len(), 1, "{store:?}");
    assert_logs_in(instance(&servers, 1), &login, &postiz);
    assert_eq!(postiz.registered_clients().len(), 1, "{store:?}");
}

/// All confirmations register before Postiz answers the first one. One client is stored, and the others use it.
fn racing_confirmations_agree_on_one_client(store: Store) {
    let postiz = FakePostiz::start();
    let servers = instances(store, &postiz);
    let login = Login::start(&servers[0]);
    let gate = Gate::default();
    postiz.misbehave(
        "/oauth/register",
        Fault::Deliver(Delivery::Held(gate.clone())),
    );
    let form = VerifyForm::open(&servers[0]);
    let clients = at_once(7, |turn| {
        if turn == 6 {
            eventually("all have sent a registration", || {
                registrations(&postiz).len() == 6
            });
            gate.open();
            return None;
        }
        let answer = form.confirm(instance(&servers, turn), login.user_code());
        Some(client_of(&answer))
    });
    let clients: HashSet<String> = clients.into_iter().flatten().collect();
    assert_eq!(clients.len(), 1, "{store:?}");
    postiz.behave();
    assert_logs_in(instance(&servers, 1), &login, &postiz);
    assert_eq!(registrations(&postiz).len(), 6);
}

/// Two tabs of one browser consent one after the other. The second one's token is delivered.
fn two_approved_tabs_yield_one_valid_token(store: Store) {
    let postiz = FakePostiz::start();
    let servers = instances(store, &postiz);
    let login = Login::start(&servers[0]);
    let mut browser = browser_at(&servers[0]);
    let tabs = [0, 1].map(|_| login.reach_consent(&mut browser, "ada"));
    for (step, tab) in tabs.iter().enumerate() {
        let back = browser.press(tab, "action", "approve");
        browser.route(HOST, instance(&servers, step + 1).address);
        expect::page(&browser.follow(&back).answer, 200);
    }
    token(&login, &servers[0], &postiz);
    assert_eq!(postiz.registered_clients().len(), 1);
}

/// After each kind of failure, page and log explain it, and the login can be confirmed later.
fn failed_registration_leaves_the_login_open(store: Store) {
    const WORDS: &str = "UPSTREAM-SAID-THIS";
    let answer = |status, body: Value| Fault::Answer(Response::json(status, &body));
    let html = |status, body: &str| Fault::Answer(Response::html(status, body));
    let unregistered = "does not let it register logins";
    let unreachable = "could not be reached";
    let misdirected = "does not reach the Postiz of";
    let postiz = FakePostiz::start();
    let servers = instances(store, &postiz);
    for (step, (what, fault, page)) in [
        (
            "a callback that is refused",
            answer(
                400,
                json!({"error": "invalid_redirect_uri", "error_description": WORDS}),
            ),
            unregistered,
        ),
        (
            "400 of validation",
            answer(
                400,
                json!({"statusCode": 400, "message": [WORDS], "error": "Bad Request"}),
            ),
            unregistered,
        ),
        (
            "an older Postiz",
            answer(
                404,
                json!({"message": "Cannot POST /oauth/register", "error": WORDS}),
            ),
            unregistered,
        ),
        (
            "500",
            answer(500, json!({"statusCode": 500, "message": WORDS})),
            unreachable,
        ),
        ("502 with a page", html(502, WORDS), unreachable),
        ("429", answer(429, json!({"message": WORDS})), unreachable),
        (
            "a redirect",
            Fault::Answer(Response::redirect(307, "/auth")),
            misdirected,
        ),
        ("a page as success", html(201, WORDS), unreachable),
        (
            "no client_id",
            answer(201, json!({"note": WORDS})),
            unreachable,
        ),
        (
            "a number for a client_id",
            answer(201, json!({"client_id": 7, "note": WORDS})),
            unreachable,
        ),
        (
            "an empty client_id",
            answer(201, json!({"client_id": "", "note": WORDS})),
            unreachable,
        ),
        (
            "two lines for a client_id",
            answer(201, json!({"client_id": "a\nb", "note": WORDS})),
            unreachable,
        ),
        (
            "a client_id of 5 kB",
            answer(201, json!({"client_id": "x".repeat(5_000)})),
            unreachable,
        ),
        (
            "over 64 KiB",
            answer(
                201,
                json!({"client_id": "pcd_1", "padding": "x".repeat(70_000)}),
            ),
            unreachable,
        ),
        ("cut", Fault::Deliver(Delivery::Cut), unreachable),
        ("cut short", Fault::Deliver(Delivery::CutShort), unreachable),
    ]
    .into_iter()
    .enumerate()
    {
        let server = instance(&servers, step);
        let login = Login::start(server);
        postiz.misbehave("/oauth/register", fault);
        let failed = try_to_confirm(&mut browser_at(server), &login);
        expect::page(&failed.answer, 502);
        let text = failed.html();
        assert!(
            text.contains(page) && !text.contains(WORDS),
            "{what}: {text}"
        );
        expect::error(&login.poll(server), 400, "authorization_pending");
        let log = server.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("registration failed"));
        assert!(
            line.is_some_and(|line| line.contains("/oauth/register")),
            "{what}: {log}"
        );
        postiz.behave();
        let confirmed = try_to_confirm(&mut browser_at(server), &login);
        assert!(client_of(&confirmed.answer).starts_with("pcd_"), "{what}");
        let server = instance(&servers, step + 1);
        expect::error(&login.poll(server), 400, "authorization_pending");
        drop(Login::start(server));
    }
    let login = Login::start(&servers[0]);
    assert_logs_in(&servers[0], &login, &postiz);
}

fn refusals_of_registration_are_explained(store: Store) {
    let postiz = FakePostiz::start();
    let server = setup(store, &postiz).start();
    let login = Login::start(&server);
    for registration in [
        Registration::TooOld,
        Registration::VerifiedDomainsAlone(vec!["postiz.com".to_owned()]),
    ] {
        postiz.set_registration(registration);
        let failed = try_to_confirm(&mut browser_at(&server), &login);
        expect::page(&failed.answer, 502);
        assert!(
            failed.html().contains("does not let it register"),
            "{}",
            failed.html()
        );
        let log = server.log();
        assert!(
            log.contains("needs an OAuth app (POSTIZ_OAUTH_CLIENT_ID)"),
            "{log}"
        );
    }
    postiz.set_registration(Registration::Open);
    assert_logs_in(&server, &login, &postiz);
}

#[test]
fn slow_postiz_is_waited_for() {
    let postiz = FakePostiz::start();
    let setup =
        setup(Store::Postgres, &postiz).time(|times| times.handler = Duration::from_secs(2));
    let servers = [setup.start(), setup.start(), setup.start()];
    let login = Login::start(&servers[0]);
    // Longer than the timeout of routes that send nothing to Postiz.
    let late = Delivery::Late(Duration::from_millis(2_500));
    postiz.misbehave("/oauth/register", Fault::Deliver(late));
    let form = VerifyForm::open(&servers[0]);
    let clients = at_once(3, |turn| {
        client_of(&form.confirm(&servers[turn], login.user_code()))
    });
    assert!(
        clients.iter().all(|client| *client == clients[0]),
        "{clients:?}"
    );
}

/// Postiz is silent or unreachable. The page says so, and other requests are served meanwhile.
fn unreachable_postiz_is_reported(store: Store) {
    let postiz = FakePostiz::start();
    let server = setup(store, &postiz)
        .time(|times| times.postiz = Duration::from_secs(2))
        .start();
    postiz.misbehave("/oauth/register", Fault::Deliver(Delivery::Hang));
    let login = Login::start(&server);
    let failed = at_once(2, |turn| {
        if turn == 0 {
            return Some(try_to_confirm(&mut browser_at(&server), &login));
        }
        eventually("Postiz is asked", || !registrations(&postiz).is_empty());
        expect::error(&login.poll(&server), 400, "authorization_pending");
        expect::json(&server.post_json("/device/code", &json!({})), 200);
        None
    });
    let failed = failed[0].as_ref().expect("a page");
    expect::page(&failed.answer, 504);
    assert!(
        failed.html().contains("could not be reached"),
        "{}",
        failed.html()
    );
    postiz.behave();
    assert_logs_in(&server, &login, &postiz);

    let unreachable = setup(store, &postiz)
        .var("POSTIZ_API_URL", "http://127.0.0.1:1")
        .start();
    let login = Login::start(&unreachable);
    expect::page(
        &try_to_confirm(&mut browser_at(&unreachable), &login).answer,
        502,
    );
    expect::error(&login.poll(&unreachable), 400, "authorization_pending");
}

/// Postiz' cloud can issue codes (`psc_`) and tokens (`psh_`) of a self-hosted instance.
fn code_of_a_self_hosted_instance_is_refused(store: Store) {
    let postiz = FakePostiz::start();
    postiz.offer_relay();
    let server = setup(store, &postiz).start();
    let login = Login::start(&server);
    let mut browser = browser_at(&server);
    let consent = login.reach_consent(&mut browser, "ada");
    let back = browser.press(&consent, "action", "self-hosted");
    let relayed = |page: &Page| {
        expect::page(&page.answer, 502);
        let html = page.html();
        assert!(
            html.contains("works for MCP alone") && html.contains("/device/verify"),
            "{html}"
        );
        expect::error(&login.poll(&server), 400, "authorization_pending");
    };
    relayed(&browser.follow(&back));
    assert!(postiz.requests_to("/oauth/token").is_empty());
    let token = json!({"access_token": "psh_0", "token_type": "bearer"});
    postiz.misbehave("/oauth/token", Fault::Answer(Response::json(201, &token)));
    relayed(&login.approve(&mut browser, "ada"));
    assert!(!server.log().contains("psh_0"));
    postiz.behave();
    assert_logs_in(&server, &login, &postiz);
}

/// Clients choose the machine's name, in either kind of body. It is used only if it looks like a name.
fn machine_name_is_used_only_if_it_looks_like_one(store: Store) {
    let bodies = [
        (json!("ada-laptop"), "ada-laptop"),
        (json!("Ada_s MacBook.local"), "Ada_s MacBook"),
        (json!("<b onclick=alert(1)>\"'&"), ""),
        (json!("a\u{1b}[31m\r\nSet-Cookie: x"), ""),
        (json!("gnp.\u{202e}exe"), "gnp"),
        (json!("\u{202e}gnp"), ""),
        (json!("\u{0}"), ""),
        (json!("Your account is locked call 555-0100"), ""),
        (json!("x".repeat(5_000)), ""),
        (json!("büro"), ""),
        (json!(""), ""),
        (json!(null), ""),
        (json!(7), ""),
        (json!(["ada"]), ""),
        (json!({"a": "b"}), ""),
    ];
    let postiz = FakePostiz::start();
    let server = setup(store, &postiz).start();
    for (machine, shown) in &bodies {
        let mut starts = vec![server.post_json("/device/code", &json!({ "machine": machine }))];
        if let Some(text) = machine.as_str().filter(|text| !text.contains('\0')) {
            let encoded =
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            starts.push(server.post_form("/device/code", &format!("machine={encoded}")));
        }
        for start in starts {
            expect::json(&start, 200);
            let login = Login {
                start: start.json(),
            };
            let page = server.page(&format!("/device/verify?user_code={}", login.user_code()));
            expect::page(&page, 200);
            let row = format!("<dt>Machine</dt><dd>calls itself {shown}</dd>");
            let html = page.text();
            assert_eq!(html.contains(&row), !shown.is_empty(), "{machine}: {html}");
            assert_eq!(
                html.contains("Machine"),
                !shown.is_empty(),
                "{machine}: {html}"
            );
            client_of(&try_to_confirm(&mut browser_at(&server), &login).answer);
            let name = registrations(&postiz).pop().expect("a registration")["client_name"].clone();
            let expected = format!("Postiz CLI on {shown}");
            assert_eq!(
                name,
                expected.strip_suffix(" on ").unwrap_or(&expected),
                "{machine}"
            );
        }
    }
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// Clients of one network can cause at most as many registrations as they may start logins, however often they confirm, and
/// whether or not Postiz succeeds.
#[test]
fn registrations_are_limited_like_login_starts() {
    const PER_ADDRESS: usize = 3;
    let postiz = FakePostiz::start();
    let server = setup(Store::Embedded, &postiz)
        .var("LIMIT_LOGINS_PER_MINUTE", &PER_ADDRESS.to_string())
        .start();
    let login = Login::start(&server);
    let crash = Response::json(500, &json!({"statusCode": 500}));
    postiz.misbehave("/oauth/register", Fault::Answer(crash));
    let confirm_from = |form: &VerifyForm, address: &str| {
        let fields = format!("action=continue&user_code={}", login.user_code());
        form.send(&server, &fields, &[("X-Forwarded-For", address)])
    };
    // From one address, from all addresses of an IPv4 network, from one IPv6 network.
    for (address, allowed) in [
        (
            &(|_: usize| "203.0.113.1".to_owned()) as &(dyn Fn(usize) -> String + Sync),
            PER_ADDRESS,
        ),
        (&|i| format!("198.51.100.{i}"), PER_ADDRESS * 8),
        (&|i| format!("2001:db8::{i:x}"), PER_ADDRESS),
    ] {
        let before = registrations(&postiz).len();
        let statuses = at_once(8, |thread| {
            let form = VerifyForm::open(&server);
            let confirm = |i| confirm_from(&form, &address(thread * 10 + i)).status;
            (0..10).map(confirm).collect::<Vec<_>>()
        });
        let statuses = statuses.concat();
        let count = |status| statuses.iter().filter(|s| **s == status).count();
        assert_eq!(count(502) + count(429), 80, "{statuses:?}");
        let asked = registrations(&postiz).len() - before;
        // Those that were admitted at the same moment, and what is refilled meanwhile.
        assert!(
            (allowed..allowed + 8).contains(&asked),
            "{asked} of {allowed}"
        );
    }
    let page = confirm_from(&VerifyForm::open(&server), "203.0.113.1");
    expect::page(&page, 429);
    expect::retry_after(&page);
    // Other clients are served, and the logins stay open.
    postiz.behave();
    let form = VerifyForm::open(&server);
    client_of(&confirm_from(&form, "192.0.2.1"));
    client_of(&confirm_from(&form, "203.0.113.1"));
    assert_eq!(postiz.registered_clients().len(), 1);
}

/// The store has the client's id but not its verifier in clear, and neither does the log.
fn verifier_is_sealed(store: Store) {
    let (postiz, database) = (FakePostiz::start(), Cluster::shared().database());
    let setup = match store {
        Store::Embedded => setup(store, &postiz),
        Store::Postgres => setup(Store::Embedded, &postiz).database(&database),
    };
    let server = setup.start();
    let login = start_on(&server, "ada-laptop");
    let mut browser = browser_at(&server);
    let consent = login.consent(&mut browser, "ada");
    let stored = || match store {
        Store::Embedded => fs::read(setup.data_dir().join("postiz-auth.redb")).unwrap(),
        Store::Postgres => database.dump().into_bytes(),
    };
    let before = stored();
    expect::page(&browser.follow(&consent).answer, 200);
    let exchange = postiz.requests_to("/oauth/token")[0].json();
    let text = |name: &str| exchange[name].as_str().expect("a text").to_owned();
    for bytes in [before, stored(), server.log().into_bytes()] {
        let has = |needle: &str| bytes.windows(needle.len()).any(|w| w == needle.as_bytes());
        assert!(has(&text("client_id")), "{store:?}");
        assert!(!has(&text("code_verifier")) && !has(SECRET), "{store:?}");
    }
}

/// With another secret, the stored client of a login in flight cannot be decrypted, so the next confirmation registers a new one.
fn new_secret_registers_a_new_client(store: Store) {
    let postiz = FakePostiz::start();
    let setup = setup(store, &postiz);
    let server = setup.start();
    let login = Login::start(&server);
    client_of(&try_to_confirm(&mut browser_at(&server), &login).answer);
    drop(server);
    let server = setup
        .var("SERVER_SECRET", "a secret that is another")
        .start();
    assert_logs_in(&server, &login, &postiz);
    assert_eq!(postiz.registered_clients().len(), 2);
}

/// When an app is set up, logins in flight that have a client keep it, and others use the app. The reverse holds when it is
/// removed.
fn logins_in_flight_survive_the_setup_of_an_app(store: Store) {
    let postiz = FakePostiz::start();
    postiz.set_callback_url(&format!("http://{HOST}/device/callback"));
    let without = setup(store, &postiz);
    let with = without
        .clone()
        .var("POSTIZ_OAUTH_CLIENT_ID", CLIENT_ID)
        .var("POSTIZ_OAUTH_CLIENT_SECRET", CLIENT_SECRET);
    let server = without.start();
    let registered = Login::start(&server);
    let mut browser = browser_at(&server);
    let consent = registered.consent(&mut browser, "ada");
    drop(server);
    let server = with.start();
    browser.route(HOST, server.address);
    expect::page(&browser.follow(&consent).answer, 200);
    token(&registered, &server, &postiz);
    let by_app = Login::start(&server);
    let consent = by_app.consent(&mut browser, "ada");
    let waiting = Login::start(&server);
    drop(server);
    let server = without.start();
    browser.route(HOST, server.address);
    expect::page(&browser.follow(&consent).answer, 502);
    assert_logs_in(&server, &by_app, &postiz);
    assert_logs_in(&server, &waiting, &postiz);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// With the embedded store, the server generates a secret and keeps it in a file, so that it survives a restart.
#[test]
fn embedded_store_generates_its_secret() {
    let postiz = FakePostiz::start();
    let setup = setup(Store::Embedded, &postiz).without("SERVER_SECRET");
    let file = setup.data_dir().join("postiz-auth.redb.secret");
    assert_eq!(setup.run(&["--check"]).status.code(), Some(0));
    assert!(!file.exists(), "a check makes no file");
    let server = setup.start();
    let secret = fs::read_to_string(&file).unwrap();
    assert_eq!(secret.len(), 64);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let login = Login::start(&server);
    expect::page(&login.approve(&mut browser_at(&server), "ada").answer, 200);
    drop(server);
    let server = setup.start();
    token(&login, &server, &postiz);
    assert!(!server.log().contains(&secret));
    drop(server);
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);

    // A crash while the file is made.
    fs::remove_file(&file).unwrap();
    fs::write(file.with_extension("secret.new"), "x".repeat(100)).unwrap();
    drop(setup.start());
    assert_eq!(fs::read_to_string(&file).unwrap().len(), 64);
    // The file was emptied.
    fs::write(&file, "\n").unwrap();
    let refused = setup.run(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("postiz-auth.redb.secret: it is too short"),
        "{said}"
    );
    // With SERVER_SECRET no file is made.
    let setup = setup.var("SERVER_SECRET", SECRET);
    fs::remove_file(&file).unwrap();
    drop(setup.start());
    assert!(!file.exists());
}

/// The server does not start if Postiz cannot register its callback, or if its instances would not share a key.
#[test]
fn server_that_cannot_register_does_not_start() {
    let postiz = FakePostiz::start();
    let own = setup(Store::Embedded, &postiz);
    let cloud = own
        .clone()
        .without("POSTIZ_API_URL")
        .without("POSTIZ_FRONTEND_URL");
    for (setup, words) in [
        (
            cloud.var("SERVER_URL", "https://auth.example.com"),
            ["POSTIZ_OAUTH_CLIENT_ID is not set", "api.postiz.com"],
        ),
        (
            own.clone().var("SERVER_URL", "http://auth.example.com"),
            ["SERVER_URL", "plain http"],
        ),
        (
            own.clone().var("POSTIZ_OAUTH_CLIENT_ID", CLIENT_ID),
            ["POSTIZ_OAUTH_CLIENT_SECRET is not set", "or set neither"],
        ),
        (
            own.clone().var("POSTIZ_OAUTH_CLIENT_SECRET", CLIENT_SECRET),
            ["POSTIZ_OAUTH_CLIENT_ID is not set", "or set neither"],
        ),
        (
            own.clone().var("SERVER_SECRET", "short"),
            ["SERVER_SECRET", "16 characters"],
        ),
        (
            own.database(&Cluster::shared().database())
                .without("SERVER_SECRET"),
            ["SERVER_SECRET is not set", "all instances"],
        ),
    ] {
        for arguments in [&[][..], &["--check"]] {
            let output = setup.run(arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert!(!said.contains(CLIENT_SECRET), "{said}");
        }
    }
}

#[test]
fn check_tests_registration_without_registering() {
    let postiz = FakePostiz::start();
    let setup = setup(Store::Embedded, &postiz);
    let check = |code: i32, word: &str| {
        let output = setup.run(&["--check"]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "no {word:?} in: {said}");
    };
    check(0, "there is no OAuth app, so each login registers a client");
    check(0, "it registers clients (POST /oauth/register)");
    postiz.set_registration(Registration::TooOld);
    check(2, "too old to register clients");
    check(2, "POSTIZ_OAUTH_CLIENT_ID");
    let domains = vec!["postiz.com".to_owned()];
    postiz.set_registration(Registration::VerifiedDomainsAlone(domains));
    check(
        2,
        &format!("it refuses the callback http://{HOST}/device/callback"),
    );
    postiz.set_registration(Registration::Open);
    for (path, answer, code, word) in [
        ("/oauth/register", Response::html(503, "Away"), 1, "503"),
        (
            "/oauth/register",
            Response::redirect(307, "/auth"),
            1,
            "307",
        ),
        (
            "/oauth/token",
            Response::html(200, "<h1>Welcome</h1>"),
            2,
            "is not the API of a Postiz",
        ),
        ("/oauth/token", Response::html(502, "Bad gateway"), 1, "502"),
    ] {
        postiz.misbehave_times(1, path, Fault::Answer(answer));
        check(code, word);
    }
    assert!(postiz.registered_clients().is_empty());
    for request in postiz.requests_to("/oauth/token") {
        assert!(
            request.json().get("client_secret").is_none(),
            "{}",
            request.text()
        );
    }
}

/// With an app, a new login ends the person's earlier one.
#[test]
fn confirm_page_warns_that_a_login_ends_an_earlier_one() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let login = start_on(&server, "ada-laptop");
    let html = server
        .page(&format!("/device/verify?user_code={}", login.user_code()))
        .text();
    assert!(
        html.contains("Signing in here ends an earlier login"),
        "{html}"
    );
    assert!(html.contains("calls itself ada-laptop"), "{html}");
    assert!(registrations(&postiz).is_empty());
}
