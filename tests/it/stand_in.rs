//! The stand-in for Postiz behaves as Postiz does where it matters: else the other tests prove nothing.

use serde_json::{Value, json};

use crate::fake_postiz::{
    API_KEY, CLIENT_ID, CLIENT_SECRET, Delivery, FakePostiz, Fault, Response,
};
use crate::support::Browser;
use crate::support::browser::target_of;
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
fn a_code_works_once_and_answers_201() {
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
fn credentials_stand_alone_in_their_header() {
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
fn errors_of_the_token_endpoint() {
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
fn a_person_who_is_signed_out_loses_the_consent_page_unless_return_url_names_it() {
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
fn misbehaves_on_command_and_logs() {
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
