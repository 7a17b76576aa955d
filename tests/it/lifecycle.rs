//! From start to stop: configuration, health check, signals, and databases in every state.

use std::net::TcpListener;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use postiz::server::times::Times;
use serde_json::{Value, json};

use crate::fake_postiz::{CLIENT_SECRET, Delivery, FakePostiz, Fault, Gate};
use crate::support::postgres::PASSWORD;
use crate::support::tls::Authority;
use crate::support::{Browser, Cluster, Connection, Login, Store, TestServer, eventually, expect};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How long a stopping server keeps idle connections.
const SHORT_STOP: Times = Times {
    last_request: Duration::from_millis(1_500),
    ..Times::DEFAULT
};

/// The program must have ended with this exit code, an empty stdout, these words on stderr, and no panic.
#[track_caller]
fn assert_ends_with(output: &Output, exit_code: i32, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit_code), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    for word in words {
        assert!(stderr.contains(word), "{word} is missing: {stderr}");
    }
    assert!(
        !stderr.contains("panicked") && !stderr.contains("stack backtrace"),
        "{stderr}"
    );
}

#[test]
fn configuration_problems_are_reported_together() {
    let output = TestServer::setup(Store::Embedded)
        .var("POSTIZ_OAUTH_CLIENT_SECRET", "  ")
        .var("SERVER_SECRET", "short")
        .var("PORT", "3111x")
        .var("HOST", "nowhere at all")
        .var("SERVER_URL", "localhost:3111")
        .var("POSTIZ_FRONTEND_URL", "not a url")
        .var("POSTIZ_API_URL", "ftp://postiz.example")
        .var("DATABASE_URL", &format!("mysql://root:{PASSWORD}@h/d"))
        .var("TRUSTED_PROXIES", "10.0.0.0/99")
        .var("LOG_FORMAT", "xml")
        .var("TLS_CERT_FILE", "/nowhere/cert.pem")
        .run(&[]);
    let names = [
        "POSTIZ_OAUTH_CLIENT_SECRET",
        "SERVER_SECRET",
        "PORT",
        "3111x",
        "HOST",
        "nowhere at all",
        "SERVER_URL",
        "localhost:3111",
        "POSTIZ_FRONTEND_URL",
        "not a url",
        "POSTIZ_API_URL",
        "ftp://postiz.example",
        "DATABASE_URL",
        "TRUSTED_PROXIES",
        "10.0.0.0/99",
        "LOG_FORMAT",
        "xml",
        "TLS_KEY_FILE",
    ];
    assert_ends_with(&output, 2, &names);
    assert!(
        !text(&output.stderr).contains(PASSWORD),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn wrong_variable_is_named() {
    for (name, value) in [
        ("PORT", "99999"),
        ("PORT", "-1"),
        ("SERVER_URL", "http://"),
        ("SERVER_URL", "http://a?x=1"),
        ("SERVER_URL", "javascript:alert(1)"),
        ("POSTIZ_API_URL", "http://u:p@host"),
        ("DATABASE_URL", "garbage"),
        ("DATABASE_URL", "postgres://[::1/x"),
        ("POSTIZ_OAUTH_CLIENT_ID", " "),
        ("DATABASE_POOL_SIZE", "0"),
        ("POSTIZ_PUBLIC_API_URL", "x"),
    ] {
        let output = TestServer::setup(Store::Embedded).var(name, value).run(&[]);
        assert_ends_with(&output, 2, &[name]);
        // `--check` reports it, too.
        let output = TestServer::setup(Store::Embedded)
            .var(name, value)
            .run(&["--check"]);
        assert_eq!(output.status.code(), Some(2), "{name}={value}");
    }
}

#[test]
fn variables_that_are_not_utf8_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"hunter2\xff");
    let setup = TestServer::setup(Store::Embedded);
    let output = setup.command().env("DATABASE_URL", value).output();
    let output = output.expect("it can be run");
    assert_ends_with(&output, 2, &["1 problem:", "DATABASE_URL is not UTF-8"]);
    assert!(!text(&output.stderr).contains("hunter2"), "{output:?}");
}

#[test]
fn misspelt_variables_cause_a_warning() {
    let setup = TestServer::setup(Store::Embedded).var("STOP_DELEY", "5");
    let warning = "STOP_DELEY is set, but nothing reads it: is STOP_DELAY meant?";
    let log = setup.start().log();
    assert!(log.contains(warning), "{log}");
    let output = setup.run(&["--check"]);
    assert!(text(&output.stdout).contains(warning), "{output:?}");
}

#[test]
fn secrets_may_come_from_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("the test may write the file");
        path.display().to_string()
    };
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .without("POSTIZ_OAUTH_CLIENT_SECRET")
        .postiz(&postiz)
        .var(
            "POSTIZ_OAUTH_CLIENT_SECRET_FILE",
            &file("secret", &format!("{CLIENT_SECRET}\n")),
        )
        .var(
            "DATABASE_URL_FILE",
            &file("url", &format!("{}\n", Cluster::shared().database().url())),
        );
    let server = setup.start_for(&postiz);
    let login = Login::start(&server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    expect::json(&login.poll(&server), 200);
    assert!(!setup.data_dir().exists(), "the database was used");

    let output = setup
        .var("POSTIZ_OAUTH_CLIENT_SECRET_FILE", "/nowhere/secret")
        .run(&[]);
    assert_ends_with(
        &output,
        2,
        &["POSTIZ_OAUTH_CLIENT_SECRET_FILE", "/nowhere/secret"],
    );
}

#[test]
fn slashes_and_blanks_around_values_are_trimmed() {
    let postiz = FakePostiz::start();
    let server = TestServer::setup(Store::Embedded)
        .var("POSTIZ_FRONTEND_URL", &format!(" {}/ ", postiz.url()))
        .var("POSTIZ_API_URL", &format!("{}//", postiz.url()))
        .var("SERVER_URL", "http://auth.example/")
        .var("LOG_FORMAT", " ")
        .start();
    postiz.set_callback_url("http://auth.example/device/callback");
    let login = Login::start(&server);
    assert_eq!(
        login.start["verification_uri"],
        "http://auth.example/device/verify"
    );
    let mut browser = Browser::new();
    browser.route("auth.example", server.address);
    expect::page(&login.approve(&mut browser, "ada").answer, 200);
    let requests = postiz.requests();
    assert!(
        requests.iter().all(|r| !r.target.starts_with("//")),
        "{requests:?}"
    );
}

#[test]
fn help_and_version_are_printed_and_unknown_arguments_refused() {
    let setup = TestServer::setup(Store::Embedded).without("POSTIZ_OAUTH_CLIENT_ID");
    for flag in ["--help", "-h"] {
        let output = setup.run(&[flag]);
        assert!(output.status.success(), "{output:?}");
        let help = text(&output.stdout);
        for word in [
            "POSTIZ_OAUTH_CLIENT_ID",
            "POSTIZ_OAUTH_CLIENT_SECRET",
            "DATABASE_URL",
            "DATA_DIR",
            "HOST",
            "PORT",
            "SERVER_URL",
            "POSTIZ_FRONTEND_URL",
            "POSTIZ_API_URL",
            "POSTIZ_PUBLIC_API_URL",
            "TRUSTED_PROXIES",
            "LOG_FORMAT",
            "--check",
        ] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
    let output = setup.run(&["--version"]);
    assert!(
        output.status.success() && text(&output.stdout).contains(env!("CARGO_PKG_VERSION")),
        "{output:?}"
    );
    for arguments in [&["--nonsense"][..], &["serve"], &["--check", "x"]] {
        assert_ends_with(
            &TestServer::setup(Store::Embedded).run(arguments),
            2,
            &[arguments[arguments.len() - 1]],
        );
    }
}

/// A container's health check runs the same program in the same environment.
#[test]
fn healthcheck_queries_the_running_server() {
    let authority = Authority::new();
    for https in [false, true] {
        let mut setup = TestServer::setup(Store::Embedded);
        if https {
            setup = setup.https(&authority);
        }
        let server = setup.start();
        let port = server.address.port().to_string();
        for host in ["127.0.0.1", "0.0.0.0", "::"] {
            let setup = setup.clone().var("HOST", host).var("PORT", &port);
            // It must not use a proxy.
            let setup = setup.var("HTTPS_PROXY", "http://127.0.0.1:1");
            let output = setup.run(&["healthcheck"]);
            assert!(output.status.success(), "{host} {https}: {output:?}");
        }
        drop(server);
        let output = setup.var("PORT", &port).run(&["healthcheck"]);
        assert_ends_with(&output, 1, &["not ready", &port]);
    }
    let output = TestServer::setup(Store::Embedded).run(&["healthcheck"]);
    assert_ends_with(&output, 1, &["PORT"]);
}

#[test]
fn healthcheck_fails_with_the_database() {
    let cluster = Cluster::start_new();
    let setup = TestServer::setup(Store::Embedded).database(&cluster.database());
    let server = setup.start();
    let asking = setup.var("PORT", &server.address.port().to_string());
    assert!(asking.run(&["healthcheck"]).status.success());
    cluster.control("stop");
    assert_ends_with(&asking.run(&["healthcheck"]), 1, &["503"]);
}

/// Errors that are not retryable end the start.
#[test]
fn fatal_database_errors_end_the_start() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let refused = database.url().replace(PASSWORD, "wrong");
    let missing = cluster.existing("no_such_database").url();
    for (url, word) in [(refused, "password"), (missing, "no_such_database")] {
        let output = TestServer::setup(Store::Embedded)
            .var("DATABASE_URL", &url)
            .run(&[]);
        assert_ne!(output.status.code(), Some(0));
        let code = output.status.code().expect("it ended by itself");
        assert_ends_with(&output, code, &[word]);
    }
}

#[test]
fn taken_port_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let output = TestServer::setup(Store::Embedded)
        .var("PORT", &port)
        .run(&[]);
    let code = output.status.code().expect("it ended by itself");
    assert_ne!(code, 0);
    assert_ends_with(&output, code, &[&port]);
}

#[test]
fn second_process_on_the_same_file_is_refused() {
    let setup = TestServer::setup(Store::Embedded);
    let server = setup.start();
    let output = setup.run(&[]);
    let code = output.status.code().expect("it ended by itself");
    assert_ne!(code, 0);
    let file = setup.data_dir().display().to_string();
    assert_ends_with(&output, code, &[&file]);
    expect::json(&server.get("/ready"), 200);
}

#[test]
fn listening_line_is_json() {
    let server = TestServer::setup(Store::Embedded)
        .var("LOG_FORMAT", "json")
        .start();
    let log = server.log();
    let lines = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
    let listening = lines.into_iter().find(|l| l["event"] == "listening");
    let listening = listening.unwrap_or_else(|| panic!("no listening line: {log}"));
    assert_eq!(listening["url"], format!("http://{}", server.address));
    assert_eq!(listening["version"], env!("CARGO_PKG_VERSION"));
    let commit = option_env!("POSTIZ_COMMIT");
    assert_eq!(listening["commit"].as_str(), commit, "{listening}");
}

/// Requests in flight are finished, new ones are refused, and the exit code is 0.
#[test]
fn signals_end_the_server_gracefully() {
    for (store, signal) in [(Store::Embedded, "TERM"), (Store::Postgres, "INT")] {
        let postiz = FakePostiz::start();
        let mut server = TestServer::setup(store)
            .times(&SHORT_STOP)
            .start_for(&postiz);
        let trips: Vec<_> = (0..5)
            .map(|i| {
                let (login, mut browser) = (Login::start(&server), Browser::new());
                let redirect = login.consent(&mut browser, &format!("person-{i}"));
                (browser, redirect)
            })
            .collect();
        let gate = Gate::default();
        postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
        let mut idle = Connection::open(server.address);
        idle.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(idle.answer().status, 200);
        thread::scope(|scope| {
            let callbacks: Vec<_> = trips
                .iter()
                .map(|(browser, redirect)| {
                    let mut browser = browser.clone();
                    scope.spawn(move || browser.follow(redirect))
                })
                .collect();
            eventually("all exchanges are under way", || {
                postiz.requests_to("/oauth/token").len() == 5
            });
            server.signal(signal);
            eventually("no new request is taken", || {
                let Ok(mut connection) = Connection::try_open(server.address) else {
                    return true;
                };
                connection.try_send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
                connection.try_answer(true).is_err()
            });
            gate.open();
            for callback in callbacks {
                let page = callback.join().expect("the browser does not panic");
                expect::page(&page.answer, 200);
            }
        });
        assert_eq!(server.wait().code(), Some(0), "{signal}: {}", server.log());
    }
}

/// Neither an idle connection nor half a request delays the end of the server.
#[test]
fn idle_connections_do_not_delay_the_stop() {
    for (store, has_connection) in [
        (Store::Embedded, false),
        (Store::Postgres, false),
        (Store::Embedded, true),
    ] {
        let mut server = TestServer::setup(store).times(&SHORT_STOP).start();
        let mut idle = Connection::open(server.address);
        idle.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(idle.answer().status, 200);
        if !has_connection {
            drop(idle);
        }
        let start = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(4) && has_connection == (took >= SHORT_STOP.last_request),
            "{took:?}"
        );
    }
}

#[test]
fn eight_instances_start_at_once_on_an_empty_database() {
    let setup = TestServer::setup(Store::Postgres);
    let mut servers = crate::support::at_once(8, |_| setup.start());
    let login = Login::start(&servers[0]);
    for server in &servers {
        expect::error(&login.poll(server), 400, "authorization_pending");
        Login::start(server);
    }
    for server in &mut servers {
        server.signal("TERM");
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// The original Node.js auth server's table has logins in flight. After the migration they are still pending, and end with a token.
#[test]
fn table_of_the_reference_server_is_migrated() {
    let database = Cluster::shared().database();
    database.run(
        "CREATE TABLE device_requests (
            device_code TEXT PRIMARY KEY, user_code TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
            access_token TEXT, api_url TEXT, organization_id TEXT, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
         CREATE INDEX idx_device_requests_user_code ON device_requests (user_code) WHERE status = 'pending';
         INSERT INTO device_requests (device_code, user_code) VALUES ('reference-pending-code', 'WDJB-MJHT');
         INSERT INTO device_requests (device_code, user_code) VALUES ('reference-other-code', 'WDJB-MJHT');
         INSERT INTO device_requests VALUES ('reference-done-code', 'XDJB-MJHT', 'completed', 'pos_reference_token',
            'https://api.example', 'org-1', now());
         INSERT INTO device_requests VALUES ('reference-null-code', 'YDJB-MJHT', 'completed', NULL, NULL, NULL, now());
         INSERT INTO device_requests VALUES ('reference-old-code', 'ZDJB-MJHT', 'pending', NULL, NULL, NULL, now() - interval '1 day');",
    );
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&database);
    let servers = crate::support::at_once(3, |_| setup.start());
    servers[0].register_at(&postiz);
    let dump = database.dump();
    assert!(
        !dump.contains("reference-") && !dump.contains("pos_reference"),
        "{dump}"
    );

    let poll = |code: &str| servers[1].post_json("/device/token", &json!({ "device_code": code }));
    let done = poll("reference-done-code");
    expect::json(&done, 200);
    let grant = done.json();
    assert_eq!(
        (&grant["access_token"], &grant["organization_id"]),
        (&json!("pos_reference_token"), &json!("org-1"))
    );
    assert_eq!(grant["api_url"], "https://api.example");
    eventually("the code is redeemed", || {
        poll("reference-done-code").error() == "invalid_device_code"
    });
    assert_ne!(poll("reference-null-code").status, 200);

    let user_code = "WDJB-MJHT";
    let mut browser = Browser::new();
    let page = browser.open(&format!(
        "{}/device/verify?user_code={user_code}",
        servers[0].public_url
    ));
    let redirect = browser.submit(&page, &[]);
    let page = browser.settle(redirect);
    let page = browser.submit(&page, &[("person", "ada")]);
    let page = browser.settle(page);
    let redirect = browser.press(&page, "action", "approve");
    expect::page(&browser.follow(&redirect).answer, 200);
    let outcomes = ["reference-pending-code", "reference-other-code"].map(|code| poll(code).status);
    assert!(
        outcomes.contains(&200),
        "one of the two that shared a user code gets the token: {outcomes:?}"
    );
}

/// Server and database may start in any order.
#[test]
fn late_database_is_waited_for() {
    let cluster = Cluster::start_new();
    let database = cluster.database();
    cluster.control("stop");
    let server = TestServer::setup(Store::Embedded)
        .database(&database)
        .start();
    expect::json(&server.get("/health"), 200);
    expect::json(&server.get("/ready"), 503);
    expect::unavailable(&server.post_json("/device/code", &json!({})));
    cluster.control("start");
    let back = Instant::now();
    eventually("the server has connected to its database", || {
        server.get("/ready").status == 200
    });
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "{:?}",
        back.elapsed()
    );
    let login = Login::start(&server);
    expect::error(&login.poll(&server), 400, "authorization_pending");
}

/// Polls get 503 while the database is down, and the login then continues.
#[test]
fn restarted_database_loses_no_login() {
    let cluster = Cluster::start_new();
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Embedded)
        .postiz(&postiz)
        .database(&cluster.database());
    let mut server = setup.start_for(&postiz);
    for stop in ["stop", "kill"] {
        let login = Login::start(&server);
        let mut browser = Browser::new();
        let redirect = login.consent(&mut browser, "ada");
        cluster.control(stop);
        expect::unavailable(&login.poll(&server));
        cluster.control("start");
        eventually("polls are answered again", || {
            login.poll(&server).status == 400
        });
        expect::page(&browser.follow(&redirect).answer, 200);
        expect::json(&login.poll(&server), 200);
    }
    // The server can be stopped while the database is down.
    cluster.control("stop");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

/// After SIGSTOP and SIGCONT, Linux ends a read that has a timeout with EINTR.
#[test]
fn stopped_and_continued_process_keeps_its_connections() {
    let server = TestServer::setup(Store::Embedded).start();
    let (mut idle, mut halfway) = (
        Connection::open(server.address),
        Connection::open(server.address),
    );
    idle.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    halfway.send("GET /health HTTP/1.1\r\n");
    // Once this is answered, the server reads from both connections.
    expect::json(&server.get("/health"), 200);
    server.signal("STOP");
    server.signal("CONT");
    halfway.send("Host: a\r\n\r\n");
    assert_eq!(halfway.answer().status, 200);
    idle.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
}
