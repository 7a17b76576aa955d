//! What ends a start ends `--check` with the same code; and a failed start is told in the format of the log.

use std::net::TcpListener;
use std::process::Output;

use serde_json::Value;

use crate::fake_postiz::FakePostiz;
use crate::support::server::ServerSetup;
use crate::support::{Store, TestServer};

fn setup(postiz: &FakePostiz) -> ServerSetup {
    TestServer::setup(Store::Embedded).postiz(postiz)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A start and a check end with this code and these words.
#[track_caller]
fn assert_both_refuse(setup: &ServerSetup, code: i32, words: &[&str]) {
    for arguments in [&[][..], &["--check"]] {
        let output = setup.run(arguments);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in {stderr}");
        }
    }
}

#[test]
fn folders_that_cannot_be_made_are_found_by_check() {
    let postiz = FakePostiz::start();
    for folder in ["/proc/x", "/sys/x/y", "/dev/null/x"] {
        assert_both_refuse(&setup(&postiz).var("DATA_DIR", folder), 1, &[folder]);
    }
}

#[test]
fn addresses_of_other_machines_are_found_by_check() {
    let postiz = FakePostiz::start();
    let refused = "cannot listen on 192.0.2.1:0: ";
    let host = setup(&postiz).var("HOST", "192.0.2.1");
    assert_both_refuse(&host, 1, &[refused, "HOST and PORT"]);
    let metrics = setup(&postiz).var("METRICS_LISTEN", "192.0.2.1:0");
    assert_both_refuse(&metrics, 1, &[refused, "METRICS_LISTEN"]);
}

#[test]
fn metrics_on_the_servers_own_address_are_a_mistake() {
    let postiz = FakePostiz::start();
    // A port that nobody else takes meanwhile, so that only the mistake is found.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let of = |host: &str, metrics: &str| {
        setup(&postiz)
            .var("HOST", host)
            .var("PORT", &port.to_string())
            .var("METRICS_LISTEN", &format!("{metrics}:{port}"))
    };
    for (host, metrics) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("0.0.0.0", "[::]"),
        ("127.0.0.1", "0.0.0.0"),
    ] {
        assert_both_refuse(
            &of(host, metrics),
            2,
            &["METRICS_LISTEN is ", "another port"],
        );
    }
    let other = of("127.0.0.1", "127.0.0.2").run(&["--check"]);
    assert_eq!(other.status.code(), Some(0), "{other:?}");
}

/// The port of a running server is no error of a check beside it.
#[test]
fn check_beside_the_running_server_finds_nothing() {
    let postiz = FakePostiz::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let setup = setup(&postiz).var("PORT", &port);
    let server = setup.start();
    let output = setup.run(&["--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn unknown_argument_is_the_one_named() {
    let setup = TestServer::setup(Store::Embedded);
    for (arguments, words) in [
        (&["healthcheck", "x"][..], "unknown argument \"x\""),
        (&["--check", "x"], "unknown argument \"x\""),
        (&["x", "healthcheck"], "unknown argument \"x\""),
        (&["--check", "healthcheck", "x"], "unknown argument \"x\""),
        (
            &["--check", "healthcheck"],
            "--check and healthcheck cannot be combined",
        ),
        (
            &["healthcheck", "--check"],
            "--check and healthcheck cannot be combined",
        ),
    ] {
        let output = setup.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

/// Each line of the log is JSON, the last one too.
#[test]
fn failed_start_is_a_json_line_where_the_log_is_json() {
    let postiz = FakePostiz::start();
    let json = setup(&postiz).var("LOG_FORMAT", "json");
    for (setup, code, words) in [
        (
            json.clone().var("HOST", "192.0.2.1"),
            1,
            &["cannot listen on 192.0.2.1"][..],
        ),
        (json.clone().var("DATA_DIR", "/proc/x"), 1, &["/proc/x"]),
        (
            json.clone().var("PORT", "x").var("LOG_LEVEL", "loud"),
            2,
            &["PORT is \"x\"", "LOG_LEVEL is \"loud\""],
        ),
    ] {
        let output = setup.run(&[]);
        assert_eq!(output.status.code(), Some(code));
        let stderr = stderr(&output);
        let lines = stderr.lines();
        let lines: Vec<Value> = lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        for word in words {
            let is_told = |line: &Value| {
                line["event"] == "start_failed"
                    && line["level"] == "error"
                    && line["error"]
                        .as_str()
                        .is_some_and(|error| error.contains(word))
            };
            assert!(lines.iter().any(is_told), "{word}: {stderr}");
        }
    }
    // What people read stays text.
    let wrong = json.clone().var("PORT", "x").run(&["--check"]);
    assert!(stderr(&wrong).starts_with("postiz-auth-server: the configuration has 1 problem"));
    let text = setup(&postiz).var("PORT", "x").run(&[]);
    assert!(stderr(&text).starts_with("postiz-auth-server: the configuration has 1 problem"));
}
