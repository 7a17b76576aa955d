//! `auth:login --start` and `--finish`, for agents whose turns must not block: without a terminal, and with stdin closed.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::harness::{Cli, Home, Reply, Server, TOKEN, postiz};

const DEVICE_CODE: &str = "d0d0c0de-that-nobody-may-see";
const PENDING_FILE: &str = ".postiz/credentials.json.login";

/// An auth server whose user confirms when the test wants it.
struct Slow {
    server: Server,
    confirmed: Arc<AtomicBool>,
}

impl Slow {
    fn new() -> Slow {
        let confirmed = Arc::new(AtomicBool::new(false));
        let flag = confirmed.clone();
        let server = Server::new(move |asked, _| match asked.target.as_str() {
            "/device/code" => Reply::json(
                200,
                &format!(
                    r#"{{"device_code":"{DEVICE_CODE}","user_code":"WDJB-MJHT","verification_uri":"https://a.example/v","expires_in":600,"interval":1}}"#
                ),
            ),
            _ if flag.load(Ordering::SeqCst) => Reply::json(
                200,
                &format!(
                    r#"{{"access_token":"{TOKEN}","api_url":"https://h/api","organization_id":"org-1"}}"#
                ),
            ),
            _ => Reply::json(400, r#"{"error":"authorization_pending"}"#),
        });
        Slow { server, confirmed }
    }

    fn start(&self, home: &Home) -> Cli {
        Cli::at(home.clone())
            .args(["auth:login", "--start"])
            .var("POSTIZ_AUTH_SERVER", self.server.url())
    }
}

fn finish(home: &Home, more: &str) -> Cli {
    Cli::at(home.clone())
        .args(["auth:login", "--finish"])
        .args(more.split_whitespace())
        // These logins have no API, and must not look for one outside of this machine.
        .var("https_proxy", "http://127.0.0.1:1")
}

#[test]
fn login_works_in_several_calls() {
    let (slow, home) = (Slow::new(), Home::new());
    let done = slow
        .start(&home)
        .run()
        .code(0)
        .hides(DEVICE_CODE)
        .stderr_has("\nWDJB-MJHT\n");
    assert_eq!(
        done.events(),
        [
            json!({"event": "code", "user_code": "WDJB-MJHT", "verification_uri": "https://a.example/v",
                "verification_uri_complete": "https://a.example/v?code=WDJB-MJHT", "expires_in": 600})
        ]
    );
    assert_eq!(slow.server.lines(), ["POST /device/code"]);
    let mode = std::fs::metadata(home.file(PENDING_FILE))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600);

    let done = finish(&home, "--no-wait")
        .run()
        .code(3)
        .hides(DEVICE_CODE)
        .stderr("");
    assert_eq!(done.events()[0]["event"], "pending");
    assert!((590..=600).contains(&done.events()[0]["expires_in"].as_u64().unwrap()));
    finish(&home, "--no-wait").run().code(3);
    slow.confirmed.store(true, Ordering::SeqCst);
    let done = finish(&home, "--no-wait").run().code(0).hides(TOKEN);
    assert_eq!(
        done.events(),
        [
            json!({"event": "done", "api_url": "https://h/api", "organization_id": "org-1", "credentials_file": home.credentials().display().to_string()})
        ]
    );
    assert_eq!(home.credentials_folder(), ["credentials.json"]);
    assert!(home.read(".postiz/credentials.json").contains(TOKEN));

    // No poll comes sooner than the interval, however often an agent calls.
    let asked = slow.server.asked();
    assert_eq!(asked.len(), 4);
    for pair in asked[1..].windows(2) {
        assert!(pair[1].at - pair[0].at >= std::time::Duration::from_secs(1));
    }
}

#[test]
fn finish_waits_for_the_user() {
    let (slow, home) = (Slow::new(), Home::new());
    slow.start(&home).run().code(0);
    let waiting = finish(&home, "").spawn();
    std::thread::sleep(std::time::Duration::from_millis(500));
    slow.confirmed.store(true, Ordering::SeqCst);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn finish_without_start_says_so() {
    let done = finish(&Home::new(), "")
        .run()
        .code(1)
        .stderr_has("no login has been started")
        .stderr_has("--start");
    assert_eq!(done.events()[0]["error"], "not_started");
    let home = Home::new();
    for broken in [
        "{}",
        r#"{"authServer":"http://a","deviceCode":"d","interval":1e19,"expiresAt":1,"askAgainAt":0}"#,
        r#"{"authServer":"a","deviceCode":"d","interval":1,"expiresAt":1,"askAgainAt":0}"#,
    ] {
        home.write(PENDING_FILE, broken);
        finish(&home, "").run().code(1).stderr_has("is broken");
    }
    let far = r#"{"authServer":"http://127.0.0.1:1","deviceCode":"d","interval":1,"expiresAt":18446744073709551615,"askAgainAt":0}"#;
    home.write(PENDING_FILE, far);
    finish(&home, "--no-wait")
        .run()
        .code(1)
        .stderr_has("the login is still open");
    // Wrong usage is reported in the same form, with its own exit code.
    finish(&home, "--auth-server http://a")
        .run()
        .code(2)
        .stderr_has("--finish knows the auth server and the machine from --start");
}

#[test]
fn ended_login_leaves_no_file() {
    for (error, word) in [
        ("expired_token", "expired_token"),
        ("access_denied", "access_denied"),
        ("invalid_device_code", "invalid_device_code"),
    ] {
        let server = Server::new(move |asked, _| match asked.target.as_str() {
            "/device/code" => Reply::json(
                200,
                r#"{"device_code":"d","user_code":"A","verification_uri":"https://a.example/v","interval":1}"#,
            ),
            _ => Reply::json(400, &format!(r#"{{"error":"{error}"}}"#)),
        });
        let home = Home::new();
        Cli::at(home.clone())
            .args(["auth:login", "--start"])
            .var("POSTIZ_AUTH_SERVER", server.url())
            .run()
            .code(0);
        let done = finish(&home, "--no-wait").run().code(1);
        assert_eq!(done.events()[0]["error"], word);
        assert_eq!(
            finish(&home, "--no-wait").run().code(1).events()[0]["error"],
            "not_started"
        );
    }
}

/// The server does not say that they have.
#[test]
fn finish_ends_after_the_codes_expired() {
    let (slow, home) = (Slow::new(), Home::new());
    slow.start(&home).run().code(0);
    let text = home.read(PENDING_FILE);
    let mut fields: Value = serde_json::from_str(&text).unwrap();
    fields["expiresAt"] = json!(1_000_000_000);
    home.write(PENDING_FILE, fields.to_string());
    let done = finish(&home, "--no-wait")
        .run()
        .code(1)
        .stderr_has("the code expired");
    assert_eq!(done.events()[0]["error"], "expired_token");
    assert!(home.credentials_folder().is_empty());
}

#[test]
fn failed_poll_leaves_the_login_open() {
    let server = Server::new(|asked, before| match (asked.target.as_str(), before) {
        ("/device/code", _) => Reply::json(
            200,
            r#"{"device_code":"d","user_code":"A","verification_uri":"https://a.example/v","interval":1}"#,
        ),
        (_, 1) => Reply::Drop,
        (_, 2) => Reply::json(429, "{}").with("X-Request-Id: 9cae0d66"),
        _ => Reply::json(200, r#"{"access_token":"t"}"#),
    });
    let home = Home::new();
    Cli::at(home.clone())
        .args(["auth:login", "--start"])
        .var("POSTIZ_AUTH_SERVER", server.url())
        .run()
        .code(0);
    for status in [Value::Null, json!(429)] {
        let done = finish(&home, "--no-wait")
            .arg("--json-errors")
            .run()
            .code(1)
            .stderr_has("the login is still open")
            .stderr_has("\nReference: 18ac3e73\n");
        let event = &done.events()[0];
        assert_eq!(event["error"], "no_answer");
        assert_eq!(event["reference"], "18ac3e73");
        let error: Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(error["status"], status);
    }
    finish(&home, "--no-wait").run().code(0);
}

#[test]
fn concurrent_logins_of_two_accounts_stay_apart() {
    let (one, two, home) = (Slow::new(), Slow::new(), Home::new());
    one.start(&home)
        .var("POSTIZ_CREDENTIALS_FILE", "one.json")
        .run()
        .code(0);
    two.start(&home)
        .var("POSTIZ_CREDENTIALS_FILE", "two.json")
        .run()
        .code(0);
    two.confirmed.store(true, Ordering::SeqCst);
    finish(&home, "--no-wait")
        .var("POSTIZ_CREDENTIALS_FILE", "one.json")
        .run()
        .code(3);
    finish(&home, "--no-wait")
        .var("POSTIZ_CREDENTIALS_FILE", "two.json")
        .run()
        .code(0);
    assert!(home.file("two.json").exists() && !home.file("one.json").exists());
    // A second start for the same account replaces the first, and says so.
    one.start(&home)
        .var("POSTIZ_CREDENTIALS_FILE", "one.json")
        .run()
        .code(0)
        .stderr_has("replaces a login");
}

/// Another user's `ps` shows command lines.
#[test]
fn device_code_is_never_on_a_command_line() {
    let (slow, home) = (Slow::new(), Home::new());
    slow.start(&home).run().code(0);
    let mut waiting = finish(&home, "").spawn();
    let line = std::fs::read(format!("/proc/{}/cmdline", waiting.id())).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", waiting.id())).unwrap();
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    for bytes in [line, environment] {
        assert!(!String::from_utf8_lossy(&bytes).contains(DEVICE_CODE));
    }
    assert!(
        postiz("auth:login --help")
            .run()
            .stdout
            .contains("--finish")
    );
}
