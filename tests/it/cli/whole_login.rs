//! Logins with the real auth server, confirmed in a browser, and calls of the API afterwards.

use std::io::{BufRead, BufReader};
use std::process::Child;

use serde_json::Value;

use super::harness::{Cli, Done, Home};
use crate::fake_postiz::FakePostiz;
use crate::support::{Browser, Login, Store, TestServer, VerifyForm, eventually};

/// A run of `auth:login --json` that has shown its code and waits.
struct Waiting {
    child: Child,
    login: Login,
    rest: BufReader<std::process::ChildStdout>,
}

impl Waiting {
    fn begin(home: &Home, server: &TestServer) -> Waiting {
        let cli = Cli::at(home.clone()).args(["auth:login", "--json", "--no-browser"]);
        let mut child = cli.var("POSTIZ_AUTH_SERVER", &server.public_url).spawn();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        let login = Login {
            start: serde_json::from_str(&line).unwrap(),
        };
        Waiting { child, login, rest }
    }

    /// The last event, the exit code, and stderr.
    fn end(mut self) -> (Value, Option<i32>, String) {
        let mut line = String::new();
        self.rest.read_line(&mut line).unwrap();
        let event = serde_json::from_str(&line).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (event, output.status.code(), stderr)
    }
}

fn run(home: &Home, line: &str) -> Done {
    Cli::at(home.clone()).args(line.split_whitespace()).run()
}

/// The CLI names the organisation.
#[test]
fn whole_login_works_from_login_to_logout() {
    let fake = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &fake);
    let home = Home::new();
    let waiting = Waiting::begin(&home, &server);
    waiting.login.approve(&mut Browser::new(), "ada");
    let (event, code, _) = waiting.end();
    assert_eq!(
        (&event["event"], code),
        (&Value::from("done"), Some(0)),
        "{event}"
    );
    assert_eq!(event["api_url"], fake.url());

    let status = run(&home, "auth:status").code(0);
    status
        .stdout_has("Organization: Ada Works\n")
        .stdout_has("valid, 3 integrations connected");
    let token = run(&home, "auth:token").code(0).stdout;
    assert!(fake.accepts(token.trim()));
    assert!(run(&home, "integrations:list").code(0).json().is_array());
    run(&home, "auth:logout").code(0);
    run(&home, "auth:status").code(4);
}

/// Postiz keeps one login per account. The other machine's error says why it ended.
#[test]
fn later_login_elsewhere_ends_this_one() {
    let fake = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &fake);
    let home = Home::new();
    let waiting = Waiting::begin(&home, &server);
    waiting.login.approve(&mut Browser::new(), "ada");
    assert_eq!(waiting.end().1, Some(0));
    run(&home, "auth:status").code(0);
    fake.token_for("ada");
    let status = run(&home, "auth:status").code(4);
    status
        .stderr_has("Invalid OAuth token")
        .stderr_has("a later login on another machine");
}

/// The next poll ends the login. Its reference is the ID in the server's log.
#[test]
fn denial_reaches_the_terminal() {
    let fake = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &fake);
    let home = Home::new();
    let waiting = Waiting::begin(&home, &server);
    let form = format!("action=deny&user_code={}", waiting.login.user_code());
    VerifyForm::open(&server).send(&server, &form, &[]);
    let (event, code, stderr) = waiting.end();
    assert_eq!(
        (&event["error"], code),
        (&Value::from("access_denied"), Some(1))
    );
    let reference = stderr
        .lines()
        .find_map(|line| line.strip_prefix("Reference: "));
    let reference = reference.expect(&stderr);
    assert_eq!(event["reference"], reference);
    let id = format!("id={reference}");
    let log = server.log();
    let denied = log.lines().find(|line| line.contains("denied"));
    assert!(denied.expect(&log).contains(&id), "{id}: {log}");
    assert!(home.credentials_folder().is_empty());
}

/// The reference is the ID of the request in the server's log.
#[test]
fn login_that_does_not_start_names_its_request() {
    let fake = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded).var("LIMIT_LOGINS_PER_MINUTE", "1");
    let server = setup.start_for(&fake);
    let start = || {
        let cli = Cli::at(Home::new()).args(["auth:login", "--start", "--json-errors"]);
        cli.var("POSTIZ_AUTH_SERVER", &server.public_url).run()
    };
    start().code(0);
    let done = start().code(1);
    let event = &done.events()[0];
    let error: Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&error["status"], &error["reference"]),
        (&Value::from(429), &event["reference"])
    );
    let reference = event["reference"].as_str().expect(&done.stderr);
    done.stderr_has(&format!("\nReference: {reference}\n"));
    let id = format!("request_id={reference}");
    eventually("the refusal's line in the log", || {
        let log = server.log();
        log.lines()
            .any(|line| line.contains(&id) && line.contains("reason=too_many_logins"))
    });
}

#[test]
fn login_in_two_calls_works_with_the_real_server() {
    let fake = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &fake);
    let home = Home::new();
    let start = Cli::at(home.clone())
        .args(["auth:login", "--start"])
        .var("POSTIZ_AUTH_SERVER", &server.public_url)
        .run()
        .code(0);
    let login = Login {
        start: start.events()[0].clone(),
    };
    run(&home, "auth:login --finish --no-wait").code(3);
    login.approve(&mut Browser::new(), "ada");
    run(&home, "auth:login --finish").code(0);
    run(&home, "auth:status").code(0);
}
