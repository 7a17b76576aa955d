//! Metrics: the counters are right, Prometheus can parse the text, and clients cannot create series.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fake_postiz::{Delivery, FakePostiz, Fault, Gate, Response};
use crate::support::browser::target_of;
use crate::support::people::log_in;
use crate::support::process::thread_names;
use crate::support::server::ServerSetup;
use crate::support::tls::Authority;
use crate::support::{
    Browser, Cluster, Connection, Login, Store, TestServer, eventually, eventually_some, http,
};

/// A server with metrics.
fn setup(store: Store, postiz: &FakePostiz) -> ServerSetup {
    let setup = TestServer::setup(store).postiz(postiz);
    setup.var("METRICS_LISTEN", "127.0.0.1:0")
}

/// Starts it. Returns the server and the address of its metrics.
fn start(setup: &ServerSetup, postiz: &FakePostiz) -> (TestServer, SocketAddr) {
    let server = setup.start_for(postiz);
    let metrics = eventually_some("the metrics' address is logged", || {
        let log = server.log();
        let (_, url) = log.split_once("metrics listening url=http://")?;
        url.split('/').next()?.parse().ok()
    });
    (server, metrics)
}

fn read(metrics: SocketAddr) -> String {
    let answer = http::exchange(metrics, http::request("GET", "/metrics", &[], b""));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// The text must have these samples; they are written without the prefix that all names have.
#[track_caller]
fn assert_says(text: &str, samples: &[&str]) {
    for sample in samples {
        let line = format!("postiz_auth_{sample}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// One metric must have these series and no others.
#[track_caller]
fn assert_says_only(text: &str, name: &str, samples: &[&str]) {
    let begins = [
        format!("postiz_auth_{name}{{"),
        format!("postiz_auth_{name} "),
    ];
    let found = text
        .lines()
        .filter(|line| begins.iter().any(|begin| line.starts_with(begin)));
    let mut found: Vec<_> = found
        .map(|line| &line["postiz_auth_".len() + name.len()..])
        .collect();
    found.sort_unstable();
    assert_eq!(found, samples, "{name}");
}

on_each_store!(counters_match_the_requests,);

fn counters_match_the_requests(store: Store) {
    let postiz = FakePostiz::start();
    let (server, metrics) = start(&setup(store, &postiz), &postiz);

    let completed = Login::start(&server);
    assert_eq!(completed.poll(&server).status, 400);
    let page = completed.approve(&mut Browser::new(), "ada");
    assert_eq!(page.status(), 200, "{}", page.html());
    assert_eq!(completed.outcome(&server).status, 200);

    let denied = Login::start(&server);
    let mut browser = Browser::new();
    let uri = denied.start["verification_uri_complete"].as_str().unwrap();
    let page = browser.open(uri);
    browser.press(&page, "action", "deny");
    assert_eq!(denied.poll(&server).error(), "access_denied");

    let failed = Login::start(&server);
    postiz.misbehave("/oauth/token", Fault::Answer(Response::html(500, "")));
    let page = failed.approve(&mut Browser::new(), "bob");
    assert_eq!(page.status(), 502, "{}", page.html());

    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.send("PUT", "/health", &[], b"").status, 405);
    assert_eq!(
        http::exchange(server.address, "nonsense\r\n\r\n").status,
        400
    );

    eventually("the token is delivered, and all connections end", || {
        let text = read(metrics);
        text.contains("\npostiz_auth_logins_redeemed_total 1\n")
            && text.contains("\npostiz_auth_connections 0\n")
    });
    let text = read(metrics);
    assert_says(
        &text,
        &[
            "logins_started_total 3",
            "logins_confirmed_total 2",
            "logins_completed_total 1",
            "logins_denied_total{by=\"user\"} 1",
            "logins_denied_total{by=\"postiz\"} 0",
            "logins_expired_total 0",
            "bad_requests_total 1",
            "panics_total 0",
            "store_failures_total{during=\"request\"} 0",
            "http_request_duration_seconds_count{route=\"/device/code\"} 3",
            "http_request_duration_seconds_bucket{route=\"/device/code\",le=\"+Inf\"} 3",
            "http_request_duration_seconds_count{route=\"/device/verify\"} 6",
            "postiz_request_duration_seconds_count{request=\"exchange\"} 2",
        ],
    );
    assert_says_only(
        &text,
        "http_requests_total",
        &[
            "{route=\"/device/callback\",status=\"200\"} 1",
            "{route=\"/device/callback\",status=\"502\",reason=\"postiz_failed\"} 1",
            "{route=\"/device/code\",status=\"200\"} 3",
            "{route=\"/device/token\",status=\"200\"} 1",
            "{route=\"/device/token\",status=\"400\",reason=\"access_denied\"} 1",
            "{route=\"/device/token\",status=\"400\",reason=\"authorization_pending\"} 1",
            "{route=\"/device/verify\",status=\"200\",reason=\"access_denied\"} 1",
            "{route=\"/device/verify\",status=\"200\"} 3",
            "{route=\"/device/verify\",status=\"302\"} 2",
            "{route=\"/health\",status=\"405\",reason=\"method_not_allowed\"} 1",
            "{route=\"none\",status=\"404\",reason=\"not_found\"} 1",
        ],
    );
    assert_says_only(
        &text,
        "postiz_requests_total",
        &[
            "{request=\"exchange\",result=\"ok\"} 1",
            "{request=\"exchange\",result=\"postiz_failed\"} 1",
        ],
    );
    let has_pool = text.contains("\npostiz_auth_database_connections{state=\"idle\"} ");
    assert_eq!(has_pool, store == Store::Postgres, "{text}");
}

#[test]
fn restart_resets_counters_and_keeps_logins() {
    let postiz = FakePostiz::start();
    let setup = setup(Store::Postgres, &postiz);
    let (mut server, metrics) = start(&setup, &postiz);
    Login::start(&server);
    assert_says(&read(metrics), &["logins_started_total 1"]);
    server.kill();
    let (_server, metrics) = start(&setup, &postiz);
    assert_says(&read(metrics), &["logins_started_total 0"]);
    eventually("the logins are counted", || {
        read(metrics).contains("\npostiz_auth_logins 1\n")
    });
}

/// A server purges expired logins when it starts.
#[test]
fn expired_logins_are_counted() {
    let postiz = FakePostiz::start();
    let database = Cluster::shared().database();
    let setup = setup(Store::Embedded, &postiz).database(&database);
    Login::start(&setup.start());
    database.run("UPDATE device_requests SET expires_at = now() - interval '16 minutes'");
    let (_server, metrics) = start(&setup, &postiz);
    eventually("the expiry is counted", || {
        read(metrics).contains("\npostiz_auth_logins_expired_total 1\n")
    });
}

#[test]
fn clients_cannot_create_series() {
    let postiz = FakePostiz::start();
    let (server, metrics) = start(&setup(Store::Embedded, &postiz), &postiz);
    let mut connection = Connection::open(server.address);
    let mut send_garbage = |count: u32| {
        for i in 0..count {
            let method = ["GET", "DELETE", &format!("GARBAGE{i}")][i as usize % 3].to_owned();
            connection.send(format!(
                "{method} /garbage{i}/device/code?garbage{i}={i} HTTP/1.1\r\nHost: garbage{i}.example\r\nUser-Agent: garbage{i}\r\n\r\n"
            ));
            assert_eq!(connection.answer().status, 404);
            let code = format!("user_code=garbage{i}");
            assert_eq!(
                server
                    .get(&format!("/device/verify?{code}&garbage{i}"))
                    .status,
                200
            );
        }
    };
    send_garbage(3);
    let lines = read(metrics).lines().count();
    send_garbage(997);
    let text = read(metrics);
    assert_eq!(text.lines().count(), lines, "{text}");
    assert!(!text.to_lowercase().contains("garbage"), "{text}");
    assert_says(
        &text,
        &["http_requests_total{route=\"none\",status=\"404\",reason=\"not_found\"} 1000"],
    );
}

/// The text has all metrics: those of PostgreSQL, of https, and of requests of each kind.
#[test]
fn promtool_accepts_the_metrics() {
    let postiz = FakePostiz::start();
    let authority = Authority::new();
    let setup = setup(Store::Postgres, &postiz);
    let (server, metrics) = start(&setup, &postiz);
    log_in(&server, &postiz);
    let (_https, https_metrics) = start(&setup.https(&authority), &postiz);
    assert!(!read(metrics).contains("postiz_auth_certificate"));
    assert_expires_within_two_days(&read(https_metrics));
    for text in [read(metrics), read(https_metrics)] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is installed (Debian: prometheus)");
        let mut stdin = promtool.stdin.take().expect("the stream is piped");
        stdin.write_all(text.as_bytes()).expect("promtool reads");
        drop(stdin);
        let output = promtool.wait_with_output().expect("promtool ends");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
}

/// The tests' certificates are valid for two days.
#[track_caller]
fn assert_expires_within_two_days(text: &str) {
    let value = |name: &str| -> u64 {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name}\n{text}"))
    };
    let left = value("postiz_auth_certificate_remaining_seconds");
    let expires_at = value("postiz_auth_certificate_expiry_timestamp_seconds");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((2 * 86_400 - 120..=2 * 86_400).contains(&left), "{left}");
    assert!(expires_at.abs_diff(now + left) < 60, "{expires_at}");
}

#[test]
fn metrics_are_served_while_the_public_listener_is_full() {
    let postiz = FakePostiz::start();
    let setup = setup(Store::Embedded, &postiz).var("LIMIT_CONNECTIONS", "1");
    let (server, metrics) = start(&setup, &postiz);
    let mut browser = Browser::new();
    let url = Login::start(&server)
        .consent(&mut browser, "ada")
        .location();
    let gate = Gate::default();
    postiz.misbehave("/oauth/token", Fault::Deliver(Delivery::Held(gate.clone())));
    let cookies = browser.cookies_for(&url);
    let mut callback = Connection::open(server.address);
    let headers = [("Cookie", cookies.as_str())];
    callback.send(http::request("GET", target_of(&url), &headers, b""));
    eventually("the exchange is under way", || {
        !postiz.requests_to("/oauth/token").is_empty()
    });
    let mut refused = Connection::open(server.address);
    refused.try_send(http::request("GET", "/health", &[], b""));
    assert!(refused.try_answer(true).is_err());
    assert_says(
        &read(metrics),
        &[
            "connections 1",
            "connections_max 1",
            "connections_refused_total 1",
            "postiz_requests_waiting 1",
        ],
    );
    gate.open();
    assert_eq!(callback.answer().status, 200);
    let idle = Connection::open(server.address);
    eventually("a waiting connection is closed for the new one", || {
        let evicts = Connection::open(server.address);
        let text = read(metrics);
        drop(evicts);
        !text.contains("\npostiz_auth_connections_evicted_total 0\n")
    });
    drop(idle);
}

#[test]
fn listener_answers_get_and_head_despite_idle_connections() {
    let postiz = FakePostiz::start();
    let (_server, metrics) = start(&setup(Store::Embedded, &postiz), &postiz);
    let send = |method: &str, target: &str| {
        http::exchange(metrics, http::request(method, target, &[], b""))
    };
    let answer = send("GET", "/metrics?x=y");
    let content_type = answer.header("content-type").unwrap();
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(answer.text().ends_with('\n'));
    let mut head = Connection::open(metrics);
    head.send(http::request("HEAD", "/metrics", &[], b""));
    assert_eq!(head.answer_to_head().status, 200);
    assert_eq!(head.rest().unwrap(), b"");
    assert_eq!(send("GET", "/").header("location"), Some("/metrics"));
    for (method, target, status) in [
        ("GET", "/health", 404),
        ("POST", "/device/code", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
    ] {
        assert_eq!(send(method, target).status, status, "{method} {target}");
    }
    assert_eq!(http::exchange(metrics, "nonsense\r\n\r\n").status, 400);
    let _silent = [Connection::open(metrics), Connection::open(metrics)];
    let mut gone = Connection::open(metrics);
    gone.send("GET /metr");
    drop(gone);
    assert!(read(metrics).contains("postiz_auth_build_info"));
}

#[test]
fn wrong_addresses_end_the_start() {
    let postiz = FakePostiz::start();
    let start_with = |address: &str| {
        let setup = setup(Store::Embedded, &postiz).var("METRICS_LISTEN", address);
        let output = setup.run(&[]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    for wrong in [
        "9464",
        ":9464",
        "localhost",
        "127.0.0.1:99999",
        "http://127.0.0.1:9464",
    ] {
        let (code, stderr) = start_with(wrong);
        assert_eq!(code, Some(2), "{stderr}");
        let words = format!("METRICS_LISTEN is {wrong:?}, which must be an IP address and a port");
        assert!(stderr.contains(&words), "{stderr}");
    }
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stderr) = start_with(&address);
    assert_eq!(code, Some(1), "{stderr}");
    let words = format!("cannot listen on {address}: ");
    assert!(
        stderr.contains(&words) && stderr.contains("METRICS_LISTEN"),
        "{stderr}"
    );
    assert!(!stderr.contains("listening on"), "{stderr}");
}

#[test]
fn check_warns_of_public_addresses() {
    let postiz = FakePostiz::start();
    for (address, warns) in [
        ("0.0.0.0:9464", true),
        ("[::]:9464", true),
        ("127.0.0.1:9464", false),
        ("localhost:9464", false),
        ("[::1]:9464", false),
    ] {
        let setup = setup(Store::Embedded, &postiz).var("METRICS_LISTEN", address);
        let stdout = setup.run(&["--check"]).stdout;
        let stdout = String::from_utf8_lossy(&stdout);
        assert_eq!(
            stdout.contains("WARNING: METRICS_LISTEN"),
            warns,
            "{stdout}"
        );
    }
}

#[test]
fn listener_is_off_by_default() {
    let postiz = FakePostiz::start();
    let server = TestServer::start(Store::Embedded, &postiz);
    assert_eq!(server.get("/metrics").status, 404);
    assert!(!server.log().contains("metrics"), "{}", server.log());
}

/// Connections without a request make room for new ones.
#[test]
fn scrape_succeeds_beside_a_crowd_without_requests() {
    let postiz = FakePostiz::start();
    let (server, metrics) = start(&setup(Store::Embedded, &postiz), &postiz);
    let crowd: Vec<_> = (0..200)
        .map(|number| {
            let mut connection = Connection::open(metrics);
            if number % 2 == 0 {
                // It may be closed already.
                connection.try_send("GET /metr");
            }
            connection
        })
        .collect();
    for _ in 0..3 {
        assert!(read(metrics).contains("postiz_auth_build_info"));
    }
    let threads = thread_names(&server.child);
    let metrics_threads = threads.iter().filter(|name| *name == "metrics").count();
    assert!(metrics_threads <= 9, "{threads:?}");
    // Those that only wait are closed, and their threads end.
    eventually("one thread is left", || {
        let names = thread_names(&server.child);
        names.iter().filter(|name| *name == "metrics").count() == 1
    });
    drop(crowd);
}
