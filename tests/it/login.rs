//! Whole logins: with the real CLI, over several instances, many at the same time, and with faults in between.
//! Every login must end with its own token, no token may be lost, and each is delivered to exactly one client.

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_postiz::{Delivery, FakePostiz, Fault, Gate};
use crate::support::{
    Browser, Cluster, Connection, Login, Store, TestServer, VerifyForm, at_once, eventually,
    expect, http, program, run,
};

const PUBLIC: &str = "http://auth.example";

/// Instances on one database that share a public address, as behind a proxy.
fn instances(count: usize, postiz: &FakePostiz) -> Vec<TestServer> {
    let setup = TestServer::setup(Store::Postgres)
        .postiz(postiz)
        .var("SERVER_URL", PUBLIC);
    postiz.set_callback_url(&format!("{PUBLIC}/device/callback"));
    (0..count).map(|_| setup.start()).collect()
}

fn route(browser: &mut Browser, server: &TestServer) {
    browser.route("auth.example", server.address);
}

/// A completed login, whose token is not delivered yet.
fn approved(server: &TestServer) -> Login {
    let login = Login::start(server);
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    login
}

/// A poll gets the token, at last.
#[track_caller]
fn assert_token_arrives(login: &Login, server: &TestServer, when: &str) {
    let answer = login.outcome(server);
    assert_eq!(answer.status, 200, "{when}: {}", answer.text());
}

on_each_store!(
    real_cli_logs_in,
    poll_answers_follow_the_login,
    two_hundred_racing_polls_have_one_winner,
    poller_that_disconnects_loses_no_token,
    batched_polls_get_their_own_answers,
    killed_server_loses_no_token,
    killed_server_keeps_every_login,
);

fn real_cli_logs_in(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let home = tempfile::tempdir().expect("a temporary folder");
    let cli = || {
        let mut command = Command::new(program("postiz"));
        command.env_clear().env("HOME", home.path());
        command
    };
    let mut child = cli()
        .args([
            "auth:login",
            "--no-browser",
            "--json",
            "--auth-server",
            &server.public_url,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the CLI starts");
    let mut lines = BufReader::new(child.stdout.take().expect("the stream is piped")).lines();
    let mut event = || -> Value {
        let line = lines.next().expect("an event").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let code = event();
    assert_eq!(code["event"], "code", "{code}");
    let login = Login { start: code };
    expect::page(&login.approve(&mut Browser::new(), "ada").answer, 200);
    let done = event();
    assert_eq!(
        (&done["event"], &done["organization_id"]),
        (&json!("done"), &json!("org-ada")),
        "{done}"
    );
    assert!(crate::support::wait_for_exit(&mut child).success());

    let file = std::fs::read(home.path().join(".postiz/credentials.json")).expect("credentials");
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    assert!(
        postiz.accepts(file["accessToken"].as_str().unwrap_or_default()),
        "{file}"
    );
    assert_eq!(file["apiUrl"], postiz.url());
    let status = run(cli().args(["auth:status", "--json"]));
    assert!(status.status.success(), "{status:?}");
}

fn poll_answers_follow_the_login(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    let login = Login::start(&server);
    let pending = || expect::error(&login.poll(&server), 400, "authorization_pending");
    pending();
    let mut browser = Browser::new();
    let page = login.reach_consent(&mut browser, "ada");
    pending();
    let redirect = browser.press(&page, "action", "approve");
    pending();
    expect::page(&browser.follow(&redirect).answer, 200);
    expect::json(&login.poll(&server), 200);
    expect::error(&login.outcome(&server), 400, "invalid_device_code");
    expect::error(&login.poll_form(&server), 400, "invalid_grant");
}

#[test]
fn login_takes_each_step_on_another_instance() {
    let postiz = FakePostiz::start();
    let servers = instances(3, &postiz);
    for first in 0..3 {
        let server = |step: usize| &servers[(first + step) % 3];
        let mut browser = Browser::new();
        let login = Login::start(server(0));
        route(&mut browser, server(1));
        let page = browser.open(login.link());
        expect::page(&page.answer, 200);
        route(&mut browser, server(2));
        let redirect = browser.submit(&page, &[]);
        expect::error(&login.poll(server(1)), 400, "authorization_pending");
        let page = browser.settle(redirect);
        let page = browser.submit(&page, &[("person", "ada")]);
        let page = browser.settle(page);
        let redirect = browser.press(&page, "action", "approve");
        route(&mut browser, server(0));
        expect::page(&browser.follow(&redirect).answer, 200);
        // A reload of the page reaches another instance.
        route(&mut browser, server(1));
        expect::page(&browser.follow(&redirect).answer, 200);
        expect::json(&login.poll(server(2)), 200);
        for server in &servers {
            expect::error(&login.outcome(server), 400, "invalid_device_code");
        }
    }
    assert_eq!(postiz.requests_to("/oauth/token").len(), 3);
}

#[test]
fn refusal_on_one_instance_reaches_another() {
    let postiz = FakePostiz::start();
    let servers = instances(2, &postiz);
    let login = Login::start(&servers[0]);
    let mut browser = Browser::new();
    route(&mut browser, &servers[1]);
    login.refuse(&mut browser);
    expect::error(&login.poll(&servers[0]), 400, "access_denied");
}

fn fifty_at_once(servers: &[TestServer], postiz: &FakePostiz) {
    let tokens = at_once(50, |i| {
        let server = |step: usize| &servers[(i + step) % servers.len()];
        let person = format!("person-{i}");
        let login = Login::start(server(0));
        let mut browser = Browser::new();
        route(&mut browser, server(1));
        expect::page(&login.approve(&mut browser, &person).answer, 200);
        let answer = login.outcome(server(2));
        expect::json(&answer, 200);
        let grant = answer.json();
        assert_eq!(
            grant["organization_id"],
            format!("org-{person}"),
            "each login has its own token"
        );
        grant["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    assert!(tokens.iter().all(|token| postiz.accepts(token)));
}

#[test]
fn fifty_logins_at_once_on_the_embedded_store() {
    let postiz = FakePostiz::start();
    fifty_at_once(&[TestServer::start(Store::Embedded, &postiz)], &postiz);
}

#[test]
fn fifty_logins_at_once_on_three_instances() {
    let postiz = FakePostiz::start();
    fifty_at_once(&instances(3, &postiz), &postiz);
}

fn one_winner(servers: &[TestServer]) {
    for _ in 0..3 {
        let login = approved(&servers[0]);
        let request = login.poll_bytes();
        let (last, rest) = request.split_last().expect("a request");
        let ready = Barrier::new(200);
        // All bytes but the last are sent first, so that the polls arrive at almost the same moment.
        let answers = at_once(200, |i| {
            let mut connection = Connection::open(servers[i % servers.len()].address);
            connection.send(rest);
            ready.wait();
            connection.send([*last]);
            connection.answer()
        });
        let winners = answers.iter().filter(|a| a.status == 200).count();
        assert_eq!(winners, 1, "receivers of one token");
        for answer in answers.iter().filter(|a| a.status != 200) {
            assert_eq!(answer.status, 400, "{}", answer.text());
            let words = ["authorization_pending", "invalid_device_code"];
            assert!(
                words.contains(&answer.error().as_str()),
                "{}",
                answer.text()
            );
        }
        expect::error(&login.outcome(&servers[0]), 400, "invalid_device_code");
    }
}

fn two_hundred_racing_polls_have_one_winner(store: Store) {
    let postiz = FakePostiz::start();
    one_winner(&[TestServer::start(store, &postiz)]);
}

#[test]
fn racing_polls_of_three_instances_have_one_winner() {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(Store::Postgres).postiz(&postiz);
    let first = setup.start_for(&postiz);
    one_winner(&[first, setup.start(), setup.start()]);
}

/// While another instance is slowly delivering the token, other polls get "pending" at once.
#[test]
fn token_being_delivered_is_pending_for_others() {
    let postiz = FakePostiz::start();
    let database = Cluster::shared().database();
    let setup = TestServer::setup(Store::Embedded)
        .database(&database)
        .postiz(&postiz);
    let server = setup.start_for(&postiz);
    let login = approved(&server);
    let mut other_instance = database.connect();
    let mut hand_over = other_instance.transaction().expect("a transaction");
    let locked = hand_over.execute("SELECT FROM device_requests FOR UPDATE", &[]);
    assert_eq!(locked.expect("the table is there"), 1);
    let begin = Instant::now();
    for poll in [Login::poll, Login::poll_form] {
        expect::error(&poll(&login, &server), 400, "authorization_pending");
    }
    assert!(
        begin.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begin.elapsed()
    );
    // The delivery fails, since its client had disconnected.
    hand_over.rollback().expect("the transaction ends");
    expect::json(&login.poll(&server), 200);
}

/// The client disconnects before its answer is ready. The next poll gets the token.
fn poller_that_disconnects_loses_no_token(store: Store) {
    let postiz = FakePostiz::start();
    let server = TestServer::start(store, &postiz);
    for round in 0..12 {
        let login = approved(&server);
        let mut connection = Connection::open(server.address);
        connection.send(login.poll_bytes());
        match round % 3 {
            0 => {}
            // Its token may be sent already, but the client does not read it.
            1 => connection.wait_for_bytes(),
            // A half-closed connection may still get the token; then it must be the only one.
            _ => {
                connection.shut_down(Shutdown::Write);
                if let Ok(answer) = connection.try_answer(true) {
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    continue;
                }
            }
        }
        drop(connection);
        assert_token_arrives(&login, &server, &format!("round {round} on {store:?}"));
    }
}

/// Polls that arrive at the same moment are one batch in the store. Each gets the answer for its own login.
fn batched_polls_get_their_own_answers(store: Store) {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(store).postiz(&postiz);
    let setup = setup.var("LIMIT_LOGINS_PER_MINUTE", "0");
    let server = setup.start_for(&postiz);
    let unknown = Login {
        start: json!({"device_code": "0".repeat(64)}),
    };
    let logins: Vec<(Login, &str)> = (0..48)
        .map(|at| match at % 6 {
            0 => (approved(&server), "pos_"),
            1 => {
                let login = Login::start(&server);
                let mut browser = Browser::new();
                login.refuse(&mut browser);
                (login, "access_denied")
            }
            2 => (unknown.clone(), "invalid_"),
            _ => (Login::start(&server), "authorization_pending"),
        })
        .collect();
    let answers = at_once(logins.len(), |at| {
        let login = &logins[at].0;
        match at % 12 {
            0..6 => login.poll(&server),
            _ => login.poll_form(&server),
        }
    });
    for (at, (answer, (_, expected))) in answers.iter().zip(&logins).enumerate() {
        assert!(answer.text().contains(expected), "{at}: {}", answer.text());
    }
    let mut tokens: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .map(|answer| answer.json()["access_token"].to_string())
        .collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 8, "one each");
}

/// The server is killed at about the moment of the delivery. Either the client got the token, or a poll after the end of the
/// lease gets it.
fn killed_server_loses_no_token(store: Store) {
    let postiz = FakePostiz::start();
    let setup =
        TestServer::setup(store).time(|times| times.delivery_lease = Duration::from_secs(2));
    let mut server = setup.start_for(&postiz);
    for round in 0..8 {
        let login = approved(&server);
        let mut connection = Connection::open(server.address);
        connection.send(login.poll_bytes());
        thread::sleep(Duration::from_micros(150 * round));
        server.kill();
        let received = connection
            .try_answer(true)
            .is_ok_and(|answer| answer.status == 200);
        server = setup.start_for(&postiz);
        if !received {
            assert_token_arrives(&login, &server, &format!("round {round} on {store:?}"));
        }
    }
}

/// A login continues after the server was killed and restarted at any step.
fn killed_server_keeps_every_login(store: Store) {
    let postiz = FakePostiz::start();
    let setup = TestServer::setup(store)
        .postiz(&postiz)
        .var("SERVER_URL", PUBLIC);
    postiz.set_callback_url(&format!("{PUBLIC}/device/callback"));
    let mut browser = Browser::new();
    let mut server = setup.start();
    let mut restart = |browser: &mut Browser| -> std::net::SocketAddr {
        server.kill();
        server = setup.start();
        route(browser, &server);
        server.address
    };
    let ask = |address, login: &Login| http::exchange(address, login.poll_bytes());
    let address = restart(&mut browser);
    let codes = http::exchange(address, http::request("POST", "/device/code", &[], b"")).json();
    let login = Login { start: codes };
    restart(&mut browser);
    let page = login.reach_consent(&mut browser, "ada");
    let address = restart(&mut browser);
    expect::error(&ask(address, &login), 400, "authorization_pending");
    let redirect = browser.press(&page, "action", "approve");
    expect::page(&browser.follow(&redirect).answer, 200);
    let address = restart(&mut browser);
    expect::json(&ask(address, &login), 200);
    // After a kill right behind the answer, the token may be delivered once more; it must not be lost.
    eventually("the token is delivered", || {
        ask(address, &login).error() == "invalid_device_code"
    });
    let address = restart(&mut browser);
    expect::error(&ask(address, &login), 400, "invalid_device_code");
}

/// An instance is killed during an exchange. Its claim expires after half a minute, and another instance can then exchange.
#[test]
fn claim_of_a_killed_instance_expires() {
    let postiz = FakePostiz::start();
    let database = Cluster::shared().database();
    let setup = TestServer::setup(Store::Embedded)
        .database(&database)
        .postiz(&postiz);
    let mut server = setup.start_for(&postiz);
    let login = Login::start(&server);
    let mut browser = Browser::new();
    let redirect = login.consent(&mut browser, "ada");
    postiz.misbehave_times(
        1,
        "/oauth/token",
        Fault::Deliver(Delivery::Held(Gate::default())),
    );
    let mut callback = Connection::open(server.address);
    let url = redirect.location();
    let cookies = browser.cookies_for(&url);
    let target = crate::support::browser::target_of(&url);
    callback.send(http::request(
        "GET",
        target,
        &[("Cookie", cookies.as_str())],
        b"",
    ));
    eventually("the exchange is under way", || {
        !postiz.requests_to("/oauth/token").is_empty()
    });
    server.kill();
    let server = setup.start_for(&postiz);
    expect::error(&login.poll(&server), 400, "authorization_pending");
    database.run("UPDATE device_requests SET claimed_at = claimed_at - interval '30 seconds'");
    let confirm = VerifyForm::open(&server).confirm(&server, login.user_code());
    assert_eq!(confirm.status, 302, "{}", confirm.text());
    expect::error(&login.poll(&server), 400, "authorization_pending");
}
