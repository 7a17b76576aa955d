//! The fake Postiz behaves as Postiz does in all that the other tests rely on.

use serde_json::{Value, json};

use crate::fake_postiz::{
    API_KEY, CLIENT_ID, CLIENT_SECRET, Delivery, FakePostiz, Fault, Registration, Response,
};
use crate::support::Browser;
use crate::support::browser::{encode_form, target_of};
use crate::support::http::{self, Answer};

fn send(
    postiz: &FakePostiz,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let url = postiz.url();
    let address = url
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let body = body.to_string();
    http::exchange(
        address,
        http::request(method, target, headers, body.as_bytes()),
    )
}

fn exchange(postiz: &FakePostiz, code: &str) -> Answer {
    let body = json!({
        "grant_type": "authorization_code", "code": code,
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    });
    send(postiz, "POST", "/oauth/token", &[], &body)
}

fn channels(postiz: &FakePostiz, authorization: &str) -> Answer {
    let headers = [("Authorization", authorization)];
    send(
        postiz,
        "GET",
        "/public/v1/integrations",
        &headers,
        &Value::Null,
    )
}

#[test]
fn code_works_once_and_answers_201() {
    let postiz = FakePostiz::start();
    let code = postiz.consent("ada");
    let first = exchange(&postiz, &code);
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["id"], "org-ada");
    let second = exchange(&postiz, &code);
    assert_eq!(
        (second.status, second.text().as_str()),
        (400, r#"{"error":"invalid_grant"}"#)
    );
}

#[test]
fn consent_ends_the_same_persons_earlier_token() {
    let postiz = FakePostiz::start();
    let (adas, bobs) = (postiz.token_for("ada"), postiz.token_for("bob"));
    assert_eq!(channels(&postiz, &adas).status, 200);
    postiz.consent("ada");
    let refused = channels(&postiz, &adas);
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (401, r#"{"msg":"Invalid OAuth token"}"#)
    );
    assert_eq!(channels(&postiz, &bobs).status, 200);
}

#[test]
fn authorization_header_takes_the_token_without_a_scheme() {
    let postiz = FakePostiz::start();
    let token = postiz.token_for("ada");
    assert_eq!(channels(&postiz, API_KEY).status, 200);
    let refused = channels(&postiz, &format!("Bearer {token}"));
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (401, r#"{"msg":"Invalid API key"}"#)
    );
}

#[test]
fn token_endpoint_errors_are_those_of_postiz() {
    let postiz = FakePostiz::start();
    let good = json!({
        "grant_type": "authorization_code", "code": "x", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        let answer = send(&postiz, "POST", "/oauth/token", &[], &body);
        (answer.status, answer.error())
    };
    assert_eq!(with("code", json!("y")), (400, "invalid_grant".to_owned()));
    assert_eq!(with("code", Value::Null), (400, "Bad Request".to_owned()));
    assert_eq!(
        with("client_secret", json!("y")),
        (401, "invalid_client".to_owned())
    );
    assert_eq!(
        with("client_id", json!("y")),
        (401, "invalid_client".to_owned())
    );
    assert_eq!(
        with("grant_type", json!("y")),
        (400, "unsupported_grant_type".to_owned())
    );
}

#[test]
fn signed_out_person_returns_to_the_consent_page_only_by_return_url() {
    let postiz = FakePostiz::start();
    let url = postiz.url();
    postiz.set_callback_url("http://127.0.0.1:9/device/callback");
    let consent = format!("{url}/oauth/authorize?client_id={CLIENT_ID}&state=s1");

    let mut browser = Browser::new();
    let page = browser.open(&consent);
    let page = browser.follow(&page);
    let page = browser.submit(&page, &[("person", "ada")]);
    assert_eq!(page.location(), format!("{url}/"));

    let mut browser = Browser::new();
    let encoded = consent.replace('&', "%26");
    let page = browser.open(&format!("{consent}&returnUrl={encoded}"));
    let page = browser.follow(&page);
    let page = browser.submit(&page, &[("person", "ada")]);
    assert_eq!(page.location(), consent);
    let page = browser.follow(&page);
    let page = browser.press(&page, "action", "deny");
    let target = target_of(page.answer.header("location").expect("a redirect"));
    assert_eq!(target, "/device/callback?error=access_denied&state=s1");
}

#[test]
fn stand_in_injects_faults_and_records_requests() {
    let postiz = FakePostiz::start();
    let token = postiz.token_for("ada");
    postiz.misbehave_times(
        1,
        "/public/v1/",
        Fault::Answer(Response::html(502, "<h1>Bad</h1>")),
    );
    assert_eq!(channels(&postiz, &token).status, 502);
    postiz.misbehave_times(1, "/public/v1/", Fault::Deliver(Delivery::CutShort));
    let requests = postiz.requests_to("/public/v1/integrations");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), Some(token.as_str()));
    postiz.behave();
    assert_eq!(channels(&postiz, &token).status, 200);
}

const LOOPBACK: &str = "http://127.0.0.1:4711/callback";
// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn register(postiz: &FakePostiz, body: &Value) -> Answer {
    send(postiz, "POST", "/api/oauth/register", &[], body)
}

/// Registers a public client of this name with [`LOOPBACK`] as its callback. Returns its id.
fn register_public(postiz: &FakePostiz, name: &str) -> String {
    let answer = register(
        postiz,
        &json!({
            "redirect_uris": [LOOPBACK], "client_name": name, "token_endpoint_auth_method": "none",
        }),
    );
    let id = answer.json()["client_id"].as_str().map(str::to_owned);
    id.expect("registration is open")
}

/// The query of a public client's authorization request, with one field replaced.
fn request_of(client_id: &str, name: &str, value: &str) -> String {
    let mut fields = vec![
        ("client_id".to_owned(), client_id.to_owned()),
        ("response_type".to_owned(), "code".to_owned()),
        ("state".to_owned(), "s1".to_owned()),
        ("redirect_uri".to_owned(), LOOPBACK.to_owned()),
        ("code_challenge".to_owned(), CHALLENGE.to_owned()),
        ("code_challenge_method".to_owned(), "S256".to_owned()),
    ];
    fields.retain(|(n, _)| n != name);
    fields.push((name.to_owned(), value.to_owned()));
    encode_form(&fields)
}

/// Signs `person` in, opens the consent page and presses the button of this value. Returns the redirect's target.
fn decide(postiz: &FakePostiz, person: &str, query: &str, action: &str) -> String {
    let mut browser = Browser::new();
    let url = postiz.url();
    let page = browser.open(&format!("{url}/auth"));
    browser.submit(&page, &[("person", person)]);
    let page = browser.open(&format!("{url}/oauth/authorize?{query}"));
    assert_eq!(page.status(), 200, "{}", page.html());
    browser.press(&page, "action", action).location()
}

/// A code for a public client from the consent page.
fn code_for(postiz: &FakePostiz, person: &str, client_id: &str) -> String {
    let query = request_of(client_id, "state", "s1");
    let back = decide(postiz, person, &query, "approve");
    let rest = back
        .strip_prefix(LOOPBACK)
        .and_then(|rest| rest.strip_prefix("?code="));
    let code = rest.and_then(|rest| rest.strip_suffix("&state=s1"));
    code.expect("a code and the state").to_owned()
}

fn exchange_public(postiz: &FakePostiz, client_id: &str, code: &str) -> Answer {
    let body = json!({
        "grant_type": "authorization_code", "code": code, "client_id": client_id,
        "code_verifier": VERIFIER, "redirect_uri": LOOPBACK,
    });
    send(postiz, "POST", "/api/oauth/token", &[], &body)
}

fn token_in(answer: &Answer) -> String {
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("no token: {}", answer.text()))
}

#[test]
fn registration_accepts_loopback_and_https_callbacks() {
    let postiz = FakePostiz::start();
    for uri in [
        "http://localhost:1/x",
        LOOPBACK,
        "http://[::1]:1/",
        "https://auth.example.com/device/callback",
    ] {
        let answer = register(
            &postiz,
            &json!({"redirect_uris": [uri], "client_name": "One"}),
        );
        assert_eq!(answer.status, 201, "{uri}: {}", answer.text());
        let client = answer.json();
        assert!(client["client_id"].as_str().unwrap().starts_with("pcd_"));
        assert!(
            client["client_secret"]
                .as_str()
                .unwrap()
                .starts_with("pcs_")
        );
        assert_eq!(client["redirect_uris"], json!([uri]));
        assert_eq!(client["token_endpoint_auth_method"], "client_secret_post");
    }
    let public = json!({"redirect_uris": [LOOPBACK], "token_endpoint_auth_method": "none"});
    let client = register(&postiz, &public).json();
    assert_eq!(client.get("client_secret"), None);
    assert_eq!(client["client_name"], "MCP Client");
    assert_eq!(postiz.registered_clients().len(), 5);
}

#[test]
fn registration_errors_are_those_of_postiz() {
    let postiz = FakePostiz::start();
    let long = "x".repeat(101);
    let table = [
        (json!({}), "Bad Request"),
        (json!({"redirect_uris": []}), "Bad Request"),
        (json!({"redirect_uris": [1]}), "Bad Request"),
        (
            json!({"redirect_uris": [LOOPBACK], "client_name": long}),
            "Bad Request",
        ),
        (
            json!({"redirect_uris": [LOOPBACK], "token_endpoint_auth_method": "jwt"}),
            "Bad Request",
        ),
        (
            json!({"redirect_uris": ["nonsense"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": ["http://auth.example.com/"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": [LOOPBACK, "http://127.0.0.1.example.com/"]}),
            "invalid_redirect_uri",
        ),
        (
            json!({"redirect_uris": [LOOPBACK], "grant_types": ["implicit"]}),
            "invalid_client_metadata",
        ),
    ];
    for (body, error) in table {
        let answer = register(&postiz, &body);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, error),
            "{body}"
        );
    }
    assert!(postiz.registered_clients().is_empty());
}

#[test]
fn registration_depends_on_version_and_verified_domains() {
    let https = |host: &str| format!("https://{host}/device/callback");
    let domains = || vec!["chat.example".to_owned()];
    let table = [
        (
            Registration::VerifiedDomains(domains()),
            LOOPBACK.to_owned(),
            201,
        ),
        (
            Registration::VerifiedDomains(domains()),
            https("chat.example"),
            201,
        ),
        (
            Registration::VerifiedDomains(domains()),
            https("eu.chat.example"),
            201,
        ),
        (
            Registration::VerifiedDomains(domains()),
            https("badchat.example"),
            400,
        ),
        (
            Registration::VerifiedDomainsAlone(domains()),
            LOOPBACK.to_owned(),
            400,
        ),
        (Registration::TooOld, LOOPBACK.to_owned(), 404),
    ];
    let postiz = FakePostiz::start();
    for (registration, uri, status) in table {
        postiz.set_registration(registration.clone());
        let answer = register(&postiz, &json!({ "redirect_uris": [uri] }));
        assert_eq!(answer.status, status, "{registration:?} {uri}");
        let text = answer.text();
        match status {
            404 => assert!(text.contains("Cannot POST /api/oauth/register"), "{text}"),
            400 => assert!(text.contains("is not a verified domain"), "{text}"),
            _ => {}
        }
    }
}

#[test]
fn registered_clients_need_their_own_callback_and_pkce() {
    let postiz = FakePostiz::start();
    let id = register_public(&postiz, "Postiz CLI on ada-laptop");
    let mut browser = Browser::new();
    let page = browser.open(&format!("{}/auth", postiz.url()));
    browser.submit(&page, &[("person", "ada")]);
    let mut status = |query: &str| {
        let page = browser.open(&format!("{}/oauth/authorize?{query}", postiz.url()));
        (page.status(), page.html())
    };
    let (good, html) = status(&request_of(&id, "state", "s2"));
    assert!(good == 200 && html.contains("Authorize Postiz CLI on ada-laptop?"));
    for (name, value, why) in [
        ("client_id", "pcd_unknown", "Invalid client_id"),
        ("redirect_uri", "", "Invalid redirect_uri"),
        (
            "redirect_uri",
            "http://127.0.0.1:4712/callback",
            "Invalid redirect_uri",
        ),
        (
            "redirect_uri",
            "http://127.0.0.1:4711/callback/",
            "Invalid redirect_uri",
        ),
        (
            "code_challenge",
            "",
            "code_challenge is required for this client",
        ),
        (
            "code_challenge_method",
            "plain",
            "Only the S256 code_challenge_method is supported",
        ),
    ] {
        let (status, html) = status(&request_of(&id, name, value));
        assert!(
            status == 400 && html.contains(why),
            "{name}={value}: {html}"
        );
    }
    postiz.forget_client(&id);
    let (status, html) = status(&request_of(&id, "state", "s2"));
    assert!(status == 400 && html.contains("Invalid client_id"));
}

#[test]
fn codes_of_registered_clients_are_bound_to_their_request() {
    let postiz = FakePostiz::start();
    let id = register_public(&postiz, "One");
    let other = register_public(&postiz, "Two");
    let code = code_for(&postiz, "ada", &id);
    let good = json!({
        "grant_type": "authorization_code", "code": code, "client_id": id,
        "code_verifier": VERIFIER, "redirect_uri": LOOPBACK,
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        let answer = send(&postiz, "POST", "/oauth/token", &[], &body);
        let why = answer.json()["error_description"].clone();
        (
            answer.status,
            answer.error(),
            why.as_str().unwrap_or_default().to_owned(),
        )
    };
    let refused = |why: &str| (400, "invalid_grant".to_owned(), why.to_owned());
    assert_eq!(
        with("code_verifier", Value::Null),
        refused("code_verifier is required")
    );
    assert_eq!(
        with("code_verifier", json!(CHALLENGE)),
        refused("Invalid code_verifier")
    );
    let mismatch = refused("redirect_uri does not match the authorization request");
    assert_eq!(with("redirect_uri", Value::Null), mismatch);
    assert_eq!(
        with("redirect_uri", json!("http://localhost:4711/callback")),
        mismatch
    );
    assert_eq!(with("client_id", json!(other)), refused(""));
    assert_eq!(with("client_id", json!("pcd_unknown")).1, "invalid_client");
    // None of these has used up the code.
    let answer = exchange_public(&postiz, &id, &code);
    assert_eq!(
        (answer.status, answer.json()["id"].as_str()),
        (201, Some("org-ada"))
    );
    assert_eq!(channels(&postiz, &token_in(&answer)).status, 200);
    assert_eq!(
        exchange_public(&postiz, &id, &code).error(),
        "invalid_grant"
    );

    let code = code_for(&postiz, "ada", &id);
    postiz.expire_codes();
    let late = exchange_public(&postiz, &id, &code);
    assert_eq!(late.json()["error_description"], "Code has expired");
}

/// A registered client with a secret must send it, in the body or in the `Authorization` header.
#[test]
fn secrets_of_registered_clients_are_checked() {
    let postiz = FakePostiz::start();
    let callback = "https://auth.example.com/device/callback";
    let client = register(&postiz, &json!({ "redirect_uris": [callback] })).json();
    let id = client["client_id"].as_str().unwrap();
    let secret = client["client_secret"].as_str().unwrap();
    let query = encode_form(&[
        ("client_id".to_owned(), id.to_owned()),
        ("redirect_uri".to_owned(), callback.to_owned()),
    ]);
    let exchange = |body: Value, headers: &[(&str, &str)]| {
        let back = decide(&postiz, "ada", &query, "approve");
        let code = back.rsplit_once("code=").expect("a code").1;
        let mut body = body;
        body["grant_type"] = json!("authorization_code");
        body["code"] = json!(code);
        body["client_id"] = json!(id);
        body["redirect_uri"] = json!(callback);
        send(&postiz, "POST", "/oauth/token", headers, &body).status
    };
    assert_eq!(exchange(json!({}), &[]), 401);
    assert_eq!(exchange(json!({"client_secret": "pcs_wrong"}), &[]), 401);
    assert_eq!(exchange(json!({ "client_secret": secret }), &[]), 201);
    let basic = format!("Basic {}", base64(&format!("{id}:{secret}")));
    assert_eq!(exchange(json!({}), &[("Authorization", &basic)]), 201);
}

#[test]
fn tokens_of_registered_clients_are_independent_and_revoked_by_name() {
    let postiz = FakePostiz::start();
    let names = ["Postiz CLI on ada-desktop", "Postiz CLI on ada-laptop"];
    let ids = names.map(|name| register_public(&postiz, name));
    let tokens = ids.clone().map(|id| {
        let code = code_for(&postiz, "ada", &id);
        token_in(&exchange_public(&postiz, &id, &code))
    });
    let hand_made = postiz.token_for("ada");
    for token in tokens.iter().chain([&hand_made]) {
        assert_eq!(channels(&postiz, token).status, 200);
    }
    assert_eq!(
        postiz.approved_apps("ada"),
        ["Postiz CLI", names[0], names[1]]
    );
    assert!(postiz.approved_apps("bob").is_empty());

    let mut browser = Browser::new();
    let url = postiz.url();
    let page = browser.open(&format!("{url}/auth"));
    browser.submit(&page, &[("person", "ada")]);
    let page = browser.open(&format!("{url}/settings/approved-apps"));
    let page = browser.press(&page, "client_id", &ids[0]);
    browser.settle(page);
    assert!(
        !postiz.accepts(&tokens[0]) && postiz.accepts(&tokens[1]) && postiz.accepts(&hand_made)
    );
}

/// A second login with the same client ends its first one, and no other client's.
#[test]
fn second_consent_for_a_registered_client_revokes_only_its_token() {
    let postiz = FakePostiz::start();
    let id = register_public(&postiz, "One");
    let (code, hand_made) = (code_for(&postiz, "ada", &id), postiz.token_for("ada"));
    let token = token_in(&exchange_public(&postiz, &id, &code));
    code_for(&postiz, "ada", &id);
    assert!(!postiz.accepts(&token) && postiz.accepts(&hand_made));
}

/// The second of two quick approvals of the hand-made app invalidates the first code.
#[test]
fn second_consent_for_the_hand_made_app_replaces_the_first_code() {
    let postiz = FakePostiz::start();
    let (first, second) = (postiz.consent("ada"), postiz.consent("ada"));
    assert_eq!(exchange(&postiz, &first).error(), "invalid_grant");
    assert_eq!(exchange(&postiz, &second).status, 201);
}

#[test]
fn hand_made_app_keeps_its_callback_and_needs_no_pkce() {
    let postiz = FakePostiz::start();
    postiz.set_callback_url("http://127.0.0.1:9/device/callback");
    let query = request_of(CLIENT_ID, "redirect_uri", "http://127.0.0.1:9/elsewhere");
    let back = decide(&postiz, "ada", &query, "approve");
    let rest = back.strip_prefix("http://127.0.0.1:9/device/callback?code=");
    let code = rest.and_then(|rest| rest.strip_suffix("&state=s1"));
    assert_eq!(
        exchange(&postiz, code.expect("the own callback")).status,
        201
    );
}

#[test]
fn connected_self_hosted_instance_gets_a_token_that_the_api_refuses() {
    let postiz = FakePostiz::start();
    let id = register_public(&postiz, "One");
    postiz.offer_relay();
    let back = decide(
        &postiz,
        "ada",
        &request_of(&id, "state", "s1"),
        "self-hosted",
    );
    let code = back.split(['=', '&']).nth(1).expect("a code");
    assert!(code.starts_with("psc_"));
    let answer = exchange_public(&postiz, &id, code);
    assert_eq!((answer.status, answer.json().get("id")), (201, None));
    let token = token_in(&answer);
    assert!(token.starts_with("psh_"));
    assert_eq!(channels(&postiz, &token).status, 401);
    assert!(postiz.approved_apps("ada").is_empty());
}

#[test]
fn denial_of_a_registered_client_redirects_to_its_callback() {
    let postiz = FakePostiz::start();
    let id = register_public(&postiz, "One");
    let back = decide(&postiz, "ada", &request_of(&id, "state", "s 1"), "deny");
    assert_eq!(back, format!("{LOOPBACK}?error=access_denied&state=s%201"));
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = text
        .bytes()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let letter = |six: &[u8]| {
        let value = (0..6).fold(0, |v, at| v << 1 | six.get(at).copied().unwrap_or_default());
        char::from(LETTERS[usize::from(value)])
    };
    bits.chunks(6).map(letter).collect()
}
