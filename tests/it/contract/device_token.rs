//! `POST /device/token`, which the client polls: in RFC 8628's dialect (a form) or in the npm CLI's (JSON).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_postiz::{FakePostiz, Fault, Response};
use crate::support::{Answer, Browser, Cluster, Login, Store, TestServer, expect};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
const UNKNOWN: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

fn post(server: &TestServer, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    let headers = [("Content-Type", content_type)];
    let headers = if content_type.is_empty() {
        &[][..]
    } else {
        &headers
    };
    server.send("POST", "/device/token", headers, body.as_ref())
}

on_each_store!(
    token_is_delivered_in_both_dialects,
    waiting_login_is_pending_in_both_dialects,
    early_poll_gets_a_ready_token,
    unknown_and_redeemed_codes,
);

/// The whole body is compared.
fn token_is_delivered_in_both_dialects(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    for poll in [Login::poll, Login::poll_form] {
        let login = Login::start(&server);
        expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
        let answer = poll(&login, &server);
        expect::json(&answer, 200);
        let token = answer.json()["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let expected = format!(
            "{{\"access_token\":\"{token}\",\"token_type\":\"bearer\",\"api_url\":\"{}\",\
             \"organization_id\":\"org-ada\",\"scope\":\"mcp:read mcp:write\"}}",
            postiz.url()
        );
        assert_eq!(answer.text(), expected);
        assert!(postiz.accepts(&token));
    }
}

#[test]
fn missing_fields_of_postiz_are_null_or_missing() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let setup = setup.var("POSTIZ_PUBLIC_API_URL", "https://public.example/api/");
    let server = setup.start_for(&postiz);
    let bare = Response::json(201, &json!({"access_token": "pos_bare"}));
    postiz.misbehave("/oauth/token", Fault::Answer(bare));
    let login = Login::start(&server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    let expected = "{\"access_token\":\"pos_bare\",\"token_type\":\"bearer\",\
                    \"api_url\":\"https://public.example/api\",\"organization_id\":null}";
    assert_eq!(login.poll(&server).text(), expected);
}

/// Also after the user has confirmed the code.
fn waiting_login_is_pending_in_both_dialects(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let (json, form) = (Login::start(&server), Login::start(&server));
    expect::error(&json.poll(&server), 400, "authorization_pending");
    json.reach_consent(&mut Browser::new(), "ada");
    expect::error(&json.poll(&server), 400, "authorization_pending");
    expect::error(&form.poll_form(&server), 400, "authorization_pending");
}

/// An early poll gets `slow_down` in the dialect that has it. Each one adds 5 s to the interval (RFC 8628 §3.5).
#[test]
fn early_poll_gets_slow_down() {
    let server = TestServer::setup(Store::Embedded).start();
    let (npm, calm, hasty) = (
        Login::start(&server),
        Login::start(&server),
        Login::start(&server),
    );
    for _ in 0..3 {
        expect::error(&npm.poll(&server), 400, "authorization_pending");
    }
    expect::error(&calm.poll_form(&server), 400, "authorization_pending");
    let start = Instant::now();
    expect::error(&hasty.poll_form(&server), 400, "authorization_pending");
    expect::error(&hasty.poll_form(&server), 400, "slow_down");
    // 5 s minus the tolerance of 30 %: late enough for an interval of 5 s, too early for one of 10 s.
    std::thread::sleep(Duration::from_millis(3_600).saturating_sub(start.elapsed()));
    expect::error(&calm.poll_form(&server), 400, "authorization_pending");
    expect::error(&hasty.poll_form(&server), 400, "slow_down");
}

/// `slow_down` is sent only while the login is pending.
fn early_poll_gets_a_ready_token(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let (done, denied) = (Login::start(&server), Login::start(&server));
    done.poll_form(&server);
    done.approve(&mut Browser::new(), "ada");
    expect::json(&done.poll_form(&server), 200);

    denied.poll_form(&server);
    let mut browser = Browser::new();
    let page = browser.open(denied.link());
    browser.press(&page, "action", "deny");
    expect::error(&denied.poll_form(&server), 400, "access_denied");
    expect::error(&denied.poll(&server), 400, "access_denied");
}

/// It is reported for at least 15 minutes after the expiry, also by another instance and after a restart.
#[test]
fn expired_code_is_reported_for_15_minutes() {
    let database = Cluster::shared().database();
    let setup = TestServer::setup(Store::Embedded).database(&database);
    let server = setup.start();
    let login = Login::start(&server);
    let age = |by: &str| {
        let ages = format!("UPDATE device_requests SET expires_at = expires_at - interval '{by}'");
        database.run(&ages);
    };
    age("14 minutes 30 seconds");
    expect::error(&login.poll(&server), 400, "authorization_pending");
    age("40 seconds");
    expect::error(&login.poll(&server), 400, "expired_token");
    expect::error(&login.poll_form(&server), 400, "expired_token");
    age("14 minutes");
    drop(server);
    expect::error(&login.poll(&setup.start()), 400, "expired_token");
}

fn unknown_and_redeemed_codes(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let redeemed = Login::start(&server);
    redeemed.approve(&mut Browser::new(), "ada");
    expect::json(&redeemed.poll(&server), 200);
    expect::error(&redeemed.outcome(&server), 400, "invalid_device_code");
    let upper = redeemed.device_code().to_uppercase();
    for code in [
        redeemed.device_code(),
        UNKNOWN,
        "x",
        "a b",
        "0",
        "' OR 1=1 --",
        upper.as_str(),
    ] {
        let answer = post(&server, JSON, json!({"device_code": code}).to_string());
        expect::error(&answer, 400, "invalid_device_code");
        let encoded = code.replace(' ', "+");
        let answer = post(&server, FORM, format!("{GRANT}&device_code={encoded}"));
        expect::error(&answer, 400, "invalid_grant");
    }
}

/// `Content-Type` determines the dialect. Without one, the first non-blank byte of the body does.
#[test]
fn dialect_follows_content_type_or_body() {
    let server = TestServer::setup(Store::Embedded).start();
    let json = json!({"device_code": UNKNOWN}).to_string();
    let form = format!("{GRANT}&device_code={UNKNOWN}");
    for (content_type, body, word) in [
        ("application/json", json.clone(), "invalid_device_code"),
        (
            "Application/JSON ; charset=utf-8",
            json.clone(),
            "invalid_device_code",
        ),
        ("", json.clone(), "invalid_device_code"),
        ("", format!(" \r\n\t{json}"), "invalid_device_code"),
        (FORM, form.clone(), "invalid_grant"),
        (
            "application/X-WWW-form-urlencoded;charset=UTF-8",
            form.clone(),
            "invalid_grant",
        ),
        ("", form.clone(), "invalid_grant"),
        (FORM, json, "invalid_request"),
        (JSON, form, "invalid_request"),
    ] {
        let answer = post(&server, content_type, &body);
        assert_eq!(answer.error(), word, "{content_type}: {body}");
        expect::error(&answer, 400, word);
    }
}

#[test]
fn malformed_polls_are_invalid_requests() {
    let server = TestServer::setup(Store::Embedded).start();
    let code = Login::start(&server).device_code().to_owned();
    let json_bodies: Vec<Vec<u8>> = [
        "",
        "{",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{}",
        "not json",
        "\u{feff}{}",
        r#"{"device_code":null}"#,
        r#"{"device_code":""}"#,
        r#"{"device_code":1}"#,
        r#"{"device_code":true}"#,
        r#"{"device_code":["a"]}"#,
        r#"{"device_code":{"a":1}}"#,
        r#"{"device_code":"a\u0000b"}"#,
        r#"{"device_code":"\ud800"}"#,
        r#"{"device_code":"a","device_code":"b"}"#,
        r#"{"Device_Code":"a"}"#,
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .chain([
        b"{\"device_code\":\"\xff\"}".to_vec(),
        format!("{{\"device_code\":\"{code}\"}} trailing").into_bytes(),
        format!("{{\"device_code\":\"{code}\",\"device_code\":\"{code}\"}}").into_bytes(),
        "[".repeat(5_000).into_bytes(),
    ])
    .collect();
    for body in json_bodies {
        let answer = post(&server, JSON, &body);
        assert_eq!(
            answer.error(),
            "invalid_request",
            "{}",
            String::from_utf8_lossy(&body)
        );
        expect::error(&answer, 400, "invalid_request");
    }
    for body in [
        String::new(),
        GRANT.to_owned(),
        format!("{GRANT}&device_code="),
        format!("{GRANT}&device_code"),
        format!("{GRANT}&device_code=a%00b"),
        format!("{GRANT}&device_code=%ff"),
        format!("{GRANT}&device_code=a&device_code=b"),
        format!("{GRANT}&device_code={code}&device_code={code}"),
        format!("{GRANT}&{GRANT}&device_code={code}"),
    ] {
        let answer = post(&server, FORM, &body);
        assert_eq!(answer.error(), "invalid_request", "{body}");
        expect::error(&answer, 400, "invalid_request");
    }
    // None of them has changed the login.
    let answer = post(&server, JSON, json!({"device_code": code}).to_string());
    expect::error(&answer, 400, "authorization_pending");
}

/// `client_id` may have any value or be missing, and unknown fields are ignored.
#[test]
fn unknown_fields_are_ignored() {
    let server = TestServer::setup(Store::Embedded).start();
    let code = Login::start(&server).device_code().to_owned();
    let body = json!({"client_id": "x", "device_code": code, "grant_type": "y", "n": {"a": [1]}});
    expect::error(
        &post(&server, JSON, body.to_string()),
        400,
        "authorization_pending",
    );
    for extra in ["", "&client_id=x", "&client_id=", "&foo=bar&scope=a+b"] {
        let code = Login::start(&server).device_code().to_owned();
        let answer = post(&server, FORM, format!("device_code={code}&{GRANT}{extra}"));
        expect::error(&answer, 400, "authorization_pending");
    }
}

#[test]
fn other_grant_types_are_unsupported() {
    let server = TestServer::setup(Store::Embedded).start();
    let code = Login::start(&server).device_code().to_owned();
    for grant in [
        "authorization_code",
        "device_code",
        "urn:ietf:params:oauth:grant-type:DEVICE_CODE",
    ] {
        let answer = post(
            &server,
            FORM,
            format!("grant_type={grant}&device_code={code}"),
        );
        expect::error(&answer, 400, "unsupported_grant_type");
    }
}

/// Every answer is one JSON object and nothing else.
#[test]
fn every_answer_is_one_json_object() {
    let server = TestServer::setup(Store::Embedded).start();
    let answer = post(&server, JSON, "{}");
    let text = answer.text();
    assert!(
        text.starts_with("{\"error\":\"invalid_request\",\"error_description\":\""),
        "{text}"
    );
    assert!(matches!(answer.json(), Value::Object(_)));
}
