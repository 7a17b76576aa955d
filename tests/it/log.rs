//! The log explains why a login failed: each refusal has its reason and the login's id, and the error page shows the same id as
//! its reference.

use std::process::Command;

use serde_json::json;

use crate::fake_postiz::{FakePostiz, Fault, Response};
use crate::support::login::VerifyForm;
use crate::support::{Browser, Login, Store, TestServer, eventually, program};

/// The login's id in the log, which is the start of the device code's SHA-256.
fn id_of(login: &Login) -> String {
    let hash = postiz::shared::hash::sha256_hex(login.device_code().as_bytes());
    hash[..8].to_owned()
}

/// The reference on a page.
fn reference(html: &str) -> String {
    let (_, rest) = html
        .split_once("Reference: <b>")
        .unwrap_or_else(|| panic!("no reference: {html}"));
    rest.split('<').next().unwrap_or_default().to_owned()
}

/// Waits for a line with all of these words.
#[track_caller]
fn expect_line(server: &TestServer, words: &[&str]) {
    let is_there = || {
        let log = server.log();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    eventually(&format!("a line with {words:?}"), is_there);
}

on_each_store!(refused_callbacks_name_reason_and_login,);

fn refused_callbacks_name_reason_and_login(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let id = id_of(&login);
    let mut browser = Browser::new();
    let back = login.consent(&mut browser, "ada");
    let back_location = back.location();
    let (_, query) = back_location.split_once('?').expect("a query");
    let callback = format!("/device/callback?{query}");

    // Another browser, with a cookie of its own.
    let other = VerifyForm::open(&server);
    let headers = [("Cookie", other.cookie.as_str()), ("Accept", "text/html")];
    let page = server.send("GET", &callback, &headers, b"");
    assert_eq!(reference(&page.text()), id);
    expect_line(
        &server,
        &["request", "status=400", &id, "reason=other_browser"],
    );

    for (query, headers, reason) in [
        (callback.as_str(), &[][..], "missing_cookie"),
        ("/device/callback?code=x", &headers, "missing_state"),
        (
            &format!("/device/callback?code=x&state={}", "0".repeat(64)),
            &headers,
            "unknown_state",
        ),
        (
            "/device/callback?code=x&state=old",
            &headers,
            "unknown_state",
        ),
    ] {
        let page = server.send("GET", query, headers, b"");
        assert_eq!(page.status, 400, "{reason}");
        let reference = format!("request_id={}", reference(&page.text()));
        let reason = format!("reason={reason}");
        expect_line(&server, &["/device/callback", &reference, &reason]);
    }

    // In the right browser the login is completed, and its line names the organisation.
    assert_eq!(browser.follow(&back).status(), 200);
    expect_line(&server, &["login completed", &id, "organization=org-"]);
    assert_eq!(login.outcome(&server).status, 200);
    expect_line(&server, &["/device/token", &id, "status=200"]);
    assert_eq!(login.outcome(&server).status, 400);
    expect_line(
        &server,
        &["/device/token", &id, "reason=invalid_device_code"],
    );
}

#[test]
fn refused_codes_and_denials_name_their_reason() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let form = VerifyForm::open(&server);
    let page = form.confirm(&server, "WDJB-MJHT");
    let reference = format!("request_id={}", reference(&page.text()));
    expect_line(&server, &[&reference, "reason=unknown_code"]);

    let login = Login::start(&server);
    let id = id_of(&login);
    let fields = format!("action=deny&user_code={}", login.user_code());
    assert_eq!(form.send(&server, &fields, &[]).status, 200);
    expect_line(&server, &["login denied", &id, "at=\"this server\""]);
    assert_eq!(login.poll(&server).error(), "access_denied");
    expect_line(&server, &["/device/token", &id, "reason=access_denied"]);

    let cross_site = [("Origin", "https://evil.example")];
    let page = form.send(&server, &fields, &cross_site);
    assert_eq!(page.status, 403);
    expect_line(&server, &["status=403", "reason=cross_site_request"]);
}

#[test]
fn exhausted_rate_limits_are_named() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .var("LIMIT_LOGINS_PER_MINUTE", "1")
        .var("LIMIT_WRONG_CODES_PER_MINUTE", "1")
        .var("LIMIT_CALLBACKS_PER_MINUTE", "1");
    let server = setup.start();
    let form = VerifyForm::open(&server);
    let mut started = Vec::new();
    for _ in 0..2 {
        started.push(server.post_json("/device/code", &json!({})));
        form.confirm(&server, "WDJB-MJHT");
        let state = "0".repeat(64);
        let target = format!("/device/callback?code=x&state={state}");
        server.send("GET", &target, &[("Cookie", &form.cookie)], b"");
    }
    for reason in [
        "too_many_logins",
        "too_many_wrong_codes",
        "too_many_callbacks",
    ] {
        expect_line(&server, &["warn request", "status=429", reason]);
    }
    // A client that has no login yet finds the request's id in a header.
    assert_eq!(started[0].header("x-request-id"), None);
    let id = started[1].header("x-request-id").expect("the header");
    let request_id = format!("request_id={id}");
    expect_line(&server, &[&request_id, "reason=too_many_logins"]);
}

#[test]
fn misconfiguration_is_logged_as_an_error_with_a_remedy() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    let not_found = Response::json(404, &json!({"message": "Cannot POST /oauth/token"}));
    let mut redirect = Response::json(301, &json!({}));
    redirect.headers.push((
        "Location".to_owned(),
        "https://ada:hunter2@www.example.com/api/oauth/token?code=x".to_owned(),
    ));
    for (answer, words) in [
        (not_found, "answered 404"),
        (
            redirect,
            "(301) to https://www.example.com/api/oauth/token, ",
        ),
    ] {
        postiz.behave();
        postiz.misbehave("/oauth/token", Fault::Answer(answer));
        let login = Login::start(&server);
        let page = login.approve(&mut Browser::new(), "ada");
        assert_eq!(
            (page.status(), reference(&page.html())),
            (502, id_of(&login))
        );
        assert!(!page.html().contains("Wait a minute"), "{}", page.html());
        let id = id_of(&login);
        expect_line(
            &server,
            &[
                "error exchange failed",
                &id,
                "reason=not_postiz",
                words,
                "POSTIZ_API_URL",
            ],
        );
    }
}

#[test]
fn routine_requests_are_logged_at_debug_alone() {
    let postiz = FakePostiz::start();
    for (level, written) in [("debug", true), ("info", false)] {
        let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
        let server = setup.var("LOG_LEVEL", level).start();
        Login::start(&server).poll(&server);
        server.get("/health");
        server.get("/nothing");
        expect_line(&server, &["reason=not_found"]);
        let log = server.log();
        for line in ["reason=authorization_pending", "route=/health"] {
            assert_eq!(log.contains(line), written, "{level}: {log}");
        }
    }
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of the stream that it reads.
#[test]
fn lines_carry_their_priority_where_the_journal_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    for (is_journal, expected) in [
        (true, "<3>postiz-auth-server: "),
        (false, "postiz-auth-server: "),
    ] {
        let script = r#"
            exec 2>"$1"
            [ "$2" = true ] && export JOURNAL_STREAM=$(stat -c %d:%i "$1") || export JOURNAL_STREAM=1:2
            exec "$3"
        "#;
        let data = folder.path().join("file");
        std::fs::write(&data, "in the way").unwrap();
        let status = Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(&path)
            .arg(is_journal.to_string())
            .arg(program("postiz-auth-server"))
            .env("DATA_DIR", &data)
            .env("LOG_LEVEL", "debug")
            .status()
            .unwrap();
        assert!(!status.success());
        let log = std::fs::read_to_string(&path).unwrap();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(expected), "{log}");
        assert_eq!(log.starts_with("<6>"), is_journal, "{log}");
    }
}

/// Every event that the source names has its row in the handbook.
#[test]
fn handbook_has_every_event() {
    let handbook = include_str!("../../scripts/README.md");
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src/server").into()];
    let mut events = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let source: String = source.split_whitespace().collect();
            for call in ["log.info(\"", "log.warn(\"", "log.error(\""] {
                for (at, _) in source.match_indices(call) {
                    let event = source[at + call.len()..].split('"').next().unwrap();
                    assert!(
                        handbook.contains(&format!("`{event}`")),
                        "{event} of {}",
                        path.display()
                    );
                    events += 1;
                }
            }
        }
    }
    assert!(events > 30, "only {events} were found");
}

/// A tool that reads the log sums and compares these.
#[test]
fn numbers_are_numbers_in_json() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).postiz(&postiz);
    let server = setup.var("LOG_FORMAT", "json").start();
    server.get("/nothing");
    expect_line(&server, &["\"route\":\"none\""]);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("\"route\":\"none\""));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["status"], 404, "{line}");
    assert!(line["ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
    assert!(line["request_id"].is_string(), "{line}");
}
